"""Read, write, resample, and probe recordings: the one door between sound files and samples.

A recording is recognised by its content, read in blocks whatever its length, mixed or picked to one channel
and resampled with soxr to exactly ``round(frames * to / from)`` samples. Silent wrongs (a header that
contradicts the file, cut or damaged streams, NaN samples, channels that cancel) become either a repair that
is stated in words or an AudioError.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import soundfile

from firstwords.audio.containers import open_source
from firstwords.audio.resampling import Resampler, resample, resampled_length
from firstwords.audio.source import Samples, Source, seconds
from firstwords.audio.voices import through
from firstwords.errors import AudioError, ConfigError
from firstwords.files import write_atomically

__all__ = [
    "AudioInfo", "AudioReader", "ChannelPolicy", "DecodeLimit", "Waveform",
    "channel_policy", "probe", "read", "read_blocks", "resample", "resampled_length", "write",
]  # fmt: skip

ChannelPolicy = Literal["mix", "error"] | int

_MAX_BAD_SHARE = 1e-3  # NaN/Inf samples up to one in a thousand are zeroed, more is an error
_MAX_LEVEL = 100.0  # float samples beyond are integers in disguise, not sound in [-1, 1]
_CANCEL_DB = 40.0  # a mix this far below its channels has lost the sound


@dataclass(frozen=True)
class DecodeLimit:
    """What one file may decode to; a 25 MB file can hold a day. ``bytes`` = frames x channels x 4."""

    seconds: float = 100 * 3600.0
    bytes: int = 256 << 30
    memory: int = 8 << 30  # of ``read``, which returns everything at once


@dataclass(frozen=True)
class AudioInfo:
    """What a recording is, before any channel policy or resampling; duration in seconds."""

    sample_rate: int
    channels: int
    frames: int
    duration: float
    container: str
    codec: str
    repairs: tuple[str, ...]


@dataclass(frozen=True)
class Waveform:
    """One channel of samples in [-1, 1] and the repairs that were needed to read them."""

    samples: Samples
    sample_rate: int
    repairs: tuple[str, ...]

    @property
    def duration(self) -> float:
        return len(self.samples) / self.sample_rate


def probe(path: Path, *, limit: DecodeLimit = DecodeLimit()) -> AudioInfo:
    """Path -> what the file holds, from its headers.

    Where headers do not tell or contradict the file (an open FLAC stream, a cut MP3, containers of ffmpeg),
    the frames are counted by decoding in blocks, so that ``frames`` is always what ``read`` gives.
    """
    source = open_source(path)
    frames = source.frames
    if frames is None:
        frames = 0
        for chunk in source.chunks(0):
            frames += len(chunk)
            _check_limit(source, frames, limit)
    _check_limit(source, frames, limit)
    if frames <= 0:
        raise _empty(source)
    return AudioInfo(
        source.sample_rate,
        source.channels,
        frames,
        frames / source.sample_rate,
        source.container,
        source.codec,
        tuple(source.repairs),
    )


class AudioReader:
    """One channel of a file at one rate, block by block; ``repairs`` is complete after the last block.

    Args:
        sample_rate: of the blocks in hertz; None keeps the file's own.
        start, duration: seconds; frames round(start*rate) to round((start+duration)*rate) of the file.
        taps: (2 K + 1,) of a filter that the samples go through last (voices.py).
    """

    def __init__(
        self,
        path: Path,
        *,
        sample_rate: int | None = 16000,
        channels: ChannelPolicy = "mix",
        start: float = 0.0,
        duration: float | None = None,
        limit: DecodeLimit = DecodeLimit(),
        taps: Samples | None = None,
    ) -> None:
        self.source = open_source(path)
        self.native_rate = self.source.sample_rate
        self.sample_rate = sample_rate or self.native_rate
        self.channel = _choose_channel(self.source, channels)
        self.limit, self.taps = limit, taps
        if start < 0 or (duration is not None and duration <= 0):
            raise AudioError(
                f"'{path}': start {start} s and duration {duration} s name no stretch of time.",
                mend="Start must be 0 or more, duration more than 0.",
            )
        self.first = round(start * self.native_rate)
        self.wanted = None if duration is None else round((start + duration) * self.native_rate) - self.first
        known = self.source.frames
        if known is not None:
            if known <= 0:
                raise _empty(self.source)
            if self.first >= known:
                raise _past_end(self.source, start, known)
            if self.wanted is None or self.first + self.wanted > known:
                _check_limit(self.source, known - self.first, limit)

    @property
    def repairs(self) -> tuple[str, ...]:
        return tuple(self.source.repairs)

    @property
    def expected(self) -> int | None:
        """Samples the blocks will hold together, where the container tells."""
        known = self.source.frames
        if known is None:
            return None
        left = known - self.first
        return resampled_length(min(left, self.wanted or left), self.native_rate, self.sample_rate)

    def whole(self) -> Samples:
        """All samples at once; none where the recording is shorter than one of ``sample_rate``."""
        return next(self.blocks(1 << 40), np.zeros(0, dtype=np.float32))

    def blocks(self, block_samples: int) -> Iterator[Samples]:
        """Blocks of exactly ``block_samples`` samples, only the last one shorter."""
        if block_samples < 1:
            raise AudioError("A block needs at least one sample.", mend="Ask for longer blocks.")
        kept: list[Samples] = []
        size = 0
        for piece in through(self.taps, self._resampled()):
            kept.append(piece)
            size += len(piece)
            while size >= block_samples:
                joined = kept[0] if len(kept) == 1 else np.concatenate(kept)
                yield joined[:block_samples].copy()
                rest = joined[block_samples:]
                kept, size = [rest], len(rest)
        if size:
            yield np.concatenate(kept)

    def _resampled(self) -> Iterator[Samples]:
        if self.sample_rate == self.native_rate:
            yield from self._mono()
            return
        resampler = Resampler(self.native_rate, self.sample_rate)
        for chunk in self._mono():
            yield resampler.push(chunk)
        yield resampler.finish()

    def _mono(self) -> Iterator[Samples]:
        """The chosen channel of the chosen stretch at the file's rate, checked."""
        source, frames, bad = self.source, 0, 0
        mixed_energy = channel_energy = 0.0
        for chunk in source.chunks(self.first):
            if self.wanted is not None:
                chunk = chunk[: self.wanted - frames]
            if len(chunk) == 0:
                continue
            frames += len(chunk)
            _check_limit(source, frames, self.limit)
            chunk, zeroed = _clean(source, chunk, frames)
            bad += zeroed
            if self.channel is None and source.channels > 1:
                mono = chunk.mean(axis=1, dtype=np.float32)
                mixed_energy += float(np.dot(mono, mono))
                channel_energy += float(np.vdot(chunk, chunk)) / source.channels
            else:
                mono = np.ascontiguousarray(chunk[:, self.channel or 0])
            yield mono
            if self.wanted is not None and frames >= self.wanted:
                break
        self._conclude(frames, bad, mixed_energy, channel_energy)

    def _conclude(self, frames: int, bad: int, mixed_energy: float, channel_energy: float) -> None:
        """What can only be said after the last frame."""
        source, rate = self.source, self.native_rate
        if frames == 0:
            if self.first == 0:
                raise _empty(source)
            raise _past_end(source, self.first / rate, source.frames)
        if bad > _MAX_BAD_SHARE * frames:
            raise AudioError(
                f"'{source.path}': {bad} of {frames} frames hold NaN or infinite samples.",
                mend="The program that wrote it went wrong: export the recording again.",
            )
        if bad:
            source.note(f"{bad} frames with NaN or infinite samples set to zero")
        if mixed_energy < channel_energy / 10 ** (_CANCEL_DB / 10):
            raise AudioError(
                f"'{source.path}': its {source.channels} channels cancel each other when mixed "
                "(one is the other turned upside down).",
                mend="Pick one channel: --set data.channels=0 where a model is trained, "
                "or write it into a file of its own.",
            )
        missing = 0 if self.wanted is None else self.wanted - frames
        if missing > rate // 50:  # 20 ms: rounding in manifests is not worth a word
            source.note(
                f"ends {seconds(missing, rate)} before the stretch that was asked for "
                f"({seconds(self.first, rate)} + {seconds(self.wanted or 0, rate)})"
            )


