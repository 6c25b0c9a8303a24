"""Speech recognition for languages and domains with little data.

    from firstwords import Recognizer
    print(Recognizer.load("my-model").transcribe("clip.wav").text)

Importing this package imports no torch; the names below load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from firstwords.errors import FirstwordsError
    from firstwords.inference.recognizer import Recognizer
    from firstwords.inference.transcript import Transcript

__version__ = "0.1.0"
__all__ = ["FirstwordsError", "Recognizer", "Transcript", "__version__"]


def __getattr__(name: str) -> Any:
    match name:
        case "Recognizer":
            from firstwords.inference.recognizer import Recognizer

            return Recognizer
        case "Transcript":
            from firstwords.inference.transcript import Transcript

            return Transcript
        case "FirstwordsError":
            from firstwords.errors import FirstwordsError

            return FirstwordsError
        case _:
            raise AttributeError(f"module 'firstwords' has no attribute '{name}'")
