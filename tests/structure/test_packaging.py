"""Pinned dependencies, light core, GPL apart, a README that draws the true tree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONSTRAINTS = [
    line
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=!~ ;]", requirement)[0].lower().replace("_", "-")


def test_every_constraint_is_exact_and_without_a_local_label() -> None:
    for line in CONSTRAINTS:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line
        assert "+" not in line


def test_every_dependency_is_constrained() -> None:
    pinned = {name_of(line) for line in CONSTRAINTS}
    wanted = list(PROJECT["dependencies"]) + [r for x in PROJECT["optional-dependencies"].values() for r in x]
    missing = [r for r in wanted if name_of(r) not in pinned | {"firstwords"}]
    assert not missing


def test_torch_is_pinned_to_the_tested_version() -> None:
    assert "torch==2.13.0" in CONSTRAINTS


def test_core_and_train_and_all_hold_no_gpl_package() -> None:
    extras = PROJECT["optional-dependencies"]
    for group in (PROJECT["dependencies"], extras["train"], extras["all"]):
        assert not [r for r in group if "espeak" in r or "quickstart" in r]
    assert [name_of(r) for r in extras["quickstart"]] == ["espeakng-loader"]


def test_core_has_no_torch() -> None:
    assert "torch" not in {name_of(r) for r in PROJECT["dependencies"]}


def test_readme_tree_is_the_true_tree() -> None:
    """Every room and file the README draws exists, and every room is drawn."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme.split("<!-- tree -->")[1]
    drawn = set(re.findall(r"^  ([a-z_]+)/", block, flags=re.MULTILINE))
    rooms = {p.name for p in (ROOT / "src" / "firstwords").iterdir() if (p / "__init__.py").exists()}
    rooms -= {p for p in rooms if not any((ROOT / "src" / "firstwords" / p).glob("[!_]*.py"))}
    assert drawn == rooms


def test_third_party_names_every_direct_dependency() -> None:
    text = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8").lower()
    extras = PROJECT["optional-dependencies"]
    wanted = {
        name_of(r) for g in ("train", "quickstart", "tensorboard", "lhotse", "microphone") for r in extras[g]
    }
    wanted |= {name_of(r) for r in PROJECT["dependencies"]}
    assert not sorted(n for n in wanted if n not in text)


def test_test_files_have_names_of_their_own() -> None:
    """Without packages, pytest takes two files of one name for one module and stops."""
    names = [p.name for p in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(n for n in set(names) if names.count(n) > 1) == []
