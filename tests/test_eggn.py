import pytest
import torch

from stlib.batch import Batch, Shape
from stlib.models import build, configure
from stlib.models.eggn import Bridge, GraphCSRA


def section(n=9, patients=3, seed=0):
    """Return a row of spots, each joined to the next, with 5 features and 4 genes."""
    draw = torch.Generator().manual_seed(seed)
    step = torch.stack([torch.arange(n - 1), torch.arange(1, n)])
    return Batch(
        num_nodes=n, row=torch.arange(n), patient=torch.arange(n) % patients,
        edge_index=torch.cat([step, step.flip(0)], 1),
        features=torch.randn(n, 5, generator=draw), expression=torch.randn(n, 4, generator=draw),
    )  # fmt: skip


def small(batch, **changes):
    torch.manual_seed(0)
    settings = {"width": 8, "depth": 2, "gates": 4, "k": 3} | changes
    model = build("eggn", configure("eggn", "2d", **settings), Shape(tuple("abcd"), 5))
    model.prepare([batch])
    return model


def test_parameter_count_is_that_of_the_released_code():
    """It has no dead weight: the bridge's 250 columns read expression here, hidden units there."""
    with torch.device("meta"):
        model = build("eggn", configure("eggn", "2d"), Shape(tuple(map(str, range(250))), 512))
    assert (
        sum(parameter.numel() for parameter in model.parameters()) == 11_277_051
    )  # specification, section 12
    assert model.label.in_features == 250


def test_bridge_by_hand():
    bridge = Bridge(width=2, gates=3)  # a gate for each of e, s, w
    for parameter in bridge.parameters():
        torch.nn.init.zeros_(parameter)
    for layer in (bridge.exemplar, bridge.label, bridge.spot, bridge.to_exemplar, bridge.to_spot):
        torch.nn.init.eye_(layer.weight)
    bridge.score.bias.data = torch.tensor([100.0, -100.0, 0.0] + [100.0] * 3)  # a = 1, 0, 1/2 and b = 1, 1, 1
    exemplar = torch.tensor([[3.0, 0.0], [0.0, 6.0]])
    label = torch.tensor([[9.0, 9.0], [0.0, 3.0]])
    spot = torch.tensor([[6.0, 6.0], [0.0, 0.0]])
    refer = torch.tensor([[0, 1, 1], [0, 0, 1]])
    at_exemplar, at_spot = bridge(exemplar, label, spot, refer)
    # spot 0: mean of ([3, 0] + [3, 3]) / 3 and ([0, 6] + [3, 3]) / 3; spot 1: [0, 6] / 3
    torch.testing.assert_close(at_spot, torch.tensor([[1.5, 2.0], [0.0, 2.0]]))
    # exemplar 0: ([6, 6] + [3, 0] + [9, 9]) / 3; exemplar 1: mean of [6, 15] / 3 and [0, 9] / 3
    torch.testing.assert_close(at_exemplar, torch.tensor([[6.0, 5.0], [1.0, 4.0]]))


def test_the_score_is_of_the_difference_between_exemplar_and_spot():
    """a = sigmoid(leaky(e - w)): an exemplar like the spot passes half, one far above it all, below less."""
    bridge = Bridge(width=1, gates=1)
    for parameter in bridge.parameters():
        torch.nn.init.zeros_(parameter)
    for layer in (bridge.exemplar, bridge.spot, bridge.narrow, bridge.to_spot):
        torch.nn.init.ones_(layer.weight)
    bridge.score.weight.data = torch.tensor([[1.0], [0.0]])
    exemplar, spot = torch.tensor([[4.0], [54.0], [1.0]]), torch.full((3, 1), 4.0)
    _, at_spot = bridge(exemplar, torch.zeros(3, 1), spot, torch.arange(3).repeat(2, 1))
    below = torch.tensor(0.2 * -3).sigmoid().item() * 5 / 3
    assert at_spot.ravel().tolist() == pytest.approx([0.5 * 8 / 3, 58 / 3, below])


def test_pooling_by_hand():
    pool = GraphCSRA(1)
    torch.nn.init.ones_(pool.spot.weight)
    torch.nn.init.zeros_(pool.spot.bias)
    found = pool(torch.tensor([[2.0]]), torch.tensor([[[0.0], [10.0]]]))
    assert found.item() == pytest.approx(2 + 0.1 * 7.310586)  # 10 sigmoid(0.1 * 10)


def test_labels_of_the_own_patient_cannot_matter_but_those_of_others_do():
    batch = section(12, 2)
    batch.edge_index = torch.zeros(2, 0, dtype=torch.long)
    model = small(batch).eval()
    own = batch.patient == 0
    alone = batch.clone()
    alone.features, alone.patient, alone.num_nodes = batch.features[own], batch.patient[own], 6
    before = model.predict(alone)
    model.bank.expression[model.bank.patient == 0] += 5
    assert model.predict(alone).equal(before)
    model.bank.expression[model.bank.patient == 1] += 5
    assert (model.predict(alone) != before).any(1).all()


def test_the_bridge_reads_the_expression_of_the_exemplars():
    """The released code overwrites it first: with the labels' other way cut, they no longer mattered."""
    batch = section()
    model = small(batch).eval()
    model.exemplar.weight.data[:, 5:] = 0
    before = model.predict(batch)
    model.bank.expression += 1  # all alike: the same exemplars are joined
    assert (model.predict(batch) != before).any(1).all()


def test_neighbours_in_the_section_and_among_the_exemplars_matter():
    batch = section()
    model = small(batch).eval()
    before = model.predict(batch)
    apart = batch.clone()
    apart.edge_index = torch.zeros(2, 0, dtype=torch.long)
    assert (model.predict(apart) != before).any()
    model.bank.among = lambda rows, k: torch.zeros(2, 0, dtype=torch.long)
    assert (model.predict(batch) != before).any()


def test_an_exemplar_of_several_spots_is_one_node():
    batch, seen = section(), []
    model = small(batch).eval()
    model.layers[0].register_forward_pre_hook(
        lambda _, inputs: seen.append([len(value) for value in inputs[:3]])
    )
    model.predict(batch)
    rows = model.bank.search(model.scale(batch.features), 3, batch.patient)
    assert seen == [[len(rows.unique())] * 2 + [len(batch.row)]] and len(rows.unique()) < rows.numel()


def test_gates_divide_the_message():
    with pytest.raises(ValueError, match="found 5 and 3 x 8; take a fourth of the width"):
        small(section(), gates=5)
