"""What a recipe is chosen by: data, time, machine, and what the user has named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_recognition import batch_of, recognition_task

from firstwords.audio.waveform import channel_policy
from firstwords.data.manifest import Utterance, load_corpus
from firstwords.encoders.zipformer import Zipformer
from firstwords.errors import ConfigError, UsageError
from firstwords.features.specaugment import SpecAugmentConfig
from firstwords.text.load import train_tokenizer
from firstwords.text.subwords import SubwordConfig
from firstwords.training import choose, memory, settle
from firstwords.training.choose import Material, choose_recipe
from firstwords.training.measure import Measured, measure
from firstwords.training.settle import Wanted, is_crowded, usual_language, usual_rate
from firstwords.training.trainer import make_optimizer


def test_channels() -> None:
    assert [channel_policy(c) for c in ("mix", "error", "1", 0)] == ["mix", "error", 1, 0]
    with pytest.raises(ConfigError, match="left"):
        channel_policy("left")


@pytest.mark.parametrize(
    ("hours", "minutes", "device", "expected"),
    [
        (0.2, 4, "cpu", "nano"),
        (0.84, 60, "cpu", "tiny"),
        (0.84, 3, "cpu", "nano"),
        (20, 600, "cpu", "tiny"),
        (20, 240, "cuda", "S"),
        (300, 3000, "cuda", "M"),
    ],
)
def test_size_follows_data_time_and_machine(hours: float, minutes: float, device: str, expected: str) -> None:
    found = choose_recipe(
        Material(hours=hours, cores=2), name="x", language="yo", minutes=minutes, device=device
    )
    wanted = choose.ZipformerConfig.preset(expected)
    assert found.recipe.encoder.with_(dropout=wanted.dropout) == wanted, found.reasons
    assert expected in " ".join(found.reasons)
    assert found.recipe.training.minutes == minutes


def test_a_large_model_divides_its_batches_on_a_cpu() -> None:
    """What is encoded at once stays below the size's limit; both views of CR-CTC count."""
    found = choose_recipe(
        Material(hours=20, cores=2), name="x", language="en", minutes=6000, device="cpu", size="S"
    )
    assert found.recipe.training.batch_seconds == 20
    assert found.recipe.training.accumulate == 2
    found = choose_recipe(
        Material(hours=20, cores=2), name="x", language="en", minutes=800, device="cpu", size="S"
    )
    assert found.recipe.training.batch_seconds == 30
    assert found.recipe.training.accumulate == 2
    small = choose_recipe(
        Material(hours=20), name="x", language="en", minutes=6000, device="cpu", size="tiny"
    )
    assert small.recipe.training.accumulate == 1
    gpu = choose_recipe(Material(hours=20), name="x", language="en", minutes=60, device="cuda", size="S")
    assert gpu.recipe.training.accumulate == 1


def test_fast_speech_gets_more_frames(corpora: Path) -> None:
    """Single digits, said in a quarter of a second, are crowded; but they are read well at 25 frames."""
    shares = {
        name: np.mean([is_crowded(u, u.text or "") for u in load_corpus(corpora / name).split("train")])
        for name in ("digits_en", "yoruba")
    }
    assert 0.02 < shares["digits_en"] < choose.MOST_CROWDED
    assert shares["yoruba"] < 0.005
    for share, factor in ((2 * choose.MOST_CROWDED, 1), (shares["digits_en"], 2)):
        found = choose_recipe(
            Material(hours=0.3, cores=2, crowded=float(share)),
            name="x",
            language="en",
            minutes=5,
            device="cpu",
        )
        assert found.recipe.encoder.output_downsampling == factor
        assert ("50 frames" in " ".join(found.reasons)) == (factor == 1)


def test_few_words_that_are_heard_often_are_pieces() -> None:
    """Then letters need not fit into the frames; a word that is rare, or many words, and letters it is."""
    for words, rarest, noise, whole in (
        (10, 200, False, True),
        (10, 200, True, False),
        (10, 60, False, True),
        (10, 30, False, False),
        (10, 3, False, False),
        (400, 30, False, False),
        (None, 0, False, False),
    ):
        found = choose_recipe(
            Material(hours=0.3, words=words, rarest=rarest, noise=noise, crowded=0.5),
            name="x",
            language="en",
            minutes=5,
            device="cpu",
        )
        assert isinstance(found.recipe.tokenizer, SubwordConfig) == whole
        assert (found.recipe.encoder.output_downsampling == 1) == (not whole)
        if whole:
            texts = ["zero one", "two three four", "eight"] * 30
            pieces = train_tokenizer(found.recipe.tokenizer, texts)
            assert [len(pieces.encode(word)) for word in ("zero", "eight", "two")] == [1, 1, 1]
            assert pieces.decode(pieces.encode("tone")) == "tone"


