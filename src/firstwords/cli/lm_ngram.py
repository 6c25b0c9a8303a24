"""``firstwords lm train`` of an n-gram model: read text, estimate, write, and say what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from firstwords.cli.leak_options import LeakOptions
from firstwords.cli.lm_options import UNIT_NAMES, WritingOptions, ngram_header
from firstwords.cli.terminal import plain_console, reading_bar
from firstwords.errors import UsageError, quoted

if TYPE_CHECKING:
    from rich.console import Console

    from firstwords.lm.ngram_estimate import Estimate


def train_ngram(
    text: Sequence[Path],
    to: Path,
    *,
    order: int,
    unit: str,
    writing: WritingOptions,
    prune: str,
    leaks: LeakOptions,
) -> None:
    """Estimate a model of the text; what is wrong with the options is said before all of it is read."""
    from firstwords.lm.compared import compared_with
    from firstwords.lm.language_model import NgramLanguageModel, refuse_others, save_language_model
    from firstwords.lm.ngram_estimate import check_thresholds, estimate_ngram
    from firstwords.lm.ngram_text import gather, held_out, measured_corpora, read_lines, splitter, text_files
    from firstwords.text.normalize import normalizer

    console = plain_console()
    thresholds = _thresholds(prune)
    refuse_others(to)
    check_thresholds(order, thresholds)
    header, pieces = ngram_header(unit, order, writing)
    files = text_files(text)
    measured = measured_corpora(files, leaks.measured)
    normalize = normalizer(header.normalizer)
    with reading_bar(console, "reading", files) as told:
        found = gather(
            read_lines(files),
            split=splitter(header.unit, pieces),
            normalize=normalize,
            held=held_out(measured, normalize),
            leaks=leaks.fate,
            progress=told,
        )
    estimate = estimate_ngram(found.tokens, found.words, order, thresholds)
    compared = compared_with(measured, found.leaks.count, leaks.fate)
    save_language_model(to, NgramLanguageModel(header, estimate.model, pieces), compared)
    units = len(found.tokens) - 2 * found.sentences
    console.print(f"Read {found.sentences:,} sentences, {units:,} {UNIT_NAMES[header.unit]}.")
    if found.empty:
        console.print(f"{found.empty:,} lines without text after normalizer '{header.normalizer}'.")
    for line in found.leaks.told(leaks.fate):
        console.print(line)
    _tell_counts(estimate, console)
    console.print(f"Wrote {to}.\nNext: firstwords lm perplexity {quoted(to)} TEXT")


def _tell_counts(estimate: Estimate, console: Console) -> None:
    """A line for each order: how many n-grams, what was pruned, the discounts."""
    kept = zip(estimate.model.counts, estimate.seen, estimate.discounts, strict=True)
    for n, (count, seen, discounts) in enumerate(kept, start=1):
        pruned = f" of {seen:,}" if n > 1 and seen != count else ""
        values = ", ".join(f"{value:.3g}" for value in discounts.values)
        why = " (fallback: too few counts to estimate them)" if discounts.fallback else ""
        console.print(f"{n}-grams: {count:,}{pruned}; discounts {values}{why}")


def _thresholds(text: str) -> list[int]:
    """'0 0 1' or '0,0,1' -> numbers."""
    parts = text.replace(",", " ").split()
    if not parts or not all(p.isascii() and p.isdigit() and len(p) < 10 for p in parts):
        raise UsageError(f"--prune '{text}': expected counts.", mend="For example --prune '0 0 1'.")
    return [int(p) for p in parts]
