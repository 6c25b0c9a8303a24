"""Weights as numbers into a codebook: k-means in one dimension, and indices of a few bits in bytes.

    weights of a row group   0.11  -0.52   0.10   0.49
    codebook (2 bits)        -0.52  0.00   0.105  0.49        16-bit floats, ascending
    indices                     2      0      2      3
    in bytes, lowest first   0b11_10_00_10

k-means with centroids spread evenly over [min, max] at the start (Han et al., 2016, arXiv:1510.00149,
section 3.2: better for accuracy than starts at random or by density, since the few large weights keep
centroids of their own). In one dimension a cluster is an interval of the sorted values, so an iteration is
a search of the midpoints and differences of running sums.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ITERATIONS = 30
MOST_BITS = 8


def fit_codebook(values: NDArray[np.float32], bits: int, iterations: int = ITERATIONS) -> NDArray[np.float16]:
    """Values (N,), N > 0, finite and within float16 -> 2**bits centroids, ascending.

    Where there are no more different values than centroids (weights that shared them before), each value is
    one, as exactly as float16 allows; what is left over of the codebook then repeats the largest.
    """
    size = 2**bits
    exact = np.unique(values)
    if len(exact) <= size:
        return np.concatenate([exact, np.repeat(exact[-1:], size - len(exact))]).astype(np.float16)
    ordered = np.sort(values.astype(np.float64))
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centroids = np.linspace(ordered[0], ordered[-1], size)
    for _ in range(iterations):
        edges = np.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2)
        ends = np.concatenate([[0], edges, [len(ordered)]])
        counts = np.diff(ends)
        means = np.diff(sums[ends]) / np.maximum(counts, 1)
        moved = np.where(counts > 0, means, centroids)  # one without values stays where it is
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return np.sort(centroids).astype(np.float16)


def nearest(values: NDArray[np.float32], codebook: NDArray[np.float16]) -> NDArray[np.uint8]:
    """Values (N,) -> the index of the nearest centroid of each; the lower one where two are as near."""
    numbers = codebook.astype(np.float64)
    return np.searchsorted((numbers[1:] + numbers[:-1]) / 2, values.astype(np.float64)).astype(np.uint8)


def pack_bits(indices: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Indices (N,) below 2**bits -> ceil(N bits / 8) bytes, lowest bit first."""
    rows = np.unpackbits(indices[:, None], axis=1, count=bits, bitorder="little")
    return np.packbits(rows.reshape(-1), bitorder="little")


def unpack_bits(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    """What ``pack_bits`` made of ``count`` indices -> these indices."""
    rows = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    return np.packbits(rows, axis=1, bitorder="little")[:, 0]
