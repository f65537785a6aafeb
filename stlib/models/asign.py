"""ASIGN: patches at three levels, graphs within and across sections, and the labels of one measured section.

Zhu et al. 2024, "ASIGN: An Anatomy-aware Spatial Imputation Graphic Network for 3D Spatial Transcriptomics",
arXiv:2412.03026. Written from the paper and its specification, as the paper intends it; no code was copied.

    x_i   = f_i + CA(f_i; regions of the section) + CA(f_i; globals of the section)    fusion, figure 3
    h_i^l = h_i^(l-1) + GAT(h^(l-1); edges within and across sections)                 l = 1..3, at each level
    p_i   = head(sum_t softmax(w)_t Transformer([h_i^1..h_i^3, h_parent^1..h_parent^3])_t)
    q_i  <- sum_j alpha e_ij q_j / sum_j alpha e_ij  for unknown i; q_j = y_j if known; 10 times    eq. 5
    y_i   = s(a) p_i + (1 - s(a)) (L q_i)                                                           eq. 6

Shapes: patch (N, 3, P, P), region_features (R, D), global_features (S, D), edges (2, E), known labels (K, G)
-> expression (N, G), region (R, G), global (S, G).

In the paper -> here: spot, region, global -> the same; inter-layer -> edge_index (same section); cross-layer
-> cross_index; CLI -> cross_layer; S = IoU + cosine -> cross_weight; known expression -> expression[known].

Differences from the paper
1. Keys of the cross-attention are the cells of the same section. The paper does not say which; the released
   code has one key, so its softmax is 1 and the spot's image has no influence.
2. Fusion adds (figure 3); the text concatenates.
3. Graph attention is residual, with edge weights as edge features; the paper shows neither.
4. One transformer and one head per level (figure 3). The released code shares them, averages tokens, and its
   reshape mixes the nodes of a batch.
5. Propagation starts from the network's own prediction. Its learned factor is one per kind of edge and a
   power of the weight, not one per node, which could not be applied to new nodes; the linear layer of figure
   3 follows it. The released code uses binary edges from a batch, with random ones at test.
6. The mixing weight is one logit per gene, as released; the paper has one number.
7. While training, one measured section of a stack plays the known one, so that training asks what the test
   asks (of a single section: half its spots); the paper hides 80 % of all nodes at random. Known spots are
   not scored in the loss.
8. Consistency is between predictions, P(p_s, p_r) (the paper's text); the released code compares with labels.
   Region and global labels of hidden sections are absent, not merely unweighted.
9. Heads start at the mean training label. Batches are connected pieces of tissue, and prediction uses the
   whole graph.
10. Frozen features are standardised within each section, which takes out the stain of a slide. The paper
   leaves them as they are.
11. `encoder: frozen` takes the cached features of the spot in place of a trained image encoder, for machines
   without weights or GPU.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv
from torch_geometric.utils import scatter

from stlib.batch import LEVELS, Batch, Shape
from stlib.encoders import backbone, width
from stlib.layers import GeneHead, Pixels, cosine_decay, in_chunks
from stlib.losses import pearson_loss
from stlib.models import Config, Method


@dataclass(frozen=True)
class ASIGNConfig(Config):
    """Settings of the paper (its section IV and supplement)."""

    epochs: int = 100  # the paper: to convergence
    batch_size: int = 256
    encoder: str = "resnet50.tv_in1k@hub"  # or "frozen"
    width: int = 1024
    heads: int = 8
    rounds: int = 3  # of graph attention
    transformer_layers: int = 3
    dropout: float = 0.1
    cross_attention: bool = True
    graph_attention: bool = True
    cross_edges: bool = True  # graph attention across sections
    cross_layer: bool = True  # imputation from the known section
    iterations: int = 10
    pearson: float = 0.75  # lambda_s
    pearson_level: float = 0.5  # lambda_r, lambda_g
    consistency: float = 0.25  # lambda_1, lambda_2
    lr: float = 1e-4
    momentum: float = 0.9
    weight_decay: float = 1e-4


class CrossAttention(nn.Module):
    """Attend from spots to all cells of their own section."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)

    def forward(self, spot: Tensor, cell: Tensor, section: Tensor, parent: Tensor) -> Tensor:
        """Return (N, d) from spots (N, d), cells (R, d), the section (N,) and the cell (N,) of each spot."""
        out = torch.empty_like(spot)
        for index in section.unique():
            here = section == index
            keys = cell[parent[here].unique()]
            out[here] = self.attention(spot[here], keys, keys, need_weights=False)[0]
        return out


