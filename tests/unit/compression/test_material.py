"""A corpus as compression needs it: the same utterances each time, a likelihood that is that of training."""

from __future__ import annotations

import pytest
import torch

from firstwords.compression.learned import round_layers
from firstwords.compression.material import Material
from firstwords.compression.tuning import tune_in_place
from firstwords.data.manifest import load_corpus
from firstwords.model.checkpoint import load_model
from firstwords.tensors import Padded
from nonsense_model import make_nonsense_model
from tone_corpus import make_tone_corpus


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    home = tmp_path_factory.mktemp("material")
    corpus = make_tone_corpus(home / "corpus", train=6, dev=4, test=0)
    loaded = load_model(make_nonsense_model(home / "model"), device="cpu")
    return Material(load_corpus(corpus), loaded, "cpu")


def test_the_loss_is_nats_a_token(material: Material) -> None:
    batches = material.dev_batches(3)
    assert sum(len(batch.ids) for batch in batches) == 3
    again = material.dev_batches(3)
    assert [b.ids for b in again] == [b.ids for b in batches]
    model = material.loaded.model
    total, tokens = 0.0, 0
    for batch in batches:  # utterance by utterance, torch's own loss
        for row in range(len(batch.ids)):
            count, wanted = int(batch.audio.lengths[row]), int(batch.targets.lengths[row])
            one = Padded(batch.audio.values[row : row + 1, :count], torch.tensor([count]))
            with torch.no_grad():
                log_probs = model(one).values[0]
            target = batch.targets.values[row, :wanted]
            total += float(
                torch.nn.functional.ctc_loss(log_probs, target, (len(log_probs),), (wanted,), reduction="sum")
            )
            tokens += wanted
    assert material.loss(model, batches) == pytest.approx(total / tokens, rel=1e-4)


def test_calibration_hears_one_training_utterance_at_a_time(material: Material) -> None:
    heard = list(material.calibration(4))
    assert len(heard) == 4
    assert all(audio.values.shape == (1, int(audio.lengths[0])) for audio in heard)
    assert len(list(material.calibration(200))) == 6


def test_tuning_keeps_what_was_best_and_freezes_when_told(material: Material) -> None:
    import copy

    model = copy.deepcopy(material.loaded.model)
    name = "encoder.stacks.0.layers.0.feed_forward1.in_proj"
    (rounded,) = round_layers(model, {name: 0.05})
    before = material.error(model)
    shares: list[float] = []
    values: list[float] = []

    def paced(share: float) -> None:
        shares.append(share)
        values.append(rounded.value)
        rounded.frozen = share >= 0.5

    found = tune_in_place(material, model, minutes=5, steps=4, paced=paced)
    assert sorted(set(shares)) == [0.0, 0.25, 0.5, 0.75]
    assert values[-1] == values[shares.index(0.75)]
    assert len(set(values)) > 1
    after = material.error(model)
    assert after.objective == pytest.approx(found.objective)
    assert after.objective <= before.objective
    assert not model.training
