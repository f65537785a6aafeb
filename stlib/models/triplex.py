"""TRIPLEX: three views of a spot, its patch, its neighbourhood and its whole section, fused by attention.

Chung et al., CVPR 2024, "Accurate Spatial Gene Expression Prediction by Integrating Multi-Resolution
Features", arXiv:2403.07592. Written from the paper and its specification; no code was copied.

    t = CNN(patch)                                   target: T tokens a spot, before pooling
    n = LN(T_n(5 x 5 frozen features))               neighbourhood: 25 tokens, attention + B[|dx|, |dy|]
    g = LN(T_g(frozen features of the section))      context: one token a spot, among all of its section
    f = LN(A(g, t) + A(g, n))                        fusion: one cross-attention A, LN of both its inputs
    y_f = W_f f, y_t = W_t mean(t), y_n = W_n mean(n), y_g = W_g g
    L = |y_f - y|^2 + sum_i (1 - alpha) |y_i - y|^2 + alpha |y_i - y_f|^2,  i in t, n, g

After the first block of T_g, PEGH tells where the spots are: each token is put into its cell of the array, a
depthwise 3 x 3 convolution runs over the grid, and what it gives is added to the token.

Shapes: patch (N, 3, P, P), features (N, D), neighbour_features (N, 25, D), array (N, 2) -> expression (N, G).

In the paper -> here: global -> context; APEG (released code) -> PEGH; emb -> width.

Differences from the paper
1. Settings are those of the released code of 2024 for HER2ST; its others are the variants `stnet` and `skin`.
2. One step takes one section, and of it up to `spots_per_step` spots; the paper takes 128 spots from sections
   of any kind, and encodes the whole of each of these sections. So BatchNorm sees one section at a time; of a
   section of more spots an epoch visits that many, and one above `batch_size` is cut into connected pieces.
3. Labels are those of the protocol (log proportion), not averaged with their neighbours in the array, neither
   in training nor in the test; predictions are not cut at 0. Heads start at W x + mean training label.
4. The epoch is chosen by a held-out training patient; the released code chooses it on the test fold.
5. Frozen features are standardised with mean and deviation of the training spots, and brought to the width by
   a linear map if they have another one.
6. In evaluation nothing is random; the released global encoder goes on dropping out.
7. PEGH builds its grid from the array of the section at hand and keeps the residual; the released code of
   2025 takes the grid of the first section it sees and loses the residual, that of 2024 needs sorted and
   unique spots and drops a token whose sum is 0. Spots of one cell share what is seen around the mean of
   their tokens. In a hexagonal array, whose columns advance by two, 3 x 3 cells hold four of the six
   neighbours.
8. Neighbours whose centre is off the slide are masked in attention, as released, and left out of the mean.
9. The learning rate falls by 0.9 every quarter of the training (50 of 200 epochs in the paper).
10. Patches alone are turned and mirrored, as in the paper; here by any of the 8 symmetries.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stlib.batch import Batch, Shape
from stlib.encoders import backbone, tokens
from stlib.features import AROUND
from stlib.layers import GeneHead, Pixels, Standardise, TransformerBlock, in_chunks
from stlib.losses import mse
from stlib.models import Config, Method, labelled


class Stack(NamedTuple):
    """Settings of one of the three transformers."""

    depth: int
    heads: int
    ratio: int  # hidden width of a feed-forward layer, in widths
    dropout: float

    def blocks(self, width: int) -> nn.ModuleList:
        """Build the transformer's blocks."""
        head_width, hidden = width // self.heads, self.ratio * width
        return nn.ModuleList(
            TransformerBlock(width, self.heads, head_width, hidden, self.dropout) for _ in range(self.depth)
        )


@dataclass(frozen=True)
class TRIPLEXConfig(Config):
    """Settings of the released code of 2024 for HER2ST."""

    epochs: int = 200
    batch_size: int = 6000  # a larger section is cut
    frozen: str = "ciga_resnet18@file:data/weights/tenpercent_resnet18.ckpt"
    encoder: str = "ciga_resnet18@file:data/weights/tenpercent_resnet18.ckpt"  # of the target, to be trained
    patch_px: int = 0  # side to which a patch is averaged before it is encoded; 0: as it was cut
    width: int = 512
    fusion: Stack = Stack(1, 4, 4, 0.4)
    context: Stack = Stack(5, 8, 4, 0.3)
    neighbourhood: Stack = Stack(4, 4, 4, 0.3)
    alpha: float = 0.3  # share of the fused prediction in what the other heads learn from
    lr: float = 1e-4
    spots_per_step: int = 1024  # of a section, drawn at random


class PEGH(nn.Module):
    """Add to each token (N, d) what a depthwise 3 x 3 convolution sees around its cell of the array."""

    def __init__(self, width: int):
        super().__init__()
        self.convolution = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: Tensor, array: Tensor) -> Tensor:
        """Return (N, d) from tokens (N, d) and their columns and rows (N, 2); empty cells are 0."""
        place = array.round().long()
        place = place - place.amin(0)
        columns, rows = (place.amax(0) + 1).tolist()
        cell = place[:, 1] * columns + place[:, 0]
        count = x.new_zeros(rows * columns).index_add(0, cell, x.new_ones(len(x)))
        grid = x.new_zeros(rows * columns, x.shape[1]).index_add(0, cell, x) / count.clamp(min=1)[:, None]
        grid = grid.T.unflatten(1, (rows, columns))[None]  # (1, d, rows, columns)
        return x + self.convolution(grid)[0].flatten(1).T[cell]


