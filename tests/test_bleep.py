"""BLEEP by hand: its sizes, its targets, its loss, and the mean of what it retrieves."""

import numpy as np
import pytest
import torch

from stlib.batch import Batch, Shape
from stlib.models import build, configure
from stlib.models.bleep import Projection

SMALL = {"encoder": "test_resnet@untrained", "patch_px": 32}


def make(genes=2, **changes):
    torch.manual_seed(0)
    panel = tuple(f"GENE{index}" for index in range(genes))
    return build("bleep", configure("bleep", "2d", **{**SMALL, **changes}), Shape(panel))


def spots(n, genes=2, seed=0):
    draw = torch.Generator().manual_seed(seed)
    patch = torch.randint(256, (n, 3, 64, 64), generator=draw, dtype=torch.uint8)
    return Batch(num_nodes=n, patch=patch, expression=torch.randn(n, genes, generator=draw) - 6)


@pytest.mark.parametrize(
    ("inputs", "count"), [(2048, 590_848), (768, 263_168), (3467, 954_112), (250, 130_560)]
)
def test_parameter_counts_of_the_projections(inputs, count):
    """Specification, section 8: two image networks, all genes of the paper, and a panel of 250."""
    assert sum(value.numel() for value in Projection(inputs, 256, 0.1).parameters()) == count


def test_parameter_count_with_clip():
    model = make(250, encoder="vit_base_patch32_clip_224.laion2b@untrained", patch_px=224)
    vision = 87_456_000  # ViT-B/32 of CLIP without the projection to 512
    assert sum(value.numel() for value in model.encoder.parameters()) == vision
    assert sum(value.numel() for value in model.parameters()) == vision + 263_168 + 130_560
    mean = model.pixels.mean.ravel() / 255
    assert mean.tolist() == pytest.approx([0.48145466, 0.4578275, 0.40821073])  # CLIP's, not ImageNet's
    assert model.eval()._embed_images(spots(1).patch).shape == (1, 256)  # 64 px are brought to its 224


def test_the_projection_adds_its_refinement_before_the_norm():
    """p = (3, 0, 0), refined by (0, GELU(3), 0): the norm makes their sum nearly (1, 1, -2) / sqrt 2."""
    head = Projection(1, 3, 0.0)
    with torch.no_grad():
        for layer in (head.project, head.refine[1]):
            layer.weight.zero_()
            layer.bias.zero_()
        head.project.weight[0, 0] = head.refine[1].weight[1, 0] = 1.0
    total = np.array([3, 3 * 0.9986501, 0])  # 0.99865: the normal distribution below 3
    by_hand = (total - total.mean()) / total.std()
    assert by_hand == pytest.approx(np.array([1, 1, -2]) / np.sqrt(2), abs=0.01)
    assert head(torch.tensor([[3.0]])).tolist()[0] == pytest.approx(by_hand, abs=1e-4)


IMAGE = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0], [0.0, -2.0]])
SPOT = np.array([[1.0, 0.5], [0.0, 2.0], [0.5, 0.5], [-1.0, 1.0], [1.0, -1.0]])


def loss_by_hand(image, spot, tau):
    """The equations of the docstring, written out spot by spot."""
    n, total = len(image), 0.0
    for i in range(n):
        alike = [(image[i] @ image[j] + spot[i] @ spot[j]) / 2 / tau for j in range(n)]
        target = np.exp(alike) / np.sum(np.exp(alike))
        for logit in (
            [spot[i] @ image[j] / tau for j in range(n)],
            [image[i] @ spot[j] / tau for j in range(n)],
        ):
            log_softmax = logit - np.log(np.sum(np.exp(logit)))
            total -= target @ log_softmax / n / 2
    return total


@pytest.mark.parametrize("tau", [1.0, 2.5])
def test_the_loss_of_five_spots(tau):
    model = make(temperature=tau)
    out = {"image": torch.tensor(IMAGE), "spot": torch.tensor(SPOT)}
    assert model.loss(spots(5), out).item() == pytest.approx(loss_by_hand(IMAGE, SPOT, tau), rel=1e-9)


