"""The commands as a user meets them, in this process: exit code and all that was printed."""

from __future__ import annotations

import io
import json
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from firstwords.cli.main import main


@dataclass(frozen=True)
class Said:
    """What a command ended with."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def all(self) -> str:
        return self.out + self.err


def firstwords(*arguments: object) -> Said:
    """Run a command; a traceback, a fault of ours or more than ten seconds fail at once."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    began = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["firstwords", *map(str, arguments)])
        patch.setenv("COLUMNS", "10000")  # names must not be broken over lines
        patch.setenv("NO_COLOR", "1")
        patch.delenv("FIRSTWORDS_DEBUG", raising=False)
        with redirect_stdout(out), redirect_stderr(err):
            try:
                main()
            except SystemExit as leaving:
                code = leaving.code or 0
    said = Said(int(code), out.getvalue(), err.getvalue(), time.monotonic() - began)
    assert "Traceback" not in said.all, said.all
    assert "fault of firstwords" not in said.all, said.all
    assert said.code in (0, 1, 2), said
    return said


def import_record(corpus: Path) -> dict[str, Any]:
    """import.json of a corpus folder."""
    return json.loads((corpus / "import.json").read_text(encoding="utf-8"))
