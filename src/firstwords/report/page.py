"""Building blocks of every report -> one HTML file that works offline.

A block is ``Markup`` (text that is already safe HTML); plain strings given to any block are escaped, so a
transcript or a file name can never become markup. The page loads nothing: its Content-Security-Policy
forbids every request except embedded audio, and it has no script. Charts are in ``charts.py``.

    page = Page("Corpus check", "yoruba, 2.1 hours")
    page.add(section("Findings", table(["rule", "hours"], [["silence", 0.25]], caption="By hours")))
    page.save(folder / "report.html")
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from firstwords.files import write_atomically
from firstwords.report.style import STYLE
from firstwords.scoring.alignment import align

Cell = str | int | float | None | Markup
Block = str | Markup

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; media-src data: file: 'self'; base-uri 'none'"
_EMBED_LIMIT = 400_000  # bytes of one clip kept inside the page: about a minute of Opus, 12 s of 16 kHz WAV

_ENVIRONMENT = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)

_PAGE = _ENVIRONMENT.from_string("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="referrer" content="no-referrer">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<header>
<h1 dir="auto">{{ title }}</h1>
{% if subtitle %}
<p class="subtitle" dir="auto">{{ subtitle }}</p>
{% endif %}
{% if headings|length > 2 %}
<nav aria-label="Sections"><ul>
{% for number, heading in headings %}
<li><a href="#section-{{ number }}">{{ heading }}</a></li>
{% endfor %}
</ul></nav>
{% endif %}
</header>
<main>
{% for part in parts %}
{{ part }}
{% endfor %}
</main>
<footer>{{ footer }}</footer>
</body>
</html>
""")

_TABLE = _ENVIRONMENT.from_string("""<div class="wide" role="region" tabindex="0" aria-label="{{ caption }}">
<table>
<caption>{{ caption }}</caption>
<thead><tr>
{% for header in headers %}
<th scope="col"{% if numeric[loop.index0] %} class="number"{% endif %}>{{ header }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in rows %}
<tr>
{% for cell in row %}
{% if loop.first and row_headers %}
<th scope="row" dir="auto"{% if numeric[0] %} class="number"{% endif %}>{{ cell }}</th>
{% elif numeric[loop.index0] %}
<td class="number">{{ cell }}</td>
{% else %}
<td dir="auto">{{ cell }}</td>
{% endif %}
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>""")


@dataclass(frozen=True)
class Section:
    """A headed part of a page."""

    title: str
    body: Markup


class Page:
    """Title and parts -> one self-contained HTML document."""

    def __init__(self, title: str, subtitle: str = "", *, footer: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self.footer = (
            footer or "Made by firstwords on this computer. This file loads nothing from the network."
        )
        self._parts: list[Section | Markup] = []

    def add(self, *parts: Section | Block) -> Page:
        """Append sections or bare blocks; a plain string becomes a paragraph."""
        for part in parts:
            self._parts.append(part if isinstance(part, Section) else _block(part))
        return self

    def render(self) -> str:
        """The whole document."""
        headings: list[tuple[int, str]] = []
        parts: list[Markup] = []
        for part in self._parts:
            if isinstance(part, Section):
                number = len(headings) + 1
                headings.append((number, part.title))
                head = Markup('<section id="section-{0}"><h2 dir="auto">{1}</h2>').format(number, part.title)
                parts.append(head + part.body + Markup("</section>"))
            else:
                parts.append(part)
        return _PAGE.render(
            title=self.title,
            subtitle=self.subtitle,
            headings=headings,
            parts=parts,
            footer=self.footer,
            policy=_POLICY,
            style=Markup(STYLE),
        )

    def save(self, path: Path) -> Path:
        """Write the document beside ``path`` and rename it into place."""
        write_atomically(path, self.render())
        return path


def _block(part: Block) -> Markup:
    return part if isinstance(part, Markup) else paragraph(part)


def section(title: str, *blocks: Block) -> Section:
    """Heading and blocks -> Section."""
    return Section(title, Markup("\n").join(_block(b) for b in blocks))


def paragraph(*parts: Block) -> Markup:
    """Text and inline blocks, joined as they are -> paragraph."""
    return Markup('<p dir="auto">{0}</p>').format(Markup("").join(parts))


def items(entries: Iterable[Block]) -> Markup:
    """Entries -> bulleted list."""
    rows = Markup("").join(Markup('<li dir="auto">{0}</li>').format(e) for e in entries)
    return Markup("<ul>{0}</ul>").format(rows)


def command(text: str) -> Markup:
    """A command line to copy."""
    return Markup('<pre dir="ltr"><code>{0}</code></pre>').format(text)


def note(text: Block, kind: Literal["info", "good", "warning"] = "info") -> Markup:
    """A marked sentence; its kind is said in words, not by color alone."""
    word = {"info": "Note", "good": "Good", "warning": "Take care"}[kind]
    return Markup('<div role="note" class="note {0}"><strong>{1}:</strong> {2}</div>').format(
        kind, word, text
    )


def details(summary: str, *blocks: Block) -> Markup:
    """Blocks folded away under a line that opens them."""
    body = Markup("\n").join(_block(b) for b in blocks)
    return Markup("<details><summary>{0}</summary>{1}</details>").format(summary, body)


def facts(values: Mapping[str, Cell]) -> Markup:
    """Name -> value pairs as a definition list."""
    rows = Markup("").join(
        Markup('<dt>{0}</dt><dd dir="auto">{1}</dd>').format(k, show(v)) for k, v in values.items()
    )
    return Markup("<dl>{0}</dl>").format(rows)


def transcript(text: str, language: str | None = None) -> Markup:
    """What was said, in its own language and direction, isolated from the text around it."""
    lang = Markup(' lang="{0}"').format(language or "und")
    return Markup('<span class="transcript"{0} dir="auto">{1}</span>').format(lang, text)


def show(value: Cell, digits: int = 2) -> Markup:
    """A cell -> text: thousands separated, floats with ``digits`` decimals, None as a dash."""
    if value is None:
        return Markup("–")
    if isinstance(value, bool):
        return Markup("yes" if value else "no")
    if isinstance(value, int):
        return Markup(f"{value:,}")
    if isinstance(value, float):
        return Markup(f"{value:,.{digits}f}" if abs(value) != float("inf") and value == value else "–")
    return escape(value)


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    caption: str,
    numeric: Iterable[int] | None = None,
    digits: int = 2,
    row_headers: bool = True,
) -> Markup:
    """Headers and rows -> table; columns of numbers stand right-aligned.

    Args:
        numeric: columns to right-align; by default those whose every cell is a number or None.
        row_headers: mark the first cell of each row as the header of its row.
    """
    body = [list(row) for row in rows]
    for row in body:
        if len(row) != len(headers):
            raise ValueError(f"table '{caption}': {len(headers)} headers but a row of {len(row)} cells")
    if numeric is None:
        flags = [bool(body) and _is_numeric([row[k] for row in body]) for k in range(len(headers))]
    else:
        chosen = set(numeric)
        flags = [k in chosen for k in range(len(headers))]
    shown = [[show(cell, digits) for cell in row] for row in body]
    return Markup(
        _TABLE.render(headers=headers, rows=shown, numeric=flags, caption=caption, row_headers=row_headers)
    )


