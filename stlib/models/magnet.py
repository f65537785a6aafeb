"""MagNet: a bin's patch, the cells of two coarser levels around it, and graphs over its neighbours.

Zhu et al. 2025, "MagNet: Multi-Level Attention Graph Network for Predicting High-Resolution Spatial
Transcriptomics", arXiv:2502.21011. Written from the paper and its specification, as the paper intends it; no
code was copied.

    f_i' = sum_c softmax_c(q(f_i) . k(f_c) / sqrt d) v(f_c)  c: the cell of i, and those that touch it   eq. 1
    x_i  = W [f_i, f_i' of the regions, f_i' of the globals]                                       section 2.1
    h^l  = h^(l-1) + relu(GAT(h^(l-1)))    l = 1..3; bins that touch, at each level cells that touch   eq. 2
    p_i  = head(sum_t softmax(w)_t Transformer([h_i^1..h_i^3, h_region^1..3, h_global^1..3])_t)  section 2.2
    p_c  = the same of [h_c^1..h_c^3], a transformer and a head for each level
    L    = g1 (MSE(p_i, y_i) + a P(p_i, y_i) + b P(p_c, y_c)) + g2 e P(p_i, p_c(i))                 eq. 3 to 5

P is 1 minus Pearson's r across the genes; terms with c are summed over the two levels; g1 = 1, g2 = 0.25,
a = 0.8, b = 0.25, e = 0.1.

Shapes: patch (N, 3, P, P), region_features (R, D), global_features (S, D), edges (2, E) -> expression (N, G),
region (R, G), global (S, G).

In the paper -> here, at 8 and 16 um: bin -> the location and its own patch (level spot); spot (224 px) ->
region; region (512 px) -> global. At 55 um the location's own patch is the spot's, and the bins' 112 px are
the level region. lambda_b, lambda_s = lambda_r, lambda_1 = lambda_2 -> pearson, pearson_level, consistency;
gamma_1, gamma_2 -> prediction, agreement.

Parameters, with d = width, D = features, L = rounds, m = transformer_layers: the network of the patch, of n
outputs, and its layer n d + d; 2 (D d + d) of the cells; 2 x 3 (d^2 + d) of the cross-attention; 3 d^2 + d of
the fusion; 3 L (2 (d^2 + d) + 2 d) of the graphs; for each of the three heads m (12 d^2 + 13 d) of its
transformer, t d + t of its t tokens (3 L of a location, L of a cell), 2 d of the norm, d G + G of the genes:
96,737,085 with ResNet50, 250 genes. The paper gives no number; its released code has 111,405,870, of which
34 million have no effect: no reference.

Differences from the paper
1. Keys of the cross-attention are the cell of the location and those that touch it, so that a prediction
   depends on its surroundings alone. The paper does not say which; the released code has one key, so its
   softmax is 1 and the bin's image has no say in what it attends to.
2. Projections q, k, v and heads, which eq. 1 leaves out; fusion concatenates (the text), then maps to d. The
   released code adds.
3. Neighbours are the locations that touch, up to 8 squares: k = 8 of the paper without its ties. The released
   code takes the 8 nearest among 256 bins drawn from a whole slide, about 0.4 mm apart.
4. Graph attention is stacked, residual and includes the node itself (the paper shows none of this). In the
   released code its layers are parallel means over neighbours, without the node, and attention cancels.
5. A transformer layer reads the rounds of a location and of its cells (figure 2: the coarser levels enter the
   finer one), with learned weights of the tokens. The text has one layer, the released code three, shared by
   all levels, and its reshape mixes the nodes of a batch; so do its levels share one head.
6. Consistency holds predictions against predictions (the text); the released code takes labels. Cells are
   labelled by the sum of the locations that the dataset measures in them, at each size its own; the paper
   sums 16 um bins, also for 8 um.
7. Heads start at the mean training label. Batches are connected pieces of a slide; a prediction takes along
   whatever it depends on, see `stlib.wholeslide`.
8. Frozen features are standardised within each slide, which takes out its stain. `encoder: frozen` takes
   those of the location in place of a trained network, for machines without weights or GPU.
9. A fixed number of epochs, under `strict` chosen by a held-out slide; the paper trains to convergence.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter, softmax

from stlib.batch import LEVELS, Batch, Shape
from stlib.layers import GraphRounds, LevelHead, PatchEncoder, cosine_decay
from stlib.losses import mse, pearson_loss, seen, with_levels
from stlib.models import Config, Method, Reach


@dataclass(frozen=True)
class MagNetConfig(Config):
    """Settings of the paper (its section 3)."""

    epochs: int = 50  # the paper: to convergence; its released code 51
    batch_size: int = 256
    encoder: str = "resnet50.tv_in1k@hub"  # or "frozen"
    width: int = 1024
    heads: int = 8
    rounds: int = 3  # of graph attention
    transformer_layers: int = 1
    dropout: float = 0.1
    graph_attention: bool = True
    multi_resolution: bool = True  # the coarser levels, their heads and losses
    prediction: float = 1.0  # gamma_1, of all terms that hold predictions against labels
    agreement: float = 0.25  # gamma_2, of the consistency
    pearson: float = 0.8  # lambda_b
    pearson_level: float = 0.25  # lambda_s, lambda_r
    consistency: float = 0.1  # lambda_1, lambda_2
    lr: float = 1e-4
    momentum: float = 0.9
    weight_decay: float = 1e-4


class CrossAttention(nn.Module):
    """Attend from locations to the cells that edges lead from, with several heads (eq. 1)."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cell: Tensor, edges: Tensor) -> Tensor:
        """Return (N, d) from locations (N, d), cells (R, d) and edges (2, E) from cells to locations."""
        q, k, v = (
            layer(of).unflatten(1, (self.heads, -1))  # (n, heads, d / heads)
            for layer, of in ((self.query, x), (self.key, cell), (self.value, cell))
        )
        source, target = edges
        score = (q[target] * k[source]).sum(2) / q.shape[2] ** 0.5  # (E, heads)
        share = self.dropout(softmax(score, target, num_nodes=len(x)))
        return scatter(share[..., None] * v[source], target, dim_size=len(x)).flatten(1)