class Neighbourhood(nn.Module):
    """Relate the 25 patches around a spot; each block prefers some distances |dx|, |dy| to others."""

    def __init__(self, stack: Stack, width: int):
        super().__init__()
        self.blocks = stack.blocks(width)
        self.distance = nn.ParameterList(torch.zeros(AROUND**2, stack.heads) for _ in self.blocks)
        self.norm = nn.LayerNorm(width)
        y, x = torch.arange(AROUND**2) // AROUND, torch.arange(AROUND**2) % AROUND
        apart = AROUND * (y[:, None] - y).abs() + (x[:, None] - x).abs()  # (25, 25), which of 25 distances
        self.register_buffer("apart", apart, persistent=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (N, 25, d) from tokens (N, 25, d) and a mask (N, 1, 1, 25): 0, or -inf to be left out."""
        for block, distance in zip(self.blocks, self.distance, strict=True):
            x = block(x, bias=distance[self.apart].permute(2, 0, 1)[None] + mask)  # (N, heads, 25, 25)
        return self.norm(x)


class TRIPLEX(Method):
    """Predict the labels (N, G) of a section's spots from their patches, neighbourhoods and each other."""

    UNIT = "section"
    NEEDS = frozenset({"patch", "features", "neighbours"})
    VARIANTS = {
        "stnet": {
            "fusion": Stack(3, 16, 4, 0.4),
            "context": Stack(3, 8, 2, 0.1),
            "neighbourhood": Stack(4, 8, 4, 0.3),
        },
        "skin": {
            "fusion": Stack(2, 8, 4, 0.1),
            "context": Stack(2, 16, 1, 0.1),
            "neighbourhood": Stack(4, 16, 1, 0.3),
        },
    }
    Config = TRIPLEXConfig

    def __init__(self, config: TRIPLEXConfig, shape: Shape):
        super().__init__(config, shape)
        d = config.width
        self.encoder = backbone(config.encoder)
        cfg = self.encoder.pretrained_cfg
        self.pixels = Pixels(cfg["mean"], cfg["std"], config.patch_px)
        self.standardise = Standardise(shape.features)
        same = nn.Identity()
        self.project_patch = (
            same if self.encoder.num_features == d else nn.Linear(self.encoder.num_features, d)
        )
        self.project_neighbours = same if shape.features == d else nn.Linear(shape.features, d)
        self.project_context = same if shape.features == d else nn.Linear(shape.features, d)
        self.neighbourhood = Neighbourhood(Stack(*config.neighbourhood), d)
        self.context = Stack(*config.context).blocks(d)
        self.pegh = PEGH(d)
        self.context_norm = nn.LayerNorm(d)
        self.fusion = Stack(*config.fusion).blocks(d)
        self.fusion_norm = nn.LayerNorm(d)
        self.heads = nn.ModuleDict(
            {name: GeneHead(d, shape.genes) for name in ("expression", "target", "neighbours", "context")}
        )

    def prepare(self, train: Iterable[Batch]) -> None:
        features, labels = labelled(train, "features", "expression")
        self.standardise.fit(features)
        for head in self.heads.values():
            head.start(labels)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the expression (N, G); in training also that of each view, all of the drawn "rows" alone."""
        context = self._context(batch)  # (N, d)
        rows = torch.arange(len(context), device=context.device)
        if not self.training:
            return {"expression": in_chunks(lambda part: self._fuse(batch, context, part)[0], rows)}
        if len(rows) > self.config.spots_per_step:
            rows = rows[torch.randperm(len(rows))[: self.config.spots_per_step].to(rows.device)]
        names = ("expression", "target", "neighbours", "context")
        return {"rows": rows} | dict(zip(names, self._fuse(batch, context, rows), strict=True))

    def _context(self, batch: Batch) -> Tensor:
        """Return one token for each spot (N, d), among all spots of the section."""
        x = self.project_context(self.standardise(batch.features)).float()[None]  # residuals in float32
        for index, block in enumerate(self.context):
            x = block(x)
            if index == 0:
                x = self.pegh(x[0], batch.array)[None]
        return self.context_norm(x)[0]

    def _fuse(self, batch: Batch, context: Tensor, rows: Tensor) -> list[Tensor]:
        """Return the predictions (n, G) of fusion, target, neighbourhood and context for some spots."""
        target = self.project_patch(tokens(self.encoder, self.pixels(batch.patch[rows])))  # (n, T, d)

        inside = batch.neighbour_inside[rows]  # (n, 25)
        mask = target.new_zeros(inside.shape).masked_fill(~inside, -torch.inf)[:, None, None]
        around = self.project_neighbours(self.standardise(batch.neighbour_features[rows])).float()
        around = self.neighbourhood(around, mask)  # (n, 25, d)

        by_target = by_neighbours = context[rows, None]  # (n, 1, d)
        for block in self.fusion:
            by_target = block(by_target, target)
            by_neighbours = block(by_neighbours, around, mask)
        fused = self.fusion_norm(by_target + by_neighbours)[:, 0]

        around = (around * inside[..., None]).sum(1) / inside.sum(1, keepdim=True)
        views = (fused, target.mean(1), around, context[rows])
        return [head(view) for head, view in zip(self.heads.values(), views, strict=True)]

    def loss(self, batch: Batch, out: dict[str, Tensor]) -> Tensor:
        y, fused, alpha = batch.expression[out["rows"]], out["expression"], self.config.alpha
        loss = mse(fused, y)
        for name in ("target", "neighbours", "context"):
            loss = loss + (1 - alpha) * mse(out[name], y)
            loss = loss + alpha * ((out[name] - fused) ** 2).mean()
        return loss

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.config.lr)

    def rate(self, progress: float) -> float:
        return 0.9 ** int(4 * progress)


Model = TRIPLEX
