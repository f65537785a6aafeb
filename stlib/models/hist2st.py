"""Hist2ST: ConvMixer per patch, transformer over the section, GraphSAGE between neighbours, LSTM over rounds.

Zeng et al. 2022, "Spatial transcriptomics prediction from histology jointly through Transformer and graph
neural networks", Briefings in Bioinformatics 23(5), doi:10.1093/bib/bbac297. Written from the paper and its
specification; no code was copied.

    z_i   = vec ConvMixer(patch_i) + X[column_i] + Y[row_i];    z = Transformer(z)
    h^0   = z;  h_i^l = unit(ReLU(W_l mean_{j in i and its neighbours} h_j^(l-1)))    l = 1..4
    h_i   = mean_l LSTM(h_i^1, ..., h_i^4)_l                     the sequence is that of the layers
    y_i   = V LN(h_i) + b;    m, theta, pi = the same shape, for ZINB(counts_i; s_i m_i, theta_i, pi_i)
    L     = MSE(y, label) + 1/4 NLL(ZINB) + 1/2 MSE(sum_v softmax_v(a_v) y_v, y)     v = 5 altered views

Shapes: patch (N, 3, P, P), array (N, 2), counts (N, G) -> expression (N, G); while training also mean,
dispersion, dropout (N, G) of the ZINB, and distilled (N, G). Prediction does not read the counts.

In the paper -> here: kernel_size, patch_size -> mixer_kernel, kernel; depth1, 2, 3 -> mixer_depth, depth,
graph_depth; d -> (patch_px // kernel)^2 * channels // 8; coef -> weigh; bake, lamb -> views, distil.

Differences from the paper
1. A node is among those it averages. In the released code it is not, so that its own image is lost in each
   round, and a node without neighbours divides zero by zero, which makes the whole section NaN.
2. Pixels are standardised with ImageNet's mean and deviation; the released code feeds 0 to 255. Patches are
   averaged to 112 px from whatever side the data has. For 224 px, `kernel: 14` keeps d at 1024.
3. Patches are turned and mirrored while training, as for every method here. The views of the distillation are
   drawn for each spot, not once for the section, and a turned patch is filled with white, not black.
4. The position tables grow with the array, and coordinates are rounded; the released tables have 64 rows. A
   row that no training section reaches stays as it was drawn, as in the paper.
5. Edges longer than 2 steps are cut in every dataset; the released code does so for her2st alone. Of equally
   near neighbours the one that comes first in the section is taken.
6. The heads of the label and of the ZINB's mean start at the training mean: labels here are logs of
   proportions, near -6, and counts may be far from 1.
7. Two kinds of weights that cannot learn are left out: the bias of a convolution right before BatchNorm, and
   the bias of the view's weight, which the softmax cancels.
8. A section of more than `batch_size` spots is trained on in connected pieces of tissue; median depth and
   BatchNorm are those of the piece. Prediction takes the whole section; attention is fused.
9. The epoch is chosen by a held-out training patient; the paper takes the last one. The held-out unit is a
   patient; in the paper it is a section, whose neighbours in the same tumour are trained on.
10. The steps of the learning rate, every 50 of 350 epochs, are shares of the training: where fewer epochs
   were chosen, they come sooner.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, affine_grid, grid_sample, normalize, softplus
from torch_geometric.utils import scatter

from stlib.batch import Batch, Shape
from stlib.graph import knn_graph
from stlib.layers import ArrayPosition, GeneHead, Pixels, TransformerBlock, in_chunks
from stlib.losses import mse, seen, zinb_nll
from stlib.models import Config, Method


@dataclass(frozen=True)
class Hist2STConfig(Config):
    """Settings of the paper (the tag 5-7-2-8-4-16-32 of its code)."""

    epochs: int = 350
    batch_size: int = 6000  # spots of a section that see each other while training
    patch_px: int = 112  # side to which a patch is averaged
    mixer_kernel: int = 5
    kernel: int = 7  # side and stride of the first convolution
    mixer_depth: int = 2
    depth: int = 8  # of the transformer
    graph_depth: int = 4
    heads: int = 16
    head_width: int = 64
    channels: int = 32
    dropout: float = 0.2
    neighbours: int = 4
    reach: float = 2.0  # longest edge, in steps of the array
    zinb: float = 0.25  # weight of the counts' likelihood; 0: no such heads
    distil: float = 0.5  # weight of the distillation
    views: int = 5  # altered views of each patch; 0: no distillation
    lr: float = 1e-5

    @property
    def width(self) -> int:
        """Return d, what the convolutions leave of a patch."""
        return (self.patch_px // self.kernel) ** 2 * (self.channels // 8)


class MixerBlock(nn.Module):
    """Mix pixels, twice, in each channel; then mix the channels: (N, C, H, W) -> the same."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        layers = []
        for _ in range(2):
            depthwise = nn.Conv2d(channels, channels, kernel, padding="same", groups=channels, bias=False)
            layers += [depthwise, nn.BatchNorm2d(channels), nn.GELU()]
        self.pixels = nn.Sequential(*layers)
        self.channels = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU(), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.channels(self.pixels(x) + x)