def test_the_loss_of_two_spots_with_a_pencil():
    """U = V = ((1, 0), (0, 1)): each target is (s, 1 - s) with s = e / (1 + e), and so is each prediction."""
    out = {"image": torch.eye(2), "spot": torch.eye(2)}
    s = np.e / (1 + np.e)
    assert make().loss(spots(2), out).item() == pytest.approx(-s * np.log(s) - (1 - s) * np.log(1 - s))


def test_targets_are_not_detached():
    image = torch.tensor(IMAGE, requires_grad=True)
    make().loss(spots(5), {"image": image, "spot": torch.tensor(SPOT)}).backward()
    step = np.zeros_like(IMAGE)
    step[2, 1] = 1e-5
    slope = (loss_by_hand(IMAGE + step, SPOT, 1.0) - loss_by_hand(IMAGE - step, SPOT, 1.0)) / 2e-5
    assert image.grad[2, 1].item() == pytest.approx(slope, rel=1e-5)


def test_the_prediction_is_the_mean_of_the_k_nearest_by_angle(monkeypatch):
    model = make(k=2)
    model.prepare(
        [Batch(num_nodes=5, expression=torch.tensor([[1.0, 0], [2, 0], [4, 0], [8, 10], [16, 20]]))]
    )
    model.eval()
    monkeypatch.setattr(model, "_embed_bank", lambda: torch.tensor(SPOT).float())
    monkeypatch.setattr(model, "_embed_images", lambda patch: torch.tensor([[9.0, 0.0], [0.0, 0.1]]))
    # cosines with (1, 0): .894, 0, .707, -.707, .707 ... of (1, 0.5) and, nearly tied, (.5, .5) and (1, -1)
    # cosines with (0, 1): .447, 1, .707, .707, -.707
    model.bank[2] = model.bank[4]  # so that each tie is between equal labels
    found = model.predict(spots(2))
    assert found[0].tolist() == [(1 + 16) / 2, (0 + 20) / 2]
    assert found[1, 0].item() in {(2 + 16) / 2, (2 + 8) / 2}


def test_labels_of_a_query_are_never_read():
    model = make(k=3)
    model.prepare([spots(7, seed=1)])
    model.eval()
    hidden = spots(4)
    hidden.expression[:] = torch.nan
    assert torch.equal(model.predict(spots(4)), model.predict(hidden))
    bank = spots(7, seed=1).expression
    assert (model.predict(hidden) >= bank.min(0).values).all()
    assert (model.predict(hidden) <= bank.max(0).values).all()


def test_the_bank_is_embedded_by_the_present_weights():
    model = make(k=1)
    model.prepare([spots(7, seed=1)])
    model.eval()
    before = model._embed_bank()
    assert model._embed_bank() is before  # once for all batches
    model.train()
    with torch.no_grad():
        model.spot.project.weight.mul_(-1.0)
    model.eval()
    assert not torch.allclose(model._embed_bank(), before)


def test_a_saved_bank_of_any_size_is_loaded():
    model, again = make(k=2), make(k=2)
    model.prepare([spots(7, seed=1)])
    again.prepare([spots(3, seed=2)])
    again.eval()._embed_bank()
    again.load_state_dict(model.state_dict())
    assert again.bank.shape == (7, 2)
    assert torch.equal(again.predict(spots(4)), model.eval().predict(spots(4)))


def test_a_bank_of_fewer_than_k_spots_is_refused():
    model = make()
    model.prepare([spots(7, seed=1)])
    with pytest.raises(ValueError, match="needs at least 50 locations to search, found 7"):
        model.eval().predict(spots(2))


def test_standardised_labels_have_mean_0_and_deviation_1():
    model = make()
    model.prepare([spots(7, seed=1), spots(5, seed=2)])
    seen = model.standardise(model.bank)
    torch.testing.assert_close(seen.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.std(0, unbiased=False), torch.ones(2))
