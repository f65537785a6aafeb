"""PixNet: a dense map of expression over the slide, summed up where something was measured.

Zhang, Yang & Pan, arXiv:2503.01347v1, 2025, "Spatial Transcriptomics Analysis of Spatially Dense Gene
Expression Prediction". Written from the paper and its specification; no code was copied. (Its authors' later
versions, under another title, describe another network.)

    F_l = ResLayer_l ... ResLayer_1(I), l = 1 ... 4           a pyramid at strides 4, 8, 16, 32      eqs. 1, 2
    D_0 = F_4,  D_l = DFFN(Dconv(D_{l-1}) + delta F_{4-l})    l = 1 ... 3, D_3 at stride 4               eq. 3
    G = Resize(W D_3 + b)                                     a vector of genes for each pixel           eq. 4
    y_n = aggregate of G over the pixels of location n                                                   eq. 5
    L = L_mse + lambda L_pcc,    L_pcc = 1 - mean over genes of Pearson's r across locations             eq. 6

Dconv is a transposed convolution of kernel and stride 2; DFFN is twice convolution 3 x 3, BatchNorm, ReLU.
G is never made: enlarging, summing and the head are linear, so that y = W (P D_3) + b with P sparse and exact
(`stlib.pooling`). Trained on windows, a slide is predicted in tiles that give what the slide at once would
(`stlib.tiles`), whatever their size.

Shapes: window (B, 3, S, S) -> cells (B, C, S / 4, S / 4), pool (N, cells) -> expression (N, G).

In the paper -> here: D_{L-1} -> cells; hidden dimension -> hidden; lambda -> pearson.

Differences from the paper
1. Eq. 3 adds F_l, whose size fits none of the D_l; F_{4-l} is meant (u-net order). delta is one scalar for
   each stage, 1 at the start.
2. "Hidden dimensions of 512" is read as the width between the two convolutions of DFFN, while Dconv halves
   the channels: then eq. 3 needs no layer that the paper does not name. Variant `wide`: every map of the
   decoder has 512 channels, and F_l is brought to them by a convolution 1 x 1.
3. Eq. 5 sums. Labels are logarithms of shares, of one magnitude at any size, and sums grow with the area: 29
   pixels for 2 um, 74,357 for 100 um at 0.325 um per px. So the default is the mean over the pixels, for one
   size the same up to a constant. `aggregate: sum_scaled` is the sum in units of the training locations'
   median area; the variant `sum` eq. 5 as printed; `rate`, not in the paper, log-softmax of the mean, whose
   exponentials add up to 1 over the panel, as those of labels do.
4. A location covers the pixels whose centre lies in it: those of a disc, or of a square for a square bin (the
   paper: discs alone). Where a pixel is no square, a disc is an ellipse.
5. Batch-wise PCC is per gene, across the locations of the batch, as in the code of EGN, EGGN and SGN, which
   share an author and the weight of 0.5; locations of each size for themselves, averaged over the sizes.
6. The encoder is trained but for the statistics of its BatchNorm; the paper does not say. Resizing is
   bilinear, with half-pixel centres; the slide is continued in white to whole strides.
7. The paper names no crops, batches or augmentation: here 4 windows of 1024 px, turned and mirrored; an epoch
   shows each location once, whole.
8. Labels are those of the protocol (log proportion); the bias starts at their mean. The panel is chosen on
   training patients; the paper chooses it on all. The epoch is chosen by a held-out patient.
9. Of a vision transformer the paper says no more than that it was tried. Here blocks of its own image size
   are encoded one by one; the maps after each quarter of its depth are brought to strides 4, 8, 16 and 32 by
   transposed convolutions and a maximum (Li et al. 2022, arXiv:2203.16527), and tiles are whole blocks.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stlib.batch import Batch, Shape
from stlib.encoders import backbone
from stlib.layers import GeneHead, Pixels, cosine_decay
from stlib.losses import mse, pearson_loss_per_gene
from stlib.models import Config, Method, labelled
from stlib.pooling import pooled, row_scale
from stlib.tiles import Cutting, reach

STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True)
class PixNetConfig(Config):
    """Settings of the paper, sections 2 and 3; where it has none, the specification's."""

    epochs: int = 500
    batch_size: int = 4  # windows
    window_px: int = 1024
    encoder: str = "ciga_resnet18@file:data/weights/tenpercent_resnet18.ckpt"
    hidden: int = 512
    wide: bool = False  # whether all maps of the decoder have `hidden` channels
    aggregate: str = "mean"  # mean, sum_scaled, sum or rate
    pearson: float = 0.5  # lambda
    lr: float = 5e-4
    floor: float = 1.0  # share of the learning rate that a cosine leaves at the end; 1: it is constant
    weight_decay: float = 1e-4
    tile_px: int = 2048  # core of a tile; it changes memory and time, not what is predicted


