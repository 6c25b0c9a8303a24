"""Report building blocks: nothing a user typed becomes markup, nothing is loaded, all of it is readable."""

from __future__ import annotations

import itertools
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from firstwords.report import charts, page
from firstwords.report.style import COLORS

VOID = {"meta", "br", "hr", "img", "input", "link"}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style><svg onload=alert(1)>",
    "{{ 7*7 }}{% include '/etc/passwd' %}",
    "javascript:alert(1)",
    "\u202egnp.exe",
    "<!--", "]]>", "&lt;b&gt;", "{0.__class__}", "%s %(x)s",
]  # fmt: skip


class Reader(HTMLParser):
    """Collects elements, and fails where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> with nothing open"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def every_block(word: str) -> page.Page:
    """A page that shows ``word`` in every place a word can stand."""
    whole = page.Page(word, word, footer=word)
    whole.add(
        word,
        page.section(
            word,
            page.paragraph(word, page.transcript(word, word)),
            page.items([word]),
            page.command(word),
            page.note(word, "warning"),
            page.details(word, word),
            page.facts({word: word, "n": 3}),
            page.table([word, "n"], [[word, 1]], caption=word),
            page.audio(b"RIFF0000WAVE", label=word),
            page.audio(b"what is this", label=word),
            page.audio(Path("no such") / "file.wav", label=word),
            page.aligned_diff(["a", word, "c"], [word, "b", "c"], language=word),
            charts.bar_chart({word: 1.5}, title=word, unit=word, note=word),
            charts.histogram([1, 2, 2], title=word, x_label=word, y_label=word, note=word),
            charts.line_chart({word: [(0, 1), (1, 2)]}, title=word, x_label=word, y_label=word, note=word),
        ),
    )
    return whole


@pytest.mark.parametrize("word", HOSTILE)
def test_hostile_words_stay_words(word: str) -> None:
    harmless = Reader(every_block("harmless").render())
    hostile = Reader(every_block(word).render())
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in harmless.elements]
    for (tag, attributes), (_, expected) in zip(hostile.elements, harmless.elements, strict=True):
        assert attributes.keys() == expected.keys(), tag
        assert not any(name.startswith("on") for name in attributes)
    assert hostile.text.count(word) >= 15


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00")))
def test_any_text_survives_unchanged(word: str) -> None:
    reader = Reader(str(page.transcript(word, "yo")))
    assert reader.text == word
    assert reader.elements[0][1] == {"class": "transcript", "lang": "yo", "dir": "auto"}


def test_page_loads_nothing() -> None:
    text = every_block("word").render()
    reader = Reader(text)
    assert not {"script", "link", "iframe", "object", "img"} & {tag for tag, _ in reader.elements}
    for _, attributes in reader.elements:
        for name in ("src", "href", "action", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:audio/")), value
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert any("default-src 'none'" in (a.get("content") or "") for a in reader.all("meta"))


def test_page_is_a_readable_document() -> None:
    whole = page.Page("T")
    for name in ("One", "Two", "Three"):
        whole.add(page.section(name, "text"))
    text = whole.render()
    reader = Reader(text)
    assert text.startswith("<!doctype html>")
    assert reader.all("html") == [{"lang": "en"}]
    assert [a["href"] for a in reader.all("a")] == ["#section-1", "#section-2", "#section-3"]
    assert [a["id"] for a in reader.all("section")] == ["section-1", "section-2", "section-3"]
    assert "unicode-bidi:isolate" in text
    assert "prefers-color-scheme:dark" in text
    assert "@media print" in text


def test_save_writes_utf8(tmp_path: Path) -> None:
    path = page.Page("Yorùbá ẹ̀kọ́").save(tmp_path / "new" / "report.html")
    assert "Yorùbá ẹ̀kọ́" in path.read_text(encoding="utf-8")


def test_table_marks_headers_and_aligns_numbers() -> None:
    rows: list[list[page.Cell]] = [["a", 12345, 0.5], ["b", None, float("nan")]]
    reader = Reader(str(page.table(["name", "count", "hours"], rows, caption="Table of things")))
    headers = reader.all("th")
    assert [h["scope"] for h in headers] == ["col", "col", "col", "row", "row"]
    assert [h.get("class") for h in headers[:3]] == [None, "number", "number"]
    assert [c.get("class") for c in reader.all("td")] == ["number"] * 4
    assert "12,345" in reader.text
    assert "0.50" in reader.text
    assert reader.text.count("–") == 2
    assert reader.elements[0][1]["aria-label"] == "Table of things"


def test_table_refuses_ragged_rows() -> None:
    with pytest.raises(ValueError, match="2 headers but a row of 1"):
        page.table(["a", "b"], [["x"]], caption="c")


def test_diff_names_what_changed() -> None:
    reader = Reader(str(page.aligned_diff("a b c", "a x c d", language="sw")))
    assert [tag for tag, _ in reader.elements if tag in {"ins", "del"}] == ["del", "ins", "ins"]
    assert reader.text == "a missed: b put in: x c put in: d"


def test_audio_is_embedded_or_linked(tmp_path: Path) -> None:
    clip = tmp_path / "a b'<>.wav" if not Path("C:/").exists() else tmp_path / "a b'.wav"
    clip.write_bytes(b"RIFF" + bytes(100))
    embedded = Reader(str(page.audio(clip, label="clip"))).all("audio")[0]
    assert (embedded["src"] or "").startswith("data:audio/wav;base64,UklGR")
    assert "autoplay" not in embedded
    folder = tmp_path / "check"
    linked = Reader(str(page.audio(clip, label="clip", limit=10, beside=folder))).all("audio")[0]
    assert (linked["src"] or "").startswith("../a%20b%27")
    assert "too long to embed" in page.audio(clip, label="clip", limit=10)
    assert "not found" in page.audio(tmp_path / "none.wav", label="clip")


@pytest.mark.parametrize(
    ("head", "kind"),
    [(b"fLaC", "flac"), (b"OggS", "ogg"), (b"ID3\x04", "mpeg"), (b"\xff\xfb\x90", "mpeg")],
)
def test_audio_kind_comes_from_content(head: bytes, kind: str) -> None:
    assert f'src="data:audio/{kind};base64,' in page.audio(head + bytes(20), label="x")


@given(
    st.floats(-1e6, 1e6),
    st.floats(1e-3, 1e6),
    st.integers(2, 24),
)
def test_ticks_span_the_range_in_equal_steps(low: float, width: float, most: int) -> None:
    marks = charts.ticks(low, low + width, most)
    step = marks[1] - marks[0]
    assert 2 <= len(marks) <= most + 2
    assert marks[0] <= low + 1e-6 * step
    assert marks[-1] >= low + width - 1e-6 * step - 1e-9
    assert all(math.isclose(b - a, step, rel_tol=1e-4) for a, b in itertools.pairwise(marks))


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=40))
def test_histogram_counts_every_finite_number(values: list[float]) -> None:
    drawn = charts.histogram(values, title="t", x_label="x", y_label="n")
    counts = re.findall(r'<td class="number">([\d,]+)</td>', drawn)
    assert sum(int(c.replace(",", "")) for c in counts) == sum(math.isfinite(v) for v in values)


def test_histogram_puts_outliers_at_the_ends() -> None:
    drawn = charts.histogram([-5, 1, 99], title="t", x_label="x", bins=4, low=0, high=4)
    cells = re.findall(r'<td class="number">(\d+)</td>', drawn)
    assert cells == ["1", "1", "0", "1"]


def test_bars_are_proportional_and_capped() -> None:
    drawn = charts.bar_chart({f"s{k}": float(k) for k in range(4, 0, -1)}, title="Hours", unit="h", most=2)
    assert re.findall(r'width="([\d.]+)%"', drawn) == ["100.00", "75.00"]
    assert "first 2 of 4" in drawn
    assert len(Reader(str(drawn)).all("td")) == 4


def test_lines_go_where_the_numbers_are() -> None:
    drawn = charts.line_chart(
        {"loss": [(0, 10), (10, 0), (5, math.nan)]}, title="t", x_label="x", y_label="y"
    )
    assert 'd="M 0.0,0.0 1000.0,1000.0"' in drawn
    assert "no numbers" not in drawn.lower()
    log = charts.line_chart(
        {"loss": [(0, 100), (1, 1), (2, 0)]}, title="t", x_label="x", y_label="y", log_y=True
    )
    assert 'd="M 0.0,0.0 1000.0,1000.0"' in log
    assert ">100<" in log
    empty = charts.line_chart({"loss": []}, title="t", x_label="x", y_label="y")
    assert "No numbers yet" in empty
    with pytest.raises(ValueError, match="6 curves"):
        charts.line_chart({str(k): [(0, 1)] for k in range(6)}, title="t", x_label="x", y_label="y")


def test_every_chart_has_a_name_and_a_table_twin() -> None:
    for drawn in (
        charts.bar_chart({"a": 1}, title="Bars"),
        charts.histogram([1.0], title="Bars", x_label="x"),
        charts.line_chart({"a": [(0, 1)]}, title="Bars", x_label="x", y_label="y"),
    ):
        reader = Reader(str(drawn))
        chart = next(a for a in reader.all("svg") if "chart" in (a.get("class") or ""))
        assert chart["role"] == "img"
        assert (chart["aria-label"] or "").startswith("Bars: ")
        assert len(reader.all("caption")) == 1
        assert len(reader.all("details")) == 1


def _luminance(color: str) -> float:
    parts = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
def test_colors_meet_wcag_aa(theme: int) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for paper in ("paper", "raised"):
        for name in ("ink", "soft", "link", "good", "bad"):
            assert contrast(COLORS[name][theme], COLORS[paper][theme]) >= 4.5, (name, paper)
    for k in range(1, 6):
        assert contrast(COLORS[f"series-{k}"][theme], COLORS["paper"][theme]) >= 3, k


def test_markup_is_the_only_way_in() -> None:
    whole = page.Page("t").add(Markup("<b>bold</b>"), "<b>not</b>")
    text = whole.render()
    assert "<b>bold</b>" in text
    assert "&lt;b&gt;not&lt;/b&gt;" in text
