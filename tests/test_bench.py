"""One training step, measured: operations and bytes by pencil; seconds are not tested."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from stlib import bench
from stlib.bench import COUNTED, Allocated, Bench
from stlib.propagation import propagate
from stlib.splits import folds
from stlib.tables import CostRow
from stlib.task import config_of


def test_bytes_are_those_of_the_tensors_alive():
    one = torch.zeros(1000)  # 4000 bytes
    memory = Allocated([one])
    assert memory.now == 4000
    with memory:
        two = one + 1
        view = two[:10]
        both = torch.cat([one, two])  # 8000 more: 16000
        del both
        one += 1  # in place
        assert memory.now == 8000 and memory.most_since() == 16000
        del two
        assert memory.now == 8000  # the view holds it
        del view
    assert memory.now == 4000 and memory.most_since() == 8000


def test_a_sparse_matrix_has_the_bytes_and_the_operations_of_its_entries():
    edges = torch.tensor([[0, 1, 2, 0], [1, 2, 3, 3]])  # into 1, 2 and twice into 3; 0 is known
    labels, known = torch.ones(4, 5), torch.arange(4) < 1
    weight = torch.ones(4, requires_grad=True)
    with FlopCounterMode(display=False, custom_mapping=COUNTED) as flops, Allocated() as memory:
        spread = propagate(labels, known, edges, weight, 1)
        assert flops.get_total_flops() == 2 * 4 * 5  # an entry per edge, times the genes
        spread.sum().backward()
    assert flops.get_total_flops() == 3 * 2 * 4 * 5  # and so many each for both gradients
    assert memory.most_since() > spread.nbytes
    matrix = torch.eye(4).to_sparse()
    with Allocated() as memory:
        copy = matrix * 2
        assert memory.now == copy._indices().nbytes + copy._values().nbytes


class Line(nn.Module):
    """y = W x of 100 -> 20."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(100, 20, bias=False)

    def forward(self, batch):
        return self.layer(batch.x)

    def loss(self, batch, out):
        return out.sum()


def made(monkeypatch, device="cpu"):
    found = object.__new__(Bench)
    found.model = Line()
    found.optimiser = torch.optim.SGD(found.model.parameters(), lr=0.1, momentum=0.9)
    found._device = device

    def batch(self, n):
        x = torch.ones(n, 100)
        return SimpleNamespace(x=x, to_dict=lambda: {"x": x, "section": "A1"})

    monkeypatch.setattr(Bench, "batch", batch)
    return found


def test_a_step_by_pencil(monkeypatch):
    step = made(monkeypatch).measure(4)
    product = 2 * 4 * 100 * 20  # backward: one product, for the weights
    assert (step.forward_gflop * 1e9, step.step_gflop * 1e9) == pytest.approx((product, 2 * product))
    held = 4 * (2 * 2000 + 400)  # weights, momentum, batch
    assert (
        held + 4 * 2000 <= step.peak_gb * 1e9 < held + 4 * (2000 + 3 * 80) + 100
    )  # gradient; y and two like it
    assert step.update_gb * 1e9 >= held + 4 * 2000


def test_a_cpu_takes_the_batch_itself_only_if_that_is_little_work(monkeypatch):
    found = made(monkeypatch)
    assert [step.batch for step in found.steps(16)] == [16]
    monkeypatch.setattr(bench, "MOST_GFLOP", 0.0)
    assert [step.batch for step in found.steps(16)] == list(bench.SMALL)


def test_a_method_has_its_own_settings_without_its_weights():
    assert bench.papers_own("stnet", "2d").encoder == "densenet121.tv_in1k@untrained"
    found = bench.papers_own("sgn", "2d")
    assert (found.text, found.frozen, found.width) == ("table", "dataset", 512)


def test_a_batch_is_connected_and_has_patches_of_the_wanted_size(toy):
    row = CostRow(label="HisToGene", model="histogene", protocol="2d", patch_px=40)
    found = Bench(toy, row, "cpu")
    batch = found.batch(6)
    assert batch.patch.shape == (6, 3, 40, 40) and batch.expression.shape == (6, toy.panel.size)
    assert batch.section.unique().numel() == 1 and batch.position.std(0).max() < 200
    with pytest.raises(ValueError, match="a step of 999 locations needs .* found"):
        found.batch(999)


@pytest.mark.parametrize("protocol", ["2d", "3d"])
def test_an_epoch_is_one_of_the_final_training(toy, toy_sections, protocol):
    fold = folds(toy, protocol)[0]
    row = CostRow(label="SGN", model="sgn", protocol=protocol)
    wanted = [len(toy_sections[name]) for name in fold.train + fold.validation]
    assert fold.validation and Bench(toy, row, "cpu").train_spots == sum(wanted)


def test_a_method_is_fed_as_in_its_training(toy, monkeypatch):
    monkeypatch.setattr(bench, "papers_own", lambda *name: config_of(toy, *name))  # small networks
    few, many = (
        Bench(toy, CostRow(label=model, model=model, protocol="3d"), "cpu").batch(90)
        for model in ("asign@k_4_4", "asign@paper")
    )
    assert (~few.across).sum() < (~many.across).sum() and few.across.sum() < many.across.sum()
    played = few.section[few.known].unique()  # one section, the whole of it
    assert played.numel() == 1 and (few.known == (few.section == played)).all()
    assert many.section[many.known].unique().numel() > 1  # 20 % of all
    assert 0.05 < many.known.float().mean() < 0.4