def read(
    path: Path,
    *,
    sample_rate: int | None = 16000,
    channels: ChannelPolicy = "mix",
    start: float = 0.0,
    duration: float | None = None,
    limit: DecodeLimit = DecodeLimit(),
) -> Waveform:
    """Path (and a stretch in seconds) -> one channel of samples at ``sample_rate``.

    Args:
        sample_rate: hertz; None keeps the file's own.
        channels: "mix" averages them, "error" refuses more than one, a number picks one from 0 on.
    """
    reader = AudioReader(
        path, sample_rate=sample_rate, channels=channels, start=start, duration=duration, limit=limit
    )
    most = limit.memory // 4
    expected = reader.expected
    pieces: list[Samples] = []
    size = 0
    if expected is None or expected <= most:
        for piece in reader._resampled():
            pieces.append(piece)
            size += len(piece)
            if size > most:
                break
    if size > most or (expected or 0) > most:
        raise AudioError(
            f"'{path}' is too long to be read at once (more than {most / reader.sample_rate / 3600:.0f} h).",
            mend="Give start and duration, or transcribe it: that reads in blocks.",
        )
    samples = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    return Waveform(samples, reader.sample_rate, reader.repairs)


def read_blocks(
    path: Path,
    *,
    sample_rate: int | None = 16000,
    channels: ChannelPolicy = "mix",
    block_seconds: float = 30.0,
    start: float = 0.0,
    duration: float | None = None,
) -> Iterator[Samples]:
    """Path -> the samples of ``read``, in blocks of ``block_seconds``; memory does not grow with the file."""
    reader = AudioReader(path, sample_rate=sample_rate, channels=channels, start=start, duration=duration)
    return reader.blocks(max(1, round(block_seconds * reader.sample_rate)))


