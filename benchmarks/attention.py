"""What fused attention saves on a section of 3,000 locations, against one that writes its scores out."""

import json
import sys
import time

import torch
from torch import nn

from benchmarks.measure import Found, Row, apart, peak_mb
from stlib import layers

LOCATIONS, WIDTH, HEADS = 3000, 512, 8


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_mask: None) -> torch.Tensor:
    """Attend with an array of scores (B, heads, N, M)."""
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v


def measure(kind: str) -> dict[str, float]:
    """Return the seconds of a second step, and the peak of memory in MB above what the start took."""
    if kind == "plain":
        layers.scaled_dot_product_attention = plain
    torch.manual_seed(0)
    net: nn.Module = layers.TransformerBlock(WIDTH, HEADS, WIDTH // HEADS, 2 * WIDTH)
    x = torch.randn(1, LOCATIONS, WIDTH)
    before = peak_mb()
    for _ in range(2):
        start = time.process_time()
        net(x).square().mean().backward()
        taken = time.process_time() - start
    return {"s": taken, "mb": peak_mb() - before}


def rows() -> Found:
    """Measure both, each in a process of its own."""
    fused, scores = (apart("benchmarks.attention", kind) for kind in ("fused", "plain"))
    what, against = f"attention, {LOCATIONS:,} locations, {HEADS} heads", "all scores written out"
    return [
        Row(f"{what}, time", against, [fused["s"]], [scores["s"]]),
        Row(f"{what}, memory", against, [fused["mb"]], [scores["mb"]], "MB"),
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(measure(sys.argv[1])))
