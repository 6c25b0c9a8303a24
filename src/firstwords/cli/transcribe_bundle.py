"""``firstwords transcribe`` with an exported bundle: the edge runtime, no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, final

from firstwords.cli.loading_options import LoadingOptions
from firstwords.cli.post import apply_post_to_bundle
from firstwords.cli.search_options import SearchOptions
from firstwords.cli.transcribe_with import Hears, Loaded, Wanted
from firstwords.cores import available_cores, wished_threads
from firstwords.errors import UsageError
from firstwords.export.bundle import gate_warning
from firstwords.export.runtime import Runtime
from firstwords.export.runtime_help import DEFAULT, NO_HELP

if TYPE_CHECKING:
    from firstwords.cli.stream_options import StreamOptions
    from firstwords.inference.listener import Listener

_NEEDS_MODEL = "Give the model folder in place of the bundle."
_REFUSED = {
    "--rescore": "a language model that chooses among readings runs in torch, which a bundle does without",
    "--rescore-url": "a bundle writes the best reading of its search and hands on no others",
    "--chunk-ms": "the chunk of a streaming bundle is fixed when it is exported",
    "--left-ms": "the left context of a streaming bundle is fixed when it is exported",
    "--search": "its graphs fit one search, wider with --beam",
    "--source-lm": "a bundle's search takes one language model",
    "--internal-weight": "a bundle's search adds a language model and takes nothing off",
    "--with": "models read together in torch, which a bundle does without",
}
_VARIANTS = {"auto": "fp32", "fp32": "fp32", "int8": "int8"}


@final
class BundleOpener:
    """A bundle that is not loaded yet; UsageError for an option that it cannot honour.

    Args:
        say: gets what a user must be told of it.
    """

    def __init__(self, wanted: Wanted, say: Callable[[str], None]) -> None:
        self._wanted, self._say = wanted, say
        _refuse_options(wanted)
        self._precision = _variant_wished(wanted.loading)

    def for_recordings(self) -> Loaded:
        """The runtime of the bundle with everything that shall help it."""
        return Loaded(self._open()).hearing(self._wanted.channels)

    def for_stream(self) -> Hears:
        """The same for streams."""
        return _BundleHears(self._open())

    def _open(self) -> Runtime:
        folder, reading = self._wanted.folder, self._wanted.reading
        runtime = _load(folder, self._precision)
        if (warning := gate_warning(folder)) is not None:
            self._say(warning)
        for line in _help(runtime, reading.search):
            self._say(line)
        apply_post_to_bundle(runtime, reading.post, self._say)
        return runtime


class _BundleHears:
    """A streaming bundle for streams; chunk and left context are its own."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.sample_rate = runtime.sample_rate

    def open(self, options: StreamOptions, rate: int, *, partials: bool) -> Listener:
        """A stream of samples of this rate."""
        return self._runtime.listener(sample_rate=rate, partials=partials)


def _refuse_options(wanted: Wanted) -> None:
    """UsageError that names an option which a bundle cannot honour, and why."""
    search, second = wanted.reading.search, wanted.reading.second
    named = {
        "--rescore": second.llm,
        "--rescore-url": second.url,
        "--chunk-ms": wanted.stream.chunk_ms,
        "--left-ms": wanted.stream.left_ms,
        "--search": search.kind,
        "--source-lm": search.source,
        "--internal-weight": search.internal,
        "--with": search.others or None,
    }
    for name, value in named.items():
        if value is not None:
            raise UsageError(f"{name} cannot be used with a bundle: {_REFUSED[name]}.", mend=_NEEDS_MODEL)
    if (device := wanted.loading.device) not in ("auto", "cpu"):
        raise UsageError(
            f"--device {device} cannot be used with a bundle: it runs on the processor.", mend=_NEEDS_MODEL
        )


def _variant_wished(loading: LoadingOptions) -> str:
    """--precision, where --int8 asks for the eight-bit graphs in another word."""
    if not loading.int8:
        return loading.precision
    if loading.precision not in ("auto", "int8"):
        raise UsageError(
            f"--int8 and --precision {loading.precision}: one or the other.", mend="Leave one of them out."
        )
    return "int8"


def _load(folder: Path, precision: str) -> Runtime:
    if precision not in _VARIANTS:
        raise UsageError(
            f"--precision {precision} cannot be used with a bundle: it computes in fp32 or int8.",
            mend="Give one of auto, fp32, int8.",
        )
    return Runtime.load(folder, _VARIANTS[precision], threads=wished_threads() or available_cores())


def _help(runtime: Runtime, search: SearchOptions) -> list[str]:
    """Have the runtime search as wished -> what a user must be told."""
    found, lines = NO_HELP, list[str]()
    if search.phrases is not None:
        from firstwords.export.runtime_words import open_phrases, told_of_phrases

        found = open_phrases(search.phrases, runtime.tokenizer, runtime.facts.normalizer)
        lines += told_of_phrases(search.phrases, runtime.tokenizer, runtime.facts.normalizer)
    if search.lm is not None:
        from firstwords.export.runtime_language_model import open_help

        weights = DEFAULT
        if search.weight is not None:
            weights = weights.with_(weight=search.weight)
        if search.bonus is not None:
            weights = weights.with_(bonus=search.bonus)
        facts = runtime.facts
        model = open_help(search.lm, runtime.tokenizer, facts.normalizer, weights, lines.append)
        found = found.joined(model)
        origin = "as given" if search.weight is not None else "not tuned for bundles"
        lines.append(
            f"Language model {search.lm}: weight {weights.weight:g}, bonus {weights.bonus:g} ({origin})."
        )
    closed = runtime.closed_words
    runtime.use(beam=search.beam or 1, help=found)
    if closed and not runtime.closed_words:
        lines.append(
            f"The closed vocabulary of this bundle ({closed} words) is off: it belongs to the greedy search "
            "without other help."
        )
    return lines
