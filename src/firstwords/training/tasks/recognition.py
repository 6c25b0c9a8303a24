"""Speech recognition with CTC as a training task: losses of a batch, error rates of a dev set.

    plain CTC       Graves et al., 2006
    CR-CTC          two differently masked views that should agree: Yao et al., 2024, arXiv:2410.05101
    intermediate    CTC losses inside the encoder, perhaps fed back: arXiv:2102.03216, arXiv:2104.02724
    label priors    only while a model is stuck on blanks (monitor.py): Huang et al., 2024, arXiv:2406.02560

The encoder runs in the number format of the machine (autocast), everything after it in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from firstwords.data.batch import Batch
from firstwords.data.sampler import cost_of
from firstwords.device import Compute
from firstwords.encoders.zipformer.constraints import Whiten
from firstwords.features.specaugment import SpecAugment
from firstwords.heads.consistency import consistency_loss
from firstwords.heads.ctc import CtcHead, can_align, ctc_loss
from firstwords.heads.intermediate import combine, encode_with_taps
from firstwords.model.speech_model import SpeechModel
from firstwords.scoring.error_rate import ErrorRate, grapheme_errors, word_errors
from firstwords.search.greedy import greedy_search
from firstwords.search.hypothesis import Hypothesis
from firstwords.tensors import Padded, real_frames
from firstwords.text.tokenizer import Tokenizer
from firstwords.training.gate import Heard
from firstwords.training.monitor import BlankMonitor
from firstwords.training.tasks.task import Advice, Loss, Sample, Task, Validation

SAMPLES = 3  # decoded utterances shown at each validation
_LEAST_PRIOR = 1e-3  # of a label: rarer ones would be raised beyond reason
_PRIOR_MEMORY = 0.95  # of the running label frequencies, per batch


class Encoded(NamedTuple):
    """Log-probabilities of the head, and of the taps inside the encoder."""

    last: Padded
    inner: list[Padded]


@dataclass(frozen=True)
class RecognitionSettings:
    """What of a recipe the task needs.

    Args:
        consistency_warmup: reference batches until the consistency loss has its full weight.
        frozen_steps: steps in which only the heads learn (fine-tuning).
        scoring: text -> text before errors are counted.
    """

    scoring: Callable[[str], str]
    consistency_warmup: float = 2000.0
    frozen_steps: int = 0


@final
class RecognitionTask(Task[Batch]):
    """A SpeechModel that learns to write down what it hears.

    Args:
        masking: SpecAugment on the features; None: features as they are.
    """

    def __init__(
        self,
        model: SpeechModel,
        tokenizer: Tokenizer,
        *,
        compute: Compute,
        masking: SpecAugment | None,
        settings: RecognitionSettings,
    ) -> None:
        self.model: nn.Module = model
        self.speech = model
        self.head: CtcHead = model.ctc
        self.tokenizer = tokenizer
        self.compute = compute
        self.masking = masking
        self.settings = settings
        self.monitor = BlankMonitor()
        self.priors: list[float] = []  # label frequencies, kept while they are in use
        self.count = 0.0
        self.heard: list[Heard] = []  # of the last validation

    def set_step(self, step: int, count: float) -> None:
        """Regularisers follow ``count``; the encoder is frozen for the first steps of a fine-tuning."""
        self.count = count
        self.speech.set_step(count)
        if self.settings.frozen_steps:
            self.speech.encoder.requires_grad_(step > self.settings.frozen_steps)

    def loss(self, batch: Batch) -> Loss:
        """Sums over the batch; an utterance that cannot align adds nothing to the loss."""
        size = float(batch.audio.lengths.sum()) / self.speech.recipe.data.sample_rate
        audio, targets = self._on_device(batch.audio), self._on_device(batch.targets)
        weight = self.head.config.consistency
        frames = self._masked(self.speech.features(audio), batch.keys, two_views=weight > 0)
        if weight:
            targets = _twice(targets)
        encoded = self._encode(frames)
        fits = can_align(encoded.last.lengths, targets)
        each = combine(
            self._ctc(encoded.last, targets),
            [ctc_loss(inner, targets) for inner in encoded.inner],
            self.head.config.intermediate_weight,
        )
        each = each.masked_fill(~fits, 0.0)
        parts: dict[str, Tensor] = {}
        if weight:
            each = 0.5 * (each[: len(batch.ids)] + each[len(batch.ids) :])
            parts["ctc"] = each.detach().sum()
            consistency = 0.5 * consistency_loss(encoded.last)
            parts["consistency"] = consistency.detach().sum()
            warm = min(1.0, self.count / max(self.settings.consistency_warmup, 1.0))
            each = each + weight * warm * consistency
        each = self.head.config.weight * each
        parts["blank"] = size * _blank_share(encoded.last)
        total = each.sum()
        return Loss(total, parts, size, each.detach())

    def validate(self, batches: Iterable[Batch]) -> Validation:
        """Greedy decoding -> CER (the objective) and WER after the scoring normalizer, both raw ones too."""
        training = self.model.training
        self.model.eval()
        score = self.settings.scoring
        words, graphemes, raw = ErrorRate(), ErrorRate(), ErrorRate()
        samples: list[Sample] = []
        utterances = empty = false_alarms = silent = 0
        self.heard = []
        with torch.inference_mode():
            for batch in batches:
                for name, reference, found in zip(batch.ids, batch.texts, self._decode(batch), strict=True):
                    text = self.tokenizer.decode(found.tokens)
                    utterances += 1
                    if not reference:
                        silent += 1
                        false_alarms += bool(text)
                    empty += not text
                    raw += grapheme_errors(reference, text)
                    errors = word_errors(score(reference), score(text))
                    words += errors
                    if found.confidence is not None:
                        self.heard.append(Heard(found.confidence, errors.hits))
                    graphemes += grapheme_errors(score(reference), score(text))
                    samples.append(Sample(name, reference, text))
        self.model.train(training)
        numbers = {
            "cer": graphemes.rate,
            "wer": words.rate,
            "raw_cer": raw.rate,
            "utterances": float(utterances),
            "words": float(words.reference_length),
            "empty": empty / utterances if utterances else 0.0,
        }
        if silent:
            numbers["false_alarms"] = false_alarms / silent
        return Validation(graphemes.rate, numbers, _spread([s for s in samples if s.reference], SAMPLES))

    def answers(self, non_speech: Iterable[Batch]) -> list[float]:
        """Confidences of the texts that non-speech gets; none where the model keeps silent."""
        training = self.model.training
        self.model.eval()
        with torch.inference_mode():
            found = [hypothesis.confidence for batch in non_speech for hypothesis in self._decode(batch)]
        self.model.train(training)
        return [confidence for confidence in found if confidence is not None]

    def watch(self, step: int, progress: float, loss: float, means: Mapping[str, float]) -> Advice | None:
        """Is the model stuck on blanks, or does the loss grow? See monitor.py."""
        said = self.monitor.update(progress, blank=means.get("blank", 0.0), loss=loss)
        if self.monitor.asks_for_half_rate(step):
            return Advice(f"The loss has grown to {loss:.2f}: the learning rate is halved.", 0.5)
        return Advice(said) if said else None

    def state(self) -> dict[str, Any]:
        """Monitor, label frequencies, what the encoder's regularisers remember, and when it is thawed."""
        high = {name: module.high for name, module in self._whitens()}
        own = {"monitor": self.monitor.to_record(), "priors": self.priors, "whiten": high}
        return own | {"frozen_steps": self.settings.frozen_steps}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.monitor.load(state["monitor"])
        self.priors = list(state["priors"])
        frozen = int(state.get("frozen_steps", self.settings.frozen_steps))
        self.settings = replace(self.settings, frozen_steps=frozen)
        for name, module in self._whitens():
            module.high = bool(state["whiten"][name])

    def names(self, batch: Batch) -> tuple[str, ...]:
        """Utterance ids."""
        return batch.ids

    def halves(self, batch: Batch) -> tuple[Batch, Batch] | None:
        """The first and the second half of the utterances, each trimmed to its own longest."""
        middle = len(batch.ids) // 2
        return (_rows(batch, 0, middle), _rows(batch, middle, len(batch.ids))) if middle else None

    def cost(self, batch: Batch) -> float:
        """Cost-seconds, padding counted."""
        seconds = batch.audio.values.shape[1] / self.speech.recipe.data.sample_rate
        return len(batch.ids) * cost_of(seconds, batch.targets.values.shape[1])

    def _whitens(self) -> Iterator[tuple[str, Whiten]]:
        # How often a Whiten acts depends on what it last saw; that is no weight, so no state dict holds it.
        for name, module in self.model.named_modules():
            if isinstance(module, Whiten):
                yield name, module

    def _on_device(self, padded: Padded) -> Padded:
        return Padded(
            padded.values.to(self.compute.device, non_blocking=True),
            padded.lengths.to(self.compute.device, non_blocking=True),
        )

    def _masked(self, frames: Padded, keys: Int[Tensor, " batch"], *, two_views: bool) -> Padded:
        """SpecAugment: once, or two views (rows 0..N-1 and N..2N-1) with one warp and masks of their own."""
        if self.masking is None:
            return _twice(frames) if two_views else frames
        if not two_views:
            return self.masking(frames, keys)
        warped = self.masking.warp_time(frames, keys)
        one, two = (self.masking.mask(warped, keys, view=view) for view in (0, 1))
        return Padded(torch.cat([one.values, two.values]), torch.cat([one.lengths, two.lengths]))

    def _encode(self, frames: Padded) -> Encoded:
        with torch.autocast(self.compute.device.type, self.compute.dtype, enabled=self.compute.autocast):
            encoded, inner = encode_with_taps(self.speech.encoder, self.head, frames)
        return Encoded(self.head.log_probs(Padded(encoded.values.float(), encoded.lengths)), inner)

    def _ctc(self, log_probs: Padded, targets: Padded) -> Float[Tensor, " batch"]:
        weight = self.monitor.prior_weight
        if not weight:
            self.priors = []
            return ctc_loss(log_probs, targets)
        real = real_frames(log_probs.lengths, log_probs.values.shape[1])
        now = log_probs.values.detach()[real].exp().mean(dim=0)
        before = torch.tensor(self.priors, device=now.device) if self.priors else now
        priors = _PRIOR_MEMORY * before + (1 - _PRIOR_MEMORY) * now
        self.priors = priors.tolist()
        return prior_weighted_ctc_loss(log_probs, targets, weight * priors.clamp_min(_LEAST_PRIOR).log())

    def _decode(self, batch: Batch) -> list[Hypothesis]:
        with torch.autocast(self.compute.device.type, self.compute.dtype, enabled=self.compute.autocast):
            frames = self.speech.features(self._on_device(batch.audio))
        log_probs = self._encode(frames).last
        return greedy_search(log_probs, frame_seconds=self.speech.frame_seconds)


