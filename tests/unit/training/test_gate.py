from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_recognition import batch_of, recognition_task

from firstwords.data.batch import Batch
from firstwords.data.manifest import Utterance
from firstwords.errors import CheckpointError
from firstwords.inference.recognizer import Recognizer
from firstwords.model.checkpoint import load_model, save_model
from firstwords.search.speech_gate import SpeechGate
from firstwords.training.gate import Heard, choose_gate, noise_probes
from nonsense_model import make_nonsense_model


def test_the_gate_lies_between_noise_and_speech() -> None:
    speech = [Heard(c, 3) for c in (0.7, 0.75, 0.9, 0.95)]
    assert choose_gate(speech, [0.3, 0.5]) == pytest.approx(0.6)
    assert choose_gate(speech, []) == pytest.approx(0.35)  # half of the way where noise gets no answer
    assert choose_gate(speech, [0.5, 0.99]) == pytest.approx(0.7)  # what sounds like speech cannot be helped
    assert choose_gate(speech, [0.8]) == pytest.approx(0.7)


def test_the_gate_costs_hardly_any_right_word() -> None:
    speech = [Heard(0.1, 0), Heard(0.2, 1), Heard(0.3, 1)] + [Heard(0.8, 1)] * 1000
    assert choose_gate(speech, [0.25]) == pytest.approx((0.8 + 0.25) / 2)  # 5 of 1002 words may go
    assert choose_gate(speech[1:300], [0.25]) == pytest.approx((0.3 + 0.25) / 2)  # of 299 one may
    assert choose_gate(speech[1:150], [0.05]) == pytest.approx((0.2 + 0.05) / 2)  # of 149 none may


def test_a_model_that_is_never_right_has_no_gate() -> None:
    assert choose_gate([Heard(0.4, 0)] * 5, [0.1]) == 0.0
    assert choose_gate([], [0.1]) == 0.0


def test_probes_are_stretches_of_all_lengths() -> None:
    probes = noise_probes(1, [])
    assert probes == noise_probes(1, []) != noise_probes(2, [])
    assert min(p.duration for p in probes) < 1.5
    assert max(p.duration for p in probes) > 8
    assert all(p.audio is None and not p.joined for p in probes)


def test_recordings_are_probes_as_they_are() -> None:
    clips = [Utterance(id=f"c{n}", audio=Path(f"c{n}.wav"), duration=1.0 + n, start=0.5) for n in range(300)]
    probes = noise_probes(1, clips)
    heard = [p for p in probes if p.audio is not None]
    assert len(heard) == 192 == len({p.audio for p in heard})
    assert all(p.start == 0.5 and p.text == "" and p.duration <= 10 for p in heard)
    assert probes == noise_probes(1, clips)
    assert len(noise_probes(1, clips[:3])) == len(noise_probes(1, [])) + 3


def test_validation_remembers_how_sure_each_utterance_was() -> None:
    task = recognition_task()
    batch: Batch = batch_of([(1.0, 3), (1.2, 4)])
    task.validate([batch, batch])
    answered = len(task.answers([batch, batch]))
    assert len(task.heard) == answered
    assert all(0 < heard.confidence <= 1 and heard.right >= 0 for heard in task.heard)
    assert task.model.training


def test_text_below_the_gate_is_no_speech(tmp_path: Path) -> None:
    folder = make_nonsense_model(tmp_path / "model")
    samples = np.random.default_rng(0).normal(0, 0.1, 16000 * 3).astype(np.float32)
    assert Recognizer.load(folder).transcribe_samples(samples, 16000).text
    loaded = load_model(folder)
    save_model(folder, loaded.model, loaded.tokenizer, card="", speech_gate=SpeechGate(1.0))
    assert load_model(folder).speech_gate == SpeechGate(1.0)
    assert Recognizer.load(folder).transcribe_samples(samples, 16000).text == ""


def test_a_spoiled_gate_is_explained(tmp_path: Path) -> None:
    folder = make_nonsense_model(tmp_path / "model")
    content = (folder / "model.safetensors").read_bytes()
    assert content.count(b'"0.0000"') == 1
    (folder / "model.safetensors").write_bytes(content.replace(b'"0.0000"', b'"zero.."'))
    with pytest.raises(CheckpointError, match="where a number belongs"):
        load_model(folder)