def test_telephone_speech_gets_features_of_its_band(corpora: Path, tmp_path: Path) -> None:
    clips = load_corpus(corpora / "digits_en").split("train")
    assert usual_rate(clips) == 8000
    assert usual_rate(load_corpus(corpora / "yoruba").split("train")) > 8000
    missing = replace(clips[0], audio=tmp_path / "nothing.wav")
    assert usual_rate([missing]) is None
    for rate, expected in ((8000, (8000, 40)), (44100, (16000, 80)), (None, (16000, 80))):
        found = choose_recipe(
            Material(hours=0.3, sample_rate=rate), name="x", language="en", minutes=5, device="cpu"
        ).recipe
        assert (found.features.sample_rate, found.features.mels) == expected
        assert found.data.sample_rate == found.features.sample_rate
    assert found.training.specaugment.frequency_width == 27


def test_an_hour_of_speech_gets_consistency_and_a_few_minutes_do_not() -> None:
    hour = choose_recipe(
        Material(hours=0.84, cores=2), name="x", language="yo", minutes=60, device="cpu"
    ).recipe
    taste = choose_recipe(
        Material(hours=0.84, cores=2, longest=20), name="x", language="yo", minutes=6, device="cpu"
    ).recipe
    long = choose_recipe(
        Material(hours=0.84, cores=2), name="x", language="yo", minutes=600, device="cpu"
    ).recipe
    assert [r.heads["ctc"].consistency for r in (hour, taste, long)] == [0.2, 0.0, 0.2]
    assert [r.heads["ctc"].intermediate for r in (hour, taste, long)] == [(2, 3), (), (2, 3)]
    assert [r.heads["ctc"].self_conditioned for r in (hour, taste)] == [True, False]
    streaming = choose_recipe(
        Material(hours=0.84, cores=2, usual_encoder=False), name="x", language="yo", minutes=60, device="cpu"
    ).recipe.heads["ctc"]
    assert (streaming.consistency, streaming.intermediate, streaming.self_conditioned) == (0.2, (), False)
    assert [r.data.augment.noise.probability for r in (hour, taste)] == [0.0, 0.0]
    assert long.data.augment.noise.probability > 0
    named = choose_recipe(
        Material(hours=0.84, cores=2, noise=True), name="x", language="yo", minutes=6, device="cpu"
    ).recipe
    assert named.data.augment == choose.AugmentConfig()
    few_steps = choose_recipe(  # 66 passes, but no 4000 steps of two views
        Material(hours=0.3, cores=1, longest=2), name="x", language="en", minutes=9, device="cpu"
    ).recipe
    assert few_steps.heads["ctc"].model_dump()["consistency"] == 0.0
    assert not hour.training.sorted_first_epoch
    assert hour.encoder.dropout == (0.15, 0.1)
    assert taste.training.batch_seconds >= 60  # each of two processes gets more than one utterance
    large = choose_recipe(Material(hours=10), name="x", language="en", minutes=60, device="cuda").recipe
    assert large.encoder == choose.ZipformerConfig.preset("S")
    assert large.data.augment.noise.probability > 0


def test_a_model_to_start_from_is_as_large_as_it_is() -> None:
    """Batches, steps and number format are those of its size, not of what little time would choose."""
    assert [choose.nearest_size(n) for n in (0, 400_000, 1_300_000, 2_100_000, 9_000_000, 30_000_000)] == [
        "nano",
        "nano",
        "tiny",
        "tiny",
        "S",
        "S",
    ]
    for size in ("nano", "tiny", "S"):
        encoder = Zipformer(choose.ZipformerConfig.preset(size), 80)
        assert choose.nearest_size(sum(p.numel() for p in encoder.parameters())) == size


def test_nothing_is_masked_in_a_run_of_few_passes_unless_a_model_is_tuned() -> None:
    def masked(minutes: float, **material: Any) -> bool:
        found = choose_recipe(
            Material(hours=0.84, cores=2, **material), name="x", language="yo", minutes=minutes, device="cpu"
        )
        probability = found.recipe.training.specaugment.probability
        assert probability in (0.0, SpecAugmentConfig.model_fields["probability"].default)
        assert ("too few passes for masks (SpecAugment)" in found.reasons) == (not probability)
        return probability > 0

    # Some three passes of 0.84 h in a minute are thought to be possible with two cores.
    assert [masked(minutes) for minutes in (2, 6, 20, 60)] == [False, False, True, True]
    assert not masked(6, words=10, rarest=100)
    assert not masked(6, sample_rate=8000)
    assert masked(6, fine_tuned=True)


