"""Time and error rate of ``firstwords quickstart`` on its built-in corpus, as a newcomer meets them.

    python benchmarks/quickstart.py [--minutes 5] [--runs 1]

Each run starts from an empty folder; the clock runs from the start of the process to its end. Prints one
line per run and the row for the dated report.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from firstwords.device import machine_name, set_threads


def percent(rate: dict[str, Any]) -> str:
    """An error rate of evaluation.json with its 95 % interval."""
    low, high = rate["interval"]["low"], rate["interval"]["high"]
    return f"{100 * rate['rate']:.2f} % ({100 * low:.2f}-{100 * high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--runs", type=int, default=1)
    options = parser.parse_args()
    set_threads()
    print(machine_name())
    for run in range(options.runs):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "firstwords.cli.main", "quickstart", "--to", folder]
            if options.minutes:
                command += ["--minutes", str(options.minutes)]
            start = time.monotonic()
            result = subprocess.run(command, check=False, capture_output=True, text=True)
            seconds = time.monotonic() - start
            if result.returncode != 0:
                sys.exit(f"quickstart failed with {result.returncode}:\n{result.stdout}\n{result.stderr}")
            figures = json.loads(
                (Path(folder) / "evaluation" / "evaluation.json").read_text(encoding="utf-8")
            )
            rates = " ".join(
                f"{name} {percent(figures[key])}"
                for name, key in (("WER", "word_error_rate"), ("CER", "character_error_rate"))
            )
            print(f"run {run + 1}: {seconds:.0f} s in all, {rates}", flush=True)


if __name__ == "__main__":
    main()
