"""Make the synthetic corpus: plan -> clean clips (espeak-ng, child processes) -> rooms and noise -> manifest.

The folder is finished or absent: it is built aside and renamed. The same make-up gives the same bytes on
the same machine.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from firstwords.audio.effects import add_noise
from firstwords.audio.noise import Babble, ColoredNoise, FolderNoise, NoiseClip, NoiseSource
from firstwords.audio.rooms import LEAD, draw_room, place_in_room, simulate_response
from firstwords.audio.waveform import read, write
from firstwords.data.manifest import MANIFEST, Utterance, write_manifest
from firstwords.errors import CorpusError, DependencyError
from firstwords.files import replace_folder, unwritable, write_atomically
from firstwords.quickstart.makeup import NON_SPEECH, MakeUp, Planned, Voice, plan
from firstwords.quickstart.voices import DrawnVoice, draw_voices, write_variants

# espeak-ng cuts longer data paths in silence (a fixed 160-byte buffer).
_LONGEST_PATH = 120
_PROBE = "zero one two three four five six seven eight nine"
Progress = Callable[[str, int, int], None]  # what, done, of


@dataclass(frozen=True)
class Espeak:
    """Where the library and its data are."""

    library: Path
    data: Path


def find_espeak() -> Espeak:
    """The pip package that carries espeak-ng, or a DependencyError that says how to get it."""
    if importlib.util.find_spec("espeakng_loader") is None:
        raise DependencyError(
            "The built-in corpus is spoken by espeak-ng, which is not installed (GPL-3.0, so optional).",
            mend='pip install "firstwords[quickstart]", or give your own recordings: '
            "firstwords quickstart --corpus FOLDER",
        )
    import espeakng_loader  # pyright: ignore[reportMissingImports]

    return Espeak(Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path()))


def build_corpus(makeup: MakeUp, folder: Path, progress: Progress) -> None:
    """Make the corpus of ``makeup`` in ``folder``; nothing to do when it stands there already."""
    stamp = folder / "makeup.json"
    if _digest_of(stamp) == makeup.digest:
        return
    espeak = find_espeak()
    aside = folder.with_name(folder.name + ".building")
    if aside.exists():
        shutil.rmtree(aside)
    planned = plan(makeup)
    record = {"digest": makeup.digest, "makeup": makeup.model_dump(mode="json")}
    try:
        with tempfile.TemporaryDirectory(prefix="fw-") as name:
            work = Path(name)
            espeak = _with_own_data(espeak, work)
            drawn = draw_voices(makeup.seed, makeup.drawn_voices)
            write_variants(drawn, espeak.data)
            prove_voices_differ(espeak, [*makeup.voices, *drawn], work)
            _speak_all(espeak, [p for p in planned if p.voice], work, progress)
            utterances = _mix_all(makeup, planned, work, aside / "audio", progress)
        write_manifest(aside / MANIFEST, utterances)
        write_atomically(aside / stamp.name, json.dumps(record, indent=1))
        replace_folder(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _digest_of(stamp: Path) -> object:
    try:
        return json.loads(stamp.read_text(encoding="utf-8"))["digest"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # absent or damaged: made anew
        return None


def _with_own_data(espeak: Espeak, work: Path) -> Espeak:
    """Copy the data: drawn voices go into the copy, and its path is short enough for espeak-ng."""
    target = work / "espeak-ng-data"
    if len(str(target).encode()) > _LONGEST_PATH:
        raise CorpusError(
            f"espeak-ng cannot read its data from a path this long: '{target}'.",
            mend="Set the environment variable TMPDIR (TEMP on Windows) to a short path, such as /tmp.",
        )
    try:
        shutil.copytree(espeak.data, target)
        (target / "voices" / "!v").chmod(0o755)  # the package's own may be read-only
    except shutil.Error as errors:  # one (from, to, reason) a file
        raise unwritable(target, OSError(0, errors.args[0][0][2])) from None
    except OSError as error:
        raise unwritable(
            target, error, mend="Free some space there, or set TMPDIR to another folder."
        ) from None
    return Espeak(espeak.library, target)


def prove_voices_differ(espeak: Espeak, voices: Sequence[Voice | DrawnVoice], work: Path) -> None:
    """All voices say the same at the same rate and pitch; two equal answers are one voice with two names."""
    clips = {v.name: work / f"probe_{i}.flac" for i, v in enumerate(voices)}
    _run_all(espeak, [_job(name, _PROBE, 160, 50, clip) for name, clip in clips.items()], lambda _: None)
    heard: dict[str, str] = {}
    for name, clip in clips.items():
        digest = hashlib.sha256(read(clip, sample_rate=None).samples.tobytes()).hexdigest()
        if digest in heard:
            raise CorpusError(
                f"The voices '{heard[digest]}' and '{name}' sound exactly alike: this espeak-ng knows one of "
                "them under both names.",
                mend="Install the pinned version: pip install -c constraints.txt espeakng-loader",
            )
        heard[digest] = name


def _job(voice: str, text: str, rate: int, pitch: int, to: Path) -> str:
    return (
        json.dumps({"voice": voice, "text": text, "rate": rate, "pitch": pitch, "range": 50, "to": str(to)})
        + "\n"
    )


def _speak_all(espeak: Espeak, planned: Sequence[Planned], work: Path, progress: Progress) -> None:
    """Voice by voice, so that the library starts once for each."""
    jobs = [
        _job(p.voice.name, ". ".join(p.phrases), p.rate, p.pitch, work / f"{p.id}.flac")
        for p in sorted(planned, key=lambda p: p.voice.name if p.voice else "")
        if p.voice
    ]
    done = 0

    def count(finished: int) -> None:
        nonlocal done
        done += finished
        progress("speaking", done, len(jobs))

    _run_all(espeak, jobs, count)


def _run_all(espeak: Espeak, jobs: Sequence[str], finished: Callable[[int], None]) -> None:
    """Four shares, two processes at a time."""
    size = -(-len(jobs) // 4)
    shares = [jobs[start : start + size] for start in range(0, len(jobs), size)]
    with ThreadPoolExecutor(2) as pool:
        for share, _ in zip(shares, pool.map(lambda s: _run(espeak, s), shares), strict=True):
            finished(len(share))


def _run(espeak: Espeak, jobs: Sequence[str]) -> None:
    """Run one synthesizer process; its return code and its answers are both checked."""
    command = [
        sys.executable,
        "-m",
        "firstwords.quickstart.synthesizer",
        str(espeak.library),
        str(espeak.data),
    ]
    try:
        result = subprocess.run(
            command, input="".join(jobs), capture_output=True, encoding="utf-8", timeout=300, check=False
        )
    except subprocess.TimeoutExpired:
        raise CorpusError(
            "espeak-ng did not finish within five minutes.", mend="Run the same command again."
        ) from None
    answers = len(result.stdout.splitlines())
    if result.returncode != 0 or answers != len(jobs):
        raise CorpusError(
            f"espeak-ng made {answers} of {len(jobs)} clips (return code {result.returncode}): "
            f"{result.stderr.strip()[-300:] or 'no message'}.",
            mend="Try your own recordings instead: firstwords quickstart --corpus FOLDER",
        )


def _mix_all(
    makeup: MakeUp, planned: Sequence[Planned], work: Path, audio: Path, progress: Progress
) -> list[Utterance]:
    """Clean clips -> clips in rooms and noise, written as FLAC."""
    voices = [NoiseClip(work / f"{p.id}.flac") for p in planned if p.voice and p.split == "train"]
    noises = Noises(ColoredNoise(), Babble(FolderNoise(voices[:60])))
    done = 0

    def mix(p: Planned) -> Utterance:
        samples = _mix(makeup, p, work, noises)
        path = audio / f"{p.id}.flac"
        write(path, samples, makeup.sample_rate)
        return Utterance(
            id=p.id,
            audio=path,
            duration=len(samples) / makeup.sample_rate,
            text=p.text,
            language=makeup.language,
            speaker=p.voice.name if p.voice else None,
            split=p.split,
            labels={"kind": "synthetic speech" if p.voice else NON_SPEECH},
        )

    utterances: list[Utterance] = []
    with ThreadPoolExecutor(2) as pool:
        for utterance in pool.map(mix, planned):
            utterances.append(utterance)
            done += 1
            progress("rooms and noise", done, len(planned))
    return utterances


def _mix(makeup: MakeUp, p: Planned, work: Path, noises: Noises) -> np.ndarray:
    generator = np.random.default_rng(p.seed)
    rate = makeup.sample_rate
    if p.voice is None:
        noise, _ = noises.draw(generator, int(generator.uniform(1.0, 4.0) * rate), rate, voices=False)
        level = 10 ** (generator.uniform(-50, -15) / 20)
        return (noise * level / (np.sqrt(np.mean(noise**2)) + 1e-9)).astype(np.float32)
    speech = read(work / f"{p.id}.flac", sample_rate=rate).samples
    before, after = (np.zeros(int(s * rate), np.float32) for s in generator.uniform(0.1, 0.4, 2))
    speech = np.concatenate([before, speech, after])
    if generator.random() < makeup.room_share:
        response = simulate_response(draw_room(generator, t60=makeup.room_t60), rate, generator)
        speech = place_in_room(speech, response, direct=LEAD)
    noise, babble = noises.draw(generator, len(speech), rate, voices=True)
    snr = generator.uniform(*(makeup.babble_snr_db if babble else makeup.snr_db))
    mixed = add_noise(speech, noise, float(snr), rate)
    peak = float(np.abs(mixed).max())
    return (mixed * (10 ** (generator.uniform(-15, -1) / 20) / max(peak, 1e-9))).astype(np.float32)


@dataclass(frozen=True)
class Noises:
    """What is heard behind the voices: hiss of any colour, mains hum, other voices."""

    hiss: NoiseSource
    babble: NoiseSource

    def draw(
        self, generator: np.random.Generator, samples: int, rate: int, *, voices: bool
    ) -> tuple[np.ndarray, bool]:
        """(samples,) of noise at any level, and whether it is babble; that only where ``voices``."""
        kind = generator.integers(3 if voices else 2)
        if kind == 2:
            return self.babble.draw(generator, samples, rate), True
        noise = self.hiss.draw(generator, samples, rate)
        if kind == 1:
            time, base = np.arange(samples) / rate, float(generator.choice([50.0, 60.0]))
            for harmonic in range(1, 6):
                angle = 2 * np.pi * base * harmonic * time + generator.uniform(0, 2 * np.pi)
                noise = noise + 0.2 / harmonic * np.sin(angle)
        return noise.astype(np.float32), False
