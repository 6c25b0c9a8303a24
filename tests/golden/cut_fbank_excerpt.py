"""Writes data/fbank_excerpt.safetensors from the golden folder: a script, the folder as argument.

Kept are the first second of `utt0.wav` (int16) and those reference frames that see nothing beyond it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import soundfile
import torch
from safetensors.torch import load_file, save_file

SECOND = 16000
FRAMES = {  # mirrored edges put frame f at 160 f - 120 .. 160 f + 280; slopes look 2 and 4 frames ahead
    "knf_fbank80": 99,
    "knf_fbank80_snip": 40,
    "knf_mfcc13": 99,
    "knf_mfcc13_int16scale": 99,
    "delta_of_knf_mfcc13_int16scale": 97,
    "deltadelta_of_knf_mfcc13_int16scale": 95,
}


def main(golden: Path) -> None:
    reference = load_file(golden / "fbank" / "fbank.safetensors")
    samples, _ = soundfile.read(golden / "fbank" / "utt0.wav", dtype="int16", frames=SECOND)
    excerpt = {name: reference[f"utt0/{name}"][:frames].clone() for name, frames in FRAMES.items()}
    excerpt["samples"] = torch.from_numpy(samples)
    save_file(excerpt, Path(__file__).parent / "data" / "fbank_excerpt.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
