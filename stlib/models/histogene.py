"""HisToGene: a vision transformer over a whole section, in which each spot is one token.

Pang et al. 2021, "Leveraging information in spatial transcriptomics to predict super-resolution gene
expression from histology images in tumors", bioRxiv, doi:10.1101/2021.11.28.470212. Written from the paper
and its specification; no code was copied.

    z_i = W vec(patch_i) + X[column_i] + Y[row_i]        a learned vector for each column and row of the array
    z   = Transformer(z)                                 over all spots of the section, no class token
    y_i = V LN(z_i) + b

Shapes: patch (N, 3, P, P), array (N, 2) -> expression (N, G).

In the paper -> here: n_pos -> positions of the data, 64 at least; dim -> width; mlp_dim -> hidden.

Differences from the paper
1. Pixels are standardised with ImageNet's mean and deviation. The released code feeds 0 to 255, which makes
   the first layer's output about 100 times too large.
2. Patches are averaged to 112 px from whatever side the data has; the paper cuts 112 px. While training they
   are turned and mirrored, as for every method here; the paper does not.
3. The position tables grow with the array, and coordinates are rounded. The released tables have 64 rows, too
   few for Visium. A row that no training section reaches stays as it was drawn, as in the paper.
4. A section of more than `batch_size` spots is trained on in connected pieces of tissue. Prediction takes the
   whole section; attention is fused, so that memory grows with N, not N^2.
5. The head's bias starts at the mean training label, because labels here are logs of proportions, near -6.
6. The epoch is chosen by a held-out training patient; the paper takes the last one. The held-out unit is a
   patient; in the paper it is a section, whose neighbours in the same tumour are trained on.
7. Dense prediction between spots (the paper's super-resolution) is not built.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stlib.batch import Batch, Shape
from stlib.layers import ArrayPosition, GeneHead, Pixels, TransformerBlock, in_chunks
from stlib.models import Config, Method, labelled


@dataclass(frozen=True)
class HisToGeneConfig(Config):
    """Settings of the paper (the tutorial of its code)."""

    epochs: int = 100
    batch_size: int = 6000  # spots of a section that attend to each other while training
    patch_px: int = 112  # side to which a patch is averaged
    width: int = 1024
    depth: int = 8  # the class's own default is 4
    heads: int = 16
    head_width: int = 64
    hidden: int = 2048
    dropout: float = 0.1
    lr: float = 1e-5


class HisToGene(Method):
    """Predict the labels (N, G) of a section from its patches (N, 3, P, P) and places (N, 2)."""

    UNIT = "section"
    NEEDS = frozenset({"patch"})
    Config = HisToGeneConfig

    def __init__(self, config: HisToGeneConfig, shape: Shape):
        super().__init__(config, shape)
        self.pixels = Pixels(side=config.patch_px)
        self.patch = nn.Linear(3 * config.patch_px**2, config.width)
        self.position = ArrayPosition(shape.positions, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.Sequential(
            *(
                TransformerBlock(config.width, config.heads, config.head_width, config.hidden, config.dropout)
                for _ in range(config.depth)
            )
        )
        self.norm = nn.LayerNorm(config.width)
        self.head = GeneHead(config.width, shape.genes)

    def prepare(self, train: Iterable[Batch]) -> None:
        self.head.start(*labelled(train, "expression"))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        z = in_chunks(self._embed, batch.patch) + self.position(batch.array)  # (N, d)
        z = self.blocks(self.dropout(z)[None])[0]  # one sequence: the section
        return {"expression": self.head(self.norm(z))}

    def _embed(self, patch: Tensor) -> Tensor:
        return self.patch(self.pixels(patch).flatten(1))

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.config.lr)


Model = HisToGene
