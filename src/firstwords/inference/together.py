"""A recogniser that reads together with other models from their folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from firstwords.inference.committee import Committee
from firstwords.inference.recognizer import Recognizer


def convene(recognizer: Recognizer, folders: Sequence[Path], *, int8: bool = False) -> list[str]:
    """Have the models of these folders read along with a recogniser from now on -> what to tell the user.

    They need the pieces and the sample rate of the first one, as models of one corpus and recipe have them;
    encoder, size and seed are their own.
    """
    place = recognizer.compute
    others = [
        Recognizer.load(
            folder, device=str(place.device), precision="bf16" if place.autocast else "fp32", int8=int8
        )
        for folder in folders
    ]
    recognizer.committee = Committee(recognizer, others)
    recognizer.use(recognizer.search_config, recognizer.scorers)
    names = ", ".join(str(folder) for folder in folders)
    return [f"{len(folders) + 1} models read together: {recognizer.folder}, {names}."]
