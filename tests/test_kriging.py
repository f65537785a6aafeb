"""Kriging against the textbook formula, against finite differences, and on a field that is known."""

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal

from stlib import kriging
from stlib.kriging import FLOOR, Known, _Genes, _Kernel, _Piece, gene_covariance, krige

NAN = float("nan")
VARIANCE = 0.5  # of the one gene
COUNT = 11.5  # counting noise 1 / 12.5 = 0.08, and FLOOR: 0.1
LENGTHS, SHARED, OWN = [2.0, 0.5], [1.0, 2.0, 4.0, 0.7, 1.5, 3.0], [1.0, 0.5, 2.0, 2.0, 1.0, 0.5]


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def four():
    """Four known spots of one gene, one of them not registered, in two looks."""
    return Known(
        tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [NAN, NAN]]),
        tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]),
        torch.full((4, 1), COUNT, dtype=torch.float64),
        tensor([[-5.0], [-4.0], [-4.5], [-3.0]]),
        tensor([100.0, 400.0, 400.0, 900.0]),
    )


def genes_of(known):
    return _Genes.of(known, tensor([[VARIANCE]]))


@pytest.fixture
def parameters():
    """Logs of lengths, of what all directions share, and of what the one direction changes."""
    rest = np.stack([SHARED, OWN], 1).ravel()
    return tensor(np.log([*LENGTHS, *rest]).tolist())


def covariance(a, b):
    """Return k of two lists of (place, looks), of the kernel that `parameters` describes."""
    weight = np.array(SHARED[:3]) * OWN[:3]  # softmax of logs: their shares
    weight = weight / weight.sum() * SHARED[3] * OWN[3] * VARIANCE
    apart = np.where(np.isnan(d := cdist(a[0], b[0])), np.inf, d)
    near = np.exp(-(apart**2) / 2 / LENGTHS[0] ** 2)
    alike = np.exp(-(cdist(a[1], b[1]) ** 2) / 2 / 2 / LENGTHS[1] ** 2)  # by the number of features
    return weight[0] * near + weight[1] * alike + weight[2] * near * alike


def measured(known):
    """Return the covariance of what was measured, noise and all, in units of the label."""
    noise = (1 / (COUNT + 1) + FLOOR) * SHARED[4] * OWN[4] * 450 / known.depth.numpy()  # mean depth: 450
    rough = 0.1 * SHARED[5] * OWN[5] * VARIANCE
    ends = known.place.numpy(), known.looks.numpy()
    return covariance(ends, ends) + np.diag(noise + rough)


def test_one_gene_by_the_textbook(four, parameters):
    place = np.array([[0.5, 0.5], [3.0, -1.0], [NAN, NAN]])
    looks = np.array([[0.2, 0.1], [0.0, 2.0], [0.0, 1.5]])
    weight = np.array([10.0, 20, 20, 30])  # roots of the depths
    mean = weight @ four.labels.numpy() / 80
    across = covariance((place, looks), (four.place.numpy(), four.looks.numpy()))
    wanted = mean + across @ np.linalg.solve(measured(four), four.labels.numpy() - mean)
    genes = genes_of(four)
    kernel, piece = _Kernel(parameters, genes), _Piece.of(four, genes)
    found = kernel.predict(piece, tensor(place.tolist()), tensor(looks.tolist()))
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    assert np.ptp(wanted) > 0.3  # the three differ


def test_the_misfit_is_the_likelihood(four, parameters):
    genes = genes_of(four)
    unit = 1 / (COUNT + 1) + FLOOR  # labels are divided by its root
    scores = ((four.labels - genes.mean) / unit**0.5).numpy().ravel()
    log = multivariate_normal.logpdf(scores, cov=measured(four) / unit)
    found, _ = _Kernel(parameters, genes).misfit(_Piece.of(four, genes))
    found = found.item()
    assert found == pytest.approx(-log - 4 / 2 * np.log(2 * np.pi))


def test_the_gradient_of_the_misfit_equals_finite_differences(four, parameters):
    genes = genes_of(four)
    piece = _Piece.of(four, genes)
    _, slope = _Kernel(parameters.requires_grad_(), genes).misfit(piece)
    (found,) = torch.autograd.grad(slope, parameters)

    def misfit(flat):
        return _Kernel(torch.from_numpy(flat), genes).misfit(piece)[0].item()

    wanted = approx_fprime(parameters.detach().numpy(), misfit, 1e-6)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert np.abs(wanted).min() > 0.01  # each parameter matters


def test_genes_that_vary_together_by_hand():
    labels, counts = tensor([[0.0, 0.0], [2.0, -2.0]]), tensor([[1.0, 1.0], [3.0, 0.0]])
    found = gene_covariance(counts, labels)  # 1 less the noise (1/2 + 1/4) / 2, (1/2 + 1) / 2
    np.testing.assert_allclose(found, [[0.625, -1], [-1, 0.25]])


