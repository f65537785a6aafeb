"""A training step of ASIGN: against its parts, and its graph against one of dense adjacency.

The parts of a step are the image encoder alone, all that follows it alone, and the optimiser's update; a
batch is small, since the paper's 128 take 4 GB and minutes. The graph has 10,000 nodes, cached features and
rounds of attention; the dense reference holds a score for each pair of nodes, so that it is measured at
`DENSE` nodes and grows with their square. Both give the same numbers at that size.
"""

import json
import sys
import time

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Found, Row, apart, peak_mb, seconds
from stlib.batch import Batch, Shape
from stlib.graph import grid_graph, grid_parents, knn_graph, symmetric
from stlib.layers import GraphRounds
from stlib.models import build, configure

BATCHES = {112: 16, 224: 4}  # side of a patch -> spots
ENCODER, FEATURES, GENES, PITCH_PX = "resnet50@untrained", 1024, 250, 222
NODES, DENSE, WIDTH, HEADS, ROUNDS, NEAR = 10_000, 400, 256, 8, 3, 12


def batch_of(n: int, px: int) -> Batch:
    """Return n spots of one section with patches of noise, their cells and their neighbours."""
    draw = torch.Generator().manual_seed(0)
    place = np.stack(np.divmod(np.arange(n), int(np.ceil(n**0.5))), 1) * float(PITCH_PX)
    edges, weight = symmetric(*knn_graph(place, NEAR))
    batch = Batch(
        num_nodes=n,
        patch=torch.randint(256, (n, 3, px, px), dtype=torch.uint8, generator=draw),
        section=torch.zeros(n, dtype=torch.long),
        expression=torch.randn(n, GENES, generator=draw),
        known=torch.zeros(n, dtype=torch.bool),
        depth=torch.ones(n),
        edge_index=torch.from_numpy(edges),
        edge_weight=torch.from_numpy(weight),
        across=torch.zeros(edges.shape[1], dtype=torch.bool),
    )
    for level, size in (("region", 512), ("global", 1024)):
        parent, cells = grid_parents(place, size)
        batch[f"{level}_parent"] = torch.from_numpy(parent)
        batch[f"{level}_edges"] = torch.from_numpy(grid_graph(cells))
        batch[f"{level}_features"] = torch.randn(len(cells), FEATURES, generator=draw)
        batch[f"{level}_expression"] = torch.randn(len(cells), GENES, generator=draw)
    return batch


def step(px: int) -> dict[str, list[float]]:
    """Take whole steps, and the parts of one, in turns; return their processor seconds and the peak, MB."""
    torch.manual_seed(0)
    shape = Shape(tuple(f"GENE{index}" for index in range(GENES)), FEATURES)
    model = build("asign", configure("asign", "2d", encoder=ENCODER), shape).train()
    model.to(memory_format=torch.channels_last)
    optimiser, batch = model.optimiser(), batch_of(BATCHES[px], px)
    encode = model.spot.forward
    given = torch.randn(len(batch.section), model.config.width, requires_grad=True)
    slope = torch.randn_like(given)

    def whole() -> None:
        optimiser.zero_grad()
        model.loss(batch, model(batch)).backward()
        optimiser.step()

    def image() -> None:
        model.zero_grad()
        encode(batch).backward(slope)

    def rest() -> None:
        model.spot.forward = lambda _: given
        model.zero_grad()
        model.loss(batch, model(batch)).backward()
        model.spot.forward = encode

    all_parts, *parts = seconds(whole, image, rest, optimiser.step, repeats=3)
    return {"whole": all_parts, "parts": np.sum(parts, 0).tolist(), "mb": peak_mb()}


def dense_rounds(net: GraphRounds, x: Tensor, near: Tensor) -> Tensor:
    """Do what `GraphRounds` does with scores for all pairs of nodes; `near` (N, N) says who sees whom."""
    out = []
    for layer in net.rounds:
        source, target = (lin(x).unflatten(1, (HEADS, -1)) for lin in (layer.lin_l, layer.lin_r))
        pair = torch.nn.functional.leaky_relu(source[None] + target[:, None], layer.negative_slope)
        score = (pair * layer.att).sum(-1).masked_fill(~near[..., None], -torch.inf)  # (N, N, heads)
        x = x + torch.relu(torch.einsum("ijh,jhc->ihc", score.softmax(1), source).flatten(1) + layer.bias)
        out.append(x)
    return torch.stack(out, 1)


def rounds(kind: str, n: int) -> dict[str, float]:
    """Take a step of graph attention on n nodes; return processor seconds, and memory above the start, MB."""
    torch.manual_seed(0)
    place = np.stack(np.divmod(np.arange(n), int(np.ceil(n**0.5))), 1).astype(float)
    edges = torch.from_numpy(symmetric(*knn_graph(place, NEAR))[0])
    net, x = GraphRounds(WIDTH, HEADS, ROUNDS, None), torch.randn(n, WIDTH)
    if kind == "dense":
        near = torch.eye(n, dtype=torch.bool)  # each node sees itself, as in PyTorch Geometric
        near[edges[1], edges[0]] = True
        with torch.no_grad():
            same = x[: n // 4], near[: n // 4, : n // 4]
            kept = (edges < n // 4).all(0)
            torch.testing.assert_close(net(same[0], edges[:, kept]), dense_rounds(net, *same))
    before, start = peak_mb(), time.process_time()
    out = net(x, edges) if kind == "sparse" else dense_rounds(net, x, near)
    out.square().mean().backward()
    return {"s": time.process_time() - start, "mb": peak_mb() - before}


def rows() -> Found:
    """Measure steps and rounds, each in a process of its own."""
    found: Found = []
    for px, n in BATCHES.items():
        taken = apart("benchmarks.steps", "step", px)
        what = f"training step of asign, {n} patches of {px} px ({taken['mb'] / 1e3:.1f} GB)"
        found.append(
            Row(what, "encoder + rest + update, alone", taken["whole"], taken["parts"], "s", 1 / 1.15)
        )
    sparse, dense = (
        apart("benchmarks.steps", "rounds", *one) for one in (("sparse", NODES), ("dense", DENSE))
    )
    what = f"graph attention, {NODES:,} nodes, width {WIDTH}"
    against, times = (
        f"dense adjacency ({DENSE} nodes, times {(NODES / DENSE) ** 2:.0f})",
        (NODES / DENSE) ** 2,
    )
    found.append(Row(f"{what}, time", against, [sparse["s"]], [dense["s"] * times], "s", 10))
    found.append(Row(f"{what}, memory", against, [sparse["mb"]], [dense["mb"] * times], "MB", 10))
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    work = {"step": lambda px: step(int(px)), "rounds": lambda kind, n: rounds(kind, int(n))}
    print(json.dumps(work[sys.argv[1]](*sys.argv[2:])))