def prior_weighted_ctc_loss(
    log_probs: Padded, targets: Padded, log_priors: Float[Tensor, " vocabulary"]
) -> Float[Tensor, " batch"]:
    """CTC over log p(k) - log_priors(k), which need not sum to one: -log of the sum over alignments.

    torch computes the gradient of its CTC loss for normalized input, as exp(input) - posterior. Subtracting
    the sum of exp(input) takes the first term away again, so that what reaches the logits is the exact
    gradient softmax - posterior, with the posterior of the weighted scores.
    """
    scores = Padded(log_probs.values - log_priors, log_probs.lengths)
    real = real_frames(scores.lengths, scores.values.shape[1])
    total = scores.values.exp().sum(dim=-1).masked_fill(~real, 0).sum(dim=1)
    return ctc_loss(scores, targets) - (total - total.detach())


def _blank_share(log_probs: Padded) -> Float[Tensor, ""]:
    real = real_frames(log_probs.lengths, log_probs.values.shape[1])
    best = log_probs.values.detach().argmax(dim=-1)
    return ((best == 0) & real).sum() / real.sum().clamp_min(1)


def _twice(padded: Padded) -> Padded:
    """View 1 of all utterances, then view 2."""
    return Padded(torch.cat([padded.values] * 2), torch.cat([padded.lengths] * 2))


def _rows(batch: Batch, start: int, end: int) -> Batch:
    def cut(padded: Padded) -> Padded:
        lengths: Int[Tensor, " rows"] = padded.lengths[start:end]
        return Padded(padded.values[start:end, : int(lengths.max())], lengths)

    return Batch(
        cut(batch.audio),
        cut(batch.targets),
        batch.ids[start:end],
        batch.texts[start:end],
        batch.keys[start:end],
    )


def _spread(samples: list[Sample], count: int) -> tuple[Sample, ...]:
    """The same few utterances at every validation: some short, some long."""
    if len(samples) <= count:
        return tuple(samples)
    return tuple(samples[round((n + 0.5) * len(samples) / count)] for n in range(count))
