"""How fast a model folder reads and how much memory that takes, in a process of its own with one thread.

    python -m firstwords.report.compression_probe MODEL SAMPLES.npy RATE SECONDS... --repeats 3

prints JSON: wall clock of every reading by length, the peak of the resident memory, and the memory before the
model was loaded. Started by compression.py alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from firstwords.errors import CheckpointError


@dataclass(frozen=True)
class Probe:
    """What one process measured.

    Args:
        seconds: length of the audio -> wall clock of each reading, the first left out.
        peak_bytes: of the resident memory of the whole process; None where the system does not tell.
        before_bytes: with everything imported and no model loaded.
        load_seconds: until the model was ready.
    """

    seconds: dict[float, tuple[float, ...]]
    peak_bytes: int | None
    before_bytes: int | None
    load_seconds: float


def probe(
    folder: Path,
    samples: npt.NDArray[np.float32],
    sample_rate: int,
    lengths: Sequence[float],
    *,
    repeats: int = 3,
) -> Probe:
    """Model folder and speech (S,), at least as long as the longest length -> Probe."""
    environment = os.environ | dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"
    )
    with tempfile.TemporaryDirectory(prefix="firstwords-") as scratch:
        path = Path(scratch) / "samples.npy"
        np.save(path, samples)
        command = [sys.executable, "-m", "firstwords.report.compression_probe", str(folder), str(path)]
        command += [str(sample_rate), str(repeats), *map(str, lengths)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise CheckpointError(
            f"'{folder}' could not be measured: {said[-1] if said else f'exit code {done.returncode}'}",
            mend=f"Try: firstwords info {folder}",
        )
    found = json.loads(done.stdout.splitlines()[-1])
    return Probe(
        {float(length): tuple(times) for length, times in found["seconds"].items()},
        found["peak_bytes"],
        found["before_bytes"],
        float(found["load_seconds"]),
    )


def main(arguments: Sequence[str]) -> None:
    """The measuring process."""
    folder, path, rate, repeats, *lengths = arguments
    import torch

    from firstwords.inference.recognizer import Recognizer
    from firstwords.training.memory import peak_bytes, start_measuring

    torch.set_num_threads(1)
    samples = np.load(path)
    place = torch.device("cpu")
    before = start_measuring(place)
    began = time.perf_counter()
    recognizer = Recognizer.load(folder, device="cpu", precision="fp32")
    loaded = time.perf_counter() - began
    seconds: dict[str, list[float]] = {}
    for length in lengths:
        part = samples[: round(float(length) * int(rate))]
        times: list[float] = []
        for _ in range(int(repeats) + 1):
            began = time.perf_counter()
            recognizer.transcribe_samples(part, int(rate))
            times.append(time.perf_counter() - began)
        seconds[length] = times[1:]  # the first one warms up
    print(
        json.dumps(
            {
                "seconds": seconds,
                "peak_bytes": peak_bytes(place),
                "before_bytes": before,
                "load_seconds": loaded,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
