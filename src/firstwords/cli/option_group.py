"""Options that belong together are one parameter of a command: a dataclass whose fields are the options.

    @dataclass(frozen=True, kw_only=True)
    class SearchOptions:
        beam: Annotated[int | None, typer.Option("--beam", help="Width of the search.", min=1)] = None

    @grouped
    def run(model: Annotated[Path, typer.Argument()], *, search: SearchOptions) -> None: ...

The command line shows ``MODEL`` and ``--beam``, in the order of the parameters. A group may hold groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, get_type_hints


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A function some of whose parameters are groups -> the same for typer, with one parameter an option.

    A field gets its names from ``typer.Option("--name")``: those of functions and fields are not shown.
    """
    hints = get_type_hints(command, include_extras=True)
    parts = {
        name: list(_parameters(name, hints[name], given.default))
        for name, given in signature(command).parameters.items()
    }

    @wraps(command)
    def run(**values: object) -> None:
        command(**{name: _value(name, hints[name], values) for name in parts})

    flat = [parameter for part in parts.values() for parameter in part]
    run.__signature__ = Signature(flat)  # pyright: ignore[reportAttributeAccessIssue] - what typer reads
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return run


def _parameters(name: str, kind: Any, default: object) -> Iterator[Parameter]:
    """A parameter, or those of all fields of a group: of ``search.beam`` it is called ``search_beam``."""
    if not is_dataclass(kind):
        yield Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        return
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        own = Parameter.empty if field.default is MISSING else field.default
        yield from _parameters(f"{name}_{field.name}", hints[field.name], own)


def _value(name: str, kind: Any, values: Mapping[str, object]) -> object:
    """What the command line gave a parameter, or a group made of what it gave its fields."""
    if not is_dataclass(kind):
        return values[name]
    hints = get_type_hints(kind, include_extras=True)
    made: Callable[..., object] = kind  # pyright: ignore[reportAssignmentType]
    return made(**{f.name: _value(f"{name}_{f.name}", hints[f.name], values) for f in fields(kind) if f.init})
