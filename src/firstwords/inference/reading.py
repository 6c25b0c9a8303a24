"""Encoded frames in, what was said out: the search, the gate that keeps silent, the closed vocabulary.

encoded frames -> search -> is it speech? -> are all words known ones? -> readings
                            no: nothing      no: search again (search/closed.py)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from firstwords.model.speech_model import SpeechModel
from firstwords.search.closed import ClosedVocabulary
from firstwords.search.fusion import Scorers, weigh
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import SearchConfig
from firstwords.search.search import FrameWise, GreedyConfig, build_encoded_search
from firstwords.search.speech_gate import SpeechGate
from firstwords.tensors import Padded
from firstwords.text.tokenizer import Tokenizer


@final
class Reader:
    """What a recogniser makes of encoded frames.

    A closed vocabulary is used in greedy search alone: who names a beam, a language model or phrases has
    said what shall help. What has no weight says nothing, and leaves it on.
    """

    def __init__(
        self,
        model: SpeechModel,
        tokenizer: Tokenizer,
        gate: SpeechGate,
        config: SearchConfig,
        scorers: Scorers,
    ) -> None:
        self.search = build_encoded_search(config, dict(model.named_heads()), model.frame_seconds, scorers)
        self._gate, self._tokenizer = gate, tokenizer
        # The gate was measured on CTC where there is CTC (tasks/recognition.py).
        self._gated = model.ctc is None or isinstance(self.search, FrameWise)
        self._closed: ClosedVocabulary | None = None
        if model.ctc is not None and isinstance(config, GreedyConfig) and gate.words:
            helped = weigh(scorers, config.language_model, model.ctc.vocabulary)
            if not helped and scorers.spotter is None:
                self._closed = ClosedVocabulary(model.ctc, gate.words, tokenizer, model.frame_seconds)

    @property
    def closed_words(self) -> frozenset[str]:
        """The closed vocabulary that near misses are read as; empty where it is not used."""
        return frozenset() if self._closed is None else self._closed.words

    @property
    def judges(self) -> bool:
        """Is there any reading that the gate keeps back?"""
        return self._gated and self._gate.threshold > 0

    def __call__(self, encoded: Padded) -> list[list[Hypothesis]]:
        """(B, T, D) -> the readings of each utterance, best first; none where nobody speaks."""
        return self._judged(encoded, self.search(encoded))

    def many(self, batches: Sequence[Padded]) -> list[list[list[Hypothesis]]]:
        """The same for several batches."""
        return [
            self._judged(encoded, found)
            for encoded, found in zip(batches, self.search.many(batches), strict=True)
        ]

    def _judged(self, encoded: Padded, found: list[list[Hypothesis]]) -> list[list[Hypothesis]]:
        found = [readings if self.is_speech(readings[0]) else [] for readings in found]
        return found if self._closed is None else self._closed.mend(encoded, found)

    def is_speech(self, reading: Hypothesis) -> bool:
        """Is the model as sure of this text as it is of speech? See training/gate.py."""
        return not self._gated or self._gate.is_speech(reading, self._tokenizer)
