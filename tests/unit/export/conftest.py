"""A small causal model with both heads, and its four bundles."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstwords.export.make import Made, make_bundle
from streaming_model import make_causal_model

HEADS = {
    "ctc": {"kind": "ctc"},
    "transducer": {"kind": "transducer", "predictor": {"kind": "stateless", "dim": 16}, "joiner_dim": 24},
}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_causal_model(tmp_path_factory.mktemp("export") / "model", heads=HEADS)


@pytest.fixture(scope="session")
def bundles(model: Path) -> dict[str, Made]:
    """ "ctc", "transducer", and both with "streaming " before them; eight bits beside the CTC ones."""
    made: dict[str, Made] = {}
    for kind in ("ctc", "transducer"):
        for streaming in (False, True):
            name = f"streaming {kind}" if streaming else kind
            folder = model.parent / name.replace(" ", "-")
            made[name] = make_bundle(
                model,
                folder,
                kind=kind,  # pyright: ignore[reportArgumentType]
                streaming=streaming,
                int8=kind == "ctc",
                chunk_ms=320,
            )
    return made