def test_directions_lose_nothing(four):
    two = four._replace(
        labels=torch.cat([four.labels, four.labels.flip(0)], 1), counts=four.counts * tensor([1.0, 3.0])
    )
    genes = _Genes.of(two, tensor([[0.5, 0.2], [0.2, 0.4]]))
    torch.testing.assert_close(genes.back(genes.scores(two.labels)), two.labels)
    scale = (1 / (two.counts[0] + 1) + FLOOR).sqrt()
    wanted = torch.linalg.eigvalsh(tensor([[0.5, 0.2], [0.2, 0.4]]) / scale / scale[:, None])
    torch.testing.assert_close(genes.variance, wanted)
    negative = _Genes.of(two, tensor([[0.5, 0.0], [0.0, -0.4]]))
    assert negative.variance.min().item() == kriging.LEAST


# ---- the whole, fitted -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def field():
    """Return (known spots, places, looks, truth): two genes whose field is a wave over the place."""
    rng = np.random.default_rng(0)

    def wave(place):
        return -4 + np.stack([np.sin(place[:, 0] / 2), np.cos(place[:, 1] / 2)], 1)

    there, here = rng.uniform(0, 10, (150, 2)), rng.uniform(1, 9, (60, 2))
    labels = wave(there) + rng.normal(0, 0.3, (150, 2))
    looks = rng.normal(size=(210, 3))
    known = Known(
        *(torch.from_numpy(array) for array in (there, looks[:150])),
        torch.full((150, 2), 20.0, dtype=torch.float64),
        torch.from_numpy(labels),
        torch.full((150,), 500.0, dtype=torch.float64),
    )
    return known, torch.from_numpy(here), torch.from_numpy(looks[150:]), wave(here)


def carried(field, place=None):
    known, here, looks, _ = field
    return krige(known, here if place is None else place, looks, gene_covariance(known.counts, known.labels))


@pytest.fixture(scope="module")
def whole(field):
    return carried(field)


def test_a_smooth_field_is_recovered(field, whole):
    known, _, _, truth = field
    error, of_mean = (
        ((whole.numpy() - truth) ** 2).mean(),
        ((known.labels.mean(0).numpy() - truth) ** 2).mean(),
    )
    assert whole.dtype == torch.float32 and whole.shape == (60, 2)
    assert error < 0.04 < 0.1 * of_mean  # noise of one label: 0.09


def test_looks_alone_carry_to_spots_that_are_not_registered(field):
    known, here, looks, _ = field
    noise = torch.from_numpy(np.random.default_rng(1).normal(0, 0.2, (150, 2)))
    labels = known.looks[:, :1] * torch.tensor([1, -1]) / 2 - 4 + noise  # what is seen decides
    nowhere = torch.full_like(here, NAN)
    found = krige(known._replace(labels=labels), nowhere, looks, gene_covariance(known.counts, labels))
    assert found.isfinite().all()
    assert np.corrcoef(found[:, 0], looks[:, 0])[0, 1] > 0.9
    unplaced = known._replace(labels=labels, place=torch.full_like(known.place, NAN))
    found = krige(unplaced, here, looks, gene_covariance(known.counts, labels))
    assert np.corrcoef(found[:, 0], looks[:, 0])[0, 1] > 0.9


def test_far_in_place_and_in_looks_the_mean_remains(field):
    known, here, looks, _ = field
    depth = torch.where(torch.arange(150) < 75, 100.0, 900.0)  # weights 1 and 3
    known = known._replace(depth=depth.double())
    wanted = (known.labels[:75].mean(0) + 3 * known.labels[75:].mean(0)) / 4
    found = krige(known, here + 1e5, looks + 1e5, gene_covariance(known.counts, known.labels))
    torch.testing.assert_close(found, wanted.float().expand(60, 2))


def test_pieces_say_nearly_what_the_whole_says(field, whole, monkeypatch):
    asked = []
    plain = _Kernel.predict
    monkeypatch.setattr(
        _Kernel,
        "predict",
        lambda self, piece, *rest: asked.append(len(piece.known.place)) or plain(self, piece, *rest),
    )
    monkeypatch.setattr(kriging, "PIECE", 80)
    found = carried(field)
    assert asked == [75, 75]
    off = (found - whole).square().mean() / (whole - whole.mean(0)).square().mean()
    assert 0 < off < 0.05


def test_each_spot_belongs_to_the_nearest_piece():
    pieces = [tensor([[0.0, 0.0], [1.0, 0.0]]), tensor([[10.0, 0.0]])]
    found = kriging._nearest_piece(tensor([[9.0, 0.0], [2.0, 1.0]]), pieces)
    assert found.tolist() == [1, 0]


def test_the_search_is_not_stopped_by_no_grad(field, whole):
    with torch.no_grad():
        torch.testing.assert_close(carried(field), whole)


def test_without_known_spots_it_says_so(field):
    known, here, looks, _ = field
    nobody = Known(*(array[:0] for array in known))
    with pytest.raises(ValueError, match="kriging needs known spots, found none"):
        krige(nobody, here, looks, torch.eye(2))
