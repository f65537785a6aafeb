"""EGGN: a graph of the spots of a section and of training spots that look alike, with their labels.

Yang et al., Pattern Recognition 145 (2024), "Spatial transcriptomics analysis of gene expression prediction
using exemplar guided graph neural network", doi:10.1016/j.patcog.2023.109966. Written from the specification
of the released code, which was read for facts; none of it was copied.

    f = standardised frozen features; exemplars 1..K of a spot: nearest f (L1), other patients only
    w_i = lift(W_w f_i);  e_j = lift(W_e [f_j, y_j]);  s_j = W_y y_j;  lift = LeakyReLU, linear, LeakyReLU
    4 times: w <- LeakyReLU(mean(SAGE(w; spots of the section), to w of bridge))
             e <- LeakyReLU(mean(SAGE(e; exemplars alike),      to e of bridge))
    bridge:  [a, b]_ij = sigmoid(MLP(A e_j - A w_i)), a number for every 12 channels of [e_j, s_j, w_i]
             w_i: W mean_j thirds(a_ij [e_j, s_j, w_i]);  e_j: W mean_i thirds(b_ij [w_i, e_j, s_j])
    y_i = W (c_i + lam sum_j softmax_j(0.1 e_j) e_j) + b,  c = W_c w

`thirds` is the mean of the three parts of a vector; a softmax is taken channel by channel.

Shapes: features (N, D), edge_index (2, E) of the section, bank (M, D) and (M, G) -> expression (N, G).

In the released code -> here: window -> spot; example -> exemplar; near -> edge_index; close, refer -> the
same; EGBBlock -> Bridge; score_dim -> gates; CSRA -> GraphCSRA.

Differences from the released code
1. The bridge reads the expression of the exemplars. The released one slices the last 250 columns after the
   feature was overwritten by its projection, so that hidden units stand in; the weights are as many.
2. Spots are joined to their nearest neighbours in the section. Released: cells of a 256-px grid, several
   spots in one, and an arbitrary five of the neighbours.
3. Exemplars never come from the patient of the query, so that in 3d its own measured section teaches but is
   not retrieved; released: from its slide. Sections are matched by name; the released loader takes fold 1 for
   11 and 21, too, and trains on test slides.
4. Pixels are normalised as the frozen network was trained (released: (x - 0.5) / 0.5). Features are
   standardised over the training locations, before retrieval too. Labels are log proportions (released:
   min-max of log counts); those of the exemplars are standardised, and the head starts at the mean label.
5. The rectifier before the score acts on the score alone; the released one works in place and changes the
   messages. The embedded labels are not rectified again after each layer.
6. In the pooling the released score subtracts the spot's c, which a softmax over its exemplars cancels.
7. Genes that do not vary in a section are left out of the correlation; the released code counts them as -1.
8. A section of more than `batch_size` spots is trained in connected pieces; the epoch is chosen by a held-out
   training patient, where the released code keeps the best on the test fold. Weights start as PyTorch and PyG
   start them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch_geometric.nn import MessagePassing, SAGEConv

from stlib.batch import Batch, Shape
from stlib.layers import GeneHead, Standardise
from stlib.losses import mse_and_pearson
from stlib.models import Config, Method, labelled
from stlib.retrieval import Bank

SLOPE = 0.2  # of every LeakyReLU


@dataclass(frozen=True)
class EGGNConfig(Config):
    """Settings of the released code."""

    epochs: int = 300
    batch_size: int = 6000  # a whole section; larger ones are cut
    frozen: str = "resnet18.tv_in1k@hub"  # of spots and exemplars, and what is retrieved by
    k: int = 6  # exemplars of a spot
    close: int = 3  # neighbours of an exemplar among the exemplars
    width: int = 512
    depth: int = 4
    gates: int = 128  # of a bridge, in each direction; divides three times the width
    correlation: float = 0.5  # weight in the loss
    lr: float = 5e-4
    weight_decay: float = 1e-4


class Bridge(MessagePassing):
    """Exchange gated messages between spots and the exemplars they refer to (EGB block)."""

    def __init__(self, width: int, gates: int):
        super().__init__(aggr="mean")
        self.gates = gates
        self.exemplar, self.label, self.spot = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.narrow = nn.Linear(width, gates, bias=False)  # A
        self.score = nn.Linear(gates, 2 * gates)
        self.bias_exemplar, self.bias_spot = (nn.Parameter(torch.zeros(width)) for _ in range(2))
        self.to_exemplar, self.to_spot = (nn.Linear(width, width) for _ in range(2))

    def forward(self, exemplar: Tensor, label: Tensor, spot: Tensor, refer: Tensor) -> tuple[Tensor, Tensor]:
        """Return what exemplars (U, d) and spots (N, d) receive, from them, labels (U, d), edges (2, E)."""
        exemplar, label, spot = self.exemplar(exemplar), self.label(label), self.spot(spot)
        near, far = (self.narrow(leaky_relu(x, SLOPE)) for x in (exemplar, spot))
        score = self.score(leaky_relu(near[refer[0]] - far[refer[1]], SLOPE))
        a, b = score.sigmoid().chunk(2, -1)  # (E, gates) each
        known = torch.cat([exemplar, label], -1)
        sizes = len(exemplar), len(spot)
        at_spot = self.propagate(refer, x=(known, spot), gate=a, size=sizes) + self.bias_spot
        at_exemplar = self.propagate(refer.flip(0), x=(spot, known), gate=b, size=sizes[::-1])
        return self.to_exemplar(at_exemplar + self.bias_exemplar), self.to_spot(at_spot)

    def message(self, x_j: Tensor, x_i: Tensor, gate: Tensor) -> Tensor:
        """Return the gated message (E, d) along each edge."""
        both = torch.cat([x_j, x_i], -1)  # (E, 3 d)
        gated = gate[..., None] * both.unflatten(-1, (self.gates, -1))
        return gated.flatten(1).unflatten(-1, (3, -1)).mean(1).float()  # summed over edges: not in bfloat16


class Layer(nn.Module):
    """Update exemplars and spots, each from its own kind and from the other."""

    def __init__(self, width: int, gates: int):
        super().__init__()
        self.among_exemplars, self.among_spots = SAGEConv(width, width), SAGEConv(width, width)
        self.bridge = Bridge(width, gates)

    def forward(
        self, exemplar: Tensor, label: Tensor, spot: Tensor, close: Tensor, refer: Tensor, near: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the new exemplars (U, d) and spots (N, d); the edges are (2, E) each."""
        at_exemplar, at_spot = self.bridge(exemplar, label, spot, refer)
        exemplar = (self.among_exemplars(exemplar, close) + at_exemplar) / 2
        spot = (self.among_spots(spot, near) + at_spot) / 2
        return leaky_relu(exemplar, SLOPE), leaky_relu(spot, SLOPE)


