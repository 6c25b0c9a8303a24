"""Transducer head: predictor, joiner, and the loss that trains them.

Graves, 2012, arXiv:1211.3711; pruned as in Kuang et al., 2022, arXiv:2206.13236. The loss of an utterance is

    full      -log P(target)
    pruned    a * simple + b * pruned
    with durations, full: that of a token-and-duration transducer (durations.py)

where a falls from 1 to ``simple_weight`` and b rises from 0.1 to 1, both linearly over ``warmup`` reference
batches: ranges of a young model are worth little. Outside training, and as long as nobody told it the
count, the head uses the last values of both, so that dev losses can be compared.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from firstwords.config import Config
from firstwords.heads.head import Head
from firstwords.heads.numeric import at_least_float32
from firstwords.heads.transducer.durations import joint_tdt_loss
from firstwords.heads.transducer.joiner import Joiner, shrink
from firstwords.heads.transducer.lattice import Topology
from firstwords.heads.transducer.predictor import PredictorConfig, StatelessConfig, build_predictor
from firstwords.heads.transducer.pruned import prune_ranges, pruned_loss, simple_paths
from firstwords.heads.transducer.rnnt import joint_rnnt_loss
from firstwords.nn.linear import Linear
from firstwords.tensors import Padded

_FIRST_PRUNED_WEIGHT = 0.1
_Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class TransducerConfig(Config):
    """Settings of a transducer head; the defaults are those published with Zipformer."""

    kind: Literal["transducer"] = "transducer"
    weight: NonNegativeFloat = 1.0  # factor on the loss of this head
    predictor: PredictorConfig = StatelessConfig()
    joiner_dim: PositiveInt = 512
    loss: Literal["pruned", "full"] = "pruned"
    topology: Topology = "regular"  # how many tokens a frame may have; see lattice.py
    prune_range: Annotated[int, Field(ge=2)] = 5  # rows of the lattice that the joiner sees at each frame
    simple_weight: PositiveFloat = 0.5  # of the simple loss, after the warm-up
    lm_scale: _Share = 0.25  # of the simple loss that knows only the history
    am_scale: _Share = 0.0  # of the simple loss that knows only the frame
    warmup: NonNegativeFloat = 2000.0  # reference batches; 0 = none
    # Frames by which a symbol goes on (TDT, durations.py), for example [0, 1, 2, 3, 4]; None: always one
    durations: tuple[Annotated[int, Field(ge=0)], ...] | None = None

    @model_validator(mode="after")
    def durations_can_be_taught(self) -> TransducerConfig:
        if self.durations is None:
            return self
        if list(self.durations) != sorted(set(self.durations)) or 1 not in self.durations:
            raise ValueError(
                f"durations = {list(self.durations)} must rise and hold 1, for example [0, 1, 2, 3, 4]: "
                "without 1 some recordings could not be filled"
            )
        if self.loss != "full":
            raise ValueError(
                'durations need loss = "full": the ranges of the pruned loss come from paths that cannot '
                "skip frames"
            )
        if self.topology != "regular":
            raise ValueError(
                f'durations need topology = "regular", not "{self.topology}": they themselves say how many '
                "frames a token takes"
            )
        return self

    @model_validator(mode="after")
    def shares_leave_something(self) -> TransducerConfig:
        if self.lm_scale + self.am_scale >= 1.0:
            raise ValueError("lm_scale + am_scale must be below 1: nothing would be left for both together")
        return self


@final
class TransducerHead(Head):
    """Predictor and joiner; for the pruned loss also two linear layers straight to the vocabulary.

    Args:
        dim: width of the encoder's output.
        vocabulary: number of pieces, blank (id 0) included.
    """

    simple_encoder: nn.Linear | None  # icefall: simple_am_proj
    simple_predictor: nn.Linear | None  # icefall: simple_lm_proj

    def __init__(self, config: TransducerConfig, dim: int, vocabulary: int) -> None:
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        self.predictor = build_predictor(config.predictor, vocabulary)
        self.joiner = Joiner(
            dim, self.predictor.dim, config.joiner_dim, vocabulary, len(config.durations or ())
        )
        self.simple_encoder = self.simple_predictor = None
        if config.loss == "pruned":
            self.simple_encoder = Linear(dim, vocabulary)
            self.simple_predictor = Linear(self.predictor.dim, vocabulary)
            shrink(self.simple_encoder)
            shrink(self.simple_predictor)
        self._count: float | None = None

    def set_step(self, count: float) -> None:
        """How far training is, in batches of the reference recipe."""
        self._count = count

    @property
    def mixture(self) -> tuple[float, float]:
        """Factors of the simple and of the pruned loss (Zipformer's recipe)."""
        last, warmup = self.config.simple_weight, self.config.warmup
        if not self.training or self._count is None or self._count >= warmup:
            return last, 1.0
        done = self._count / warmup
        return 1.0 + done * (last - 1.0), _FIRST_PRUNED_WEIGHT + done * (1.0 - _FIRST_PRUNED_WEIGHT)

    def loss(self, encoded: Padded, targets: Padded) -> Float[Tensor, " batch"]:
        """Encoded (B, T, D) and target ids (B, U) -> one loss per utterance, in nats.

        inf, with a gradient of zero, for an utterance without frames; under the topologies that allow one
        token per frame, and with durations above 0 only, also for one with too many tokens.
        """
        if self.config.durations is not None:
            predicted = self.predictor(targets)
            return joint_tdt_loss(self.joiner, encoded, predicted, targets, self.config.durations)
        if self.config.loss == "full":
            predicted = self.predictor(targets)
            return joint_rnnt_loss(self.joiner, encoded, predicted, targets, topology=self.config.topology)
        simple, pruned = self.both_losses(encoded, targets)
        weight_simple, weight_pruned = self.mixture
        return weight_simple * simple + weight_pruned * pruned

    def both_losses(
        self, encoded: Padded, targets: Padded
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """Simple and pruned loss of each utterance, unweighted, in nats; only where ``loss = "pruned"``."""
        assert self.simple_encoder is not None
        assert self.simple_predictor is not None
        config = self.config
        predicted = self.predictor(targets)
        paths = simple_paths(
            Padded(self.simple_encoder(encoded.values), encoded.lengths),
            self.simple_predictor(predicted),
            targets,
            lm_scale=config.lm_scale,
            am_scale=config.am_scale,
            topology=config.topology,
        )
        with torch.no_grad():
            starts, widths = prune_ranges(
                paths, encoded.lengths, targets.lengths, config.prune_range, topology=config.topology
            )
        pruned = pruned_loss(
            self.joiner, encoded, predicted, targets, starts, widths, topology=config.topology
        )
        return -paths.log_prob, pruned

    def next_log_probs(
        self, encoded: Float[Tensor, "*#shape joint"], predicted: Float[Tensor, "*#shape joint"]
    ) -> Tensor:
        """Frames and predictor outputs after their projections -> (..., V) natural-log probabilities."""
        return at_least_float32(self.joiner.join(encoded, predicted)).log_softmax(dim=-1)

    def duration_log_probs(
        self, encoded: Float[Tensor, "*#shape joint"], predicted: Float[Tensor, "*#shape joint"]
    ) -> Tensor:
        """The same inputs -> (..., durations) natural-log probabilities; only where there are durations."""
        return at_least_float32(self.joiner.join_durations(encoded, predicted)).log_softmax(dim=-1)
