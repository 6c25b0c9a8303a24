"""What a stream gives: text that may still change, and text that is final."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from firstwords.inference.endpointing import Reason
from firstwords.inference.transcript import Token, Transcript, Word


@dataclass(frozen=True)
class Partial:
    """The utterance that is being spoken, as read so far; sent when its text has changed.

    Args:
        stable: the beginning of ``text`` that no later sound changes.
        tokens: with times in seconds of the stream.
        heard: seconds of the stream that were needed for it.
    """

    text: str
    stable: str
    tokens: tuple[Token, ...]
    heard: float

    def to_record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        times = [{"start": round(t.start, 3), "end": round(t.end, 3)} for t in self.tokens]
        heard = round(self.heard, 3)
        return {
            "event": "partial",
            "text": self.text,
            "stable": self.stable,
            "heard": heard,
            "tokens": times,
        }


@dataclass(frozen=True)
class Final:
    """An utterance that is over; its text never changes. Without speech the text is empty.

    Args:
        transcript: with times in seconds of the stream.
        reason: the rule that ended it (endpointing.py), "end" at the end of the stream.
        start: of its words; without words, of the time it covers.
        end: likewise.
    """

    transcript: Transcript
    reason: Reason
    start: float
    end: float
    heard: float

    @property
    def text(self) -> str:
        return self.transcript.text

    @property
    def words(self) -> tuple[Word, ...]:
        return self.transcript.words

    def to_record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        times = {name: round(getattr(self, name), 3) for name in ("start", "end", "heard")}
        words = [asdict(word) for word in self.words]
        return {"event": "final", "text": self.text, "reason": self.reason, **times, "words": words}


Event = Partial | Final
