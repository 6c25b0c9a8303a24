"""Strict settings: frozen pydantic models on one side, plain TOML on the other.

An unknown key is an error that names the nearest known one. No interpolation, no expressions, no
environment variables; ``override`` is what ``--set encoder.dim=256`` calls.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from firstwords.errors import ConfigError

ConfigT = TypeVar("ConfigT", bound="Config")


class Config(BaseModel):
    """A frozen group of settings; unknown keys and wrong types are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=False, validate_default=True, allow_inf_nan=False
    )

    def with_(self, **changes: Any) -> Self:
        """The same settings with some replaced, validated again."""
        return type(self).model_validate(self.model_dump() | changes)


def read_config(path: Path, kind: type[ConfigT], *, name: str = "recipe") -> ConfigT:
    """TOML file -> settings. A ``base = "other.toml"`` key names one file to start from (a base has none)."""
    return parse_config(read_toml(path), kind, name=name, source=str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """TOML file -> nested dict, the file of its ``base`` key merged underneath."""
    values = _load(path)
    base = values.pop("base", None)
    if base is None:
        return values
    below = _load(path.parent / str(base))
    if "base" in below:
        raise ConfigError(
            f"'{path}': its base '{base}' has a base itself.",
            mend="A recipe has at most one base: merge the two upper files into one.",
        )
    return merge(below, values)


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"'{path}' does not exist.", mend="Check the path.") from None
    except OSError as error:
        raise ConfigError(
            f"'{path}' cannot be read: {error.strerror or error}.",
            mend="Check the path and your rights to it.",
        ) from None
    except (ValueError, RecursionError) as error:  # nor UTF-8, a NUL in a path, 5000 digits
        raise ConfigError(f"'{path}' is not TOML: {error}.", mend="Mend that line.") from None


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merge key by key; everything else of ``above`` wins. A table with another ``kind`` replaces."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            old, new = cast("Mapping[str, Any]", old), cast("Mapping[str, Any]", value)
            replaces = "kind" in new and "kind" in old and new["kind"] != old["kind"]
            merged[key] = dict(new) if replaces else merge(old, new)
        else:
            merged[key] = value
    return merged


def parse_config(values: Mapping[str, Any], kind: type[ConfigT], *, name: str, source: str) -> ConfigT:
    """Nested dict -> settings; every fault is listed with its full key."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        lines = [_explain(fault, values, kind, name) for fault in error.errors()]
        raise ConfigError(
            f"'{source}': " + "\n  ".join(lines),
            mend="Known settings with their defaults stand in the recipe.toml of any trained model.",
        ) from None


def _explain(fault: Any, values: Mapping[str, Any], kind: type[BaseModel], name: str) -> str:
    where = [str(part) for part in fault["loc"]]
    key = ".".join([name, *_without_tags(values, where)])
    if fault["type"] == "extra_forbidden":
        known = _names_beside(kind, values, where)
        return f"{key}: no such setting.{_nearest(where[-1], known)}"
    if fault["type"] == "union_tag_not_found":
        kinds = [str(_kind_of(group)) for group in _groups_at(kind, values, where)]
        return f"{key}: say which kind it is: {key}.kind is one of {', '.join(kinds)}."
    if fault["type"] == "union_tag_invalid":
        kinds = [str(_kind_of(group)) for group in _groups_at(kind, values, where)]
        given = str(fault["ctx"]["tag"])
        return f"{key}.kind: there is no '{given}'.{_nearest(given, kinds)}"
    got = fault.get("input")
    shown = "" if isinstance(got, Mapping) or fault["type"] == "missing" else f" (got {got!r})"
    said = str(fault["msg"]).removeprefix("Value error, ")
    return f"{key}: {said}{shown}"


def _nearest(given: str, known: Sequence[str]) -> str:
    """What a user may have meant: the nearest of the known names, or all of them."""
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else f" Known here: {', '.join(known)}."


def _without_tags(values: Mapping[str, Any], where: list[str]) -> list[str]:
    """A path as its user wrote it: pydantic names the ``kind`` of a table, given or usual, too."""
    path: list[str] = []
    at: Any = values
    for number, part in enumerate(where):
        table = cast("Mapping[str, Any]", at) if isinstance(at, Mapping) else {}
        # Nothing lies below a setting that is missing, nor in a table's place.
        inside = number + 1 < len(where) if isinstance(at, Mapping) else not isinstance(at, Sequence | None)
        if part not in table and (table.get("kind") == part or inside or isinstance(at, str)):
            continue
        path.append(part)
        at = table.get(part)
    return path


def _names_beside(kind: type[BaseModel], values: Mapping[str, Any], where: list[str]) -> list[str]:
    """Field names of the settings group that holds the unknown key ``where[-1]``."""
    return list(
        dict.fromkeys(n for group in _groups_at(kind, values, where[:-1]) for n in group.model_fields)
    )


def _groups_at(
    kind: type[BaseModel], values: Mapping[str, Any], where: Sequence[str]
) -> list[type[BaseModel]]:
    """The settings groups that a path leads to: one where kinds are known, by ``kind`` or pydantic's tags."""
    groups: list[type[BaseModel]] = [kind]
    at: Any = values
    for part in where:
        table = cast("Mapping[str, Any]", at) if isinstance(at, Mapping) else {}
        chosen: Any = part  # a tag, unless it is a key
        if part in table:
            at = table[part]
            fields = [group.model_fields[part] for group in groups if part in group.model_fields]
            # The key of a dict of groups is no field.
            groups = [below for field in fields for below in _models_in(field.annotation)] or groups
            chosen = cast("Mapping[str, Any]", at).get("kind") if isinstance(at, Mapping) else None
        groups = [g for g in groups if _kind_of(g) == chosen] or groups
    return groups


