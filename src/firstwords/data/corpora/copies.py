"""Recordings below CORPUS/audio: whole copies, and single channels of recordings with a speaker in each.

    SOURCE/talk1.wav  ->  CORPUS/audio/talk1.wav                 a copy
                          CORPUS/audio/talk1.wav.channel0.wav    what the left microphone heard

A channel is written at the rate of the recording with 16 bits, block by block. What is there already and as
old as its recording is not written again.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import re
import shutil
import wave
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from firstwords.audio.waveform import AudioReader, probe
from firstwords.data.manifest import Utterance
from firstwords.errors import CorpusError, FirstwordsError, UsageError, WriteError
from firstwords.files import written_aside

_AUDIO = "audio"
_CHANNEL = re.compile(r"\.channel[0-9]+\.wav$")
_BLOCK = 1 << 20  # samples
_LARGEST = (1 << 32) - 64  # bytes of samples that the header of a WAV file can state


def parse_channels(wishes: Sequence[str]) -> dict[str, int]:
    """'Eva=0', 'tx@*=1' as the user gives it -> name or pattern of speakers or tiers: channel, from 0 on."""
    channels: dict[str, int] = {}
    for wish in wishes:
        name, sign, number = wish.rpartition("=")
        if not sign or not name.strip() or not (number.isascii() and number.isdecimal()):
            raise UsageError(
                f"--channel {wish}: expected SPEAKER=NUMBER.",
                mend="For example --channel Eva=0 --channel Ade=1: 0 is the left channel, 1 the right one.",
            )
        channels[name.strip()] = int(number)
    return channels


def choose_channels(
    utterances: Sequence[Utterance], wishes: Mapping[str, int]
) -> tuple[dict[str, int], list[str]]:
    """Utterance id -> the channel it is to be heard on, where its recording has several; what to tell of it.

    Args:
        wishes: speakers or tiers (or patterns of them) -> channel; the first that fits counts.
    """
    chosen: dict[str, int] = {}
    counts = {audio: probe(audio).channels for audio in dict.fromkeys(u.audio for u in utterances)}
    heard: Counter[str] = Counter()
    mixed: Counter[str] = Counter()
    for utterance in utterances:
        names = (utterance.speaker or "", utterance.labels.get("tier", ""))
        wish = next((w for w in wishes if any(fnmatchcase(name, w) for name in names)), None)
        if wish is not None:
            heard[wish] += 1
        if (count := counts[utterance.audio]) < 2:
            continue
        if wish is None:
            mixed[utterance.speaker or "(not named)"] += 1
        elif wishes[wish] >= count:
            raise CorpusError(
                f"--channel {wish}={wishes[wish]}: '{utterance.audio.name}' has {count} channels, counted "
                "from 0.",
                mend="0 is the left channel, 1 the right one.",
            )
        else:
            chosen[utterance.id] = wishes[wish]
    _check_heard(utterances, wishes, heard)
    split = {u.audio for u in utterances if u.id in chosen}
    notes = [
        f"{len(split)} recordings were divided into their channels, {len(chosen)} utterances hear theirs."
    ]
    if single := sum(count < 2 for count in counts.values()):
        notes.append(f"{single} recordings have one channel and are heard as they are.")
    if mixed:
        names = ", ".join(f"'{name}' ({count})" for name, count in mixed.most_common(3))
        notes.append(
            f"{mixed.total()} utterances of recordings with several channels are of speakers whom --channel "
            f"does not name, and hear all channels mixed: {names}."
        )
    return chosen, notes


def _check_heard(utterances: Sequence[Utterance], wishes: Mapping[str, int], heard: Counter[str]) -> None:
    for wish in wishes:
        if not heard[wish]:
            speakers = {u.speaker for u in utterances if u.speaker}
            tiers = {u.labels["tier"] for u in utterances if "tier" in u.labels}
            known = ", ".join(f"'{name}'" for name in sorted(speakers | tiers)[:12]) or "none is named"
            raise CorpusError(
                f"--channel {wish}={wishes[wish]}: no speaker and no tier is called so.",
                mend=f"Speakers and tiers of the source: {known}. '*' stands for anything.",
            )


def copied(
    utterances: Sequence[Utterance], root: Path, target: Path, channels: Mapping[str, int], *, whole: bool
) -> list[Utterance]:
    """The same utterances with their recordings below target/audio, under the same relative names.

    Args:
        channels: utterance id -> the channel to write into a file of its own.
        whole: copy the recordings of all others, too.
    """
    places = copy_places((u.audio for u in utterances), root, target)
    moved: list[Utterance] = []
    done: set[Path] = set()
    for utterance in utterances:
        audio, channel = utterance.audio, channels.get(utterance.id)
        if channel is None and not whole:
            moved.append(utterance)
            continue
        place = places[audio]
        place = place if channel is None else place.with_name(f"{place.name}.channel{channel}.wav")
        if place not in done:
            _copy(audio, place) if channel is None else _write_channel(audio, channel, place)
            done.add(place)
        moved.append(replace(utterance, audio=place))
    return moved


def copy_places(recordings: Iterable[Path], root: Path, target: Path) -> dict[Path, Path]:
    """Recordings of a source -> where their copies lie."""
    places: dict[Path, Path] = {}
    for audio in dict.fromkeys(recordings):
        if audio.is_relative_to(root):
            name = audio.relative_to(root)
            name = name.relative_to(_AUDIO) if name.parts[0] == _AUDIO and len(name.parts) > 1 else name
        else:  # two recordings of one name may lie in different folders outside
            digest = hashlib.sha256(str(audio.parent).encode("utf-8", "surrogatepass")).hexdigest()[:8]
            name = Path(f"{audio.stem}-{digest}{audio.suffix}")
        place = target / _AUDIO / name
        if place in places.values():
            place = target / _AUDIO / "from_source" / audio.relative_to(root)
        places[audio] = place
    return places


def whole_copy(place: Path) -> Path:
    """Where the copy of the recording lies of which this is a channel; any other path as it is."""
    return place.with_name(_CHANNEL.sub("", place.name))


def _copy(audio: Path, place: Path) -> None:
    if place.is_file() and filecmp.cmp(audio, place, shallow=True):
        return
    try:
        with written_aside(place) as new:
            shutil.copy2(audio, new)
    except WriteError as error:
        raise _uncopied(audio, error, "import without --copy") from None


def _write_channel(audio: Path, channel: int, place: Path) -> None:
    changed = audio.stat().st_mtime_ns
    if place.is_file() and place.stat().st_mtime_ns == changed:
        return
    reader = AudioReader(audio, sample_rate=None, channels=channel)
    size = 0
    try:
        with written_aside(place) as new:
            with new.open("wb") as raw, wave.open(raw, "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(reader.sample_rate)
                for block in reader.blocks(_BLOCK):
                    size += 2 * len(block)
                    if size > _LARGEST:
                        raise CorpusError(
                            f"'{audio}': a channel of it is too long for one WAV file.",
                            mend="Cut the recording into parts of less than ten hours.",
                        )
                    whole = np.clip(np.rint(block * 32768.0), -32768, 32767)
                    file.writeframes(whole.astype("<i2").tobytes())
            os.utime(new, ns=(changed, changed))
    except WriteError as error:
        raise _uncopied(audio, error, "import without --channel") from None
    except FirstwordsError as error:
        raise CorpusError(
            f"Channel {channel} cannot be taken out: {error.what}",
            mend=f"{error.mend} Or leave the recording out.",
        ) from None


def _uncopied(audio: Path, error: WriteError, otherwise: str) -> CorpusError:
    return CorpusError(
        f"'{audio}' cannot be copied: {error.what}",
        mend=f"Free some space, or {otherwise}. Started again, the import goes on.",
    )
