"""``firstwords export``: a model as a bundle for phones, boards and offices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstwords.cli.shared_options import Model
from firstwords.cli.terminal import plain_console
from firstwords.errors import UsageError, quoted

if TYPE_CHECKING:
    from firstwords.export.make import Made
    from firstwords.export.plan import Kind

_LONGEST_CHUNK_MS = 60_000.0


def run(
    model: Model,
    to: Annotated[Path, typer.Option("--to", help="Folder for the bundle: new, empty, or an older bundle.")],
    int8: Annotated[bool, typer.Option("--int8", help="Also graphs with eight-bit weights.")] = False,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Graphs that read speech chunk by chunk (causal models).")
    ] = False,
    chunk_ms: Annotated[
        float | None,
        typer.Option(
            "--chunk-ms", help="With --streaming: audio per step, in milliseconds; 640 where it is not said."
        ),
    ] = None,
    head: Annotated[str, typer.Option("--head", help="ctc or transducer, where a model has both.")] = "auto",
    check: Annotated[
        bool,
        typer.Option("--check", help="Compare at four sample rates, not the model's own alone."),
    ] = False,
    corpus: Annotated[
        Path | None,
        typer.Option("--corpus", help="Corpus folder to compare utterances of; dev first."),
    ] = None,
) -> None:
    """Write a bundle: ONNX graphs, tokens.txt, bundle.json; a card once all engines read the same."""
    from firstwords.export.gated import prove_and_place
    from firstwords.export.make import make_bundle
    from firstwords.export.parity import material
    from firstwords.export.plan import CHUNK_MS
    from firstwords.model.checkpoint import RECIPE, require_files
    from firstwords.model.recipe import read_recipe

    console = plain_console(stderr=True)
    kind = _kind(head)
    _check_chunk(chunk_ms, streaming=streaming)
    clips = None
    if corpus is not None:  # what is wrong with it is said before minutes of work
        require_files(model)
        clips = material(read_recipe(model / RECIPE), corpus)
    made, _ = prove_and_place(
        lambda place: _told(
            make_bundle(
                model,
                place,
                kind=kind,
                streaming=streaming,
                int8=int8,
                chunk_ms=CHUNK_MS if chunk_ms is None else chunk_ms,
                report=console.print,
            )
        ),
        to,
        clips,
        long=check or corpus is not None,
        report=console.print,
    )
    _show(made)
    console.print(f"Next: firstwords transcribe {quoted(to)} RECORDINGS")


def _kind(head: str) -> Kind | None:
    """--head -> the head that is exported; None: whichever the model has."""
    if head == "auto":
        return None
    if head == "ctc" or head == "transducer":
        return head
    raise UsageError(f"--head {head}: there is no such head.", mend="Heads: auto, ctc, transducer.")


def _check_chunk(chunk_ms: float | None, *, streaming: bool) -> None:
    """What is wrong with it is said before minutes of work."""
    if chunk_ms is not None and not streaming:
        raise UsageError(
            f"--chunk-ms {chunk_ms:g} is for graphs that read chunk by chunk, and --streaming is not given.",
            mend="Add --streaming, or leave --chunk-ms out.",
        )
    if chunk_ms is not None and not 0 < chunk_ms <= _LONGEST_CHUNK_MS:
        raise UsageError(
            f"--chunk-ms {chunk_ms:g} must be above 0 and at most {_LONGEST_CHUNK_MS:g}.",
            mend="640 is usual.",
        )


def _told(made: Made) -> Made:
    """The same; what engines cannot do with it, and what it leaves behind, is said before it is compared."""
    console = plain_console()
    if made.plan.alone:
        console.print("For firstwords' own runtime only; sherpa-onnx cannot run this bundle:")
        for reason in made.plan.alone:
            console.print(f"  - {reason}")
    for line in made.left_out:
        console.print(line)
    return made


def _show(made: Made) -> None:
    from firstwords.files import readable_size

    console = plain_console()
    for name, size in made.sizes.items():
        console.print(f"{readable_size(size):>9}  {made.folder / name}")
