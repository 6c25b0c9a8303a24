"""What the processes of a crew run: python -m firstwords.training.crew_member, started by crew.py alone."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from firstwords.errors import FirstwordsError
from firstwords.training.run import train_corpus


def main() -> None:
    """Orders from standard input -> training along with the process that gave them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the first process, which tells us
    orders: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    start = orders.pop("start_from")
    try:
        train_corpus(
            Path(orders.pop("corpus_folder")),
            Path(orders.pop("run_folder")),
            start_from=Path(start) if start is not None else None,
            **orders,
        )
    except FirstwordsError as error:
        sys.exit(error.what.replace("\n", " "))  # the last line is what the first process tells the user


def _end_with_input() -> None:
    """The first process holds the other end of our standard input."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()