class GraphRounds(nn.Module):
    """Stack residual rounds of graph attention; return the node features after each."""

    def __init__(self, width: int, heads: int, rounds: int, edge_dim: int | None):
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


class ASIGN(Method):
    """Predict the labels of a stack of sections (N, G), one of which may be known."""

    UNIT = "stack"
    NEEDS = frozenset({"patch", "relative", "levels", "graph", "cross"})
    PROTOCOLS = {"2d": {"cross_edges": False, "cross_layer": False}, "3d": {}}
    VARIANTS = {
        "no_cross_attention": {"cross_attention": False},  # ASIGN Table II
        "no_gat": {"graph_attention": False},
        "no_gat_no_cross_attention": {"graph_attention": False, "cross_attention": False},
        "no_cli": {"cross_layer": False},  # Table IV, 3D graph
        "graph_2d": {"cross_layer": False, "cross_edges": False},  # Table IV, 2D graph
    }
    Config = ASIGNConfig

    def __init__(self, config: ASIGNConfig, shape: Shape):
        super().__init__(config, shape)
        d, heads = config.width, config.heads
        if config.encoder == "frozen":
            self.spot = nn.Sequential(
                nn.Linear(shape.features, d), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(d, d)
            )
        else:
            encoder = backbone(config.encoder)
            self.spot = nn.Sequential(Pixels(), encoder, nn.Linear(width(encoder), d))
        self.cell = nn.ModuleDict({level: nn.Linear(shape.features, d) for level in LEVELS})
        if config.cross_attention:
            self.attend = nn.ModuleDict({level: CrossAttention(d, heads, config.dropout) for level in LEVELS})
        if config.graph_attention:
            self.graph = nn.ModuleDict(
                {level: GraphRounds(d, heads, config.rounds, None) for level in LEVELS}
            )
            self.graph["spot"] = GraphRounds(d, heads, config.rounds, edge_dim=2)
        rounds = config.rounds if config.graph_attention else 1
        sizes = {"global": rounds, "region": 2 * rounds, "spot": 2 * rounds}
        self.head = nn.ModuleDict(
            {
                level: LevelHead(d, heads, config.transformer_layers, config.dropout, tokens, shape.genes)
                for level, tokens in sizes.items()
            }
        )
        if config.cross_layer:
            # alpha of eq. 5: the log of a factor for each kind of edge, and a power of overlap + cosine
            self.factor = nn.Parameter(torch.tensor([-1.0, 0.0]))
            self.sharpness = nn.Parameter(torch.tensor(4.0))
            self.refine = GeneHead(shape.genes, shape.genes)  # L, figure 3
            nn.init.eye_(self.refine.weight)
            nn.init.zeros_(self.refine.bias)
            self.mix = nn.Parameter(torch.zeros(shape.genes))  # a of eq. 6, one logit a gene

    @classmethod
    def needs(cls, config: ASIGNConfig) -> frozenset[str]:
        return cls.NEEDS - {"patch" if config.encoder == "frozen" else "relative"}

    def prepare(self, train: Iterable[Batch]) -> None:
        batches = list(train)
        self.head["spot"].genes.bias.data = torch.cat([batch.expression for batch in batches]).nanmean(0)
        for level in LEVELS:
            labels = torch.cat([batch[f"{level}_expression"] for batch in batches])
            self.head[level].genes.bias.data = labels.nanmean(0)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        cell = {level: self.cell[level](batch[f"{level}_features"]) for level in LEVELS}
        spot = self._encode(batch)  # (N, d)
        x = spot
        if self.config.cross_attention:
            for level in LEVELS:
                x = x + self.attend[level](spot, cell[level], batch.section, batch[f"{level}_parent"])
        tokens = self._tokens(batch, x, cell)
        parent, above = batch.region_parent, self._global_of_region(batch)
        out = {
            "global": self.head["global"](tokens["global"]),
            "region": self.head["region"](torch.cat([tokens["region"], tokens["global"][above]], 1)),
            "expression": self.head["spot"](torch.cat([tokens["spot"], tokens["region"][parent]], 1)),
        }
        if self.config.cross_layer and batch.known.any():
            out["expression"] = self._impute(batch, out["expression"])
        return out

    def _encode(self, batch: Batch) -> Tensor:
        if self.config.encoder == "frozen":
            return self.spot(batch.relative)
        return self.spot(batch.patch) if self.training else in_chunks(self.spot, batch.patch)

    def _tokens(self, batch: Batch, x: Tensor, cell: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return (n, L, d) per level: the node features after each round."""
        if not self.config.graph_attention:
            return {"spot": x[:, None]} | {level: cell[level][:, None] for level in LEVELS}
        edges, weight = self._edges(batch)
        tokens = {level: self.graph[level](cell[level], batch[f"{level}_edges"]) for level in LEVELS}
        tokens["spot"] = self.graph["spot"](x, edges, weight)
        return tokens

    def _edges(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return edges (2, E) and their features (E, 2): the weight, in the column of its kind."""
        index, zero = batch.edge_index, torch.zeros_like(batch.edge_weight)
        features = torch.stack([batch.edge_weight, zero], 1)
        if self.config.cross_edges:
            cross = torch.stack([torch.zeros_like(batch.cross_weight), batch.cross_weight], 1)
            index, features = torch.cat([index, batch.cross_index], 1), torch.cat([features, cross])
        return index, features

    @staticmethod
    def _global_of_region(batch: Batch) -> Tensor:
        """Return the global cell of each region cell (R,): that of its spots."""
        return scatter(
            batch.global_parent, batch.region_parent, reduce="max", dim_size=len(batch.region_features)
        )

    def _impute(self, batch: Batch, network: Tensor) -> Tensor:
        """Mix the network's prediction with labels propagated from the known spots (eq. 5 and 6)."""
        index = torch.cat([batch.edge_index, batch.cross_index], 1)
        within, across = self.factor.exp()
        strong = batch.cross_weight.clamp(min=1e-6) ** self.sharpness  # a cosine may be negative
        weight = torch.cat([within * batch.edge_weight, across * strong])[:, None]
        total = scatter(weight, index[1], dim_size=len(network), reduce="sum")
        known, labels = batch.known[:, None], batch.expression
        labels = labels.nan_to_num()  # a hidden label is never chosen; NaN would spread through gradients
        value = torch.where(known, labels, network)
        for _ in range(self.config.iterations):
            mean = scatter(
                weight * value[index[0]], index[1], dim_size=len(network), reduce="sum"
            ) / total.clamp(min=1e-9)
            value = torch.where(known, labels, torch.where(total > 0, mean, value))  # eq. 5
        share = self.mix.sigmoid()
        return share * network + (1 - share) * self.refine(value)  # eq. 6

    def loss(self, batch: Batch, out: dict[str, Tensor]) -> Tensor:
        c, scored = self.config, ~batch.known
        p_s, y_s = out["expression"][scored], batch.expression[scored]
        squares = (p_s - y_s) ** 2
        # a batch may lie in the known section alone
        error = squares.mean() if len(squares) else squares.sum()
        loss = error + c.pearson * pearson_loss(p_s, y_s)
        for level in LEVELS:
            p_l = out[level]
            loss = loss + c.pearson_level * pearson_loss(p_l, batch[f"{level}_expression"])
            loss = loss + c.consistency * pearson_loss(p_s, p_l[batch[f"{level}_parent"]][scored])
        return loss

    def optimiser(self) -> torch.optim.Optimizer:
        c = self.config
        return torch.optim.SGD(self.parameters(), lr=c.lr, momentum=c.momentum, weight_decay=c.weight_decay)

    def rate(self, progress: float) -> float:
        return cosine_decay(progress)


Model = ASIGN
