"""What the known labels of a stack let expect: shapes, what is NaN, and the ridge and low rank behind it."""

import numpy as np
import pytest
import torch

from stlib import known as module
from stlib.batch import Batch
from stlib.expression import log_proportion, panel_counts
from stlib.known import FIELDS, Covariances, known_fields
from stlib.kriging import gene_covariance
from stlib.linear import fit_ridge
from stlib.smoothing import RANK, low_rank

N, G, K = 30, 8, 20


@pytest.fixture
def batch():
    """A stack of two sections: the 20 spots of the first are known, the labels of the second hidden."""
    rng = np.random.default_rng(0)
    known = torch.arange(N) < K
    looks = rng.normal(size=(N, 3)).astype(np.float32)
    labels = looks @ rng.normal(size=(3, G)) - 4 + rng.normal(0, 0.2, (N, G))
    labels[K:] = np.nan
    counts, depth = rng.poisson(20, (N, G)), rng.uniform(100, 900, N)
    hidden = np.where(known, 1, np.nan)
    return Batch(
        num_nodes=N,
        known=known,
        expression=torch.from_numpy(labels).float(),
        counts=torch.from_numpy(counts * hidden[:, None]).float(),
        depth=torch.from_numpy(depth * hidden).float(),
        relative=torch.from_numpy(looks),
        registered=torch.from_numpy(rng.uniform(0, 1000, (N, 2))),
        pitch_um=200.0,
    )


def fields(batch, *names, covariance=None):
    return known_fields(batch, frozenset(names or FIELDS), covariance)


def test_shapes_and_who_is_nan(batch):
    found = fields(batch)
    assert set(found) == set(FIELDS)
    assert all(value.shape == (N, G) and value.dtype == torch.float32 for value in found.values())
    for name in ("start", "imputed", "readout"):
        assert found[name].isfinite().all()
    assert found["denoised"][:K].isfinite().all() and found["denoised"][K:].isnan().all()


def test_only_what_is_wanted_is_made(batch):
    assert set(fields(batch, "start", "graph")) == {"start"}
    assert fields(batch, "graph") == {}


def test_start_is_the_mean_of_the_known(batch):
    batch.expression[:K] = torch.arange(K)[:, None].float()
    assert (fields(batch, "start")["start"] == (K - 1) / 2).all()


def test_known_labels_lose_noise(batch):
    found = fields(batch, "denoised")["denoised"][:K].numpy()
    labels = batch.expression[:K].numpy()
    np.testing.assert_allclose(found, low_rank(labels, batch.depth[:K].numpy(), RANK), rtol=1e-5)
    assert not np.allclose(found, labels, atol=1e-3)


def test_the_readout_is_a_ridge_of_the_known_spots(batch):
    looks, labels = batch.relative.numpy(), batch.expression.numpy()
    weight, bias = fit_ridge(looks[:K], labels[:K], np.zeros(K))
    np.testing.assert_allclose(fields(batch, "readout")["readout"], looks @ weight + bias, rtol=1e-5)


def test_places_are_in_pitches_and_other_patients_weigh_half(batch, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "krige", lambda *given: asked.append(given) or torch.zeros(N, G))
    other = torch.eye(G, dtype=torch.float64)
    fields(batch, "imputed")
    fields(batch, "imputed", covariance=other)
    (measured, place, looks, own), (_, _, _, both) = asked
    torch.testing.assert_close(place, batch.registered / 200)
    assert looks is batch.relative
    for field, of in zip(measured, (place, looks, batch.counts, batch.expression, batch.depth), strict=True):
        torch.testing.assert_close(field, of[:K])
    torch.testing.assert_close(own, gene_covariance(batch.counts[:K].double(), batch.expression[:K].double()))
    torch.testing.assert_close(both, (own + other) / 2)


def test_where_none_is_known_start_is_the_mean_of_all_labels_and_the_rest_nan(batch):
    batch.known[:] = False
    found = fields(batch)
    torch.testing.assert_close(found["start"], batch.expression[:K].mean(0).expand(N, G))
    assert all(found[name].isnan().all() for name in ("denoised", "imputed", "readout"))


def test_labels_of_the_others_cannot_matter(batch):
    before = fields(batch)
    for name in ("expression", "counts", "depth"):
        batch[name][K:] = 7.0
    for name, value in fields(batch).items():
        torch.testing.assert_close(value, before[name], equal_nan=True)


# ---- how genes vary together -------------------------------------------------------------------------------


def test_how_genes_vary_together_leaves_out_the_patient_itself(toy, toy_sections):
    panel = [str(gene) for gene in toy_sections["P1-1"].genes[:6]]

    def own(*names):
        counts = [torch.from_numpy(panel_counts(toy_sections[name], panel)) for name in names]
        parts = [gene_covariance(c, torch.from_numpy(log_proportion(c.numpy())).double()) for c in counts]
        sizes = [len(c) for c in counts]
        return sum(part * size for part, size in zip(parts, sizes, strict=True)) / sum(sizes)

    names = ("P1-1", "P2-1", "P2-2", "P3-1")
    found = Covariances([toy_sections[name] for name in names], panel)
    torch.testing.assert_close(found.of_others("P1"), own("P2-1", "P2-2", "P3-1"))
    torch.testing.assert_close(found.of_others("P2"), own("P1-1", "P3-1"))
    assert Covariances([toy_sections["P1-1"]], panel).of_others("P1") is None
    assert Covariances([], panel).of_others("P1") is None
