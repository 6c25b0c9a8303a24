"""sherpa-onnx reads a bundle, in a process of its own: bad metadata ends the process that loads it.

Parent: ``read_with_sherpa``. Child: ``python -m firstwords.export.sherpa FOLDER``, a question on its standard
input, an answer on its standard output; it imports no torch.

    question   {"kind", "streaming", "files": {part: name}, "tail", "recordings": file.npz, "rates": [...]}
    answer     {"tokens": [[piece, ...], ...], "texts": [text, ...]}
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from firstwords.errors import CheckpointError

Samples = npt.NDArray[np.float32]
_SECONDS = 1800.0  # a whole gate on a slow board
_ASCII_BYTES = frozenset(f"<0x{value:02X}>" for value in range(0x20, 0x7F))


class Said(NamedTuple):
    """What sherpa-onnx reads: pieces (▁ as a space), and the text it makes of them."""

    pieces: tuple[str, ...]
    text: str


def has_sherpa() -> bool:
    """Whether sherpa-onnx is installed."""
    return importlib.util.find_spec("sherpa_onnx") is not None


def read_with_sherpa(
    folder: Path,
    facts: Mapping[str, Any],
    variant: str,
    recordings: Sequence[tuple[Samples, int]],
    *,
    tail: int = 0,
) -> list[Said]:
    """Recordings with their sample rates -> what sherpa-onnx reads.

    Args:
        tail: samples of silence at the model's rate that end a stream.
    """
    with tempfile.TemporaryDirectory() as place:
        sounds = Path(place) / "sounds.npz"
        np.savez(sounds, *(samples for samples, _ in recordings))
        question = {
            "kind": facts["kind"],
            "streaming": facts["streaming"],
            "sample_rate": facts["sample_rate"],
            "mels": facts["mels"],
            "files": facts["variants"][variant],
            "recordings": str(sounds),
            "rates": [rate for _, rate in recordings],
            "tail": tail / facts["sample_rate"],
        }
        try:
            child = subprocess.run(
                [sys.executable, "-m", "firstwords.export.sherpa", str(folder)],
                input=json.dumps(question),
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CheckpointError(
                f"sherpa-onnx has not read {len(recordings)} recordings with '{folder}' "
                f"within {_SECONDS:g} s.",
                mend="Export on a machine with less to do, or without --check.",
            ) from None
    if child.returncode != 0:
        said = " ".join(child.stderr.split())[-300:] or "nothing"
        raise CheckpointError(
            f"sherpa-onnx could not run '{folder}' (exit code {child.returncode}; it said: {said}).",
            mend="This is a fault of the exporter: report it with the recipe.toml of the model.",
        )
    answer = json.loads(child.stdout.splitlines()[-1])
    return [
        Said(tuple(_shown(piece) for piece in pieces), text)
        for pieces, text in zip(answer["tokens"], answer["texts"], strict=True)
    ]


def shown(pieces: Sequence[str], tokens: Sequence[int]) -> tuple[str, ...]:
    """Ids as sherpa-onnx shows them."""
    return tuple(_shown(pieces[token]) for token in tokens)


def _shown(piece: str) -> str:
    """A space for its mark, and a letter for the byte that is one (sherpa-onnx writes either)."""
    if piece in _ASCII_BYTES:
        return chr(int(piece[3:5], 16))
    return piece.replace("\u2581", " ")


def _recognizer(folder: Path, question: Mapping[str, Any]) -> Any:
    import sherpa_onnx  # pyright: ignore[reportMissingTypeStubs]

    files = {part: str(folder / name) for part, name in question["files"].items()}
    common: dict[str, Any] = {
        "tokens": str(folder / "tokens.txt"),
        "num_threads": 1,
        "sample_rate": question["sample_rate"],
        "feature_dim": question["mels"],
    }
    offline: Any = sherpa_onnx.OfflineRecognizer
    online: Any = sherpa_onnx.OnlineRecognizer
    if question["streaming"]:
        make = online.from_zipformer2_ctc if question["kind"] == "ctc" else online.from_transducer
    else:
        make = offline.from_zipformer_ctc if question["kind"] == "ctc" else offline.from_transducer
    return make(**files, **common)


def _answer(folder: Path, question: Mapping[str, Any]) -> dict[str, list[Any]]:
    recognizer = _recognizer(folder, question)
    found: list[list[str]] = []
    texts: list[str] = []
    with np.load(question["recordings"]) as sounds:
        for i, rate in enumerate(question["rates"]):
            samples = sounds[f"arr_{i}"]
            stream = recognizer.create_stream()
            stream.accept_waveform(rate, samples)
            if not question["streaming"]:
                recognizer.decode_stream(stream)
                pieces, text = stream.result.tokens, stream.result.text
            else:
                silence = np.zeros(round(question["tail"] * rate), np.float32)
                stream.accept_waveform(rate, silence)
                stream.input_finished()
                while recognizer.is_ready(stream):
                    recognizer.decode_stream(stream)
                pieces, text = recognizer.tokens(stream), recognizer.get_result(stream)
            found.append(list(pieces))
            texts.append(text)
    return {"tokens": found, "texts": texts}


if __name__ == "__main__":
    print(json.dumps(_answer(Path(sys.argv[1]), json.load(sys.stdin))))
