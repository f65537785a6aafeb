"""Pieces of tissue: points cut into connected blocks of bounded size."""

import torch
from torch import Tensor


def kd_blocks(position: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    """Cut points (N, 2) into connected pieces of at most `size`, halving along a random direction each time.

    Every point is in one piece. O(N log^2 N).
    """
    waiting, blocks = [torch.arange(len(position))], []
    while waiting:
        rows = waiting.pop()
        if len(rows) <= size:
            blocks.append(rows)
            continue
        angle = torch.rand((), generator=generator) * torch.pi
        along = position[rows] @ torch.stack([angle.cos(), angle.sin()]).to(position.dtype)
        waiting += [rows[half] for half in along.argsort().tensor_split(2)]
    return [blocks[index] for index in torch.randperm(len(blocks), generator=generator).tolist()]