class Stages(nn.Module):
    """F_1 to F_4 of a convolutional network."""

    step = STRIDES[-1]

    def __init__(self, network: nn.Module):
        super().__init__()
        info = {
            stage["reduction"]: (index, stage["num_chs"]) for index, stage in enumerate(network.feature_info)
        }
        if not set(STRIDES) <= info.keys():
            raise ValueError(f"PixNet needs an encoder with maps at strides {STRIDES}, found {sorted(info)}")
        self.indices, self.widths = zip(*(info[stride] for stride in STRIDES), strict=True)
        network.prune_intermediate_layers(list(self.indices), prune_norm=True)
        self.network = network

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Return maps (B, C_l, H / s, W / s) of images (B, 3, H, W)."""
        return self.network.forward_intermediates(pixels, indices=list(self.indices), intermediates_only=True)


class Quarters(nn.Module):
    """F_1 to F_4 of a vision transformer with patches of 16 px: after each quarter of its depth."""

    def __init__(self, network: nn.Module):
        super().__init__()
        patch, (side, _) = network.patch_embed.patch_size[0], network.patch_embed.img_size
        if patch != 16 or side % STRIDES[-1]:
            raise ValueError(
                "PixNet needs a transformer with patches of 16 px and images of a multiple of "
                f"{STRIDES[-1]} px, found patches of {patch} px and images of {side} px"
            )
        depth, d = len(network.blocks), network.embed_dim
        self.indices = [depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
        network.prune_intermediate_layers(self.indices, prune_norm=True)
        self.network, self.step, self.widths = network, side, (d // 4, d // 2, d, d)
        self.scales = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(d, d // 2, 2, 2), nn.GELU(), nn.ConvTranspose2d(d // 2, d // 4, 2, 2)
                ),
                nn.ConvTranspose2d(d, d // 2, 2, 2),
                nn.Identity(),
                nn.MaxPool2d(2),
            ]
        )

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Return maps (B, C_l, H / s, W / s) of images (B, 3, H, W), whose sides are whole blocks."""
        blocks = pixels.unflatten(3, (-1, self.step)).unflatten(2, (-1, self.step))  # (B, 3, r, S, c, S)
        b, _, r, _, c, _ = blocks.shape
        blocks = blocks.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)  # (B r c, 3, S, S)
        maps = self.network.forward_intermediates(
            blocks, indices=self.indices, intermediates_only=True, norm=False
        )
        maps = [scale(found).unflatten(0, (b, r, c)) for scale, found in zip(self.scales, maps, strict=True)]
        return [found.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3) for found in maps]


class DFFN(nn.Sequential):
    """Twice convolution 3 x 3, BatchNorm, ReLU: (B, C, h, w) -> (B, C, h, w)."""

    def __init__(self, width: int, hidden: int):
        layers = []
        for sizes in ((width, hidden), (hidden, width)):
            layers += [nn.Conv2d(*sizes, 3, padding=1), nn.BatchNorm2d(sizes[1]), nn.ReLU()]
        super().__init__(*layers)


class Stage(nn.Module):
    """D_l = DFFN(Dconv(D_{l-1}) + delta F_{4-l}), eq. 3.

    Shapes: D_{l-1} (B, C, h, w), F_{4-l} (B, C', 2 h, 2 w) -> (B, C'', 2 h, 2 w).
    """

    def __init__(self, below: int, skip: int, width: int, hidden: int):
        super().__init__()
        self.deconvolution = nn.ConvTranspose2d(below, width, 2, 2)
        self.lateral = nn.Identity() if skip == width else nn.Conv2d(skip, width, 1)
        self.delta = nn.Parameter(torch.ones(()))
        self.dffn = DFFN(width, hidden)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """Return the next map."""
        return self.dffn(self.deconvolution(below) + self.delta * self.lateral(skip))