class MagNet(Method):
    """Predict the labels (N, G) of the locations of a slide, and those of the cells they lie in."""

    UNIT = "section"
    NEEDS = frozenset({"patch", "relative", "levels", "graph"})
    PROTOCOLS = {"2d": {}, "hd": {}}
    VARIANTS = {
        "no_gat_multires": {"graph_attention": False, "multi_resolution": False},  # Tables 2 and 3
        "no_gat": {"graph_attention": False},  # Table 2
        "no_multires": {"multi_resolution": False},  # Tables 2 and 3
        "no_consistency": {"consistency": 0.0},  # Table 2
        "uni": {"encoder": "uni@hub", "batch_size": 64},  # Table 4
    }
    Config = MagNetConfig

    def __init__(self, config: MagNetConfig, shape: Shape):
        super().__init__(config, shape)
        d, heads, levels = config.width, config.heads, LEVELS if config.multi_resolution else ()
        self.patch = PatchEncoder(config.encoder, shape.features, d, config.dropout)
        if levels:
            self.cell = nn.ModuleDict({level: nn.Linear(shape.features, d) for level in levels})
            self.attend = nn.ModuleDict({level: CrossAttention(d, heads, config.dropout) for level in levels})
            self.fuse = nn.Linear((1 + len(levels)) * d, d)
        if config.graph_attention:
            self.graph = nn.ModuleDict(
                {level: GraphRounds(d, heads, config.rounds, None) for level in ("spot", *levels)}
            )
        rounds = config.rounds if config.graph_attention else 1
        tokens = {"spot": (1 + len(levels)) * rounds} | dict.fromkeys(levels, rounds)
        self.head = nn.ModuleDict(
            {
                level: LevelHead(d, heads, config.transformer_layers, config.dropout, number, shape.genes)
                for level, number in tokens.items()
            }
        )

    @classmethod
    def needs(cls, config: MagNetConfig) -> frozenset[str]:
        unused = {
            "patch": config.encoder == "frozen",
            "relative": config.encoder != "frozen",
            "levels": not config.multi_resolution,
            "graph": not config.graph_attention,
        }
        return cls.NEEDS - {field for field, idle in unused.items() if idle}

    @classmethod
    def reach(cls, config: MagNetConfig) -> Reach:
        rounds = config.rounds if config.graph_attention else 0
        return Reach(rounds, max(rounds, 1) if config.multi_resolution else 0)  # attention looks one cell far

    def prepare(self, train: Iterable[Batch]) -> None:
        labels = {level: [] for level in self.head}
        for batch in train:
            for level, parts in labels.items():
                parts.append(batch["expression" if level == "spot" else f"{level}_expression"])
        for level, parts in labels.items():
            self.head[level].genes.start(torch.cat(parts))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        nodes = {"spot": self.patch(batch)}  # (N, d)
        edges = {}
        if self.config.multi_resolution:
            edges = {level: touching(batch, level) for level in LEVELS}
            cells = {level: self.cell[level](batch[f"{level}_features"]) for level in LEVELS}
            fused = [nodes["spot"]]
            for level in LEVELS:
                keys = around(batch[f"{level}_parent"], edges[level], len(cells[level]))
                fused.append(self.attend[level](nodes["spot"], cells[level], keys))
            nodes = {"spot": self.fuse(torch.cat(fused, 1))} | cells
        if self.config.graph_attention:
            edges["spot"] = batch.edge_index
            tokens = {level: self.graph[level](x, edges[level]) for level, x in nodes.items()}  # (n, L, d)
        else:
            tokens = {level: x[:, None] for level, x in nodes.items()}
        out = {level: self.head[level](tokens[level]) for level in tokens if level != "spot"}
        above = [tokens[level][batch[f"{level}_parent"]] for level in out]
        return out | {"expression": self.head["spot"](torch.cat([tokens["spot"], *above], 1))}

    def loss(self, batch: Batch, out: dict[str, Tensor]) -> Tensor:
        c, p, y = self.config, out["expression"], batch.expression
        loss = c.prediction * (mse(p, y) + c.pearson * pearson_loss(p, y))  # eq. 3
        if c.multi_resolution:
            weights = c.prediction * c.pearson_level, c.agreement * c.consistency
            loss = with_levels(loss, batch, out, seen(y), *weights)
        return loss

    def optimiser(self) -> torch.optim.Optimizer:
        c = self.config
        return torch.optim.SGD(self.parameters(), lr=c.lr, momentum=c.momentum, weight_decay=c.weight_decay)

    def rate(self, progress: float) -> float:
        return cosine_decay(progress)


