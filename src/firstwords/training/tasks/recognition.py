"""Speech recognition as a training task: losses of a batch over all heads, error rates of a dev set.

What CTC needs beside its loss (views that agree, inner losses, priors) is in ctc_objective.py. With several
heads the loss of an utterance is the sum of theirs, each times its ``weight``: 0.3 for CTC and 0.7 for an
attention decoder is the mixture of Watanabe et al., 2017.

The encoder runs in the number format of the machine (autocast), losses in float32.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from firstwords.data.batch import Batch
from firstwords.data.sampler import cost_of
from firstwords.device import Compute
from firstwords.encoders.zipformer.constraints import Whiten
from firstwords.features.specaugment import SpecAugment
from firstwords.heads.head import TokenHead
from firstwords.model.speech_model import SpeechModel
from firstwords.scoring.error_rate import ErrorRate, grapheme_errors, word_errors
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.search import AttentionBeamConfig, GreedyConfig, build_encoded_search, quick_search
from firstwords.search.speech_gate import SpeechGate
from firstwords.search.token_beam import PATIENCE
from firstwords.tensors import Padded
from firstwords.text.tokenizer import Tokenizer
from firstwords.training.distillation.objective import Distillation, trained_along
from firstwords.training.distillation.teacher import Asked
from firstwords.training.gate import Heard
from firstwords.training.monitor import BlankMonitor
from firstwords.training.tasks.ctc_objective import CtcObjective
from firstwords.training.tasks.task import Advice, Loss, Sample, Task, Validation

SAMPLES = 3  # decoded utterances shown at each validation


@dataclass(frozen=True)
class RecognitionSettings:
    """What of a recipe the task needs.

    Args:
        consistency_start: reference batches from which on there are two views (CR-CTC); before, one.
        consistency_warmup: reference batches from there until the consistency loss has its full weight.
        mask_warmup: reference batches until masks have their full width; 0: they have it from the start.
        frozen_steps: steps in which only the heads learn (fine-tuning).
        scoring: text -> text before errors are counted.
    """

    scoring: Callable[[str], str]
    consistency_start: float = 0.0
    consistency_warmup: float = 2000.0
    mask_warmup: float = 0.0
    frozen_steps: int = 0


@final
class RecognitionTask(Task[Batch]):
    """A SpeechModel that learns to write down what it hears.

    Args:
        masking: SpecAugment on the features; None: features as they are.
        words: all there are; none: any (search/speech_gate.py).
        distillation: what a teacher adds; None: transcripts alone.
    """

    def __init__(
        self,
        model: SpeechModel,
        tokenizer: Tokenizer,
        *,
        compute: Compute,
        masking: SpecAugment | None,
        settings: RecognitionSettings,
        words: frozenset[str] = frozenset(),
        distillation: Distillation | None = None,
    ) -> None:
        self.model: nn.Module = trained_along(model, distillation)
        self.distillation = distillation
        self.speech = model
        self.ctc = CtcObjective(model.ctc) if model.ctc is not None else None
        self.tokenizer = tokenizer
        self.compute = compute
        self.masking = masking
        self.settings = settings
        self.monitor = BlankMonitor()
        # Dev is for choosing weights, not for the last word: read with the heads of the recipe's search,
        # but quickly. The card names this search.
        self.dev_search = quick_search(model.recipe.search)
        heads = dict(model.named_heads())
        self._search = build_encoded_search(self.dev_search, heads, model.frame_seconds)
        # The gate judges what CTC says where there is CTC: streams and recognizers rely on that.
        self._gate_search = self._search
        if self.ctc is not None and not isinstance(self.dev_search, GreedyConfig):
            self._gate_search = build_encoded_search(GreedyConfig(), heads, model.frame_seconds)
        self.count = 0.0
        self.heard: list[Heard] = []  # of the last validation
        self._gate = SpeechGate(words=words)

    def set_step(self, step: int, count: float) -> None:
        """Regularisers follow ``count``; the encoder is frozen for the first steps of a fine-tuning."""
        self.count = count
        self.speech.set_step(count)
        if self.ctc is not None:
            self.ctc.one_view_yet = count < self.settings.consistency_start
        if self.settings.frozen_steps:
            for part in (self.speech.frontend, self.speech.encoder):
                part.requires_grad_(step > self.settings.frozen_steps)

    def loss(self, batch: Batch) -> Loss:
        """Sums over the batch; for CTC, an utterance that cannot align adds nothing."""
        size = float(batch.audio.lengths.sum()) / self.speech.recipe.data.sample_rate
        audio, targets = self._on_device(batch.audio), self._on_device(batch.targets)
        asked = Asked(audio, targets, batch.ids, batch.speeds, batch.keys)
        two_views = self.ctc is not None and self.ctc.two_views
        frames = self._masked(self.speech.features(audio), batch.keys, two_views=two_views)
        if two_views:
            targets = _twice(targets)
        parts: dict[str, Tensor] = {}
        with self._autocast():
            tapped = self.speech.encode_with_taps(frames)
            losses = {
                name: head.loss(tapped.encoded, targets)
                for name, head in self.speech.named_heads()
                if name != "ctc"
            }
        each = torch.zeros(len(batch.ids), device=audio.values.device)
        log_probs = None
        if self.ctc is not None:
            self.ctc.prior_weight = self.monitor.prior_weight
            since = self.count - self.settings.consistency_start
            made = self.ctc.loss(tapped, targets, warm=since / max(self.settings.consistency_warmup, 1.0))
            each = each + made.each
            log_probs = made.log_probs
            if losses or self.distillation is not None or len(made.parts) > 1:
                parts = {name: part.sum() for name, part in made.parts.items()}
            parts["blank"] = size * made.blank_share
        for name, loss in losses.items():
            loss = loss.masked_fill(self._impossible(name, loss, targets), 0.0)
            mean = loss.unflatten(0, (-1, len(batch.ids))).mean(dim=0)
            parts[name] = mean.detach().sum()
            each = each + self.speech.recipe.heads[name].weight * mean
        if self.distillation is not None:
            encoded = Padded(tapped.encoded.values.float(), tapped.encoded.lengths)
            taught = self.distillation.loss(asked, encoded, log_probs)
            parts |= {name: part.sum() for name, part in taught.parts.items()}
            each = (1.0 - taught.share) * each + taught.share * taught.each
        return Loss(each.sum(), parts, size, each.detach())

    def _impossible(self, name: str, loss: Tensor, targets: Padded) -> Bool[Tensor, " rows"]:
        """Utterances that a head cannot write: joined ones may have more text than any single one."""
        head = self.speech.heads[name]
        if isinstance(head, TokenHead):
            most = head.longest
            return torch.zeros_like(loss, dtype=torch.bool) if most is None else targets.lengths > most
        return loss.isinf()  # a transducer none of whose paths writes the text

    def validate(self, batches: Iterable[Batch]) -> Validation:
        """Quick decoding -> CER (the objective) and WER after the scoring normalizer, both raw ones too."""
        training = self.model.training
        self.model.eval()
        score = self.settings.scoring
        words, graphemes, raw = ErrorRate(), ErrorRate(), ErrorRate()
        samples: list[Sample] = []
        utterances = empty = false_alarms = silent = 0
        self.heard = []
        with torch.inference_mode():
            for batch in batches:
                encoded = self._encoded(batch)
                read = _best(self._search(encoded))
                same = self._gate_search is self._search
                gated = read if same else _best(self._gate_search(encoded))
                for name, reference, found, judged in zip(batch.ids, batch.texts, read, gated, strict=True):
                    text = self.tokenizer.decode(found.tokens)
                    utterances += 1
                    if not reference:
                        silent += 1
                        false_alarms += bool(text)
                    empty += not text
                    raw += grapheme_errors(reference, text)
                    errors = word_errors(score(reference), score(text))
                    words += errors
                    if (sure := self._gate.sureness(judged, self.tokenizer)) is not None:
                        hits = errors.hits
                        if not same:
                            hits = word_errors(
                                score(reference), score(self.tokenizer.decode(judged.tokens))
                            ).hits
                        self.heard.append(Heard(sure, hits))
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

    def validation_seconds(self, batches: Iterable[Batch]) -> float:
        """Dev batches -> wall clock of a validation when the model is trained.

        Frame by frame an untrained model reads as slowly as a trained one. An untrained attention decoder
        ends its sentences after a few tokens; what longer ones cost is measured on the batch with most of
        them, whose search is made to go on to the length of the transcripts.
        """
        work: list[int] = []
        largest: list[Batch] = []  # at most one

        def noted() -> Iterator[Batch]:
            for batch in batches:
                work.append(len(batch.ids) * _steps(batch))
                if work[-1] == max(work):
                    largest[:] = [batch]
                yield batch

        started = time.monotonic()
        self.validate(noted())
        seconds = time.monotonic() - started
        if not isinstance(self.dev_search, AttentionBeamConfig) or not largest:
            return seconds
        (batch,) = largest
        training = self.model.training
        self.model.eval()
        with torch.inference_mode():
            encoded = self._encoded(batch)
            frames = max(1, int(encoded.lengths.max()))
            patient = self.dev_search.with_(
                max_length=_steps(batch) / frames, min_length=0.0, end_margin=float("inf")
            )
            heads = dict(self.speech.named_heads())
            took: list[float] = []
            for search in (self._search, build_encoded_search(patient, heads, self.speech.frame_seconds)):
                started = time.monotonic()
                search(encoded)
                took.append(time.monotonic() - started)
        self.model.train(training)
        return seconds + max(0.0, took[1] - took[0]) * sum(work) / max(work)

    def answers(self, non_speech: Iterable[Batch]) -> list[float]:
        """How sure the model is of the texts that non-speech gets; none where it keeps silent."""
        training = self.model.training
        self.model.eval()
        with torch.inference_mode():
            readings = [
                reading for batch in non_speech for reading in _best(self._gate_search(self._encoded(batch)))
            ]
        self.model.train(training)
        found = [self._gate.sureness(reading, self.tokenizer) for reading in readings]
        return [sure for sure in found if sure is not None]

    def watch(self, step: int, progress: float, loss: float, means: Mapping[str, float]) -> Advice | None:
        """Is the model stuck on blanks, or does the loss grow? See monitor.py."""
        if self.distillation is not None and (news := self.distillation.news()):
            return Advice(news)
        said = self.monitor.update(progress, blank=means.get("blank", 0.0), loss=loss)
        if self.monitor.asks_for_half_rate(step):
            return Advice(f"The loss has grown to {loss:.2f}: the learning rate is halved.", 0.5)
        return Advice(said) if said else None

    def state(self) -> dict[str, Any]:
        """Monitor, label frequencies, what the encoder's regularisers remember, and when it is thawed."""
        high = {name: module.high for name, module in self._whitens()}
        priors = self.ctc.priors if self.ctc is not None else []
        own = {"monitor": self.monitor.to_record(), "priors": priors, "whiten": high}
        return own | {"frozen_steps": self.settings.frozen_steps}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.monitor.load(state["monitor"])
        if self.ctc is not None:
            self.ctc.priors = list(state["priors"])
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
        warmup = self.settings.mask_warmup
        strength = min(1.0, self.count / warmup) if warmup else 1.0
        if not two_views:
            return self.masking(frames, keys, strength=strength)
        warped = self.masking.warp_time(frames, keys)
        one, two = (self.masking.mask(warped, keys, view=v, strength=strength) for v in (0, 1))
        return Padded(torch.cat([one.values, two.values]), torch.cat([one.lengths, two.lengths]))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.compute.device.type, self.compute.dtype, enabled=self.compute.autocast)

    def _encoded(self, batch: Batch) -> Padded:
        with self._autocast():
            encoded = self.speech.encode(self._on_device(batch.audio))
        return Padded(encoded.values.float(), encoded.lengths)


def _best(found: list[list[Hypothesis]]) -> list[Hypothesis]:
    return [readings[0] for readings in found]


def _steps(batch: Batch) -> int:
    """Tokens that a search over a batch goes through: the longest transcript and the wait after it."""
    return int(batch.targets.lengths.max()) + PATIENCE


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
        batch.speeds[start:end],
    )


def _spread(samples: list[Sample], count: int) -> tuple[Sample, ...]:
    """The same few utterances at every validation: some short, some long."""
    if len(samples) <= count:
        return tuple(samples)
    return tuple(samples[round((n + 0.5) * len(samples) / count)] for n in range(count))
