"""``firstwords transcribe`` with a model folder; torch is loaded when the model is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, final

from firstwords.cli.stream_options import CHUNK_MS, StreamOptions
from firstwords.cli.transcribe_with import Hears, Loaded, Wanted
from firstwords.errors import UsageError

if TYPE_CHECKING:
    from firstwords.inference.listener import Listener
    from firstwords.inference.recognizer import Recognizer


@final
class ModelOpener:
    """A model folder that is not loaded yet; ``say`` gets what a user must be told of it."""

    def __init__(self, wanted: Wanted, say: Callable[[str], None]) -> None:
        self._wanted, self._say = wanted, say

    def for_recordings(self) -> Loaded:
        """A recogniser with everything that shall help it."""
        wanted, reading = self._wanted, self._wanted.reading
        recognizer = self._load()
        reading.help_search(recognizer, wanted.loading.device, self._say, int8=wanted.loading.int8)
        reading.format(recognizer, self._say)
        told = Loaded(recognizer, lambda: reading.second.tell(recognizer, self._say))
        return told.hearing(wanted.channels)

    def for_stream(self) -> Hears:
        """A recogniser whose search is one of streams."""
        from firstwords.inference.streaming import read_otherwise

        recognizer = self._load()
        self._wanted.reading.search.apply(recognizer, self._say, stream=True)
        if (told := read_otherwise(recognizer.search_config)) is not None:
            self._say(told)
        return _ModelHears(recognizer)

    def _load(self) -> Recognizer:
        from firstwords.device import read_precision, set_threads
        from firstwords.inference.recognizer import Recognizer

        set_threads()
        loading = self._wanted.loading
        if loading.int8 and loading.precision == "bf16":
            raise UsageError("--int8 and --precision bf16: one or the other.", mend="Leave one of them out.")
        precision = read_precision(loading.precision)
        return Recognizer.load(
            self._wanted.folder, device=loading.device, precision=precision, int8=loading.int8
        )


class _ModelHears:
    """A recogniser for streams."""

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer
        self.sample_rate = recognizer.sample_rate

    def open(self, options: StreamOptions, rate: int, *, partials: bool) -> Listener:
        """With the chunks that are asked for."""
        chunk_ms = CHUNK_MS if options.chunk_ms is None else options.chunk_ms
        return self._recognizer.listener(
            sample_rate=rate, chunk_ms=chunk_ms, left_ms=options.left_ms, partials=partials
        )