def touching(batch: Batch, level: str) -> Tensor:
    """Return the edges (2, E) between cells of a level that share a side or a corner."""
    edges, cell = batch[f"{level}_edges"], batch[f"{level}_cell"]
    return edges[:, cell[edges].diff(dim=0)[0].abs().amax(1) <= 1]


def around(parent: Tensor, edges: Tensor, cells: int) -> Tensor:
    """Return edges (2, E') to each location from its cell, and from the cells that touch this one.

    Parameters
    ----------
    parent
        Cell of each location (N,).
    edges
        Between cells (2, E), from `touching`.
    cells
        Number of cells R.

    Examples
    --------
    >>> around(torch.tensor([1, 0]), torch.tensor([[0, 1], [1, 0]]), 2)
    tensor([[1, 0, 0, 1],
            [0, 1, 0, 1]])
    """
    order = edges[1].argsort(stable=True)
    degree = torch.bincount(edges[1], minlength=cells)
    number = degree[parent]  # of neighbours of each location's cell
    location = torch.arange(len(parent), device=parent.device)
    target = location.repeat_interleave(number)
    first = (degree.cumsum(0) - degree)[parent] - (number.cumsum(0) - number)
    source = edges[
        0, order[first.repeat_interleave(number) + torch.arange(len(target), device=parent.device)]
    ]
    return torch.stack([torch.cat([parent, source]), torch.cat([location, target])])


Model = MagNet
