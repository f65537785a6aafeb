"""Blocks used unchanged by two or more models."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Standardise(nn.Module):
    """Shift and scale features to mean 0 and deviation 1 over the training locations; kept as buffers."""

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def fit(self, features: Tensor) -> None:
        """Take mean and deviation from features (N, D); a constant feature is left unscaled."""
        features = features.double()
        std = features.std(0, unbiased=False)
        self.mean.copy_(features.mean(0))
        self.std.copy_(torch.where(std > 1e-8, std, 1.0))

    def forward(self, features: Tensor) -> Tensor:
        """Return the features (N, D) in units of the deviation."""
        return (features - self.mean) / self.std


class Pixels(nn.Module):
    """Turn patches (N, 3, P, P) of 0 to 255 into floats with ImageNet's mean 0 and deviation 1."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, patch: Tensor) -> Tensor:
        """Return floats (N, 3, P, P)."""
        return (patch - self.mean) / self.std


def in_chunks(encode: Callable[[Tensor], Tensor], patch: Tensor, size: int = 128) -> Tensor:
    """Encode many patches with the memory of `size`; what a row becomes does not depend on the others."""
    return torch.cat([encode(part) for part in patch.split(size)])


def dihedral(patch: Tensor) -> list[Tensor]:
    """Return the 8 turned and mirrored views of patches (N, 3, P, P)."""
    turned = [patch.rot90(quarter, (2, 3)) for quarter in range(4)]
    return turned + [view.flip(3) for view in turned]


def cosine_decay(progress: float, floor: float = 0.01) -> float:
    """Return the factor of a cosine schedule from 1 to `floor` after the share `progress` of the training."""
    return floor + (1 - floor) * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * progress))))
