"""``firstwords transcribe`` with an exported bundle: the edge runtime, no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from firstwords.cli.post import apply_post_to_bundle
from firstwords.cli.search_options import SearchOptions
from firstwords.cli.transcribe_files import Loaded
from firstwords.cores import available_cores, wished_threads
from firstwords.errors import UsageError
from firstwords.export.bundle import gate_warning
from firstwords.export.runtime import Runtime
from firstwords.export.runtime_help import DEFAULT, NO_HELP

if TYPE_CHECKING:
    from firstwords.cli.transcribe_stream import StreamOptions
    from firstwords.inference.listener import Listener

_NEEDS_MODEL = "Give the model folder in place of the bundle."
_REFUSED = {
    "--rescore": "a language model that chooses among readings runs in torch, which a bundle does without",
    "--rescore-url": "a bundle writes the best reading of its search and hands on no others",
    "--chunk-ms": "the chunk of a streaming bundle is fixed when it is exported",
    "--left-ms": "the left context of a streaming bundle is fixed when it is exported",
    "--source-lm": "a bundle's search takes one language model",
    "--internal-weight": "a bundle's search adds a language model and takes nothing off",
    "--with": "models read together in torch, which a bundle does without",
}
_VARIANTS = {"auto": "fp32", "fp32": "fp32", "int8": "int8"}


def refuse_options(given: Mapping[str, object], device: str, search: SearchOptions) -> None:
    """UsageError that names an option which a bundle cannot honour, and why."""
    named = {
        **given,
        "--source-lm": search.source,
        "--internal-weight": search.internal,
        "--with": search.others or None,
    }
    for name, value in named.items():
        if value is not None:
            raise UsageError(f"{name} cannot be used with a bundle: {_REFUSED[name]}.", mend=_NEEDS_MODEL)
    if device not in ("auto", "cpu"):
        raise UsageError(
            f"--device {device} cannot be used with a bundle: it runs on the processor.", mend=_NEEDS_MODEL
        )


def variant_wished(precision: str, int8: bool) -> str:
    """--precision, where --int8 asks for the eight-bit graphs in another word."""
    if not int8:
        return precision
    if precision not in ("auto", "int8"):
        raise UsageError(
            f"--int8 and --precision {precision}: one or the other.", mend="Leave one of them out."
        )
    return "int8"


def open_bundle(
    folder: Path, precision: str, search: SearchOptions, say: Callable[[str], None], post: str | None = None
) -> Loaded:
    """A bundle, ready to transcribe as wished."""
    runtime = _load(folder, precision)
    if (warning := gate_warning(folder)) is not None:
        say(warning)
    lines = _help(runtime, search)
    for line in lines:
        say(line)
    apply_post_to_bundle(runtime, post, say)
    return Loaded(runtime)


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
        from firstwords.export.runtime_words import open_phrases

        found = open_phrases(search.phrases, runtime.tokenizer, runtime.facts.normalizer)
    if search.lm is not None:
        from firstwords.export.runtime_language_model import open_help

        weights = DEFAULT
        if search.weight is not None:
            weights = weights.with_(weight=search.weight)
        if search.bonus is not None:
            weights = weights.with_(bonus=search.bonus)
        model = open_help(search.lm, runtime.tokenizer, runtime.facts.normalizer, weights)
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


class BundleHears:
    """A streaming bundle for streams; chunk and left context are its own."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.sample_rate = runtime.sample_rate

    def open(self, options: StreamOptions, rate: int, *, partials: bool) -> Listener:
        """A stream of samples of this rate."""
        return self._runtime.listener(sample_rate=rate, partials=partials)


def stream_bundle(loaded: Loaded, options: StreamOptions, say: Callable[[str], None]) -> None:
    """Write what is heard to standard output until the sound ends."""
    from firstwords.cli.transcribe_stream import transcribe_stream

    assert isinstance(loaded.transcriber, Runtime)
    transcribe_stream(BundleHears(loaded.transcriber), options, say)
