"""``firstwords transcribe --stream``: text while somebody speaks, from a pipe or a microphone."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Self, TextIO, cast

from rich.cells import cell_len, set_cell_size

from firstwords.audio.live import Microphone, Pipe, read_pcm
from firstwords.cli.stream_options import StreamOptions
from firstwords.cli.transcribe_with import Hears
from firstwords.inference.events import Event, Final, Partial
from firstwords.inference.intake import Block
from firstwords.inference.listener import Listener

_CLEAR = "\r\x1b[K"  # to the start of the line, and nothing behind it


def transcribe_stream(
    hears: Hears, options: StreamOptions, say: Callable[[str], None], *, format_: str, device: str | None
) -> None:
    """Write what is heard to standard output until the sound ends or Ctrl-C; ``say`` is for all else.

    Args:
        device: the microphone, where one is asked for; None: the usual one.
    """
    screen = Screen(sys.stdout, format_, partials=options.partials)
    try:
        if options.microphone:
            with Microphone(device, options.rate or hears.sample_rate, say) as microphone:
                say(f"Listening to {microphone.name} at {microphone.sample_rate} Hz. Ctrl-C ends.")
                listener = hears.open(options, microphone.sample_rate, partials=screen.wants_partials)
                listen(listener, microphone, screen.show)
        else:
            rate = options.rate or hears.sample_rate
            listener = hears.open(options, rate, partials=screen.wants_partials)
            listen(listener, read_pcm(cast("Pipe", sys.stdin.buffer), say), screen.show)
        if options.report:
            screen.report(listener, say)
    except BrokenPipeError:  # whoever read the text wants no more of it
        # What the interpreter still holds for standard output would fail once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def listen(listener: Listener, source: Iterable[Block], show: Callable[[Event], None]) -> None:
    """Feed the stream until it ends; Ctrl-C ends it as well, and what was heard until then becomes final."""
    blocks = iter(source)
    with Interruptible() as interruptible:
        while not interruptible.asked:
            block = None
            with interruptible.waiting():
                block = next(blocks, None)
            if block is None:
                break
            for event in listener.accept(block):
                show(event)
        for event in listener.finish():
            show(event)


class Interruptible:
    """Ctrl-C ends a wait for sound at once, but never work on it; a second one ends that, too."""

    def __init__(self) -> None:
        self.asked = False
        self._waiting = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def waiting(self) -> Generator[None]:
        """Inside, Ctrl-C ends the block."""
        self._waiting = True
        try:
            with suppress(KeyboardInterrupt):
                yield
        finally:
            self._waiting = False

    def _ask(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if self._waiting or again:
            raise KeyboardInterrupt


class Screen:
    """Events as lines of text or of JSON.

    On a terminal the partial text stands in the last line and is overwritten. Elsewhere it is left out of
    text unless ``partials``, as lines that begin with an ellipsis; JSON lines hold all events.
    """

    def __init__(self, out: TextIO, format_: str, *, partials: bool) -> None:
        self._out, self._json, self._partials = out, format_ == "jsonl", partials
        self._terminal = out.isatty()

    @property
    def wants_partials(self) -> bool:
        """Is partial text of any use?"""
        return self._json or self._terminal or self._partials

    def show(self, event: Event) -> None:
        """One event, at once."""
        if self._json:
            self._write(json.dumps(event.to_record(), ensure_ascii=False) + "\n")
            return
        match event:
            case Partial() if self._terminal:
                self._write(
                    _CLEAR + _end_of(event.text, os.get_terminal_size(self._out.fileno()).columns - 1)
                )
            case Partial() if self._partials:
                self._write(f"… {event.text}\n")
            case Final() if event.text:
                self._write((_CLEAR if self._terminal else "") + event.text + "\n")
            case Final() if self._terminal:
                self._write(_CLEAR)
            case _:
                pass

    def report(self, listener: Listener, say: Callable[[str], None]) -> None:
        """The latencies: words for people, a last line of JSON for programs."""
        if self._json:
            self._write(json.dumps({"event": "report", **listener.latency.to_record()}) + "\n")
        for line in listener.latency.lines():
            say(line)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _end_of(text: str, columns: int) -> str:
    """The end of a text that fits into so many columns."""
    if cell_len(text) <= columns:
        return text
    end = text
    while end and cell_len(end) > columns - 2:
        end = end[max(1, len(end) - columns) :] if len(end) > columns else end[1:]
    return set_cell_size("… " + end, columns)