def write(path: Path, samples: npt.NDArray[np.floating], sample_rate: int) -> None:
    """Samples (S,) or (S, channels) -> a file by suffix: .wav, .flac (both 16 bit), .ogg, .opus, .mp3.

    Values beyond [-1, 1] are clipped to it. Written aside and renamed: no reader meets half a file.
    """
    formats = {
        ".wav": ("WAV", "PCM_16"),
        ".flac": ("FLAC", "PCM_16"),
        ".ogg": ("OGG", "VORBIS"),
        ".opus": ("OGG", "OPUS"),
        ".mp3": ("MP3", "MPEG_LAYER_III"),
    }
    if path.suffix.lower() not in formats:
        raise AudioError(
            f"'{path}': no audio is written with the suffix '{path.suffix}'.",
            mend=f"Use one of {', '.join(formats)}.",
        )
    if not np.isfinite(samples).all():
        raise AudioError(f"'{path}': NaN or infinite samples cannot be written.", mend="Mend them first.")
    kind, subtype = formats[path.suffix.lower()]
    clipped = np.clip(samples, -1.0, 1.0).astype(np.float32)
    encoded = io.BytesIO()  # not a file: of a disk that fills up while it closes one, libsndfile says nothing
    try:
        # In pieces: minutes of Vorbis in one call are known to overflow libsndfile's stack.
        with soundfile.SoundFile(
            encoded, "w", sample_rate, 1 if clipped.ndim == 1 else clipped.shape[1], subtype, format=kind
        ) as file:
            for at in range(0, len(clipped), 65536):
                file.write(clipped[at : at + 65536])
    except soundfile.LibsndfileError as error:
        raise AudioError(f"'{path}' cannot be written: {error.error_string}", mend="Use .flac.") from None
    write_atomically(path, encoded.getbuffer())


def channel_policy(setting: str | int) -> ChannelPolicy:
    """``data.channels`` of a recipe, as written -> what a reader takes; ConfigError for other words."""
    text = str(setting)
    if text == "mix" or text == "error":
        return text
    if text.isdecimal():
        return int(text)
    raise ConfigError(
        f"recipe.data.channels: '{setting}' is none of 'mix', 'error' or a channel number.",
        mend="Use 'mix' unless each channel holds another speaker.",
    )


def _choose_channel(source: Source, wanted: ChannelPolicy) -> int | None:
    """Channel to pick, or None to mix; a number written as text is one too, as recipes have it."""
    policy = channel_policy(wanted)
    if policy == "mix":
        return None
    if policy == "error":
        if source.channels > 1:
            raise AudioError(
                f"'{source.path}' has {source.channels} channels, but one is asked for.",
                mend='Set data.channels = "mix" or the number of the channel to use, "0" or "1".',
            )
        return 0
    if not 0 <= policy < source.channels:
        raise AudioError(
            f"'{source.path}' has no channel {policy}: it has {source.channels}, counted from 0.",
            mend='Use "mix" or a number below that.',
        )
    return policy


def _clean(source: Source, chunk: Samples, frames: int) -> tuple[Samples, int]:
    """The chunk with NaN/Inf zeroed, and how many frames held any; absurd levels are an error."""
    peak = float(np.max(np.abs(chunk)))  # NaN and Inf come through
    if peak <= _MAX_LEVEL:
        return chunk, 0
    finite = np.isfinite(chunk)
    bad = int((~finite.all(axis=1)).sum())
    chunk = np.where(finite, chunk, np.float32(0))
    peak = float(np.max(np.abs(chunk)))
    if peak > _MAX_LEVEL:
        raise AudioError(
            f"'{source.path}': float samples reach {peak:.3g} before {seconds(frames, source.sample_rate)}; "
            "they must lie within -1 and 1.",
            mend="Divide them by 32768 (they look like 16-bit integers), or export as 16-bit PCM.",
        )
    return chunk, bad


def _check_limit(source: Source, frames: int, limit: DecodeLimit) -> None:
    duration, size = frames / source.sample_rate, frames * source.channels * 4
    if duration > limit.seconds or size > limit.bytes:
        raise AudioError(
            f"'{source.path}' decodes to more than is allowed ({limit.seconds / 3600:.3g} h or "
            f"{limit.bytes / 2**30:.3g} GiB): {duration / 3600:.1f} h, {size / 2**30:.1f} GiB.",
            mend="Cut it into shorter files.",
        )


def _empty(source: Source) -> AudioError:
    return AudioError(
        f"'{source.path}' holds no samples.", mend="Record or export it again, or leave it out."
    )


def _past_end(source: Source, start: float, frames: int | None) -> AudioError:
    length = f"is {seconds(frames, source.sample_rate)} long" if frames is not None else "ends before"
    return AudioError(
        f"'{source.path}' {length}, but the stretch from {start:.2f} s on is asked for.",
        mend="Mend start and duration in the manifest.",
    )
