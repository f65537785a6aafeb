import pytest
import torch

from stlib.batch import Batch, subset


def test_subset_by_hand():
    batch = Batch(
        num_nodes=4, row=torch.arange(4), edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]),
        edge_weight=torch.tensor([1.0, 2.0, 3.0]), across=torch.tensor([False, True, False]),
        imputed=torch.tensor([[1.0], [2.0], [3.0], [4.0]]), radius_um=50.0,
        region_parent=torch.tensor([0, 1, 1, 2]),
        region_features=torch.tensor([[0.0], [1.0], [2.0]]),
        region_cell=torch.tensor([[0, 0], [1, 0], [1, 1]]),
        region_expression=torch.tensor([[5.0], [6.0], [7.0]]),
        region_edges=torch.tensor([[0, 1], [1, 2]]),
    )  # fmt: skip
    part = subset(batch, torch.tensor([3, 1, 2]))
    assert part.row.tolist() == [3, 1, 2]
    assert part.edge_index.tolist() == [[1, 2], [2, 0]] and part.edge_weight.tolist() == [2.0, 3.0]
    assert part.across.tolist() == [True, False]
    assert part.imputed.ravel().tolist() == [4.0, 2.0, 3.0] and part.radius_um == 50.0
    assert part.region_parent.tolist() == [1, 0, 0] and part.region_expression.tolist() == [[6.0], [7.0]]
    assert part.region_cell.tolist() == [[1, 0], [1, 1]]
    assert part.region_edges.tolist() == [[0], [1]]


def test_a_clone_has_tensors_of_its_own_and_keeps_what_is_none():
    batch = Batch(num_nodes=2, row=torch.arange(2), pitch_um=200.0)
    other = batch.clone()
    other.row[0] = 9
    assert batch.row.tolist() == [0, 1] and other["pitch_um"] == 200.0
    assert batch.to("meta").row.device.type == "meta" and "row" in batch and "graph" not in batch
    del other["row"]
    assert other.to_dict() == {"num_nodes": 2, "pitch_um": 200.0}
    with pytest.raises(AttributeError, match="row"):
        _ = other.row
