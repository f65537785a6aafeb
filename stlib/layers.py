"""Blocks used unchanged by two or more models."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, scaled_dot_product_attention

from stlib import encoders
from stlib.batch import Batch
from stlib.losses import seen
from stlib.pathology import IMAGENET


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
    """Turn patches (N, 3, P, P) of 0 to 255 into floats with mean 0 and deviation 1; default: ImageNet's.

    Parameters
    ----------
    mean, std
        Of each channel, in shares of 255.
    side
        Pixels p a side to which a patch is averaged; 0: as it was cut, p = P.
    """

    def __init__(
        self,
        mean: tuple[float, ...] = IMAGENET[0],
        std: tuple[float, ...] = IMAGENET[1],
        side: int = 0,
    ) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, patch: Tensor) -> Tensor:
        """Return floats (N, 3, p, p)."""
        pixels = (patch - self.mean) / self.std
        return adaptive_avg_pool2d(pixels, self.side) if self.side else pixels


class GeneHead(nn.Linear):
    """Map to genes in float32, also under autocast: near a label of -6, bfloat16 has steps of 0.03."""

    def start(self, labels: Tensor) -> None:
        """Let the bias be the mean of training labels (M, G); rows with NaN (hidden labels) are left out.

        Raises
        ------
        ValueError
            If no row has a label.
        """
        labels = labels[seen(labels)]
        if not len(labels):
            raise ValueError("a model needs a training location with a label, found none; hide fewer labels")
        with torch.no_grad():
            self.bias.copy_(labels.double().mean(0))

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., G) float32 from (..., d)."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class Attention(nn.Module):
    """Attend with several heads; fused, so that no N x M array of scores is kept.

    Queries, keys and values have no bias. The ViT of HisToGene, Hist2ST, EGN and TRIPLEX.
    """

    def __init__(self, width: int, heads: int, head_width: int, dropout: float = 0.0):
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.query = nn.Linear(width, inner, bias=False)
        self.key_value = nn.Linear(width, 2 * inner, bias=False)
        self.out = nn.Sequential(nn.Linear(inner, width), nn.Dropout(dropout))

    def forward(self, x: Tensor, context: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Return (B, N, d) from x (B, N, d), context (B, M, d) (default: x), bias (B or 1, heads, N, M)."""
        key, value = self.key_value(x if context is None else context).chunk(2, -1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.query(x), key, value))
        out = scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))
        return self.out(out.transpose(1, 2).flatten(2))


class FeedForward(nn.Sequential):
    """Normalise, widen, GELU, narrow: (..., d) -> (..., d)."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0):
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
            nn.Dropout(dropout),
        )


class TransformerBlock(nn.Module):
    """Add attention, then a feed-forward layer, each of its normalised input."""

    def __init__(self, width: int, heads: int, head_width: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, head_width, dropout)
        self.feed_forward = FeedForward(width, hidden, dropout)

    def forward(self, x: Tensor, context: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Return (B, N, d); the context (B, M, d), if any, is normalised as x is (TRIPLEX)."""
        x = x + self.attention(self.norm(x), None if context is None else self.norm(context), bias)
        return x + self.feed_forward(x)


class ArrayPosition(nn.Module):
    """Learn a vector for each column and each row of the array; a location has the sum of its two.

    The tables have 64 rows, as in HisToGene and Hist2ST, or as many as the array needs.
    """

    def __init__(self, positions: int, width: int):
        super().__init__()
        self.column, self.row = (nn.Embedding(max(64, positions), width) for _ in range(2))

    def forward(self, array: Tensor) -> Tensor:
        """Return (N, d) from columns and rows (N, 2), rounded to whole steps."""
        place, rows = array.round().long(), self.row.num_embeddings
        if len(place) and not 0 <= place.min() <= place.max() < rows:
            raise ValueError(
                f"a model of {rows} positions a side needs columns and rows of the array from 0 to "
                f"{rows - 1}, found {int(place.min())} to {int(place.max())}; count them from the section's "
                "corner, or train a model on data of that size"
            )
        return self.column(place[:, 0]) + self.row(place[:, 1])


class PatchEncoder(nn.Module):
    """Encode the patch of each location: by a network that is trained, or from its frozen features.

    Parameters
    ----------
    encoder
        See `stlib.encoders`; ``frozen`` takes `relative` in its place, for machines without weights or GPU.
    features
        Width D of the frozen features.
    width
        d.
    dropout
        Between the two layers that follow frozen features.
    """

    def __init__(self, encoder: str, features: int, width: int, dropout: float):
        super().__init__()
        self.frozen = encoder == "frozen"
        if self.frozen:
            layers = nn.Linear(features, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width)
        else:
            network = encoders.backbone(encoder)
            layers = Pixels(), network, nn.Linear(encoders.width(network), width)
        self.encode = nn.Sequential(*layers)

    def forward(self, batch: Batch) -> Tensor:
        """Return (N, d)."""
        if self.frozen:
            return self.encode(batch.relative)
        return self.encode(batch.patch) if self.training else in_chunks(self.encode, batch.patch)


class GraphRounds(nn.Module):
    """Stack residual rounds of graph attention; return the node features after each."""

    def __init__(self, width: int, heads: int, rounds: int, edge_dim: int | None):
        from torch_geometric.nn import GATv2Conv  # seconds: only for who has a graph

        super().__init__()
        self.rounds = nn.ModuleList(
            GATv2Conv(width, width // heads, heads, edge_dim=edge_dim, fill_value=0.0) for _ in range(rounds)
        )

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        """Return (N, L, d) from node features (N, d) and edges (2, E)."""
        out = []
        for convolve in self.rounds:
            x = x + torch.relu(convolve(x, edge_index, edge_attr))
            out.append(x)
        return torch.stack(out, 1)  # (N, L, d)


class LevelHead(nn.Module):
    """Refine the tokens of each node, weigh and sum them, and predict the genes."""

    def __init__(self, width: int, heads: int, layers: int, dropout: float, tokens: int, genes: int):
        super().__init__()
        self.position = nn.Parameter(torch.randn(tokens, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.weight = nn.Parameter(torch.zeros(tokens)) if tokens > 1 else None  # a single token needs none
        self.norm = nn.LayerNorm(width)
        self.genes = GeneHead(width, genes)
        nn.init.zeros_(self.genes.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (N, G) from tokens (N, T, d)."""
        refined = self.transformer(tokens + self.position)
        summed = (
            refined[:, 0]
            if self.weight is None
            else torch.einsum("t,ntd->nd", self.weight.softmax(0), refined)
        )
        return self.genes(self.norm(summed))


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
