"""SGN: a graph network describes each spot, a text about each gene says what to read off that description.

Yang et al., MICCAI 2024, "Spatial Transcriptomics Analysis of Zero-shot Gene Expression Prediction",
arXiv:2401.14772. Written from the paper and its specification; no code was copied.

    h^0 = A x;   h^l = LeakyReLU((SAGE(h^(l-1); near) + SAGE(h^(l-1); alike)) / 2),  l = 1..4;   z = B h^4
    (w_g, b_g) = C LN(Transformer([CLS, register, D text_g + segment]))_CLS
    y_g = m_g + z . w_g / |w_g| + b_g           m_g: mean training label of gene g

With `text: file:<path>` it is SGN; `stlib.gene_text` says how such a file is made. **With `text: table` there
is no language model**: (w_g, b_g) is a learned row per gene, and the method is a plain graph network.

Shapes: features (N, D), edge_index (2, E), tokens (T_g, 4096) of each gene -> expression (N, G).

In the paper -> here: window graph -> edge_index (near) and the edges of `alike` (knn); seen genes -> panel.

Differences from the paper
1. The genes are those of the panel, in training and test; with text, a step draws 64 of them. The paper
   trains on genes outside the panel and predicts the panel unseen, "zero-shot".
2. The Pearson term compares each predicted gene with its own label. The released code compares the 64 drawn
   genes with the first 64 columns of all labels.
3. Nearby windows are the nearest spots (`intra`); the paper takes the touching cells of a
   256-px grid.
4. Features are standardised within each section, which takes out the stain of a slide, before neighbours in
   them are looked for; the paper leaves them as they are.
5. The mean training label is added to each gene, so that training starts there.
6. Queries, keys and values of the text transformer have no bias; segments are counted from 0.
7. Labels are those of the protocol; the released code scales each gene by its minimum and maximum over all
   slides, the test slides among them. The epoch is not chosen on the test slides, and folds are matched by
   patient, not by the end of a name. A section above `batch_size` is cut, and `alike` looks within the piece.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, normalize
from torch_geometric.nn import SAGEConv

from stlib.batch import Batch, Shape
from stlib.gene_text import SEGMENTS, read_gene_text
from stlib.layers import Attention, FeedForward
from stlib.losses import mse_and_pearson
from stlib.models import Config, Method, labelled
from stlib.retrieval import alike


@dataclass(frozen=True)
class SGNConfig(Config):
    """Settings of the released code."""

    epochs: int = 300
    batch_size: int = 6000  # a whole section, if it is no larger
    frozen: str = "resnet18.tv_in1k@hub"
    text: str = "file:data/text/genes.safetensors"  # see `stlib.gene_text`; or "table": no language model
    text_width: int = 4096  # of the language model
    text_tokens: int = 510  # kept of each gene's text; with CLS and register 512
    genes_per_step: int = 64  # drawn from the panel for a training step, with text
    width: int = 512
    layers: int = 4
    gene_width: int = 256  # of z and of the gene's weights
    gene_layers: int = 2
    heads: int = 4
    k: int = 5  # neighbours in feature space
    pearson: float = 0.5
    lr: float = 5e-4
    weight_decay: float = 1e-4


class SectionGraph(nn.Module):
    """Describe the locations of a section: features (N, D) -> z (N, d)."""

    def __init__(self, inputs: int, width: int, layers: int, outputs: int):
        super().__init__()
        self.enter = nn.Linear(inputs, width, bias=False)
        self.near = nn.ModuleList(SAGEConv(width, width) for _ in range(layers))
        self.alike = nn.ModuleList(SAGEConv(width, width) for _ in range(layers))
        self.leave = nn.Linear(width, outputs)

    def forward(self, features: Tensor, near: Tensor, alike: Tensor) -> Tensor:
        """Return z (N, d) from edges (2, E) between nearby and (2, F) between similar locations."""
        h = self.enter(features)
        for by_place, by_look in zip(self.near, self.alike, strict=True):
            h = leaky_relu((by_place(h, near) + by_look(h, alike)) / 2, 0.2)
        return self.leave(h)


class ScaledBlock(nn.Module):
    """Add attention, then a feed-forward layer, each times a learned scale per channel."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, width // heads)
        self.feed_forward = FeedForward(width, 4 * width)
        self.scale = nn.Parameter(torch.full((2, width), 0.1))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return (B, T, d) from tokens (B, T, d) and what is added to the scores (B, 1, 1, T)."""
        x = x + self.scale[0] * self.attention(self.norm(x), bias=bias)
        return x + self.scale[1] * self.feed_forward(x)


class GeneEncoder(nn.Module):
    """Turn the texts of genes into weights and a bias: ragged tokens (S, W) -> (G, d + 1)."""

    def __init__(self, text_width: int, width: int, layers: int, heads: int):
        super().__init__()
        self.enter = nn.Linear(text_width, width)
        self.segment = nn.Embedding(SEGMENTS, width)
        self.first = nn.Parameter(torch.randn(2, width) * 0.02)  # CLS and a register
        self.blocks = nn.ModuleList(ScaledBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, width + 1)

    def forward(self, tokens: Tensor, segment: Tensor, length: Tensor) -> Tensor:
        """Return (G, d + 1) from the tokens (S, W) of all genes in turn, segments (S,), lengths (G,)."""
        text = self.enter(tokens.to(self.enter.weight.dtype)) + self.segment(segment)  # (S, d)
        text = nn.utils.rnn.pad_sequence(text.split(length.tolist()), batch_first=True)  # (G, T, d)
        first = self.first.to(text.dtype).expand(len(text), -1, -1)
        place = torch.arange(2 + text.shape[1], device=text.device)
        absent = place >= 2 + length[:, None]  # (G, 2 + T)
        bias = torch.zeros_like(absent, dtype=text.dtype).masked_fill(absent, -torch.inf)[:, None, None]
        x = torch.cat([first, text], 1)
        for block in self.blocks:
            x = block(x, bias)
        return self.leave(self.norm(x[:, 0]))


class SGN(Method):
    """Predict the labels (N, G) of a section from its frozen features (N, D) and the genes' texts."""

    UNIT = "section"
    NEEDS = frozenset({"relative", "graph"})
    Config = SGNConfig

    def __init__(self, config: SGNConfig, shape: Shape):
        super().__init__(config, shape)
        kind, _, file = config.text.partition(":")
        if config.text != "table" and not (kind == "file" and file):
            raise ValueError(
                f"sgn: `text` must be 'table' or 'file:<path>', found '{config.text}'; correct `overrides` "
                "in the params file"
            )
        self.graph = SectionGraph(shape.features, config.width, config.layers, config.gene_width)
        self.register_buffer("mean", torch.zeros(shape.genes))
        self.table = self.genes = None
        if not file:
            self.table = nn.Parameter(torch.randn(shape.genes, config.gene_width + 1) * 0.02)
            return
        self.genes = GeneEncoder(config.text_width, config.gene_width, config.gene_layers, config.heads)
        text = read_gene_text(file, shape.panel, config.text_width, config.text_tokens)
        for name, value in text._asdict().items():  # constant, large: read anew when the model is built
            self.register_buffer(f"text_{name}", value, persistent=False)

    def prepare(self, train: Iterable[Batch]) -> None:
        (labels,) = labelled(train, "expression")
        self.mean = labels.double().mean(0).float()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the expression (N, G); in training with text that of some "genes" (g,), in their order."""
        z = self.graph(batch.relative, batch.edge_index, alike(batch.relative, self.config.k))
        genes = torch.arange(self.shape.genes, device=z.device)
        if self.training and self.genes is not None:
            genes = torch.randperm(self.shape.genes, device=z.device)[: self.config.genes_per_step]
        reading = self._readings(genes).float()  # (g, d + 1)
        with torch.autocast(z.device.type, enabled=False):  # in float32, see `layers.GeneHead`
            weight, bias = normalize(reading[:, :-1]), reading[:, -1]
            return {"expression": z.float() @ weight.T + bias + self.mean[genes], "genes": genes}

    def _readings(self, genes: Tensor) -> Tensor:
        """Return the weights and the bias (g, d + 1) of some genes (g,)."""
        if self.genes is None:
            return self.table[genes]
        return torch.cat([self._encode(part) for part in genes.split(64)])

    def _encode(self, genes: Tensor) -> Tensor:
        """Encode the texts of some genes (g,), which lie one after the other among all tokens."""
        length = self.text_length[genes]
        before = self.text_length.cumsum(0)[genes] - length  # tokens of the genes in front
        shift = before - (length.cumsum(0) - length)
        rows = torch.arange(int(length.sum()), device=genes.device) + shift.repeat_interleave(length)
        return self.genes(self.text_tokens[rows], self.text_segment[rows], length)

    def loss(self, batch: Batch, out: dict[str, Tensor]) -> Tensor:
        return mse_and_pearson(out["expression"], batch.expression[:, out["genes"]], self.config.pearson)


Model = SGN
