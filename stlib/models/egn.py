"""EGN: a vision transformer on the patch, guided by the labels of training spots that look alike.

Yang et al., WACV 2023, "Exemplar Guided Deep Neural Network for Spatial Transcriptomics Analysis of Gene
Expression Prediction", arXiv:2210.16721. Written from the paper and its specification; the released code was
read for the sizes of its layers, and none of it was copied.

    f = standardised frozen features; exemplars 1..K of a spot: nearest f (Euclidean), other patients only
    x = tokens of the patch + position;  q = P(W_q f);  k_j = P(W_k [f_j, y_j]);  s_j = W_s y_j
    x <- x + MHSA(LN(x + position));  every second block: bridge;  x <- x + MLP(LN x)
    bridge: [a_j, b_j] = MLP([q - k_j, k_j]);  v_j = W_v s_j;  g = q + mean_j sigmoid(a_j) v_j
            z = sigmoid(W_g LN g) * W_z LN x, a gate for each token and head
            x <- x + W_x z;  q <- q + W_o mean_tokens z;  k_j <- LN(k_j + sigmoid(b_j) v_j)
    y = W LN [CSRA(x), q] + b,  CSRA(x) = mean_t c + 0.5 sum_t softmax_t(0.1 c) c,  c = W_c x

Shapes: patch (N, 3, P, P), features (N, D), bank (M, D) and (M, G) -> expression (N, G).

In the paper -> here: window -> patch of a spot; global view -> features; exemplar -> row of the bank;
projector -> Projector; EB block -> Bridge; global-view and exemplar features h, r -> q, k.

Differences from the paper
1. The frozen features are those of a ResNet50 trained on ImageNet, as released; the paper trains the encoder
   of a StyleGAN on the patches. Pixels are normalised as that network was trained (released: (x - 0.5) /
   0.5); features are standardised over the training locations, before retrieval too.
2. The bridge is the released one: q takes its update before guidance (paper: after, so that g is more than a
   gate), the score sees [q - k, k] (paper: [h, h - r]), one z updates both x and q (paper: two halves).
3. K is 8 (ASIGN's use of EGN); the paper has 9, the released command 6.
4. Exemplars never come from the patient of the query, as in the paper, so that in 3d its own measured section
   teaches but is not retrieved; the released code leaves out the query's slide alone.
5. Weights that cannot learn are not built: `to_out` of each bridge, the 65th position; in the last bridge
   the update of k, which nothing reads.
6. The gates are as many as the tokens of `patch_px`; released: 8 x 8, which fits 256 px only. The patch is
   averaged to that side.
7. Labels are log proportions (paper: min-max of log counts); those of the exemplars are standardised, and
   the head starts at the mean label.
8. The weight of the correlation is 0.5, as released; the paper writes 1. Genes that do not vary in a batch
   are left out of it.
9. The learning rate falls once along a cosine to a fifth. The released one does so twice in every epoch,
   after 100 steps of warm-up each; the house's rate changes between epochs only.
10. Pixels are standardised with ImageNet's mean and deviation, training patches turned and mirrored. Training
   shuffles, testing drops no window, and the epoch is chosen by a held-out training patient; the released
   code keeps the best epoch on the test fold.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stlib.batch import Batch, Shape
from stlib.layers import Attention, FeedForward, GeneHead, Pixels, Standardise, cosine_decay
from stlib.losses import mse_and_pearson
from stlib.models import Config, Method, labelled
from stlib.retrieval import Bank


@dataclass(frozen=True)
class EGNConfig(Config):
    """Settings of the released code (its README's command), unless said otherwise."""

    epochs: int = 50
    batch_size: int = 32  # the correlation of the loss is over a batch
    frozen: str = "resnet50.tv_in1k@hub"  # what is retrieved by
    k: int = 8  # exemplars of a spot; paper 9, README 6, ASIGN 8
    patch_px: int = 256  # side to which a patch is averaged
    token_px: int = 32  # side of a token: 8 x 8 of them
    width: int = 1024
    depth: int = 8
    heads: int = 16
    head_width: int = 64
    hidden: int = 4096  # of the feed-forward layers
    projector_layers: int = 2  # "player"
    bridge_every: int = 2  # "bfre": a bridge in every second block
    bridge_heads: int = 8  # "bhead"
    bridge_width: int = 64  # "bdim", of a head
    score_width: int = 256  # 4 "bdim"
    correlation: float = 0.5  # weight in the loss; paper 1
    lr: float = 5e-4
    weight_decay: float = 1e-4


class Projector(nn.Module):
    """Bring a spot, its exemplars, and their labels to the width of the tokens."""

    def __init__(self, features: int, genes: int, width: int, layers: int):
        super().__init__()
        self.spot = nn.Linear(features, width)
        self.exemplar = nn.Linear(features + genes, width)
        self.label = nn.Linear(genes, width)
        self.layers = nn.ModuleList(FeedForward(width, width) for _ in range(layers))

    def forward(self, spot: Tensor, exemplar: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q (B, d), k (B, K, d), s (B, K, d) from (B, D), (B, K, D) and (B, K, G)."""
        exemplar = self.exemplar(torch.cat([exemplar, label], -1))
        both = torch.cat([self.spot(spot)[:, None], exemplar], 1)  # (B, 1 + K, d)
        for layer in self.layers:
            both = both + layer(both)
        return both[:, 0], both[:, 1:], self.label(label)


class Bridge(nn.Module):
    """Let the exemplars gate the tokens, and spot and exemplars learn of each other (EB block)."""

    def __init__(self, width: int, tokens: int, heads: int, head_width: int, score: int, last: bool):
        super().__init__()
        self.heads, inner = heads, heads * head_width
        self.value = nn.Linear(width, width)
        self.score = nn.Sequential(
            nn.Linear(2 * width, score), nn.SiLU(), nn.Linear(score, width if last else 2 * width)
        )
        self.gate = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, heads * tokens))
        self.token = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, inner))
        self.to_token = nn.Linear(inner, width, bias=False)
        self.to_spot = nn.Linear(inner, width, bias=False)
        self.norm = None if last else nn.LayerNorm(width)

    def forward(self, x: Tensor, q: Tensor, k: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the new x (B, T, d), q (B, d), k (B, K, d), from them and s (B, K, d)."""
        value = self.value(s)
        share = self.score(torch.cat([q[:, None] - k, k], -1)).sigmoid()  # (B, K, 2 d), last: (B, K, d)
        to_spot, to_exemplar = share[..., : q.shape[-1]], share[..., q.shape[-1] :]
        guided = q + (to_spot * value).mean(1)
        gate = self.gate(guided).sigmoid().unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, T, heads)
        z = (self.token(x).unflatten(-1, (self.heads, -1)) * gate[..., None]).flatten(2)  # (B, T, heads c)
        x, q = x + self.to_token(z), q + self.to_spot(z.mean(1))
        return x, q, k if self.norm is None else self.norm(k + to_exemplar * value)


class Block(nn.Module):
    """One block of the transformer, with or without a bridge."""

    def __init__(self, config: EGNConfig, bridge: Bridge | None):
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.attention = Attention(config.width, config.heads, config.head_width)
        self.bridge = bridge
        self.feed_forward = FeedForward(config.width, config.hidden)

    def forward(self, x: Tensor, position: Tensor, *guide: Tensor) -> tuple[Tensor, ...]:
        """Return the new x (B, T, d), q (B, d), k (B, K, d), and s (B, K, d) as it was."""
        q, k, s = guide
        x = x + self.attention(self.norm(x + position))
        if self.bridge is not None:
            x, q, k = self.bridge(x, q, k, s)
        return x + self.feed_forward(x), q, k, s


class CSRA(nn.Module):
    """Pool tokens into their mean plus half of their mean weighted by a softmax, channel by channel."""

    TEMPERATURE, SHARE = 0.1, 0.5

    def __init__(self, width: int):
        super().__init__()
        self.score = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, d) from tokens (B, T, d)."""
        c = self.score(x)
        return c.mean(1) + self.SHARE * ((self.TEMPERATURE * c).softmax(1) * c).sum(1)


class EGN(Method):
    """Predict the labels (N, G) of spots from their patches and the exemplars of their features."""

    UNIT = "spot"
    NEEDS = frozenset({"patch", "features"})
    Config = EGNConfig

    def __init__(self, config: EGNConfig, shape: Shape):
        super().__init__(config, shape)
        c, d = config, config.width
        if c.patch_px % c.token_px:
            raise ValueError(
                f"EGN needs a patch of whole tokens, found patch_px {c.patch_px} and token_px {c.token_px}; "
                "make patch_px a multiple of token_px"
            )
        tokens = (c.patch_px // c.token_px) ** 2
        self.scale, self.bank = Standardise(shape.features), Bank("l2")
        self.pixels = Pixels(side=c.patch_px)
        self.embed = nn.Conv2d(3, d, c.token_px, c.token_px)
        self.position = nn.Parameter(torch.randn(tokens, d))
        self.project = Projector(shape.features, shape.genes, d, c.projector_layers)
        bridged = range(c.bridge_every - 1, c.depth, c.bridge_every)
        sizes = d, tokens, c.bridge_heads, c.bridge_width, c.score_width
        self.blocks = nn.ModuleList(
            Block(c, Bridge(*sizes, last=index == bridged[-1]) if index in bridged else None)
            for index in range(c.depth)
        )
        self.pool = CSRA(d)
        self.norm = nn.LayerNorm(2 * d)
        self.head = GeneHead(2 * d, shape.genes)

    def prepare(self, train: Iterable[Batch]) -> None:
        features, expression, patient = labelled(train, "features", "expression", "patient")
        self.bank.fill_standardised(self.scale, features, expression, patient)
        self.head.start(expression)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        features = self.scale(batch.features)
        rows = self.bank.search(features, self.config.k, batch.patient)  # (N, K)
        guide = self.project(features, self.bank.features[rows], self.bank.expression[rows])
        x = self.embed(self.pixels(batch.patch))
        x = x.flatten(2).transpose(1, 2) + self.position  # (N, T, d)
        for block in self.blocks:
            x, *guide = block(x, self.position, *guide)
        return {"expression": self.head(self.norm(torch.cat([self.pool(x), guide[0]], -1)))}

    def loss(self, batch: Batch, out: dict[str, Tensor]) -> Tensor:
        return mse_and_pearson(out["expression"], batch.expression, self.config.correlation)

    def rate(self, progress: float) -> float:
        return cosine_decay(progress, floor=0.2)


Model = EGN
