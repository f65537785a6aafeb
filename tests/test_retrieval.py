import pytest
import torch

from stlib.layers import Standardise
from stlib.retrieval import Bank, nearest


def points(n, seed, width=5):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def distance(query, features, metric):
    """Return all distances (N, M); the tests are small."""
    if metric == "cosine":
        unit = torch.nn.functional.normalize
        return -unit(query) @ unit(features).T
    return torch.cdist(query, features, p={"l2": 2, "l1": 1}[metric])


def bank_of(metric, n=60, patients=4, seed=0):
    """Return a bank whose patients come mixed, and what it was filled with."""
    features, patient = points(n, seed), torch.arange(n) % patients
    bank = Bank(metric)
    bank.fill(features, points(n, seed + 1, 3), patient)
    return bank


@pytest.mark.parametrize("metric", ["l2", "l1", "cosine"])
def test_search_agrees_with_brute_force_and_never_finds_the_own_patient(metric):
    bank, query, patient = (
        bank_of(metric),
        points(30, 7),
        torch.arange(30) % 5,
    )  # patient 4 is not in the bank
    found = bank.search(query, 6, patient)
    far = distance(query, bank.features, metric)
    far[patient[:, None] == bank.patient] = torch.inf
    assert found.tolist() == far.argsort(1)[:, :6].tolist()  # nearest first
    assert (bank.patient[found] != patient[:, None]).all()
    free = distance(query, bank.features, metric).argsort(1)[:, :6]
    assert (bank.patient[free] == patient[:, None]).any()  # who does not leave them out, finds some


@pytest.mark.parametrize("metric", ["l2", "l1", "cosine"])
def test_nearest_agrees_with_brute_force(metric):
    query, features = points(9, 1), points(40, 2)
    expected = distance(query, features, metric).argsort(1)[:, :4]
    assert nearest(query, features, 4, metric).tolist() == expected.tolist()


def test_rows_keep_features_label_and_patient_together():
    bank = Bank("l2")
    bank.fill(
        torch.tensor([[1.0], [2.0], [3.0]]),
        torch.tensor([[10.0], [torch.nan], [30.0]]),
        torch.tensor([1, 0, 0]),
    )
    assert bank.features.tolist() == [
        [3.0],
        [1.0],
    ]  # by patient; a location without a label cannot be retrieved
    assert bank.expression.tolist() == [[30.0], [10.0]] and bank.patient.tolist() == [0, 1]
    assert bank.search(torch.tensor([[3.0]]), 1, torch.tensor([0])).tolist() == [[1]]


def test_a_bank_of_standardised_rows():
    bank, scale = Bank("l2"), Standardise(1)
    bank.fill_standardised(
        scale, torch.tensor([[1.0], [5.0]]), torch.tensor([[-8.0, 2.0], [-6.0, 2.0]]), torch.tensor([0, 1])
    )
    assert scale(torch.tensor([[3.0], [7.0]])).tolist() == [[0.0], [2.0]]  # mean 3, deviation 2
    assert bank.features.tolist() == [[-1.0], [1.0]]
    assert bank.expression.tolist() == [[-1.0, 0.0], [1.0, 0.0]]  # a constant gene is left unscaled


def test_a_bank_with_too_few_of_others_says_so():
    bank = bank_of("l2", n=8, patients=2)
    bank.search(points(1, 3), 4, torch.tensor([0]))
    with pytest.raises(
        ValueError, match="needs 5 training locations of other patients than the query's, found 4"
    ):
        bank.search(points(1, 3), 5, torch.tensor([0]))
    with pytest.raises(ValueError, match="at least 5 locations to search, found 4"):
        nearest(points(1, 3), points(4, 3), 5, "l2")


def test_a_bank_of_another_size_is_loaded():
    full, query, patient = bank_of("l1"), points(5, 9), torch.arange(5)
    module = torch.nn.ModuleDict({"bank": Bank("l1")})
    module.load_state_dict({f"bank.{key}": value for key, value in full.state_dict().items()})
    assert module["bank"].search(query, 3, patient).equal(full.search(query, 3, patient))


def test_what_was_found_is_remembered_until_the_bank_changes(monkeypatch):
    bank, query, patient = bank_of("l2"), points(6, 4), torch.zeros(6, dtype=torch.long)
    found, joined = bank.search(query, 3, patient), bank.among(torch.arange(10), 2)
    searched = []
    monkeypatch.setattr(bank, "_search", lambda array, *_: searched.append(len(array)) or found[:2].numpy())
    order = torch.tensor([4, 0, 2])
    assert bank.search(query[order], 3, patient[order]).equal(found[order])
    assert not searched
    bank.search(torch.cat([query, points(2, 8)]), 3, torch.zeros(8, dtype=torch.long))
    bank.search(query[:2], 3, patient[:2] + 1)  # the same features of another patient are another question
    bank.search(query[:2], 4, patient[:2])
    assert searched == [2, 2, 2]
    monkeypatch.undo()
    other = bank_of("l2", seed=5)
    bank.load_state_dict(other.state_dict())
    assert bank.search(query, 3, patient).equal(other.search(query, 3, patient))
    assert bank.among(torch.arange(10), 2).equal(other.among(torch.arange(10), 2))
    assert not bank.among(torch.arange(10), 2).equal(joined)
    bank.fill(bank.features.flip(0), bank.expression.flip(0), bank.patient.flip(0))
    assert not bank.search(query, 3, patient).equal(other.search(query, 3, patient))


def test_among_agrees_with_brute_force():
    bank, rows = bank_of("l1"), torch.tensor([3, 8, 20, 21, 40, 59])
    both = torch.cat([bank.features, bank.expression], 1)[rows]
    far = torch.cdist(both, both).fill_diagonal_(torch.inf)  # Euclidean, whatever the bank's metric
    source, target = bank.among(rows, 3)
    assert target.tolist() == torch.arange(6).repeat_interleave(3).tolist()
    assert source.view(6, 3).tolist() == far.argsort(1)[:, :3].tolist()


def test_among_equal_rows_nobody_is_its_own_neighbour():
    bank = Bank("l2")
    bank.fill(torch.ones(6, 2), torch.ones(6, 1), torch.arange(6))
    source, target = bank.among(torch.arange(6), 2)
    assert len(source) == 12 and (source != target).all()


def test_among_few_rows_each_has_all_others():
    bank = bank_of("l2")
    assert bank.among(torch.tensor([5, 9]), 3).tolist() == [[1, 0], [0, 1]]
    assert bank.among(torch.tensor([5]), 3).shape == (2, 0)


def test_a_query_that_is_nan_is_refused():
    with pytest.raises(ValueError, match="found none for 1 of 2 queries: the model diverged"):
        nearest(torch.tensor([[0.0, 1.0], [torch.nan, 0.0]]), torch.eye(2), 1, "cosine")