class GraphCSRA(nn.Module):
    """Add to each spot the mean of its exemplars, weighted by a softmax, channel by channel."""

    TEMPERATURE = 0.1

    def __init__(self, width: int):
        super().__init__()
        self.spot = nn.Linear(width, width)
        self.share = nn.Parameter(torch.full((1,), 0.1))  # lam

    def forward(self, spot: Tensor, exemplar: Tensor) -> Tensor:
        """Return (N, d) from spots (N, d) and the exemplars of each (N, K, d)."""
        mean = ((self.TEMPERATURE * exemplar).softmax(1) * exemplar).sum(1)
        return self.spot(spot) + self.share * mean


class EGGN(Method):
    """Predict the labels (N, G) of a section from frozen features and the exemplars of its spots."""

    UNIT = "section"
    NEEDS = frozenset({"features", "graph"})
    Config = EGGNConfig

    def __init__(self, config: EGGNConfig, shape: Shape):
        super().__init__(config, shape)
        d = config.width
        if 3 * d % config.gates:
            raise ValueError(
                f"EGGN needs gates that divide three times the width, found {config.gates} and 3 x {d}; "
                "take a fourth of the width"
            )
        self.scale, self.bank = Standardise(shape.features), Bank("l1")
        self.spot = nn.Linear(shape.features, d, bias=False)
        self.exemplar = nn.Linear(shape.features + shape.genes, d, bias=False)
        self.lift = nn.Sequential(nn.LeakyReLU(SLOPE), nn.Linear(d, d, bias=False), nn.LeakyReLU(SLOPE))
        self.label = nn.Linear(shape.genes, d, bias=False)
        self.layers = nn.ModuleList(Layer(d, config.gates) for _ in range(config.depth))
        self.pool = GraphCSRA(d)
        self.head = GeneHead(d, shape.genes)

    def prepare(self, train: Iterable[Batch]) -> None:
        features, expression, patient = labelled(train, "features", "expression", "patient")
        self.bank.fill_standardised(self.scale, features, expression, patient)
        self.head.start(expression)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        c, features = self.config, self.scale(batch.features)
        cited, place = self.bank.search(features, c.k, batch.patient).unique(return_inverse=True)
        reader = torch.arange(len(features), device=place.device).repeat_interleave(c.k)
        refer = torch.stack([place.ravel(), reader])  # exemplar -> spot (2, N K)
        close = self.bank.among(cited, c.close)
        known, expression = self.bank.features[cited], self.bank.expression[cited]
        exemplar = self.lift(self.exemplar(torch.cat([known, expression], -1)))  # (U, d)
        label, spot = self.label(expression), self.lift(self.spot(features))
        for layer in self.layers:
            exemplar, spot = layer(exemplar, label, spot, close, refer, batch.edge_index)
        return {"expression": self.head(self.pool(spot, exemplar[place]))}

    def loss(self, batch: Batch, out: dict[str, Tensor]) -> Tensor:
        return mse_and_pearson(out["expression"], batch.expression, self.config.correlation)


Model = EGGN
