"""Similarity: the mean label of the known spots that look most alike. ASIGN's second 3D baseline.

ASIGN (Zhu et al. 2024), Table I and supplement 2.3. No code is published.

    y_i = 1/K sum_{j in top-K(i)} y_j        K = 20 known spots of the largest cosine similarity

Differences from the paper
1. "Nearest" is read as feature cosine over all known spots of the patient; features are those of the params
   file (the paper: ImageNet ResNet50), in one shared space. The released code projects each section at
   random, which makes cosines across sections meaningless.
"""

from dataclasses import dataclass

from torch import Tensor

from stlib.batch import Batch
from stlib.models import Config, Method
from stlib.retrieval import nearest


@dataclass(frozen=True)
class SimilarityConfig(Config):
    """K of the paper: its 8 intra- and 12 cross-section links."""

    neighbours: int = 20


class Similarity(Method):
    """Predict (N, G) from the known spots and the frozen features (N, D) of all."""

    UNIT = "stack"
    NEEDS = frozenset({"features"})
    PROTOCOLS = {"3d": {}}
    Config = SimilarityConfig

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        bank = batch.features[batch.known]
        centre, scale = bank.mean(0), bank.std(0).clamp(min=1e-6)  # of one unit, so that a cosine compares
        query, bank = ((features - centre) / scale for features in (batch.features, bank))
        rows = nearest(query, bank, min(self.config.neighbours, len(bank)), "cosine")
        labels = batch.expression[batch.known]
        return {"expression": labels[rows].mean(1)}


Model = Similarity