class Dense(nn.Module):
    """Images (B, 3, H, W), 0 to 255 -> cells D_3 (B, C, H / 4, W / 4)."""

    def __init__(self, config: PixNetConfig):
        super().__init__()
        network = backbone(config.encoder)
        self.pixels = Pixels(network.pretrained_cfg["mean"], network.pretrained_cfg["std"])
        self.encoder = Quarters(network) if hasattr(network, "patch_embed") else Stages(network)
        *skips, below = self.encoder.widths
        widths = [config.hidden if config.wide else skip for skip in skips]
        self.decoder = nn.ModuleList()
        for skip, width in zip(skips[::-1], widths[::-1], strict=True):
            self.decoder.append(Stage(below, skip, width, config.hidden))
            below = width
        self.width = below

    def train(self, mode: bool = True) -> "Dense":
        """Switch to training, but for the encoder's BatchNorm, whose statistics stay."""
        super().train(mode)
        for module in self.encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, window: Tensor) -> Tensor:
        *skips, cells = self.encoder(self.pixels(window))
        for stage, skip in zip(self.decoder, skips[::-1], strict=True):
            cells = stage(cells, skip)
        return cells


class PixNet(Method):
    """Predict the labels (N, G) of locations of any size from windows (B, 3, S, S), or from a whole slide."""

    UNIT = "window"
    NEEDS = frozenset({"window"})
    PROTOCOLS = {"2d": {}, "hd": {}}
    VARIANTS = {
        "wide": {"wide": True},
        "sum": {"aggregate": "sum"},
        "sum_scaled": {"aggregate": "sum_scaled"},
        "resnet18": {"encoder": "resnet18.tv_in1k@hub"},
        "vit": {"encoder": "vit_base_patch16_clip_224.laion2b@hub"},
        "uni": {"encoder": "uni@hub"},
        "rate": {"aggregate": "rate"},
    }
    PAPER = {"2d": {"aggregate": "sum"}}
    Config = PixNetConfig

    def __init__(self, config: PixNetConfig, shape: Shape):
        super().__init__(config, shape)
        self.dense = Dense(config)
        self.head = GeneHead(self.dense.width, shape.genes)
        self.register_buffer("area", torch.ones(()))  # pixels of a usual location
        self._halo_px: int | None = None

    def prepare(self, train: Iterable[Batch]) -> None:
        labels, pixels = labelled(train, "expression", "pixels")
        self.area.copy_(pixels.double().median())
        self.head.start(labels / (self.area if self.config.aggregate == "sum" else 1))

    @property
    def cutting(self) -> Cutting:
        """How a whole slide is seen: tiles with the halo that this network needs."""
        step = self.dense.encoder.step
        if self._halo_px is None:
            self._halo_px = step * -(-reach(self.dense, step) // step)
        return Cutting(self.dense, step * -(-self.config.tile_px // step), self._halo_px, step)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        if "window" in batch:
            cells = self.dense(batch.window)
            sums = pooled(batch.pool, cells.permute(0, 2, 3, 1).flatten(0, 2))  # (N, C)
        else:
            sums = self.cutting.sums(batch.tiles, self.head.weight.device)
        return {"expression": self.read(sums, batch.pixels)}

    def read(self, sums: Tensor, pixels: Tensor) -> Tensor:
        """Return the expression (N, G) of locations from sums of cells (N, C) and numbers of pixels (N,)."""
        rate = self.config.aggregate == "rate"
        scale = row_scale(pixels, "mean" if rate else self.config.aggregate, self.area.double())
        mass = (scale * pixels).to(sums.dtype)[:, None]  # how often the bias counts; 1 for a mean
        out = self.head(sums * scale.to(sums.dtype)[:, None]) + (mass - 1) * self.head.bias
        return out.log_softmax(1) if rate else out

    def loss(self, batch: Batch, out: dict[str, Tensor]) -> Tensor:
        y_hat, y = out["expression"], batch.expression
        sizes = [batch.size_um == size for size in batch.size_um.unique()]
        pearson = torch.stack([pearson_loss_per_gene(y_hat[rows], y[rows]) for rows in sizes]).mean()
        return mse(y_hat, y) + self.config.pearson * pearson

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay)

    def rate(self, progress: float) -> float:
        return cosine_decay(progress, self.config.floor)


Model = PixNet
