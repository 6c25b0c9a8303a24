"""Raw samples from a pipe, and a microphone that is made up."""

from __future__ import annotations

import io
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstwords.audio.live import Microphone, read_pcm
from firstwords.errors import AudioError, DependencyError


class Cut:
    """A pipe that hands out its bytes in pieces of these sizes, then what is left."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data, self._sizes = io.BytesIO(data), sizes

    def read1(self, size: int, /) -> bytes:
        return self._data.read(min(size, self._sizes.pop(0)) if self._sizes else size)


@given(values=st.lists(st.integers(-32768, 32767), max_size=60), sizes=st.lists(st.integers(1, 9)))
def test_samples_come_whole_however_the_bytes_are_cut(values: list[int], sizes: list[int]) -> None:
    data = np.array(values, "<i2")
    if data.tobytes()[:4] in (b"RIFF", b"fLaC", b"OggS", b"FORM", b"caff"):
        return
    said: list[str] = []
    blocks = list(read_pcm(Cut(data.tobytes(), sizes), said.append))
    assert np.concatenate([np.zeros(0, np.int16), *blocks]).tolist() == values
    assert not said


@pytest.mark.parametrize("samples", [0, 1, 1000])
def test_half_a_sample_at_the_end_is_said(samples: int) -> None:
    said: list[str] = []
    blocks = list(read_pcm(Cut(bytes(2 * samples) + b"\x01", [3, 3]), said.append))
    assert sum(map(len, blocks)) == samples
    assert said == ["Standard input ended in the middle of a sample: its last byte is left out."]


@pytest.mark.parametrize(
    ("start", "name"), [(b"RIFF\0\0\0\0WAVE", "WAV"), (b"fLaC", "FLAC"), (b"OggS", "Ogg")]
)
def test_a_sound_file_is_no_raw_stream(start: bytes, name: str) -> None:
    with pytest.raises(AudioError, match=name) as raised:
        list(read_pcm(Cut(start + bytes(100), [1, 1]), print))
    assert "ffmpeg" in str(raised.value)


class PortAudioError(Exception):
    pass


class Stream:
    """Three blocks as soon as it is started, the last with a sign that sound was lost."""

    active = False

    def __init__(self, *, callback: Callable[..., None], **settings: Any) -> None:
        self.callback, self.settings = callback, settings

    def start(self) -> None:
        for value in (1, 2, 3):
            block = np.full((4, 1), value, np.int16)
            self.callback(block, 4, None, types.SimpleNamespace(input_overflow=value == 3))
            block[:] = 99  # the sound card uses its memory again

    def stop(self) -> None: ...

    def close(self) -> None: ...


def made_up(rates: set[int]) -> types.ModuleType:
    module: Any = types.ModuleType("sounddevice")

    def query(device: object, kind: str) -> dict[str, object]:
        if device == "none":
            raise ValueError("No input device matching 'none'")
        return {"name": f"card {device}", "default_samplerate": 48000.0}

    def check(*, samplerate: int, **_: object) -> None:
        if samplerate not in rates:
            raise PortAudioError

    module.PortAudioError, module.InputStream = PortAudioError, Stream
    module.query_devices, module.check_input_settings = query, check
    return module


def test_a_microphone_gives_blocks_and_says_what_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", made_up({16000, 48000}))
    said: list[str] = []
    with Microphone("2", 16000, said.append) as microphone:
        assert [block.tolist() for block in microphone] == [[1] * 4, [2] * 4, [3] * 4]
    assert (microphone.name, microphone.sample_rate) == ("card 2", 16000)
    assert len(said) == 1
    assert "sound was lost" in said[0]


def test_a_card_that_knows_one_rate_gives_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", made_up({48000}))
    assert Microphone(None, 16000, print).sample_rate == 48000


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", made_up(set()))
    with pytest.raises(AudioError, match="microphone 'none'"):
        Microphone("none", 16000, print)
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(DependencyError, match="sounddevice") as raised:
        Microphone(None, 16000, print)
    assert 'pip install "firstwords[microphone]"' in str(raised.value)

    def no_library(name: str) -> None:
        raise OSError("PortAudio library not found")

    monkeypatch.setattr("importlib.import_module", no_library)
    with pytest.raises(DependencyError, match="PortAudio") as raised:
        Microphone(None, 16000, print)
    assert "libportaudio2" in str(raised.value)