def test_a_run_begins_with_light_masks_and_one_view_unless_words_are_few() -> None:
    def chosen(minutes: float, **material: Any) -> tuple[int, int]:
        found = choose_recipe(
            Material(hours=0.84, cores=2, **material), name="x", language="yo", minutes=minutes, device="cpu"
        )
        assert ("masks that widen as it learns" in found.reasons) == bool(found.recipe.training.mask_warmup)
        return found.recipe.training.mask_warmup, found.recipe.training.consistency_start

    assert chosen(60) == (20_000, 10_000)
    assert chosen(12) == (60_000, 0)
    assert chosen(6) == (0, 0)  # nothing is masked
    assert chosen(60, words=10, rarest=100) == (0, 0)
    assert chosen(60, words=10, rarest=30) == (20_000, 10_000)
    assert chosen(60, words=10, rarest=1) == (20_000, 10_000)


def test_short_utterances_and_tiny_models_are_trained_in_float32_on_a_processor() -> None:
    def precision(device: str, size: str, longest: float) -> str:
        material = Material(hours=0.84, cores=2, longest=longest)
        found = choose_recipe(material, name="x", language="yo", minutes=60, device=device, size=size)
        return found.recipe.training.precision

    assert [precision("cpu", "tiny", longest) for longest in (2.0, 12.0)] == ["fp32", "auto"]
    assert precision("cpu", "nano", 12.0) == "fp32"
    assert precision("cuda", "tiny", 2.0) == "auto"


def test_a_named_size_wins_and_a_wrong_one_is_refused() -> None:
    found = choose_recipe(Material(hours=0.1), name="x", language="tr", minutes=None, device="cpu", size="S")
    assert found.recipe.encoder == choose.ZipformerConfig.preset("S")
    assert found.recipe.text.normalizer == "turkic"
    with pytest.raises(UsageError, match="huge"):
        choose_recipe(Material(hours=0.1), name="x", language="tr", minutes=None, device="cpu", size="huge")


def test_of_equally_frequent_languages_the_first_is_taken() -> None:
    def spoken(*languages: str | None) -> str:
        return usual_language(
            [Utterance(id=str(i), audio=Path("a"), duration=1.0, language=x) for i, x in enumerate(languages)]
        )

    assert spoken(None, "sw", "yo", "yo", None) == "yo"
    assert spoken(None, None) == spoken() == "und"
    for first in range(20):  # whatever the seed of hashes
        turned = [f"x{(first + i) % 20}" for i in range(20)]
        assert spoken(*turned, *reversed(turned)) == f"x{first}"


def test_measuring_leaves_no_trace() -> None:
    task = recognition_task()
    before = {n: v.clone() for n, v in task.model.state_dict().items()}
    state = task.state()
    batches = [batch_of([(1.0, 3), (1.2, 4)]), batch_of([(2.0, 5)]), batch_of([(1.0, 2)] * 3)]
    found = measure(
        task,
        batches,
        lambda: make_optimizer(task.model, "scaled_adam", rate=0.1, weight_decay=0),
        torch.device("cpu"),
    )
    assert all(torch.equal(before[n], v) for n, v in task.model.state_dict().items())
    assert task.state() == state
    assert 0 < found.seconds_per_cost < 10


def test_the_cap_follows_the_measurement() -> None:
    assert Measured(0.1, 20e6, 8_000_000_000).largest_cost(0.5) == pytest.approx(200)
    assert Measured(0.1, None, None).largest_cost(0.5) == float("inf")


def test_memory_is_told_where_the_system_tells_it() -> None:
    free = memory.free_bytes(torch.device("cpu"))
    assert free is None or 1 << 20 < free < 1 << 50
    used = memory.start_measuring(torch.device("cpu"))
    block = torch.ones(64 << 20, dtype=torch.uint8)
    peak = memory.peak_bytes(torch.device("cpu"))
    if used is not None and peak is not None:
        assert peak - used > 0.8 * block.numel()


@pytest.mark.parametrize(
    ("assignments", "usual"),
    [
        ([], True),
        (["encoder.dropout=[0.2,0.1]", "data.speeds=[1.0]"], True),
        (["encoder.causal=true"], False),
        (['encoder.kind="quartznet"'], False),
        (['encoder={kind="lstm"}'], False),
    ],
)
def test_an_encoder_that_is_named_gets_no_taps(assignments: list[str], usual: bool) -> None:
    wanted = Wanted(None, None, None, tuple(assignments), None)
    assert settle._names_encoder(wanted) is not usual


@pytest.mark.parametrize(
    ("negatives", "words", "rarest", "share"),
    [(True, 10, 240, 0.25), (False, 10, 240, 0.05), (True, 900, 1, 0.05), (True, None, 0, 0.05)],
)
def test_few_words_leave_room_for_negatives(
    negatives: bool, words: int | None, rarest: int, share: float
) -> None:
    material = Material(hours=0.3, words=words, rarest=rarest, negatives=negatives, cores=2)
    recipe = choose_recipe(material, name="x", language="en", minutes=8, device="cpu").recipe
    assert recipe.data.negative_share == share
