"""The door: exit codes, words instead of tracebacks, a quick --help, frozen options."""

from __future__ import annotations

import errno
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from firstwords import __version__
from firstwords.cli import main as entry
from firstwords.cli.missing import OF_TRAINING
from firstwords.errors import AudioError

FLAGS = Path(__file__).with_name("options.json")


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "firstwords.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
        env=os.environ | environment,
    )


def verbs() -> dict[str, Any]:
    """Every command by its name, those of a group as 'group verb'."""
    found: dict[str, Any] = {}
    for name, verb in get_command(entry.app).commands.items():  # pyright: ignore[reportAttributeAccessIssue]
        inside = getattr(verb, "commands", None)
        found |= {name: verb} if inside is None else {f"{name} {n}": v for n, v in inside.items()}
    return found


def test_no_option_appears_or_disappears_unnoticed() -> None:
    """Options are few on purpose. A new one belongs into a recipe, or into options.json with a reason."""
    found = {
        name: sorted(
            option
            for p in verb.params
            for option in (p.opts if p.opts[0].startswith("-") else [f"<{p.name}>"])
        )
        for name, verb in verbs().items()
    }
    assert found == json.loads(FLAGS.read_text(encoding="utf-8"))


def test_every_verb_and_option_explains_itself() -> None:
    for name, verb in verbs().items():
        assert verb.help, name
        assert all(getattr(p, "help", None) for p in verb.params if p.name != "help"), name


def test_what_a_student_is_made_of_is_said() -> None:
    """Options of the same name mean another thing in ``train``."""
    said = {p.name: p.help for p in verbs()["compress distil"].params}
    assert said["recipe"].startswith("Of the student")
    assert said["size"].startswith("Of the student")
    assert "distillation.temperature=2" in said["set_"]
    said = {p.name: p.help for p in verbs()["train"].params}
    assert "student" not in said["recipe"] + said["size"]
    assert "training.batch_seconds=30" in said["set_"]


def test_help_is_quick(tmp_path: Path) -> None:
    """0.3 s of processor time; the clock on the wall says more about the other programs on the machine.

    Modules are compiled once, as in any installation: a tester's environment may forbid to keep that.
    """
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    resource = pytest.importorskip("resource", reason="processor time of child processes: Unix")
    seconds: list[float] = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert command("--help", **compiled).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.3, seconds


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['firstwords', '--help']\n"
        "from firstwords.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = [m for m in ('torch', 'numpy', 'pydantic', 'soundfile', 'jinja2') if m in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-300:]


def test_wrong_usage_exits_with_2() -> None:
    assert command("transcribe").returncode == 2
    assert command("no-such-verb").returncode == 2


def test_mendable_fault_exits_with_1_and_says_how(tmp_path: Path) -> None:
    result = command("check", str(tmp_path / "nowhere"))
    assert result.returncode == 1
    assert "nowhere" in result.stderr
    assert "firstwords import" in result.stderr
    assert "Traceback" not in result.stderr


def test_no_arguments_show_help() -> None:
    result = command()
    assert "quickstart" in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (AudioError("'a.wav' is empty.", mend="Record it again."), 1, "Record it again."),
        (KeyboardInterrupt(), 130, ""),
        (PermissionError(errno.EACCES, "Permission denied", "here/x"), 1, "'here/x': Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "Free some space"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), 3, "fault of firstwords"),
        (ZeroDivisionError("division by zero"), 3, "fault of firstwords"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 1, 'install "firstwords[train]"'),
        (ModuleNotFoundError("No module named 'x'", name="firstwords.x"), 3, "fault of firstwords"),
    ],
)
def test_faults_become_words_and_codes(
    fault: BaseException,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise fault

    monkeypatch.setattr(entry, "app", fail)
    monkeypatch.delenv("FIRSTWORDS_DEBUG", raising=False)
    with pytest.raises(SystemExit) as leaving:
        entry.main()
    assert leaving.value.code == code
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_what_is_missing_for_training_is_known_by_name() -> None:
    project = tomllib.loads((FLAGS.parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = project["project"]["optional-dependencies"]["train"]
    assert {re.split(r"[<>=]", one)[0] for one in wanted} == OF_TRAINING


def test_without_the_training_parts_a_command_says_what_to_install(tmp_path: Path) -> None:
    """Of ``pip install firstwords`` alone; it was called a fault of ours."""
    script = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {set(OF_TRAINING)!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Blocked())
from firstwords.cli.main import main
main()
"""
    for words in (("train", tmp_path, "--to", tmp_path / "m"), ("check", tmp_path), ("info", tmp_path)):
        line = [sys.executable, "-c", script, *map(str, words)]
        said = subprocess.run(line, capture_output=True, text=True, check=False)
        assert said.returncode == 1, (words, said.stderr[-500:])
        assert 'pip install "firstwords[train]"' in said.stderr, words


def test_options_are_typed_with_help() -> None:
    assert inspect.signature(entry.quickstart.run).parameters.keys() == {"to", "corpus", "minutes", "device"}


def test_the_package_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "firstwords", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"firstwords {__version__}"
