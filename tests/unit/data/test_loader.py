from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from firstwords.audio.augment import AugmentConfig, ColoredNoise, FolderNoise
from firstwords.data.batch import Batch
from firstwords.data.cache import AudioCache
from firstwords.data.examples import ExampleSource, LoadedExample, Unreadable
from firstwords.data.loader import Loader, ValidationLoader
from firstwords.data.manifest import load_corpus
from firstwords.data.places import Between, Item, around_sound, joined_places, negative_places
from firstwords.data.sampler import BucketSampler
from firstwords.data.shapes import Shapes
from firstwords.errors import TrainingError
from tone_corpus import make_tone_corpus

PARENT = """
if __name__ == "__main__":
    import time
    from pathlib import Path
    from firstwords.data.examples import ExampleSource
    from firstwords.data.places import Item
    from firstwords.data.loader import Loader
    from firstwords.data.sampler import BucketSampler
    items = [Item("a", Path({audio!r}), 0.0, 1.0, "a", (1,))] * 4
    sampler = BucketSampler([1.0] * 4, batch_seconds=2, seed=1)
    made = Loader(ExampleSource(items, 16000, "mix", 1), sampler, workers=2)
    next(made.batches())
    print(*made._pool._processes, flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    corpus = load_corpus(
        make_tone_corpus(tmp_path_factory.mktemp("tones") / "corpus", train=16, dev=2, test=1)
    )
    return [Item(u.id, u.audio, u.start, u.duration, u.text or "", (1, 2)) for u in corpus.split("train")]


def source(items: list[Item], *, cache: AudioCache | None = None, augmented: bool = True) -> ExampleSource:
    return ExampleSource(
        items,
        16000,
        "mix",
        seed=1,
        augmentation=AugmentConfig() if augmented else None,
        noises=ColoredNoise(),
        cache=cache,
    )


def loader(items: list[Item], *, workers: int = 0, cache: AudioCache | None = None) -> Loader:
    sampler = BucketSampler([i.duration for i in items], batch_seconds=8, seed=1, speeds=(0.9, 1.0, 1.1))
    return Loader(source(items, cache=cache), sampler, workers=workers)


def first(made: Loader, count: int, after: int = 0) -> list[Batch]:
    found: list[Batch] = []
    with made:
        for number, batch in made.batches(after):
            assert batch is not None
            assert number == after + len(found)
            found.append(batch)
            if len(found) == count:
                return found
    raise AssertionError


def same(one: Batch, two: Batch) -> bool:
    return (
        one.ids == two.ids
        and torch.equal(one.audio.values, two.audio.values)
        and torch.equal(one.targets.values, two.targets.values)
        and torch.equal(one.keys, two.keys)
    )


def cache_of(items: list[Item], path: Path | None = None, megabytes: float = 10) -> AudioCache:
    return AudioCache(
        [i.duration for i in items], sample_rate=16000, limit_bytes=megabytes * 2**20, path=path
    )


def test_batches_do_not_depend_on_workers_cache_or_start(items: list[Item], tmp_path: Path) -> None:
    plain = first(loader(items), 8)
    two = first(loader(items, workers=2, cache=cache_of(items, tmp_path / "audio.cache")), 8)
    cached = first(loader(items, cache=cache_of(items)), 8)
    late = first(loader(items), 3, after=5)
    assert all(map(same, plain, two))
    assert all(map(same, plain, cached))
    assert all(map(same, plain[5:], late))
    assert len({len(b.ids) for b in plain}) > 0
    assert plain[0].audio.values.dtype == torch.float32


def test_epochs_sound_different(items: list[Item]) -> None:
    made = source(items)
    one, two, again = (made.load(epoch, 3) for epoch in (0, 1, 0))
    assert isinstance(one, LoadedExample)
    assert isinstance(two, LoadedExample)
    assert isinstance(again, LoadedExample)
    assert one.key != two.key
    assert len(one.samples) != len(two.samples) or not np.array_equal(one.samples, two.samples)
    assert np.array_equal(one.samples, again.samples)


def test_shared_cache_is_filled_by_workers(items: list[Item], tmp_path: Path) -> None:
    cache = cache_of(items, tmp_path / "audio.cache")
    made = loader(items, workers=1, cache=cache)
    first(made, made.batches_in_epoch)
    kept = [cache.get(n) for n in range(len(items))]
    assert sum(k is not None for k in kept) == len(items)
    wanted, _ = soundfile.read(items[4].audio, dtype="int16")
    assert np.array_equal(kept[4], wanted)


def test_cache_is_bounded_and_spots_half_written_entries(items: list[Item]) -> None:
    cache = cache_of(items, megabytes=0.1)
    assert 0 < cache.held < len(items)
    cache.put(0, np.arange(1000, dtype=np.int16))
    assert np.array_equal(cache.get(0), np.arange(1000))
    cache._samples[5] = 999
    assert cache.get(0) is None
    cache.put(cache.held, np.zeros(10, dtype=np.int16))
    assert cache.get(cache.held) is None
    assert cache.get(1) is None


def test_unreadable_utterances_are_named_and_left_out(items: list[Item], tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF not a wave file")
    gone = tmp_path / "gone.flac"
    spoiled = [
        *items[:4],
        Item("broken", broken, 0.0, 1.0, "a", (1,)),
        Item("gone", gone, 0.0, 1.0, "a", (1,)),
    ]
    made = loader(spoiled)
    batches = [b for _, b in zip(range(made.batches_in_epoch), made.batches(), strict=False)]
    ids = [i for _, b in batches if b is not None for i in b.ids]
    assert sorted(ids) == sorted(i.id for i in items[:4])
    assert set(made.skipped) == {"broken", "gone"}
    assert "broken.wav" in made.skipped["broken"]
    with pytest.raises(TrainingError, match=r"None of the 2 training utterances .* example 'broken'"):
        next(loader(spoiled[4:]).batches())  # whatever non-speech there is beside them


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_noise_is_named_and_costs_no_utterance(
    items: list[Item], tmp_path: Path, workers: int
) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(8000, 0.1), 16000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF not a wave file")
    made = loader(items, workers=workers)
    made.source.noises = FolderNoise([tmp_path])
    made.source.augmentation = AugmentConfig.model_validate({"noise": {"probability": 1.0}})
    batches = first(made, made.batches_in_epoch)
    assert sorted(i for b in batches for i in b.ids) == sorted(i.id for i in items)
    assert set(made.skipped) == {str(tmp_path / "broken.wav")}
    if workers == 0:
        assert made.source.unreadable_noises() == []  # told once


def test_validation_is_never_augmented(items: list[Item]) -> None:
    plain = source(items, augmented=False)
    made = ValidationLoader(plain, Shapes(8, 64))
    one, two = list(made), list(made)
    assert all(map(same, one, two))
    assert sorted(i for b in one for i in b.ids) == sorted(i.id for i in items)
    samples, _ = soundfile.read(items[0].audio, dtype="float32")
    (row,) = [
        b.audio.values[n, : b.audio.lengths[n]] for b in one for n, i in enumerate(b.ids) if i == items[0].id
    ]
    assert np.array_equal(row.numpy(), samples)
    with pytest.raises(ValueError, match="never augmented"):
        ValidationLoader(source(items), Shapes(8, 64))


def test_negatives_change_from_epoch_to_epoch(items: list[Item]) -> None:
    corpus_like = [
        type("Clip", (), {"audio": i.audio, "start": i.start, "duration": i.duration})() for i in items
    ]
    places = [Item(f"negative-{n}", None, 0.0, 4.0, "", ()) for n in range(5)]
    made = source([*items, *places])
    made.negatives = corpus_like  # type: ignore[assignment]
    heard = [made.load(epoch, 17) for epoch in range(12)]
    assert all(isinstance(h, LoadedExample) and h.tokens == () and h.text == "" for h in heard)
    powers = {round(float(np.square(h.samples).mean()), 7) for h in heard if isinstance(h, LoadedExample)}
    assert len(powers) > 6
    assert not isinstance(made.load(0, 17), Unreadable)
    longest = max(i.duration for i in items)
    assert longest < 3.5 < min(len(h.samples) / 16000 for h in heard if isinstance(h, LoadedExample))


def test_negatives_lie_where_a_sound_is() -> None:
    recording = 1e-4 * np.random.default_rng(0).standard_normal(80000).astype(np.float32)
    recording[60000:64000] += np.sin(np.arange(4000)).astype(np.float32)  # a twentieth of it

    def heard(samples: np.ndarray) -> bool:
        return bool(np.abs(samples).max() > 0.5)

    stretches = [around_sound(np.random.default_rng(n), recording, 8000) for n in range(200)]
    assert {len(s) for s in stretches} == {8000}
    assert np.mean([heard(s) for s in stretches]) > 0.8  # drawn evenly: 0.15
    even = [
        around_sound(np.random.default_rng(n), np.ones(80000, np.float32) * recording[:1], 8000)
        for n in range(3)
    ]
    assert all(len(s) == 8000 for s in even)
    quiet = around_sound(np.random.default_rng(1), np.zeros(5000, np.float32), 10)
    assert len(quiet) == 10
    assert len(around_sound(np.random.default_rng(1), recording[:100], 8000)) == 100


def test_joined_utterances_have_all_their_words_and_sounds(items: list[Item]) -> None:
    place = Item("joined-0", None, 0.0, 9.0, "", (), joined=True)
    plain = source([*items, place], augmented=False)
    plain.between = Between(" ", (7,))
    heard = [plain.load(epoch, len(items)) for epoch in range(8)]
    assert len({h.text for h in heard if isinstance(h, LoadedExample)}) > 4
    texts = {i.text: i for i in items}
    words = {w for i in items for w in i.text.split()}
    for example in heard:
        assert isinstance(example, LoadedExample)
        assert example.text.split()
        assert set(example.text.split()) <= words
        joints = example.tokens.count(7)
        assert len(example.id.split("+")) == joints + 1  # a message can name them
        assert set(example.id.split("+")) <= {i.id for i in items}
        assert example.tokens == ((1, 2) + (7, 1, 2) * joints)
        assert joints + 1 >= 2
        assert len(example.samples) / 16000 <= 9.0
        assert min(i.duration for i in texts.values()) * (joints + 1) <= len(example.samples) / 16000
        sound = plain._read(0, items[0].audio, 0.0, items[0].duration)[0]  # type: ignore[arg-type]
        assert np.square(example.samples).mean() > 0.3 * np.square(sound).mean()


def test_a_joined_place_too_small_for_anything_holds_one_utterance(items: list[Item]) -> None:
    place = Item("joined-0", None, 0.0, 0.2, "", (), joined=True)
    example = source([*items, place], augmented=False).load(0, len(items))
    assert isinstance(example, LoadedExample)
    assert example.tokens == (1, 2)


def test_places_are_counted_in_seconds() -> None:
    half_seconds = [0.5] * 2000
    negatives = negative_places(0.1, half_seconds, longest=25.0, seed=1)
    short = [n.duration for n in negatives if n.duration == 0.5]
    long = [n.duration for n in negatives if n.duration > 0.5]
    assert len(short) == round(2000 / 9)
    assert sum(short) - 0.5 <= sum(long) <= sum(short)
    assert max(long) > 12
    joined = joined_places(0.2, half_seconds, longest=25.0, seed=1)
    assert all(j.joined and 1.1 <= j.duration <= 25 for j in joined)
    assert 0.19 < sum(j.duration for j in joined) / (1000 + sum(j.duration for j in joined)) < 0.2001
    assert joined_places(0.2, [12.0] * 50, longest=25.0, seed=1) == []  # hardly two of them fit
    assert negative_places(0.0, half_seconds, longest=25.0, seed=1) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_few_shapes(items: list[Item], workers: int) -> None:
    def shapes(few: bool) -> set[tuple[int, ...]]:
        sampler = BucketSampler([i.duration for i in items], batch_seconds=8, seed=1, speeds=(0.9, 1.0, 1.1))
        with Loader(source(items), sampler, workers=workers, few_shapes=few) as made:
            found = first(made, 3 * made.batches_in_epoch)
            assert all(
                (b.audio.values[n, end:] == 0).all() for b in found for n, end in enumerate(b.audio.lengths)
            )
            return {tuple(b.audio.values.shape) for b in found}

    assert len(shapes(True)) < len(shapes(False))


def test_loader_processes_end_with_a_killed_parent(items: list[Item], tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(audio=str(items[0].audio)))
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(x) for x in parent.stdout.readline().split()]
    assert workers
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    alive = workers
    while alive and time.monotonic() < deadline:
        time.sleep(0.1)
        alive = [w for w in workers if _runs(w)]
    assert not alive


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_dead_loader_process_is_explained(items: list[Item]) -> None:
    with loader(items, workers=1) as made:
        batches = made.batches()
        next(batches)
        assert made._pool is not None
        for process in made._pool._processes.values():
            process.kill()
        with pytest.raises(TrainingError, match="loader process") as caught:
            list(itertools.islice(batches, 20))
        assert "--workers 0" in caught.value.mend


def test_workers_import_no_torch() -> None:
    code = "import sys, firstwords.data.worker; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