def _is_numeric(cells: Sequence[Cell]) -> bool:
    numbers = [isinstance(c, int | float) and not isinstance(c, bool) for c in cells]
    return any(numbers) and all(
        is_number or cell is None for is_number, cell in zip(numbers, cells, strict=True)
    )


def audio(
    source: Path | bytes,
    *,
    label: str,
    beside: Path | None = None,
    limit: int = _EMBED_LIMIT,
    span: tuple[float, float] | None = None,
) -> Markup:
    """Encoded clip or file -> a player; it never plays by itself.

    Files up to ``limit`` bytes are embedded, so the page stays one file; longer ones are linked relative to
    ``beside`` (the folder the page is saved in), or only named when ``beside`` is None.

    Args:
        span: start and end in seconds of the stretch to play (a media fragment).
    """
    if isinstance(source, Path):
        try:
            size = source.stat().st_size
            content = source.read_bytes() if size <= limit else None
            head = content[:16] if content is not None else _head(source)
        except OSError:
            return Markup('<span dir="auto">{0}: audio file not found</span>').format(label)
    else:
        content, head = source, source[:16]
    kind = _media_type(head)
    if kind is None:
        return Markup('<span dir="auto">{0}: browsers cannot play this format</span>').format(label)
    if content is not None:
        address = f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
    elif beside is not None:
        address = _relative_address(Path(str(source)), beside)
    else:
        return Markup('<span dir="auto">{0}: too long to embed, see {1}</span>').format(label, str(source))
    if span is not None:
        address += f"#t={span[0]:.2f},{span[1]:.2f}"
    return Markup('<audio controls preload="none" aria-label="{0}" src="{1}"></audio>').format(label, address)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def _relative_address(path: Path, folder: Path) -> str:
    path, folder = path.absolute(), folder.absolute()
    ups = 0
    while not path.is_relative_to(folder):
        if folder.parent == folder:  # another drive
            return path.as_uri()
        folder, ups = folder.parent, ups + 1
    return quote("../" * ups + path.relative_to(folder).as_posix())


def _media_type(head: bytes) -> str | None:
    """By content, never by name."""
    if head[:4] in (b"RIFF", b"RF64"):
        return "audio/wav"
    if head[:4] == b"fLaC":
        return "audio/flac"
    if head[:4] == b"OggS":
        return "audio/ogg"
    if head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0):
        return "audio/mpeg"
    if head[4:8] == b"ftyp":
        return "audio/mp4"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "audio/webm"
    return None


def aligned_diff(
    reference: str | Sequence[str],
    hypothesis: str | Sequence[str],
    *,
    language: str | None = None,
    joiner: str = " ",
) -> Markup:
    """Two word sequences (strings are split at spaces) -> one line: struck out = missed, underlined = put in.

    Pass lists of grapheme clusters with ``joiner=""`` to compare letters.
    """
    left = reference.split() if isinstance(reference, str) else list(reference)
    right = hypothesis.split() if isinstance(hypothesis, str) else list(hypothesis)
    parts: list[Markup] = []
    for was, now in align(left, right):
        if was == now:
            parts.append(escape(was or ""))
            continue
        pair: list[Markup] = []
        if was is not None:
            pair.append(Markup('<del><span class="unseen">missed: </span>{0}</del>').format(was))
        if now is not None:
            pair.append(Markup('<ins><span class="unseen">put in: </span>{0}</ins>').format(now))
        parts.append(Markup(" ").join(pair))
    lang = Markup(' lang="{0}"').format(language or "und")
    return Markup('<span class="transcript"{0} dir="auto">{1}</span>').format(
        lang, Markup(joiner).join(parts)
    )
