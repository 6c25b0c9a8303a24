"""What a model sees in one utterance, as one SVG file: spectrogram, words, CTC spikes, attention.

    words and their times over the spectrogram (low frequencies at the bottom)
    one curve per piece: the posterior of every frame; the blank is a grey area
    attention: a row per piece, dark where the decoder looked when it wrote the piece

Images inside the SVG are grey PNGs of one pixel per frame; the file needs nothing beside itself.
"""

from __future__ import annotations

import base64
import struct
import zlib
from html import escape

import numpy as np
import numpy.typing as npt

from firstwords.inference.sight import Sight
from firstwords.report.style import COLORS
from firstwords.text.pieces import legible

_LEFT, _RIGHT, _TOP, _GAP = 90, 20, 64, 44  # pixels around and between panels
_SPECTROGRAM, _SPIKES, _ROW = 180, 180, 18  # heights
_PER_SECOND, _LEAST, _MOST = 160, 640, 6000  # pixels of width
_SHOWN = 0.02  # posterior from which on a piece has a curve
_LABELED = 0.3  # and a label at its peak
_SERIES = [COLORS[f"series-{n}"][0] for n in range(1, 5)]


def draw(sight: Sight) -> str:
    """Sight -> the text of an SVG file."""
    seconds = len(sight.frames) * sight.frame_shift
    width = float(np.clip(seconds * _PER_SECOND, _LEAST, _MOST))
    scale = width / max(seconds, 1e-9)
    parts: list[str] = [_text(_LEFT, 20, sight.title, size=15)]
    y = _TOP
    parts += _spectrogram(sight, y, width, scale)
    y += _SPECTROGRAM + _GAP
    if sight.posteriors is not None:
        parts += _spikes(sight, sight.posteriors, y, scale, width)
        y += _SPIKES + _GAP
    if sight.attention is not None and len(sight.attention):
        parts += _attention(sight, sight.attention, y, scale)
        y += _ROW * len(sight.attention) + _GAP
    parts += _seconds(seconds, y - _GAP + 16, scale)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + _LEFT + _RIGHT:.0f}" height="{y}" '
        f'font-family="system-ui, sans-serif" role="img" aria-label="{_safe(sight.title)}">\n'
        f'<rect width="100%" height="100%" fill="{COLORS["paper"][0]}"/>\n{body}\n</svg>\n'
    )


def grey_png(values: npt.NDArray[np.uint8]) -> bytes:
    """(rows, columns) of 0 (black) to 255 -> a PNG file (ISO/IEC 15948: grey, 8 bits, no filter)."""
    rows, columns = values.shape

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    lines = np.concatenate([np.zeros((rows, 1), np.uint8), values], axis=1)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9))
        + chunk(b"IEND", b"")
    )


def _spectrogram(sight: Sight, y: float, width: float, scale: float) -> list[str]:
    low, high = np.percentile(sight.frames, [2, 99.5]) if sight.frames.size else (0.0, 1.0)
    dark = np.clip((sight.frames.T[::-1] - low) / max(float(high - low), 1e-6), 0, 1)
    parts = [
        _image((255 * (1 - dark)).astype(np.uint8), _LEFT, y, width, _SPECTROGRAM),
        _text(_LEFT - 8, y + _SPECTROGRAM / 2, "mel", anchor="end"),
    ]
    ink = COLORS["series-2"][0]
    for n, (word, start, end) in enumerate(sight.words):
        left, right = _LEFT + start * scale, _LEFT + end * scale
        parts.append(
            f'<rect x="{left:.1f}" y="{y}" width="{max(right - left, 1):.1f}" height="{_SPECTROGRAM}" '
            f'fill="none" stroke="{ink}" stroke-opacity="0.6"/>'
        )
        # Two heights, so that short neighbours stay readable.
        parts.append(_text((left + right) / 2, y - 6 - 16 * (n % 2), word, anchor="middle", size=13))
    return parts


def _spikes(
    sight: Sight, posteriors: npt.NDArray[np.float32], y: float, scale: float, width: float
) -> list[str]:
    middle = (np.arange(len(posteriors)) + 0.5) * sight.encoded_shift * scale + _LEFT
    height = y + (1 - posteriors) * _SPIKES

    def points(piece: int) -> str:
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(middle, height[:, piece], strict=True))

    bottom = y + _SPIKES
    parts = [
        _text(_LEFT - 8, y + 5, "1", anchor="end"),
        _text(_LEFT - 8, bottom, "0", anchor="end"),
        _text(_LEFT - 8, y + _SPIKES / 2, "CTC", anchor="end"),
        f'<line x1="{_LEFT}" x2="{_LEFT + width:.1f}" y1="{bottom}" y2="{bottom}" stroke="#999"/>',
    ]
    if len(posteriors):
        parts.append(
            f'<polygon points="{middle[0]:.1f},{bottom} {points(0)} {middle[-1]:.1f},{bottom}" '
            f'fill="#ddd"><title>blank</title></polygon>'
        )
    shown = [k for k in range(1, posteriors.shape[1]) if posteriors[:, k].max(initial=0) > _SHOWN]
    for n, piece in enumerate(shown):
        ink = _SERIES[n % len(_SERIES)]
        name = _safe(sight.pieces[piece])
        parts.append(
            f'<polyline points="{points(piece)}" fill="none" stroke="{ink}" stroke-width="1.5">'
            f"<title>{name}</title></polyline>"
        )
        for frame in _peaks(posteriors[:, piece]):
            parts.append(
                _text(middle[frame], height[frame, piece] - 4, sight.pieces[piece], anchor="middle", ink=ink)
            )
    return parts


def _peaks(curve: npt.NDArray[np.float32]) -> list[int]:
    """Frames where a curve is highest among its neighbours and worth a label."""
    around = np.pad(curve, 1, constant_values=-1)
    top = (curve >= _LABELED) & (curve > around[:-2]) & (curve >= around[2:])
    return [int(frame) for frame in np.flatnonzero(top)]


def _attention(sight: Sight, weights: npt.NDArray[np.float32], y: float, scale: float) -> list[str]:
    # Each row by its own largest weight: wide and narrow looks are both seen.
    relative = weights / np.maximum(weights.max(axis=1, keepdims=True), 1e-9)
    width = weights.shape[1] * sight.encoded_shift * scale
    parts = [_image((255 * (1 - relative)).astype(np.uint8), _LEFT, y, width, _ROW * len(weights))]
    parts += [
        _text(_LEFT - 8, y + _ROW * (n + 0.75), piece, anchor="end") for n, piece in enumerate(sight.written)
    ]
    return parts


def _seconds(seconds: float, y: float, scale: float) -> list[str]:
    step = next((s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10) if s * scale >= 60), 30)
    return [
        _text(_LEFT + step * n * scale, y, f"{step * n:g} s", anchor="middle", ink=COLORS["soft"][0])
        for n in range(int(seconds / step) + 1)
    ]


def _image(values: npt.NDArray[np.uint8], x: float, y: float, width: float, height: float) -> str:
    if 0 in values.shape:
        return ""
    data = base64.b64encode(grey_png(values)).decode("ascii")
    return (
        f'<image x="{x}" y="{y}" width="{width:.1f}" height="{height}" preserveAspectRatio="none" '
        f'style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'
    )


def _safe(text: str) -> str:
    """Text as XML holds it; the name of a recording may have bytes that are no UTF-8."""
    return escape(legible(text).encode("utf-8", "replace").decode())


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, ink: str = "") -> str:
    fill = ink or COLORS["ink"][0]
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{fill}">'
        f"{_safe(text)}</text>"
    )
