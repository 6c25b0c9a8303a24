"""What a frame may look at when frames come in chunks.

chunk 2, one chunk to the left      frame 0  1 1 . . . .
                                          1  1 1 . . . .
                                          2  1 1 1 1 . .
                                          3  1 1 1 1 . .
                                          4  . . 1 1 1 1
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def unseen(
    processed: Int[Tensor, " batch"], left: int, lengths: Int[Tensor, " batch"], chunk: int
) -> Bool[Tensor, "batch sources"]:
    """True for cache places that nothing filled yet and for frames beyond the end, at 50 Hz."""
    places = torch.arange(left, device=processed.device)
    frames = torch.arange(chunk, device=processed.device)
    return torch.cat((places[None] < left - processed[:, None], frames[None] >= lengths[:, None]), dim=1)


def chunk_mask(
    time: int, chunk: int, left_chunks: int, device: torch.device | None = None
) -> Bool[Tensor, "time sources"]:
    """True where a frame (row) must not see a source (column); -1 left chunks are all of them.

    Sources of later chunks and of chunks more than ``left_chunks`` earlier are hidden.
    """
    number = torch.arange(time, device=device) // chunk
    ahead = number[None, :] - number[:, None]
    hidden = ahead > 0
    return hidden if left_chunks < 0 else hidden | (ahead < -left_chunks)


def left_chunks(chunk: int, left: int) -> int:
    """Left context in frames -> in chunks, at least one; -1 stays unlimited."""
    return -1 if chunk < 0 or left < 0 else max(1, left // chunk)
