"""What 'firstwords doctor' saw -> a text to attach to a bug report, without paths, names or transcripts."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from firstwords import __version__
from firstwords.report.doctor import Part

# Settings that change what torch and we do; everything else of the environment is nobody's business.
_TOLD = ("OMP_", "MKL_", "KMP_", "CUDA_", "TORCH", "PYTORCH", "FIRSTWORDS_", "PYTHONUTF8")
_SOMEBODYS_HOME = re.compile(r"(/home/|/Users/|[A-Za-z]:\\Users\\)[^/\\\s'\":]+")


def bundle(parts: Iterable[Part]) -> str:
    """Parts -> the text: what was found, settings of the environment, installed packages."""
    lines = [f"firstwords doctor, {__version__}", ""]
    for part in parts:
        lines.append(f"{part.state:8} {part.name}: {part.says}")
        if part.mend:
            lines.append(f"{'':8}   mend: {part.mend}")
    lines += ["", "environment (values that hold paths are left out):"]
    for name in sorted(os.environ):
        if name.startswith(_TOLD):
            value = os.environ[name]
            lines.append(f"  {name}={'(a path)' if '/' in value or chr(92) in value else value}")
    lines += ["", "packages:"]
    found = {(d.name or "?").lower(): d.version for d in importlib.metadata.distributions()}
    lines += [f"  {name}=={found[name]}" for name in sorted(found)]
    return redact("\n".join(lines)) + "\n"


def redact(text: str) -> str:
    """Text -> the same without anybody's home folder, this user's other folders, and the two names."""
    folders = {
        str(Path.cwd()): "(folder)",
        str(Path.home()): "(home)",
        tempfile.gettempdir(): "(temp)",
        sys.prefix: "(python)",
        sys.base_prefix: "(python)",
    }
    for secret in sorted(folders, key=len, reverse=True):
        if len(secret) > 1:  # '/' would eat the text
            text = text.replace(secret, folders[secret])
    text = _SOMEBODYS_HOME.sub("(home)", text)
    names = {
        platform.node(): "(computer)",
        os.environ.get("USER") or os.environ.get("USERNAME") or "": "(user)",
    }
    for secret, word in names.items():
        if secret:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", word, text)
    return text
