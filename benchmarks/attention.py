"""What fused attention saves on a section of 6,000 locations, against one that writes its scores out.

``python benchmarks/attention.py`` takes two training steps of each in a process of its own and prints time
and peak memory, and their ratios: numbers of one run on one machine.
"""

import subprocess
import sys
import time

import torch
from torch import nn

from stlib import layers
from stlib.machine import peak_memory_mb

LOCATIONS, WIDTH, HEADS = 6000, 512, 8


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_mask: None) -> torch.Tensor:
    """Attend with an array of scores (B, heads, N, M)."""
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v


def measure(kind: str) -> tuple[float, float]:
    """Return the seconds of a second step, and the peak of memory in MB above what the start took."""
    if kind == "plain":
        layers.scaled_dot_product_attention = plain
    torch.manual_seed(0)
    net: nn.Module = layers.TransformerBlock(WIDTH, HEADS, WIDTH // HEADS, 2 * WIDTH)
    x = torch.randn(1, LOCATIONS, WIDTH)
    before = peak_memory_mb()
    for _ in range(2):
        start = time.perf_counter()
        net(x).square().mean().backward()
        seconds = time.perf_counter() - start
    return seconds, peak_memory_mb() - before


def main() -> None:
    """Measure both, one after the other."""
    found = {}
    for kind in ("fused", "plain"):
        command = [sys.executable, __file__, kind]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found[kind] = [float(word) for word in out.split()]
        print(f"{kind}: {found[kind][0]:.1f} s, {found[kind][1]:.0f} MB")
    seconds, memory = (b / a for a, b in zip(found["fused"], found["plain"], strict=True))
    print(f"plain / fused: {seconds:.1f} x the time, {memory:.1f} x the memory")
    print(f"{LOCATIONS} locations, {HEADS} heads, width {WIDTH}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(*measure(sys.argv[1]))
    else:
        main()
