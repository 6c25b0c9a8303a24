"""The picture of an utterance is an SVG that stands alone, and shows what is in the numbers."""

from __future__ import annotations

import base64
import io
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from firstwords.audio.waveform import write
from firstwords.cli.main import app
from firstwords.errors import UsageError
from firstwords.inference.recognizer import Recognizer
from firstwords.inference.sight import Sight, look
from firstwords.report.picture import draw, grey_png
from nonsense_model import make_nonsense_model

SVG = "{http://www.w3.org/2000/svg}"


def sight(**changed: object) -> Sight:
    posteriors = np.full((25, 4), 0.01, np.float32)
    posteriors[:, 0] = 0.97
    posteriors[5] = [0.1, 0.8, 0.09, 0.01]
    posteriors[12] = [0.3, 0.0, 0.7, 0.0]
    attention = np.eye(3, 25, dtype=np.float32)
    values: dict[str, object] = {
        "title": "a <b> & c",
        "frames": np.random.default_rng(1).normal(size=(100, 80)).astype(np.float32),
        "frame_shift": 0.01,
        "encoded_shift": 0.04,
        "pieces": ["<blank>", "x", "\u1eb9\u0301", "<"],
        "words": [("x\u1eb9\u0301", 0.2, 0.55)],
        "posteriors": posteriors,
        "attention": attention,
        "written": ["x", "\u1eb9\u0301", "<"],
    }
    return Sight(**(values | changed))  # pyright: ignore[reportArgumentType]


def test_grey_png_is_read_by_another_library() -> None:
    values = np.random.default_rng(0).integers(0, 256, (7, 13)).astype(np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(grey_png(values)))), values)


def test_spikes_words_and_attention_stand_where_they_belong() -> None:
    tree = ET.fromstring(draw(sight()))
    width = 640.0  # one second is as wide as the least width

    labels = [(t.text, float(t.attrib["x"])) for t in tree.iter(f"{SVG}text")]
    assert ("x", pytest.approx(90 + 5.5 * 0.04 * width, abs=0.1)) in labels
    assert ("\u1eb9\u0301", pytest.approx(90 + 12.5 * 0.04 * width, abs=0.1)) in labels
    curves = [c.find(f"{SVG}title") for c in tree.iter(f"{SVG}polyline")]
    assert [c.text for c in curves if c is not None] == ["x", "\u1eb9\u0301"]  # "<" never rises
    box = next(r for r in tree.iter(f"{SVG}rect") if r.attrib.get("fill") == "none")
    assert float(box.attrib["x"]) == pytest.approx(90 + 0.2 * width)
    assert float(box.attrib["width"]) == pytest.approx(0.35 * width)
    images = list(tree.iter(f"{SVG}image"))
    assert len(images) == 2
    data = base64.b64decode(images[1].attrib["href"].partition(",")[2])
    picture = np.asarray(Image.open(io.BytesIO(data)))
    assert picture.shape == (3, 25)
    assert [int(row.argmin()) for row in picture] == [0, 1, 2]


def test_a_picture_of_nothing() -> None:
    empty = sight(
        frames=np.zeros((0, 80), np.float32),
        posteriors=np.zeros((0, 4), np.float32),
        attention=None,
        words=[],
    )
    ET.fromstring(draw(empty))


def test_inspect_writes_a_picture_of_a_recording(tmp_path: Path) -> None:
    model = make_nonsense_model(tmp_path / "model")
    noise = 0.1 * np.random.default_rng(3).normal(size=32000).astype(np.float32)
    write(tmp_path / "noise.wav", noise, 16000)
    picture = tmp_path / "noise.svg"
    arguments = ["inspect", str(model), str(tmp_path / "noise.wav"), "--to", str(picture)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert len(list(ET.fromstring(picture.read_text(encoding="utf-8")).iter(f"{SVG}polyline"))) >= 2
    recognizer = Recognizer.load(model)
    seen = look(recognizer, tmp_path / "noise.wav")
    assert seen.posteriors is not None
    np.testing.assert_allclose(
        seen.posteriors, np.exp(recognizer.log_probs(tmp_path / "noise.wav")), rtol=0, atol=1e-5
    )


def test_long_recordings_and_other_formats_are_refused_with_words(tmp_path: Path) -> None:
    model = make_nonsense_model(tmp_path / "model")
    write(tmp_path / "long.wav", np.zeros(61 * 16000, np.float32), 16000)
    with pytest.raises(UsageError, match="too long for a picture"):
        look(Recognizer.load(model), tmp_path / "long.wav")
    done = CliRunner().invoke(app, ["inspect", str(model), str(tmp_path / "long.wav"), "--to", "a.gif"])
    assert isinstance(done.exception, UsageError)


def test_what_xml_cannot_hold_is_left_out_of_the_picture() -> None:
    odd = sight(title="n\udce9.flac: a\x1bb", words=[("a\x07b", 0.2, 0.5)], written=["\x00", "a", "b"])
    tree = ET.fromstring(draw(odd).encode())
    labels = [t.text for t in tree.iter(f"{SVG}text")]
    assert "ab" in labels
    assert "n?.flac: ab" in labels
