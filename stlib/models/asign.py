"""ASIGN: patches at three levels, graphs within and across sections, and the labels of one measured section.

Zhu et al. 2024, "ASIGN: An Anatomy-aware Spatial Imputation Graphic Network for 3D Spatial Transcriptomics",
arXiv:2412.03026. Written from the paper and its specification, as the paper intends it; no code was copied.

    x_i   = f_i + CA(f_i; regions of the section) + CA(f_i; globals of the section)    fusion, figure 3
    h_i^l = h_i^(l-1) + GAT(h^(l-1); edges within and across sections)                 l = 1..3, at each level
    p_i   = head(sum_t softmax(w)_t Transformer([h_i^1..h_i^3, h_parent^1..h_parent^3])_t)
    q_i  <- sum_j alpha e_ij q_j / sum_j alpha e_ij  for unknown i; q_j = known label; 10 times      eq. 5
    k_i   = label that place and looks let expect, given the known ones (`stlib.kriging`)            ours
    r_i   = ridge on the looks of the known spots                                                    ours
    y_i   = a1 p_i + a2 (L q_i) + a3 k_i + a4 r_i,  a = softmax, one for each gene                   eq. 6

Shapes: patch (N, 3, P, P), region_features (R, D), global_features (S, D), edges (2, E), known labels (K, G)
-> expression (N, G), region (R, G), global (S, G).

In the paper -> here: spot, region, global -> the same; inter-layer -> edges with `across` False; cross-layer
-> True; CLI -> cross_layer; S = IoU + cosine -> edge_weight; known expression -> expression[known].

The variant `paper` is the paper's own 3D model; what the default adds to it (10 to 15), and what did not
help, stands with figures in `results/asign_ledger.md`.

Differences from the paper, of both
1. Keys of the cross-attention are the cells of the same section. The paper does not say which; the released
   code has one key, so its softmax is 1 and the spot's image has no influence.
2. Fusion adds (figure 3); the text concatenates.
3. Graph attention is residual, with edge weights as edge features; the paper shows neither. Cross-section
   neighbours are the best 12 of each other section, among the nearest and the overlapping.
4. One transformer and one head per level (figure 3). The released code shares them, averages tokens, and its
   reshape mixes the nodes of a batch.
5. Propagation starts from the mean known label; what no path joins to a known spot keeps it, and is counted.
   Its learned factor is one per kind of edge, not one per node, which could not be applied to new nodes; the
   linear layer of figure 3 follows it. The released code uses binary edges from a batch, with random ones at
   test.
6. The mixing weight is one per gene, as released; the paper has one number.
7. Consistency is between predictions, P(p_s, p_r) (the paper's text); the released code compares with labels.
   Region and global labels of hidden sections are absent, not merely unweighted.
8. Heads start at the mean training label. Batches are connected pieces of tissue; prediction uses the whole
   graph.
9. Frozen features are standardised within each section, which takes out the stain of a slide. `encoder:
   frozen` takes those of the spot in place of a trained image encoder, for machines without weights or GPU.
Differences of the default alone
10. While training, one section of a stack plays the known one, so that training asks what the test asks; a
   single section trains the network alone. The paper hides 80 % of all nodes at random.
11. `residual`: the network predicts what differs from the mean of the known section.
12. `kriging` and `readout`: two more predictions from the known section, beside network and propagation. The
   labels that are propagated have less noise (`denoise`). Without cross-layer imputation all of these go,
   and the mean of the known section stays.
13. `distance`: weights of cross-section edges fall with the distance of the registered spots, by a learned
   length.
14. `earned`: the network's share in the mix starts low, so that it has to earn it. Shares and factors of
   edges learn ten times faster than the rest, also in `paper`.
15. `depth`: a batch weighs by the depth of its spots: counts of a few hundred molecules say little.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from stlib.batch import LEVELS, Batch, Shape
from stlib.layers import GeneHead, GraphRounds, LevelHead, PatchEncoder, cosine_decay
from stlib.losses import pearson_loss, seen, with_levels
from stlib.models import Config, Method
from stlib.propagation import propagate, unreached


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
    network: bool = True  # has a share in eq. 6
    residual: bool = True  # to the mean of the known section
    denoise: bool = True  # labels that are propagated
    kriging: bool = True
    readout: bool = True  # a ridge fitted to the known section
    distance: bool = True  # edges across sections weigh by it
    depth: bool = True  # batches weigh by it
    earned: bool = True  # the network's share in eq. 6 starts low
    prediction: float = 1.0  # gamma_1, of all terms that hold predictions against labels
    pearson: float = 0.75  # lambda_s
    pearson_level: float = 0.5  # lambda_r, lambda_g
    consistency: float = 0.25  # lambda_1, lambda_2
    lr: float = 1e-4
    momentum: float = 0.9
    weight_decay: float = 1e-4


ADDED = "residual", "denoise", "kriging", "readout", "distance", "earned"  # of ours, in 3d alone
# of a single section, which has no use for the others
ALONE = dict.fromkeys(("cross_edges", "cross_layer", *ADDED), False) | {"intra": 12}
# the paper's own 3D model: a share of all spots known in training, labels and edges as they are
PAPER_3D = dict.fromkeys((*ADDED, "depth"), False) | {"known_train": 0.2}
NO_CLI = PAPER_3D | {"cross_layer": False, "known_train": 0.0}
SHARES = {"network": 1.0, "propagation": 2.0, "kriging": 3.0, "readout": 2.0}  # a of eq. 6, if `earned`
LENGTH = 0.7  # pitches: where the learned length of edges across sections starts


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


class ASIGN(Method):
    """Predict the labels of a stack of sections (N, G), one of which may be known."""

    UNIT = "stack"
    NEEDS = frozenset(
        {"patch", "relative", "levels", "graph", "cross", "start", "denoised", "imputed", "readout"}
    )
    PROTOCOLS = {"2d": ALONE, "3d": {}, "hd": ALONE}
    PAPER = {"2d": {"depth": False}, "3d": PAPER_3D, "hd": {"depth": False}}
    VARIANTS = {
        "paper": PAPER_3D,
        "no_cross_attention": {"cross_attention": False},  # Table II
        "no_gat": {"graph_attention": False},
        "no_gat_no_cross_attention": {"graph_attention": False, "cross_attention": False},
        "known_10": PAPER_3D | {"known_train": 0.1},  # Table III; `paper` knows 20 %
        "known_30": PAPER_3D | {"known_train": 0.3},
        "shown_25": {"known_test": 0.25},  # ours: share of the known section that is measured
        "shown_50": {"known_test": 0.5},
        "paper_no_cli": NO_CLI,  # Table III, known 0 %; Table IV, 3D graph
        "paper_graph_2d": NO_CLI | {"cross_edges": False},  # Table IV, 2D graph
        "no_cli": {"cross_layer": False},  # ours: the mean of the known section stays
        "no_cross_edges": {"cross_edges": False},
        "no_network": {"network": False},  # ours
        "no_residual": {"residual": False},
        "no_denoise": {"denoise": False},
        "no_kriging": {"kriging": False},
        "no_readout": {"readout": False},
        "no_distance": {"distance": False},
        "no_depth": {"depth": False},
        "k_4_4": {"intra": 4, "cross": 4},  # Table S2
        "k_4_8": {"intra": 4, "cross": 8},
        "k_8_16": {"cross": 16},
        "gamma_0.25_0.75": {"prediction": 0.25, "consistency": 0.75},
        "gamma_0.75_0.25": {"prediction": 0.75},
        "consistency_0": {"consistency": 0.0},
        "consistency_0.5": {"consistency": 0.5},
    }
    Config = ASIGNConfig

    def __init__(self, config: ASIGNConfig, shape: Shape):
        super().__init__(config, shape)
        d, heads = config.width, config.heads
        self.spot = PatchEncoder(config.encoder, shape.features, d, config.dropout)
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
        self.register_buffer("depth", torch.ones(()))  # mean over the training spots
        if config.cross_layer:
            self.factor = nn.Parameter(torch.tensor([-2.0, 0.0]))  # log alpha of eq. 5: within, across
            self.length = nn.Parameter(torch.tensor(LENGTH).log()) if config.distance else None
            self.refine = GeneHead(shape.genes, shape.genes)  # L, figure 3
            nn.init.eye_(self.refine.weight)
            nn.init.zeros_(self.refine.bias)
            shares = [SHARES[view] if config.earned else 1.0 for view in self._views]
            self.mix = nn.Parameter(torch.tensor(shares).log()[:, None].repeat(1, shape.genes))  # a of eq. 6

    @property
    def _views(self) -> list[str]:
        """What is mixed, in order."""
        return [view for view in SHARES if view == "propagation" or getattr(self.config, view)]

    @classmethod
    def needs(cls, config: ASIGNConfig) -> frozenset[str]:
        unused = {
            "patch": config.encoder == "frozen",
            "relative": config.encoder != "frozen",
            "start": not config.residual,
            "denoised": not (config.cross_layer and config.denoise),
            "imputed": not (config.cross_layer and config.kriging),
            "readout": not (config.cross_layer and config.readout),
        }
        return cls.NEEDS - {field for field, idle in unused.items() if idle}

    def prepare(self, train: Iterable[Batch]) -> None:
        labels, depths = {"spot": [], "region": [], "global": []}, []
        for batch in train:
            rows = seen(batch.expression)
            start = batch.start[rows] if self.config.residual else 0.0
            labels["spot"].append(batch.expression[rows] - start)
            depths.append(batch.depth[rows])
            for level in LEVELS:
                labels[level].append(batch[f"{level}_expression"])
        for level, parts in labels.items():
            self.head[level].genes.start(torch.cat(parts))
        self.depth.copy_(torch.cat(depths).mean())

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        cell = {level: self.cell[level](batch[f"{level}_features"]) for level in LEVELS}
        spot = self.spot(batch)  # (N, d)
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
        if self.config.residual:
            out["expression"] = out["expression"] + batch.start
        if self.config.cross_layer and batch.known.any():
            out["expression"] = self._mixed(batch, out["expression"])
        return out

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
        kept = ~batch.across if not self.config.cross_edges else torch.ones_like(batch.across)
        kind = torch.stack([~batch.across, batch.across], 1)[kept]
        return batch.edge_index[:, kept], batch.edge_weight[kept, None] * kind

    @staticmethod
    def _global_of_region(batch: Batch) -> Tensor:
        """Return the global cell of each region cell (R,): that of its spots."""
        return scatter(
            batch.global_parent, batch.region_parent, reduce="max", dim_size=len(batch.region_features)
        )

    def _mixed(self, batch: Batch, network: Tensor) -> Tensor:
        """Mix what the network, propagation, kriging and the readout predict (eq. 5 and 6)."""
        labels = batch.denoised if self.config.denoise else batch.expression
        weight = self.factor.exp()[batch.across.long()] * batch.edge_weight.clamp(min=1e-6)  # alpha e_ij
        if self.config.distance:
            apart = batch.registered[batch.edge_index].diff(dim=0)[0].norm(dim=1) / batch.pitch_um
            apart = apart.nan_to_num()  # within a section that is not registered
            near = torch.exp(-((apart / self.length.exp()) ** 2) / 2).to(weight.dtype)
            weight = torch.where(batch.across, weight * near, weight)
        spread = propagate(labels, batch.known, batch.edge_index, weight, self.config.iterations)
        own = {"network": network, "propagation": self.refine(spread)}
        given = {"kriging": "imputed", "readout": "readout"}  # fields of the batch
        views = torch.stack([own[view] if view in own else batch[given[view]] for view in self._views])
        return (self.mix.softmax(0)[:, None] * views).sum(0)

    def predict(self, batch: Batch) -> Tensor:
        if self.config.cross_layer and batch.known.any():
            lost = unreached(batch.known, batch.edge_index)
            if lost:
                warnings.warn(
                    f"{lost} of {len(batch.known)} spots are joined to no known one; propagation gives them "
                    "the known mean. Look at the registration of their section",
                    stacklevel=2,
                )
        return super().predict(batch)

    def loss(self, batch: Batch, out: dict[str, Tensor]) -> Tensor:
        c, scored = self.config, ~batch.known & seen(batch.expression)
        p_s, y_s = out["expression"][scored], batch.expression[scored]
        squares = (p_s - y_s) ** 2
        # a batch may lie in the known section alone
        error = squares.mean() if len(squares) else squares.sum()
        loss = c.prediction * (error + c.pearson * pearson_loss(p_s, y_s))  # eq. 7 and 9
        loss = with_levels(loss, batch, out, scored, c.prediction * c.pearson_level, c.consistency)
        return loss * batch.depth[scored].mean() / self.depth if c.depth and scored.any() else loss

    def optimiser(self) -> torch.optim.Optimizer:
        c = self.config
        fast = [p for name, p in self.named_parameters() if name in ("mix", "factor", "length")]
        slow = [p for name, p in self.named_parameters() if name not in ("mix", "factor", "length")]
        groups = [{"params": slow}, {"params": fast, "lr": 10 * c.lr, "weight_decay": 0.0}]
        return torch.optim.SGD(groups, lr=c.lr, momentum=c.momentum, weight_decay=c.weight_decay)

    def rate(self, progress: float) -> float:
        return cosine_decay(progress)


Model = ASIGN
