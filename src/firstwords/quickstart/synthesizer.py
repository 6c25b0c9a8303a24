"""espeak-ng in a process of its own: text jobs in, one FLAC file each out.

Run as ``python -m firstwords.quickstart.synthesizer LIBRARY DATA < jobs.jsonl``. A job is a line
``{"voice": "en-us+f2", "text": "two nine", "rate": 170, "pitch": 50, "range": 50, "to": "clip.flac"}``
(rate in words a minute, pitch and range 0..100). It answers one line for each job:
``{"to": ..., "seconds": ...}``. The library is started anew for each voice, because what a voice sets
lingers on in the next one.

espeak-ng is GPL-3.0: an optional package, loaded here and nowhere else. Every return code is checked; the
two faults it hides are met by the caller (a long data path) and in ``check_variant`` (an unknown variant
is silently replaced by the plain voice).

Constants and signatures: espeak-ng's public header speak_lib.h.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

_SYNCHRONOUS = 2  # audio comes through the callback, inside espeak_Synth
_DONT_EXIT = 0x8000
_RATE, _PITCH, _RANGE = 1, 3, 4
_CHARACTERS_UTF8 = 1
_POSITION_CHARACTER = 1
_SEED = 1

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class SynthesisFault(RuntimeError):
    """espeak-ng refused; the message names the call and the code."""


class Synthesizer:
    """One espeak-ng library, loaded and told where its data lie."""

    def __init__(self, library: Path, data: Path) -> None:
        self._data = data
        self._espeak: Any = ctypes.CDLL(str(library))
        # espeak_Initialize wants the folder that CONTAINS espeak-ng-data.
        self.sample_rate = int(
            self._espeak.espeak_Initialize(_SYNCHRONOUS, 0, str(data.parent).encode(), _DONT_EXIT)
        )
        if self.sample_rate <= 0:
            raise SynthesisFault(f"espeak_Initialize gave {self.sample_rate} for the data in {data}")
        self._blocks: list[np.ndarray] = []
        self._callback = _Callback(self._collect)  # kept: the library holds only a pointer
        self._espeak.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            self._blocks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0

    def speak(self, text: str, *, voice: str, rate: int, pitch: int, range_: int) -> np.ndarray:
        """Text -> (S,) int16 samples."""
        check_variant(self._data, voice)
        self._checked("espeak_SetVoiceByName", self._espeak.espeak_SetVoiceByName(voice.encode()))
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, range_)):
            self._checked("espeak_SetParameter", self._espeak.espeak_SetParameter(parameter, value, 0))
        # Breathy voices draw noise from a generator that is otherwise seeded by the clock.
        self._checked("espeak_ng_SetRandSeed", self._espeak.espeak_ng_SetRandSeed(ctypes.c_long(_SEED)))
        self._blocks = []
        encoded = text.encode()
        code = self._espeak.espeak_Synth(
            encoded, len(encoded) + 1, 0, _POSITION_CHARACTER, 0, _CHARACTERS_UTF8, None, None
        )
        self._checked("espeak_Synth", code)
        self._checked("espeak_Synchronize", self._espeak.espeak_Synchronize())
        samples = np.concatenate(self._blocks) if self._blocks else np.zeros(0, np.int16)
        if not samples.any():
            raise SynthesisFault(f"voice '{voice}' made no sound for '{text}'")
        return samples

    def close(self) -> None:
        """Give everything back; the library may be started again."""
        self._checked("espeak_Terminate", self._espeak.espeak_Terminate())

    def _checked(self, call: str, code: int) -> None:
        if code != 0:
            raise SynthesisFault(f"{call} gave error code {code}")


def check_variant(data: Path, voice: str) -> None:
    """Raise unless the variant of ``en-us+f2`` exists: espeak-ng falls back to the plain voice in silence."""
    _, plus, variant = voice.partition("+")
    if plus and not (data / "voices" / "!v" / variant).is_file():
        raise SynthesisFault(f"voice '{voice}': there is no variant '{variant}' in {data / 'voices' / '!v'}")


def main() -> int:
    """Jobs from standard input, answers to standard output; 1 and a message at the first refusal."""
    library, data = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        synthesizer, voice = Synthesizer(library, data), None
        for line in sys.stdin:
            job = json.loads(line)
            if voice is not None and job["voice"] != voice:
                synthesizer.close()
                synthesizer = Synthesizer(library, data)
            voice = job["voice"]
            samples = synthesizer.speak(
                job["text"], voice=job["voice"], rate=job["rate"], pitch=job["pitch"], range_=job["range"]
            )
            soundfile.write(job["to"], samples, synthesizer.sample_rate, format="FLAC")
            print(
                json.dumps({"to": job["to"], "seconds": len(samples) / synthesizer.sample_rate}), flush=True
            )
    except (SynthesisFault, OSError) as fault:
        print(fault, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
