"""With what a model reads, the same for every verb that reads recordings.

A language model and phrases in the search, other models that read along, a second pass, stages of formatting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from firstwords.cli.post import Post, apply_post, check_post
from firstwords.cli.search_options import SearchOptions
from firstwords.cli.second_pass import SecondPassOptions

if TYPE_CHECKING:
    from firstwords.inference.recognizer import Recognizer


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """What these options were given."""

    search: SearchOptions
    second: SecondPassOptions
    post: Post = None

    @property
    def given(self) -> bool:
        """Shall a model read otherwise than by its recipe?"""
        return self.search.given or self.second.given or self.post is not None

    def check(self, *, stream: bool = False) -> None:
        """Which options go together; what is wrong with one is said before anything is loaded."""
        self.second.check(stream=stream)
        self.search.check(stream=stream)
        check_post(self.post, stream=stream)

    def help_search(
        self, recognizer: Recognizer, device: str, say: Callable[[str], None], *, int8: bool = False
    ) -> None:
        """Have the recogniser search as wished and a language model choose; say what must be known of it."""
        self.search.apply(recognizer, say, n_best=self.second.given, int8=int8)
        self.second.apply(recognizer, device, say)
        for line in self.second.words(recognizer):
            say(line)

    def format(self, recognizer: Recognizer, say: Callable[[str], None]) -> None:
        """Give the recogniser the stages that make text for people of its words."""
        apply_post(recognizer, self.post, say)

    @property
    def suffix(self) -> str:
        """For the name of a report's folder."""
        return self.search.suffix + ("-rescored" if self.second.given else "")
