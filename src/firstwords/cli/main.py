"""The command line: one function per verb, one place where errors become words and exit codes.

Exit codes: 0 ok, 1 the user can mend it, 2 wrong usage, 3 a fault of ours, 130 interrupted. Modules of
this room import nothing heavy at their head, so ``--help`` stays under 0.3 s.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from firstwords import __version__
from firstwords.cli import (
    check,
    compress,
    convert,
    doctor,
    evaluate,
    export,
    import_,
    info,
    inspect,
    lm,
    merge,
    phrases,
    punctuation,
    quickstart,
    train,
    transcribe,
)
from firstwords.cli.group import PlainGroup
from firstwords.cli.missing import missing_part
from firstwords.errors import FirstwordsError
from firstwords.files import SURROUNDINGS

app = typer.Typer(
    name="firstwords",
    help="From a folder of recordings to a small, fast speech recogniser.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    cls=PlainGroup,
)
app.command("quickstart")(quickstart.run)
app.command("import")(import_.run)
app.command("check")(check.run)
app.command("train")(train.run)
app.command("transcribe")(transcribe.run)
app.command("evaluate")(evaluate.run)
app.command("info")(info.run)
app.command("inspect")(inspect.run)
app.command("convert")(convert.run)
app.command("merge")(merge.run)
app.command("phrases")(phrases.run)
app.command("export")(export.run)
app.command("doctor")(doctor.run)
app.add_typer(compress.app, name="compress")
app.add_typer(lm.app, name="lm")
app.add_typer(punctuation.app, name="punctuation")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"firstwords {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command."""
    if debug:
        os.environ["FIRSTWORDS_DEBUG"] = "1"


def _wait_politely() -> None:
    """Threads that wait for work spin for microseconds, then sleep; to be set before torch is loaded.

    OpenMP's default is to spin for long: beside another busy process that stalls for minutes. Sleeping at
    once made two threads slower than one for a small model (LOG.md), so a short spin is asked for.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")


def _print_anything() -> None:
    """What a terminal's encoding lacks, and bytes of a name that are no UTF-8, are printed as \\u1eb9."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main() -> None:
    """Entry point of the console script."""
    _wait_politely()
    _print_anything()
    try:
        app()
    except FirstwordsError as error:
        _trace_if_asked()
        _leave(error)
    except ModuleNotFoundError as error:
        if (missing := missing_part(error)) is None:
            _say_fault(error)
            sys.exit(3)
        _trace_if_asked()
        _leave(missing)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno not in SURROUNDINGS:
            _say_fault(error)
            sys.exit(3)
        _trace_if_asked()
        named = f"'{error.filename}': " if error.filename else ""
        print(f"{named}{error.strerror}.\n  {SURROUNDINGS[error.errno]}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the last net: a bug of ours must end in words, not in a dump
        _say_fault(error)
        sys.exit(3)


def _leave(error: FirstwordsError) -> NoReturn:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


def _trace_if_asked() -> None:
    """--debug shows where the error that is being handled came from."""
    if os.environ.get("FIRSTWORDS_DEBUG"):
        traceback.print_exc()


def _say_fault(error: Exception) -> None:
    _trace_if_asked()
    where = traceback.extract_tb(error.__traceback__)[-1]
    print(
        f"This is a fault of firstwords, not yours: {type(error).__name__}: {error} "
        f"({os.path.basename(where.filename)}:{where.lineno}).\n"  # noqa: PTH119
        "  Run the same command with 'firstwords --debug ...' and report what it prints.",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
