"""ST-Net: one image network, from the patch of a spot to its labels.

He et al., Nature Biomedical Engineering 2020, "Integrating spatial gene expression and breast tumour
morphology via deep learning", doi:10.1038/s41551-020-0578-x. Written from the paper and its specification; no
code was copied.

    y = W CNN(patch) + b        CNN: DenseNet-121, pretrained on ImageNet; at the start W = 0, b = mean label

Shapes: patch (N, 3, P, P) -> expression (N, G).

Differences from the paper
1. Pixels are standardised with ImageNet's mean and deviation; the paper estimates both from about twelve
   training batches.
2. The epoch is chosen by one held-out training patient; the paper sums over a 4-fold split of the training
   patients. It retrains on all of them afterwards, and so does the house's loop.
3. The loss is the mean over the batch, with the learning rate times the paper's batch of 32, which is the
   same step as its sum with 1e-6.
4. Labels are those of the protocol (log proportion over the panel; the paper: over all genes).
5. A spot whose patch leaves the slide is kept, on white; the paper drops it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stlib.batch import Batch, Shape
from stlib.encoders import backbone, width
from stlib.layers import GeneHead, Pixels, dihedral, in_chunks
from stlib.models import Config, Method, labelled


@dataclass(frozen=True)
class STNetConfig(Config):
    """Settings of the paper (its README's flags)."""

    epochs: int = 50
    batch_size: int = 32
    encoder: str = "densenet121.tv_in1k@hub"
    lr: float = 3.2e-5  # 1e-6 on a loss summed over a batch of 32
    momentum: float = 0.9
    patch_px: int = 0  # side to which a patch is averaged before it is encoded; 0: as it was cut
    views: int = 8  # symmetries of a patch whose predictions are averaged


class STNet(Method):
    """Predict the labels (N, G) of spots from their patches (N, 3, P, P)."""

    UNIT = "spot"
    NEEDS = frozenset({"patch"})
    Config = STNetConfig

    def __init__(self, config: STNetConfig, shape: Shape):
        super().__init__(config, shape)
        self.pixels = Pixels(side=config.patch_px)
        self.encoder = backbone(config.encoder)
        self.head = GeneHead(width(self.encoder), shape.genes)
        nn.init.zeros_(self.head.weight)

    def prepare(self, train: Iterable[Batch]) -> None:
        self.head.start(*labelled(train, "expression"))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"expression": self._expression(batch.patch)}

    def _expression(self, patch: Tensor) -> Tensor:
        return self.head(self.encoder(self.pixels(patch)))

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.config.lr, momentum=self.config.momentum)

    def predict(self, batch: Batch) -> Tensor:
        """Average the predictions of the symmetries of each patch."""
        views = dihedral(batch.patch)[: self.config.views]
        return torch.stack([in_chunks(self._expression, view) for view in views]).mean(0)


Model = STNet
