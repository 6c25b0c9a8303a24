"""The clip every model folder carries, and the answer it must give.

The clip is synthetic (three seconds of a buzzing source through moving resonances, from a fixed seed), so
that nobody's voice ships unasked. A model says nothing sensible about it; but tokens and sampled
log-probabilities of every head must come out the same wherever the folder is loaded. (Tokens are those of
the greedy CTC search; where no head is CTC, those of the recipe's search, and encoded frames stand in the
place of CTC's log-probabilities.)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from firstwords.audio.waveform import read, write
from firstwords.errors import CheckpointError
from firstwords.files import write_atomically
from firstwords.heads.head import FrameHead, Head, TokenHead
from firstwords.heads.transducer.head import TransducerHead
from firstwords.model.speech_model import SpeechModel
from firstwords.search.search import GreedyConfig, build_encoded_search
from firstwords.tensors import Padded

CLIP_SECONDS = 3.0
# Kernels differ between processors; a wrong weight or feature setting moves log-probabilities by far more.
TOLERANCE = 0.02
PLACES, COLUMNS = 8, 8  # of the log-probabilities that are compared, for each head


def synthetic_clip(sample_rate: int) -> np.ndarray:
    """Three seconds of vowel-like sound with pauses, (S,) float32; the same bytes everywhere."""
    generator = np.random.default_rng(20)
    time = np.arange(int(CLIP_SECONDS * sample_rate)) / sample_rate
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    sound = np.zeros_like(time)
    for harmonic in range(1, 31):
        frequency = harmonic * pitch
        gain = np.zeros_like(time)
        for base, swing, width in ((550.0, 250.0, 90.0), (1500.0, 600.0, 150.0), (2600.0, 200.0, 200.0)):
            centre = base + swing * np.sin(2 * np.pi * 1.3 * time + base)
            gain += 1 / (1 + ((frequency - centre) / width) ** 2)
        sound += np.where(frequency < 0.45 * sample_rate, gain, 0) * np.sin(harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * 2.0 * time), 0, 1) ** 0.5
    sound = 0.2 * syllables * sound / np.abs(sound).max() + 0.001 * generator.standard_normal(len(time))
    return sound.astype(np.float32)


def _answer(model: SpeechModel, samples: np.ndarray) -> dict[str, Any]:
    parameter = next(model.parameters())
    # What is behind the last learned position cannot be read.
    samples = samples[: int(min(len(samples), model.longest_seconds * model.recipe.data.sample_rate))]
    audio = Padded(
        torch.from_numpy(samples)[None].to(parameter.device),
        torch.tensor([len(samples)], device=parameter.device),
    )
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        encoded = model.encode(audio)
        scores = encoded if model.ctc is None else model.ctc.log_probs(encoded)
        search = GreedyConfig() if model.ctc is not None else model.recipe.search
        readings = build_encoded_search(search, dict(model.named_heads()), model.frame_seconds)(encoded)
        others = {
            name: _rounded(_said(head, encoded, model.vocabulary))
            for name, head in model.named_heads()
            if head is not model.ctc
        }
    model.train(was_training)
    tokens = readings[0][0].tokens
    values = scores.values[0, : int(scores.lengths[0])].float().cpu()
    rows = torch.linspace(0, len(values) - 1, PLACES).long()
    return {
        "tokens": list(tokens),
        "frames": len(values),
        "rows": rows.tolist(),
        "best": [int(i) for i in values[rows].argmax(-1)],
        "log_probs": _rounded(values[rows]),
        "heads": others,
    }


def _rounded(values: Tensor) -> list[list[float]]:
    return [[round(float(x), 4) for x in row[:COLUMNS]] for row in values]


def _said(head: Head, encoded: Padded, vocabulary: int) -> Tensor:
    """Encoded (1, T, D) -> (PLACES, V) log-probabilities of a head that hears the frames and made-up tokens.

    The tokens are 1, 2, ... and so on again; row n has read the first n of them. An attention decoder looks
    at all frames, a transducer joins row n with the n-th of PLACES evenly spaced frames.
    """
    device, count = encoded.values.device, PLACES - 1
    tokens = torch.arange(count, device=device) % max(1, vocabulary - 1) + 1
    if isinstance(head, TokenHead):
        scorer = head.scorer(encoded)
        state = scorer.start(1)
        rows: list[Tensor] = []
        for last in (torch.zeros_like(tokens[:1]), *tokens.split(1))[: head.longest]:
            scores, state = scorer.score(last, state)
            rows.append(scores[0])
        return torch.stack(rows)
    if isinstance(head, TransducerHead):
        predicted = head.predictor(Padded(tokens[None], torch.tensor([count], device=device)))[0]
        places = torch.linspace(0, int(encoded.lengths[0]) - 1, PLACES).long().to(device)
        frames = head.joiner.encoder_proj(encoded.values[0, places])
        history = head.joiner.predictor_proj(predicted)
        found = [head.next_log_probs(frames, history)]
        if head.config.durations is not None:  # in front: only the first columns are kept
            found.insert(0, head.duration_log_probs(frames, history))
        return torch.cat(found, dim=1)
    assert isinstance(head, FrameHead)
    return head.log_probs(encoded).values[0, :PLACES]


def write_check(folder: Path, new: Path, model: SpeechModel) -> None:
    """Write ``check/clip.flac`` and ``check/expected.json`` into ``new``; a clip in ``folder`` is kept."""
    rate = model.recipe.data.sample_rate
    clip = folder / "check" / "clip.flac"
    if not clip.exists():
        clip = new / "check" / "clip.flac"
        write(clip, synthetic_clip(rate), rate)
    answer = _answer(model, read(clip, sample_rate=rate).samples)
    write_atomically(new / "check" / "expected.json", json.dumps(answer, indent=1))


def run_check(folder: Path, model: SpeechModel) -> None:
    """Decode the clip of a folder; raise CheckpointError when the answer differs from the stored one."""
    clip, expected_file = folder / "check" / "clip.flac", folder / "check" / "expected.json"
    if not (clip.is_file() and expected_file.is_file()):
        raise CheckpointError(
            f"'{folder}' has no check/clip.flac with expected.json, so it cannot prove itself.",
            mend="Load it with check=False, or save the model again.",
        )
    expected = _read_expected(expected_file)
    found = _answer(model, read(clip, sample_rate=model.recipe.data.sample_rate).samples)
    same_places = (expected["frames"], expected["rows"]) == (found["frames"], found["rows"])
    worst = {"": _distance(expected["log_probs"], found["log_probs"]) if same_places else np.inf}
    # Folders of before hold no answers of heads besides CTC.
    worst |= {
        f" of heads.{name}": _distance(stored, found["heads"].get(name, []))
        for name, stored in expected["heads"].items()
    }
    whose, most = max(worst.items(), key=lambda item: item[1])
    if expected["tokens"] != found["tokens"] or not most <= TOLERANCE:
        raise CheckpointError(
            f"'{folder}' does not give its own check clip the stored answer: tokens {found['tokens']} "
            f"instead of {expected['tokens']}, log-probabilities{whose} off by {most:.3g} "
            f"(allowed {TOLERANCE}).",
            mend="The folder was edited or damaged, or belongs to another version: copy it again.",
        )


def _distance(stored: NDArray[np.float64], given: list[list[float]]) -> float:
    """The largest difference; infinite where shapes differ or something is no number."""
    found = np.array(given, dtype=np.float64)
    if stored.shape != found.shape:
        return np.inf
    worst = float(np.abs(stored - found).max(initial=0.0))
    return np.inf if np.isnan(worst) else worst


def _read_expected(path: Path) -> dict[str, Any]:
    """``expected.json`` with every part that is compared, or the reason why it is none."""
    try:
        expected: Any = json.loads(path.read_text(encoding="utf-8"))
        log_probs = np.array(expected["log_probs"], dtype=np.float64)
        heads = {str(k): np.array(v, dtype=np.float64) for k, v in expected.get("heads", {}).items()}
        same = {key: expected[key] for key in ("tokens", "frames", "rows")}
        return same | {"log_probs": log_probs, "heads": heads}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CheckpointError(
            f"'{path}' is damaged: {type(error).__name__}: {error}.",
            mend="Copy the whole folder again, or load it with check=False.",
        ) from None