class GraphMean(nn.Module):
    """Average a node and its neighbours, map, and scale to unit length: (N, d) -> (N, d)."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(width, width, bias=False)
        nn.init.xavier_uniform_(self.linear.weight)

    def forward(self, h: Tensor, edges: Tensor) -> Tensor:
        mean = scatter(h[edges[0]], edges[1], dim_size=len(h), reduce="mean")
        return normalize(self.linear(mean).relu(), dim=-1)


class Hist2ST(Method):
    """Predict the labels (N, G) of a section from its patches (N, 3, P, P) and places (N, 2)."""

    UNIT = "section"
    NEEDS = frozenset({"patch", "counts"})
    Config = Hist2STConfig

    def __init__(self, config: Hist2STConfig, shape: Shape):
        super().__init__(config, shape)
        c, d, genes = config.channels, config.width, shape.genes
        self.pixels = Pixels()
        self.mixer = nn.Sequential(
            nn.Conv2d(3, c, config.kernel, config.kernel),
            nn.Dropout(config.dropout),
            *(MixerBlock(c, config.mixer_kernel) for _ in range(config.mixer_depth)),
            nn.Conv2d(c, c // 8, 1),
            nn.Flatten(),
        )
        self.position = ArrayPosition(shape.positions, d)
        self.blocks = nn.Sequential(
            *(
                TransformerBlock(d, config.heads, config.head_width, d, config.dropout)
                for _ in range(config.depth)
            )
        )
        self.graph = nn.ModuleList(GraphMean(d) for _ in range(config.graph_depth))
        self.layers = nn.LSTM(d, d, 2, batch_first=True)
        self.expression = nn.Sequential(nn.LayerNorm(d), GeneHead(d, genes))
        if config.zinb:
            self.count = nn.ModuleDict(
                {name: GeneHead(d, genes) for name in ("mean", "dispersion", "dropout")}
            )
        if config.views:
            self.weigh = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, 1, bias=False))

    @classmethod
    def needs(cls, config: Hist2STConfig) -> frozenset[str]:
        return cls.NEEDS if config.zinb else cls.NEEDS - {"counts"}

    def prepare(self, train: Iterable[Batch]) -> None:
        labels, counts, sizes = [], 0, 0
        for batch in train:
            rows = seen(batch.expression)
            labels.append(batch.expression[rows])
            if self.config.zinb:
                part = batch.counts[rows]
                counts, sizes = counts + part.double().sum(0), sizes + size_factor(part).sum()
        self.expression[1].start(torch.cat(labels))
        if self.config.zinb:  # a location without any count of the panel has the size 0
            self.count["mean"].bias.data = (counts / sizes).clamp(min=1e-5).log().float()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        edges = neighbours(batch, self.config.neighbours, self.config.reach)
        patch = in_chunks(self._resize, batch.patch)
        h = self._hidden(batch, edges, patch)
        out = {"expression": self.expression(h)}
        if self.training and self.config.zinb:
            out |= self._counts(h)
        if self.training and self.config.views:
            out["distilled"] = self._distilled(batch, edges, patch)
        return out

    def _resize(self, patch: Tensor) -> Tensor:
        return adaptive_avg_pool2d(patch.float(), self.config.patch_px)

    def _hidden(self, batch: Batch, edges: Tensor, patch: Tensor) -> Tensor:
        """Return (N, d) from patches (N, 3, p, p) of 0 to 255."""
        if self.training:
            z = self.mixer(self.pixels(patch))  # BatchNorm over all patches of the section
        else:
            z = in_chunks(lambda part: self.mixer(self.pixels(part)), patch)
        h = self.blocks((z + self.position(batch.array))[None])[0]
        rounds = []
        for average in self.graph:
            h = average(h, edges)
            rounds.append(h)
        return self.layers(torch.stack(rounds, 1))[0].mean(1)  # (N, L, d) -> (N, d)

    def _counts(self, h: Tensor) -> dict[str, Tensor]:
        return {
            "mean": self.count["mean"](h).clamp(log(1e-5), log(1e6)).exp(),
            "dispersion": softplus(self.count["dispersion"](h)).clamp(1e-4, 1e4),
            "dropout": self.count["dropout"](h).sigmoid(),
        }

    def _distilled(self, batch: Batch, edges: Tensor, patch: Tensor) -> Tensor:
        """Return the prediction (N, G) from altered views, each weighted by what it says of itself."""
        weights, values = [], []
        for _ in range(self.config.views):
            h = self._hidden(batch, edges, in_chunks(altered, patch))
            weights.append(self.weigh(h))
            values.append(self.expression(h))
        return (torch.stack(weights).float().softmax(0) * torch.stack(values)).sum(0)

    def loss(self, batch: Batch, out: dict[str, Tensor]) -> Tensor:
        y, c = out["expression"], self.config
        loss = mse(y, batch.expression)
        if c.zinb and (rows := seen(batch.counts)).any():
            counts, law = batch.counts[rows], {name: out[name][rows] for name in self.count}
            law["mean"] = law["mean"] * size_factor(counts)
            loss = loss + c.zinb * zinb_nll(counts, **law)
        if c.views:
            loss = loss + c.distil * ((out["distilled"] - y) ** 2).mean()  # gradients to both sides
        return loss

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.config.lr)

    def rate(self, progress: float) -> float:
        return 0.9 ** (round(progress * self.config.epochs) // 50)


def size_factor(counts: Tensor) -> Tensor:
    """Return the depth of each location over the panel, in units of the median (N, 1)."""
    total = counts.sum(1, keepdim=True)
    return total / total.median().clamp(min=1)


def neighbours(batch: Batch, k: int, reach: float) -> Tensor:
    """Return edges (2, E) to each location from itself and its nearest in the array, up to `reach` steps."""
    order = batch.row.argsort()  # a tie is settled by the place in the section, not by that in the batch
    near, distance = knn_graph(batch.array[order].cpu().numpy(), k)
    near = torch.from_numpy(near[:, distance <= reach]).to(order.device)
    return torch.cat([order[near], order.expand(2, -1)], 1)


def altered(patch: Tensor) -> Tensor:
    """Turn each patch by up to 90 degrees, mirror one in five, and take the colour from one in ten.

    Parameters
    ----------
    patch
        (N, 3, P, P) of 0 to 255; corners that turn into view are white.
    """
    n, device = len(patch), patch.device
    angle = (torch.rand(n, device=device) - 0.5) * torch.pi
    mirror = 1 - 2 * (torch.rand(n, device=device) < 0.2).float()
    sin, cos, zero = angle.sin(), angle.cos(), torch.zeros_like(angle)
    turn = torch.stack([mirror * cos, -sin, zero, mirror * sin, cos, zero], 1).view(n, 2, 3)
    with torch.autocast(device.type, enabled=False):  # in bfloat16 a place would be half a pixel off
        grid = affine_grid(turn, list(patch.shape), align_corners=False)
    patch = 255 - grid_sample(255 - patch, grid, align_corners=False)
    luma = (patch * patch.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    grey = torch.rand(n, 1, 1, 1, device=device) < 0.1
    return torch.where(grey, luma, patch)


Model = Hist2ST
