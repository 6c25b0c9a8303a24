"""Early exit: an utterance that a CTC model has understood after half of its layers is not encoded further.

A model that was trained with CTC losses inside its encoder (heads/intermediate.py) reads at each of those
stacks what its output would be, had no stack followed. How sure it is there decides, for each utterance or
window by itself:

    confidence     exp(mean over frames of log max p)          the geometric mean of its best labels
    certainty      1 - mean over frames of entropy / log V

from 0 to 1; above a threshold this reading is taken. In a batch the encoder goes on until the last utterance
has left; who left before keeps what it had, so an utterance gives the same text in any batch. Threshold and
measure are chosen on dev by ``firstwords compress early-exit`` and kept beside the model in
``early_exit.toml``. Streams and searches that ask other heads than CTC are encoded as a whole.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from firstwords.config import Config, dump_config, read_config
from firstwords.errors import CheckpointError, ConfigError, UsageError
from firstwords.files import write_atomically
from firstwords.heads.ctc import CtcHead
from firstwords.heads.intermediate import Tappable
from firstwords.model.checkpoint import weights_digest
from firstwords.model.speech_model import SpeechModel
from firstwords.search.interface import SearchConfig
from firstwords.search.search import needed_heads
from firstwords.tensors import Padded, real_frames

FILE = "early_exit.toml"
Measure = Literal["confidence", "certainty"]
MEASURES: tuple[Measure, ...] = ("confidence", "certainty")
_Share = Annotated[float, Field(ge=0.0)]


class ExitPoint(Config):
    """What a threshold did on dev (rates and shares as fractions)."""

    above: _Share
    cer: _Share
    seconds_share: _Share  # of the wall clock of encoding everything
    exits: dict[str, int] = Field(default_factory=dict[str, int])  # stack, or "end" -> utterances


class ExitSettings(Config):
    """``early_exit.toml``: the threshold, for which weights it was chosen, and how it was."""

    format: Literal[1] = 1
    model: str  # fingerprint of the weights
    above: _Share
    measure: Measure = "confidence"
    corpus: str = ""
    split: str = "dev"
    utterances: int = 0
    cer_whole: _Share = 0.0
    curve: tuple[ExitPoint, ...] = ()


def sureness(log_probs: Padded, measure: Measure) -> Float[Tensor, " batch"]:
    """(B, T, V) CTC log-probabilities -> how sure they are of each utterance, 0 to 1; 0 without a frame."""
    values = log_probs.values.float()
    real = real_frames(log_probs.lengths, values.shape[1])
    counts = log_probs.lengths.clamp_min(1)
    if measure == "confidence":
        found = (values.amax(dim=-1).masked_fill(~real, 0.0).sum(dim=1) / counts).exp()
    else:
        entropy = -(values.exp() * values).sum(dim=-1) / torch.log(torch.tensor(float(values.shape[2])))
        found = 1.0 - entropy.masked_fill(~real, 0.0).sum(dim=1) / counts
    return found.masked_fill(log_probs.lengths == 0, 0.0)


def check_taps(model: SpeechModel) -> CtcHead:
    """The CTC head of a model that can be left early; UsageError for others."""
    head = model.ctc
    if head is None or not head.config.intermediate or not isinstance(model.encoder, Tappable):
        raise UsageError(
            "This model has one reading, at its end: it was not trained with CTC losses inside its encoder.",
            mend="Train one with heads.ctc.intermediate, for example [2, 3] for a Zipformer of 6 stacks.",
        )
    return head


@final
class EarlyExit:
    """Encodes, and stops when all utterances of a batch are clear.

    ``exits`` counts where they left: a stack, or -1 for the end.
    """

    def __init__(self, model: SpeechModel, above: float, measure: Measure = "confidence") -> None:
        check_taps(model)
        self.model, self.above = model, above
        self.measure: Measure = measure
        self.exits: Counter[int] = Counter()

    @property
    def identity(self) -> str:
        """What the text depends on."""
        return f"{self.measure} {self.above:g}"

    def encode(self, audio: Padded) -> Padded:
        """(B, S) samples -> (B, T', D) encoded frames, each row's from where it left."""
        rows = len(audio.lengths)
        left: dict[int, tuple[int, Tensor]] = {}

        def enough(stack: int, tap: Padded, log_probs: Padded) -> bool:
            sure = sureness(log_probs, self.measure).tolist()
            for row in range(rows):
                if row not in left and sure[row] >= self.above:
                    left[row] = stack, tap.values[row]
            return len(left) == rows

        encoded = self.model.encode_with_taps(self.model.features(audio), enough).encoded
        values = encoded.values
        if left:
            values = torch.stack(
                [left[row][1].to(values.dtype) if row in left else values[row] for row in range(rows)]
            )
        self.exits.update(left[row][0] if row in left else -1 for row in range(rows))
        return Padded(values, encoded.lengths)


def read_exit(folder: Path) -> ExitSettings | None:
    """``early_exit.toml`` of a model folder, if there is one."""
    if not (folder / FILE).is_file():
        return None
    try:
        return read_config(folder / FILE, ExitSettings, name=FILE)
    except ConfigError as error:
        raise CheckpointError(error.what, mend=error.mend) from None


def write_exit(folder: Path, settings: ExitSettings) -> None:
    """Settings -> ``early_exit.toml``."""
    write_atomically(folder / FILE, dump_config(settings))


def early_exit_of(
    folder: Path, model: SpeechModel, above: float | None, search: SearchConfig
) -> EarlyExit | None:
    """The early exit that a recogniser shall use; None for none.

    Args:
        above: threshold; None: that of the folder, if one was chosen for these weights and the search reads
            CTC alone. Above 1 nothing ever leaves early.
    """
    stored = read_exit(folder)
    alone = needed_heads(search) == ("ctc",)
    if above is None:
        if stored is None or not alone or stored.model != weights_digest(model.state_dict()):
            return None
        return None if stored.above > 1.0 else EarlyExit(model, stored.above, stored.measure)
    if not above >= 0.0:
        raise UsageError(f"exit_above = {above}: expected a number from 0 on.", mend="Mostly 0.9 to 0.99.")
    if above > 1.0:
        return None
    if not alone:
        raise UsageError(
            f"Early exit reads what CTC says inside the encoder, but the search '{search.kind}' asks "
            f"{', '.join(needed_heads(search))}.",
            mend="Use the search greedy or ctc_beam, or no early exit.",
        )
    return EarlyExit(model, above) if stored is None else EarlyExit(model, above, stored.measure)
