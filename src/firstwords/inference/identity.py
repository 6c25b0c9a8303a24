"""What a recogniser's text depends on, each thing in the words in which a user is told of a change."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from firstwords.audio.waveform import ChannelPolicy, channel_policy
from firstwords.device import Compute
from firstwords.formatting.stage import Formatter
from firstwords.inference.committee import Committee
from firstwords.inference.early_exit import EarlyExit
from firstwords.inference.journal import journal_header
from firstwords.inference.second_pass import SecondPass
from firstwords.model.checkpoint import bare_digest
from firstwords.model.recipe import Recipe
from firstwords.search.fusion import Scorers
from firstwords.search.interface import SearchConfig
from firstwords.search.speech_gate import SpeechGate
from firstwords.text.tokenizer import Tokenizer


class Reads(Protocol):
    """All that takes part in a recogniser's text."""

    recipe: Recipe
    channels: ChannelPolicy
    tokenizer: Tokenizer
    compute: Compute
    speech_gate: SpeechGate
    search_config: SearchConfig
    scorers: Scorers
    early_exit: EarlyExit | None
    committee: Committee | None
    second_pass: SecondPass | None

    @property
    def identity(self) -> dict[str, str]: ...


def identity_of(recognizer: Reads, weights: str, formatter: Formatter | None) -> dict[str, str]:
    """What the text depends on beside the audio.

    Args:
        weights: fingerprint of the model's.
    """
    own = recognizer
    model = (bare_digest(own.recipe), own.tokenizer.piece_hash, weights)
    usual = channel_policy(own.recipe.data.channels)
    return {
        "model": " ".join((*model, own.speech_gate.identity)).rstrip(),
        "search": own.search_config.model_dump_json()
        + ("" if own.early_exit is None else f" {own.early_exit.identity}"),
        "language model or list of phrases": own.scorers.identity,
        "choice of models that read along": "" if own.committee is None else own.committee.identity,
        "second pass": "" if own.second_pass is None else own.second_pass.identity,
        "channel": "" if own.channels == usual else str(own.channels),
        "formatting": "" if formatter is None else formatter.identity,
    }


def journal_identity(
    recognizer: Reads, audio: Path, start: float, duration: float | None, window: str
) -> dict[str, str]:
    """What a journal belongs to; ``window``: how the recording is cut and batched."""
    compute = recognizer.compute
    return journal_header(recognizer.identity, audio, start, duration, window) | {
        "device": f"{compute.device.type} {compute.dtype}"
    }