def _kind_of(group: type[BaseModel]) -> Any:
    return group.model_fields["kind"].default if "kind" in group.model_fields else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found: list[type[BaseModel]] = []
    for part in getattr(annotation, "__args__", ()):
        found += _models_in(part)
    return found


def override(values: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Apply ``a.b=1`` assignments (right side is TOML; a bare word is a string) to a nested dict.

    They may stand in any order: a new ``kind`` drops the settings of the old one, not those given with it.
    """
    changed = dict(values)
    for assignment in _kinds_first(assignments):
        try:
            assignment.encode()
        except UnicodeEncodeError:
            raise ConfigError(
                f"--set {assignment!a}: these bytes are no UTF-8.", mend="Type it anew."
            ) from None
        key, sign, right = assignment.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"--set {assignment}: expected key=value.", mend="For example --set seed=2")
        at: dict[str, Any] = (nested := {})
        *path, last = key.strip().split(".")
        for part in path:
            at[part] = {}
            at = at[part]
        at[last] = _toml_value(right.strip())
        changed = merge(changed, nested)
    return changed


def _kinds_first(assignments: Iterable[str]) -> list[str]:
    """``a.kind=x`` before the assignments to ``a`` or ``a.b`` that were given since the last kind of ``a``.

    Those that were given with another kind of ``a`` are left out: they are its own.
    """
    ordered: list[str] = []
    for assignment in assignments:
        section, dot, last = _key(assignment).rpartition(".")
        if last != "kind" or not dot:
            ordered.append(assignment)
            continue
        chosen = [_kind_given(other, section) for other in ordered]
        since = max((n + 1 for n, kind in enumerate(chosen) if kind is not None), default=0)
        inside = [n for n in range(since, len(ordered)) if f"{_key(ordered[n])}.".startswith(f"{section}.")]
        if since == 0:
            ordered.insert(inside[0] if inside else len(ordered), assignment)
            continue
        if chosen[since - 1] != _kind_given(assignment, section):
            ordered = [other for n, other in enumerate(ordered) if n not in inside]
        ordered.append(assignment)
    return ordered


def _key(assignment: str) -> str:
    return assignment.partition("=")[0].strip()


def _kind_given(assignment: str, section: str) -> Any:
    """The kind that an assignment to ``a.kind``, or to the whole table ``a``, chooses for ``a``, or None."""
    key, right = _key(assignment), assignment.partition("=")[2].strip()
    if key == f"{section}.kind":
        return _toml_value(right)
    value = _toml_value(right) if key == section else None
    return cast("Mapping[str, Any]", value).get("kind") if isinstance(value, Mapping) else None


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except (ValueError, RecursionError):
        return text


def dump_config(config: Config) -> str:
    """Settings -> TOML with every default written out (a setting that is None is left out)."""
    import tomli_w  # for who writes settings; a bundle is read without

    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))
