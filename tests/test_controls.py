"""What untrained methods of the protocol 3d say of a tiny stack, by hand."""

import numpy as np
import pytest
import torch

from stlib.batch import Batch, Shape
from stlib.models import build, configure


def stack(known, place, labels, features=None):
    """Make the batch of a tiny stack: G = 1 gene, registered places on a line (um)."""
    n = len(place)
    return Batch(
        num_nodes=n, row=torch.arange(n), known=torch.tensor(known), expression=torch.tensor(labels)[:, None],
        registered=torch.tensor([[x, 0.0] for x in place], dtype=torch.float64), radius_um=50.0,
        depth=torch.ones(n),
        section=torch.tensor(known).logical_not().long(),
        features=torch.tensor(features if features else [[0.0, 1.0]] * n),
    )  # fmt: skip


def test_known_mean_by_hand():
    batch = stack([True, True, False], [0.0, 1.0, 2.0], [1.0, 3.0, np.nan])
    assert (
        build("known_mean", configure("known_mean", "3d"), Shape(("GENE",)))(batch)["expression"][2].item()
        == 2.0
    )


def test_overlap_by_hand():
    nan = float("nan")
    batch = stack([True, True, False, False], [0.0, 100.0, 50.0, 500.0], [1.0, 3.0, nan, nan])
    values = build("overlap", configure("overlap", "3d"), Shape(("GENE",)))(batch)["expression"].ravel()
    assert values[2].item() == pytest.approx(2.0)  # both known circles overlap it equally
    assert values[3].item() == 3.0  # none does: the nearest


def test_similarity_by_hand():
    nan = float("nan")
    batch = stack(
        [True, True, True, False],
        [0.0] * 4,
        [1.0, 2.0, 9.0, nan],
        [[1.0, 0.0], [0.9, 0.2], [-1.0, 0.1], [1.0, 0.1]],
    )
    config = configure("similarity", "3d", neighbours=2)
    assert build("similarity", config, Shape(("GENE",), 2))(batch)["expression"][3].item() == 1.5


def test_overlap_where_a_section_is_not_registered():
    nan = float("nan")
    model = build("overlap", configure("overlap", "3d"), Shape(("GENE",)))
    batch = stack([True, True, False, False], [0.0, 100.0, nan, -10.0], [1.0, 3.0, nan, nan])
    assert model(batch)["expression"].ravel()[2:].tolist() == [2.0, 1.0]  # the known mean; its neighbour's
    lost = stack([True, True, False, False], [nan, nan, 0.0, nan], [1.0, 3.0, nan, nan])
    assert model(lost)["expression"].ravel().tolist() == [2.0] * 4


def test_overlap_with_a_single_known_spot():
    batch = stack([True, False], [0.0, 50.0], [3.0, np.nan])
    values = build("overlap", configure("overlap", "3d"), Shape(("GENE",)))(batch)["expression"].ravel()
    assert values.tolist() == [3.0, 3.0]
