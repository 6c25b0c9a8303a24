"""A trained model that says what it hears in the audio of a student's batch.

Where it hears utterances as they were recorded ("clean"), each is read alone and kept on disk (cache.py):
what it says does then not depend on who else is in the batch, nor on what was kept, so a run that was killed
goes on with the same numbers. What was put together for one epoch (utterances joined, non-speech) and all
that is varied is computed with its batch. In any case it is rounded to half precision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast, final

import torch
from jaxtyping import Int
from torch import Tensor

from firstwords.device import Compute
from firstwords.errors import ConfigError
from firstwords.heads.attention.objective import TaughtHead, lesson_of
from firstwords.heads.intermediate import Tappable
from firstwords.heads.transducer.head import TransducerHead
from firstwords.heads.transducer.joiner import joint_scores
from firstwords.model.checkpoint import LoadedModel, weights_digest
from firstwords.model.speech_model import SpeechModel
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import CtcBeamConfig
from firstwords.search.search import build_encoded_search
from firstwords.tensors import Padded
from firstwords.training.distillation.cache import TargetCache
from firstwords.training.distillation.losses import Reading, collapsed

Target = dict[str, Tensor]  # what was said of one utterance, in half precision on the CPU
FRAMES, TOKENS, LATTICE, HIDDEN = "frames", "tokens", "lattice", "hidden"
_READINGS, _READING_LENGTHS, _SHARES = "readings", "reading_lengths", "shares"
_BEAM = 2  # times the readings wanted


@dataclass(frozen=True)
class Questions:
    """What is asked of a teacher.

    Args:
        frames: (T, V) log-probabilities of its CTC head.
        readings: how many of its readings; 0: none.
        tokens: (U + 1, V) log-probabilities of its attention decoder.
        lattice: (T, U + 1, 3) collapsed log-probabilities of its transducer.
        hidden: encoded frames (T, D) after these layers, the output where there are none; None: not asked.
    """

    frames: bool = False
    readings: int = 0
    tokens: bool = False
    lattice: bool = False
    hidden: tuple[int, ...] | None = None


class Asked(NamedTuple):
    """Rows of a batch: ids, the speed of each (0: put together), seeds of what is random."""

    audio: Padded
    targets: Padded
    ids: tuple[str, ...]
    speeds: tuple[float, ...]
    keys: Int[Tensor, " batch"]


@final
class Teacher:
    """A model in evaluation mode, and what it said before.

    Args:
        hear: id and speed -> the clean samples (S,) of an utterance; None: everything is heard as it comes.
        warp: features and keys -> features at the student's times ("varied").
    """

    def __init__(
        self,
        loaded: LoadedModel,
        questions: Questions,
        compute: Compute,
        *,
        cache: TargetCache | None = None,
        hear: Callable[[str, float], Tensor | None] | None = None,
        warp: Callable[[Padded, Tensor], Padded] | None = None,
    ) -> None:
        self.model = loaded.model.to(compute.device).eval().requires_grad_(False)
        self.questions, self.compute, self.cache = questions, compute, cache
        self.hear, self.warp = hear, warp
        self._search = None
        if questions.readings:
            config = loaded.recipe.search
            if self.model.ctc is not None:
                config = CtcBeamConfig(beam=_BEAM * questions.readings, n_best=questions.readings)
            heads = dict(self.model.named_heads())
            self._search = build_encoded_search(config, heads, self.model.frame_seconds)

    def says(self, asked: Asked) -> list[Target]:
        """What it says of each row."""
        found: list[Target | None] = [self._kept(asked, row) for row in range(len(asked.ids))]
        left = [row for row, target in enumerate(found) if target is None]
        if left:
            rows = torch.tensor(left, device=asked.audio.values.device)
            audio = Padded(asked.audio.values[rows], asked.audio.lengths[rows])
            audio = Padded(audio.values[:, : int(audio.lengths.max())], audio.lengths)
            targets = Padded(asked.targets.values[rows], asked.targets.lengths[rows])
            computed = self._compute(audio, targets, asked.keys[torch.tensor(left)])
            for row, target in zip(left, computed, strict=True):
                found[row] = target
        return [cast("Target", target) for target in found]

    def _kept(self, asked: Asked, row: int) -> Target | None:
        """What it says of a clean utterance; None where the row is none, or cannot be read."""
        if self.hear is None or not asked.speeds or not asked.speeds[row]:
            return None
        name = f"{asked.ids[row]}@{asked.speeds[row]:g}"
        if self.cache is not None and (kept := self.cache.get(name)) is not None:
            return kept
        samples = self.hear(asked.ids[row], asked.speeds[row])
        if samples is None:
            return None
        place = self.compute.device
        audio = Padded(samples[None].to(place), torch.tensor([len(samples)], device=place))
        length = int(asked.targets.lengths[row])
        targets = Padded(asked.targets.values[row : row + 1, :length], asked.targets.lengths[row : row + 1])
        (target,) = self._compute(audio, targets, None)
        if self.cache is not None:
            self.cache.put(name, target)
        return target

    @torch.no_grad()
    def _compute(self, audio: Padded, targets: Padded, keys: Tensor | None) -> list[Target]:
        model, asked = self.model, self.questions
        place = self.compute.device.type
        with torch.autocast(place, self.compute.dtype, enabled=self.compute.autocast):
            frames = model.features(audio)
            if self.warp is not None and keys is not None:
                frames = self.warp(frames, keys)
            encoded, hidden = self._encode(frames)
            encoded = Padded(encoded.values.float(), encoded.lengths)
            whole: dict[str, Padded] = {}
            if asked.frames and model.ctc is not None:
                whole[FRAMES] = model.ctc.log_probs(encoded)
            if asked.tokens:
                whole[TOKENS] = token_scores(cast("TaughtHead", model.heads["attention"]), encoded, targets)
            if asked.lattice:
                head = cast("TransducerHead", model.heads["transducer"])
                whole[LATTICE] = Padded(lattice_scores(head, encoded, targets), encoded.lengths)
            for n, layer in enumerate(hidden):
                whole[f"{HIDDEN}{n}"] = layer
        readings = self._search(encoded) if self._search is not None else None
        return [
            _row(whole, targets, row, None if readings is None else readings[row][: asked.readings])
            for row in range(len(targets.lengths))
        ]

    def _encode(self, frames: Padded) -> tuple[Padded, list[Padded]]:
        layers = self.questions.hidden
        if layers is None:
            return self.model.encode_frames(frames), []
        if not layers:
            encoded = self.model.encode_frames(frames)
            return encoded, [encoded]
        return cast("Tappable", self.model.encoder).forward_with_intermediate(frames, layers)


def token_scores(head: TaughtHead, encoded: Padded, targets: Padded) -> Padded:
    """Encoded (B, T, D) and ids (B, U) -> (B, U + 1, V) natural-log probabilities of the next unit."""
    if head.longest is not None:
        targets = Padded(targets.values[:, : head.longest], targets.lengths.clamp_max(head.longest))
    lesson = lesson_of(targets, head.vocabulary)
    return Padded(head.write(encoded, lesson).logits.float().log_softmax(dim=-1), lesson.lengths)


def lattice_scores(head: TransducerHead, encoded: Padded, targets: Padded) -> Tensor:
    """Encoded (B, T, D) and ids (B, U) -> (B, T, U + 1, 3) collapsed log-probabilities of every node."""
    batch, time = encoded.values.shape[:2]
    ids = targets.values.masked_fill(
        torch.arange(targets.values.shape[1], device=targets.values.device) >= targets.lengths[:, None], 0
    )
    labels = torch.cat((ids, ids.new_zeros(batch, 1)), dim=1)[:, None].expand(-1, time, -1).contiguous()
    starts = ids.new_zeros(batch, time)
    token, blank = joint_scores(head.joiner, encoded, head.predictor(targets), starts, labels, keep=False)
    return collapsed(token, blank, targets.lengths)


def _row(
    whole: Mapping[str, Padded], targets: Padded, row: int, readings: Sequence[Hypothesis] | None
) -> Target:
    """One utterance's part of a batch, without padding, rounded to half precision."""
    found: Target = {}
    for name, padded in whole.items():
        values = padded.values[row, : int(padded.lengths[row])]
        if name == LATTICE:
            values = values[:, : int(targets.lengths[row]) + 1]
        found[name] = values.to("cpu", torch.float16).contiguous()
    if readings is not None:
        scores = torch.tensor([reading.score for reading in readings], dtype=torch.float64)
        flat = [token for reading in readings for token in reading.tokens]
        found[_READINGS] = torch.tensor(flat, dtype=torch.int64)
        found[_READING_LENGTHS] = torch.tensor([len(r.tokens) for r in readings], dtype=torch.int64)
        found[_SHARES] = scores.softmax(dim=0).float()
    return found


