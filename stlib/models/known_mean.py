"""Known mean: the mean profile of the patient's measured section, at every spot of the others.

It looks at no image and at no registration: what it scores is what knowing the patient is worth. On her2st it
beats every printed three-dimensional result.
"""

from torch import Tensor

from stlib.batch import Batch
from stlib.models import Method


class KnownMean(Method):
    """Predict the mean label of the known spots of the stack (G,)."""

    UNIT = "stack"
    PROTOCOLS = {"3d": {}}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        profile = batch.expression[batch.known].double().mean(0).float()
        return {"expression": profile.expand(len(batch.row), -1)}


Model = KnownMean
