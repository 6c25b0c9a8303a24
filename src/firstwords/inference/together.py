"""A recogniser that reads together with other models from their folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from firstwords.inference.committee import Committee
from firstwords.inference.recognizer import Recognizer
from firstwords.search.interface import CtcBeamConfig


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
    search = recognizer.search_config
    if isinstance(search, CtcBeamConfig) and search.n_best < search.beam:
        recognizer.use(search.with_(n_best=search.beam), recognizer.scorers)
    recognizer.committee = Committee(recognizer, others)
    names = ", ".join(str(folder) for folder in folders)
    return [f"{len(folders) + 1} models read together: {recognizer.folder}, {names}."]
