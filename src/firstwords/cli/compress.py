"""``firstwords compress``: smaller models of trained ones, step by step or to a target.

firstwords compress MODEL --corpus CORPUS --target LIMITS [--to DIR]   the planner chooses the steps
firstwords compress prune MODEL ...                                    one step
"""

from __future__ import annotations

import difflib
from pathlib import Path

import typer

from firstwords.cli import (
    compress_distil,
    compress_plan,
    compress_prune,
    compress_quantize,
    compress_report,
)
from firstwords.cli.group import PlainGroup
from firstwords.errors import UsageError, quoted

PLAN = "plan"
HELP = """Make a trained model smaller: folder in, smaller folder out.

'firstwords compress MODEL --corpus CORPUS --target LIMITS' chooses the steps by itself and writes
MODEL-small, or what --to says. The commands below do one step each."""
_NEEDED = {"--corpus": "CORPUS", "--target": '"size<1MB, cer<=+1.0"'}


class _ModelFirst(PlainGroup):
    """A group whose first argument may be a model: then the planner is meant."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        named = next((a for a in args if not a.startswith("-")), None)
        if named is not None and named not in self.commands and args[0] not in ctx.help_option_names:
            near = difflib.get_close_matches(named, self.commands, n=1)
            if near and not Path(named).exists():
                raise UsageError(
                    f"'{named}' is neither a model folder nor a step.",
                    mend=f"Did you mean firstwords compress {near[0]}?",
                )
            _require_all(named, args, ctx.help_option_names)
            args = [PLAN, *args]
        return super().parse_args(ctx, args)


def _require_all(model: str, args: list[str], helps: list[str]) -> None:
    """UsageError that names every option that is missing, not one after the other."""
    given = {a.partition("=")[0] for a in args}
    missing = [f"{option} {value}" for option, value in _NEEDED.items() if option not in given]
    if missing and given.isdisjoint(helps):
        whole = " ".join(f"{option} {value}" for option, value in _NEEDED.items())
        raise UsageError(
            f"What shall become of '{model}' is not all said: {', '.join(missing)} missing.",
            mend=f"firstwords compress {quoted(Path(model))} {whole}\n"
            "  Single steps: firstwords compress --help",
        )


app = typer.Typer(help=HELP, no_args_is_help=True, cls=_ModelFirst)
app.command(PLAN)(compress_plan.run)
app.command("choose")(compress_plan.choose)
app.command("prune")(compress_prune.run)
app.command("quantize")(compress_quantize.run)
app.command("low-rank")(compress_distil.low_rank)
app.command("fold")(compress_distil.fold)
app.command("distil")(compress_distil.distil)
app.command("skip-layers")(compress_distil.skip_layers)
app.command("early-exit")(compress_distil.early_exit)
app.command("report")(compress_report.run)