def readings_of(target: Target) -> list[Reading]:
    """The readings of an utterance, with their shares."""
    lengths = target[_READING_LENGTHS].tolist()
    parts = target[_READINGS].split(lengths) if lengths else ()
    shares = target[_SHARES].tolist()
    return [Reading(tuple(p.tolist()), share) for p, share in zip(parts, shares, strict=True)]


def questions_for(
    student: SpeechModel, teacher: SpeechModel, *, ctc: str, readings: int, hidden: tuple[int, ...] | None
) -> Questions:
    """What a teacher can be asked for a student; ConfigError where the two do not go together.

    Args:
        ctc: "auto", "frames" or "sequence", as in the recipe.
        hidden: layers of the teacher; None: not wanted.
    """
    same_rate = abs(student.frame_seconds - teacher.frame_seconds) < 1e-6
    rates = f"{1000 * student.frame_seconds:g} ms a frame, the teacher {1000 * teacher.frame_seconds:g} ms"
    by_frame = ctc == "frames" or (ctc == "auto" and same_rate and teacher.ctc is not None)
    by_frame = by_frame and student.ctc is not None
    if by_frame and (not same_rate or teacher.ctc is None):
        why = "the teacher has no CTC head" if teacher.ctc is None else f"the student has {rates}"
        raise ConfigError(
            f'distillation.ctc = "frames": {why}.', mend='Set distillation.ctc = "sequence" or "auto".'
        )
    if hidden is not None and not same_rate:
        raise ConfigError(
            f"distillation.hidden: frames are compared one by one, but the student has {rates}.",
            mend="Set distillation.hidden = 0, or give the student the teacher's subsampling.",
        )
    if hidden:
        if teacher.ctc is not None and teacher.ctc.config.self_conditioned:
            raise ConfigError(
                "distillation.hidden_layers: the teacher feeds its own predictions back between them.",
                mend="Set distillation.hidden_layers = []: its output alone.",
            )
        if not isinstance(teacher.encoder, Tappable):
            raise ConfigError(
                f"distillation.hidden_layers = {list(hidden)}: the teacher's encoder cannot be looked into.",
                mend="Set distillation.hidden_layers = []: its output alone.",
            )
    both = set(student.heads) & set(teacher.heads)
    questions = Questions(
        frames=by_frame,
        readings=readings if student.ctc is not None and not by_frame else 0,
        tokens="attention" in both,
        lattice="transducer" in both and same_rate,
        hidden=hidden,
    )
    if questions == Questions():
        raise ConfigError(
            f"The teacher has {', '.join(teacher.heads)} and the student {', '.join(student.heads)}: it "
            "cannot be taught anything.",
            mend="Give the student [heads.ctc], or a head of the teacher's kind at the same rate.",
        )
    return questions


def target_key(
    loaded: LoadedModel, questions: Questions, corpus: str, compute: Compute, *, heard: str
) -> str:
    """Fingerprint of all that targets of clean utterances depend on.

    Args:
        heard: how the run of the student reads audio: channels, rate, pitch of other speeds.
    """
    facts = (
        weights_digest(loaded.model.state_dict()),
        loaded.recipe.features.model_dump_json(),
        loaded.recipe.encoder.model_dump_json(),
        loaded.recipe.search.model_dump_json(),
        heard,
        loaded.tokenizer.piece_hash,
        repr(questions),
        corpus,
        f"{compute.device.type} {compute.dtype if compute.autocast else torch.float32}",
    )
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:20]
