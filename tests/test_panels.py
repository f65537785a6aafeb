"""Which genes a panel holds, on sections where each rule must choose another gene."""

import numpy as np
import pytest
from scipy import sparse

from stlib import panels
from stlib.expression import top_mean_panel
from stlib.params import Panel
from stlib.sections import Section

SIDE = 12


def section(name="A1", seed=0, **changes):
    """A square of spots: `high` is counted most, `loud` varies without place, `half` is on in one half."""
    rng, n = np.random.default_rng(seed), SIDE**2
    y, x = np.divmod(np.arange(n), SIDE)
    rate = {
        "high": np.full(n, 200.0),
        "loud": 20 * rng.gamma(0.3, 1 / 0.3, n),
        "half": np.where(x < SIDE / 2, 6.0, 2.0),
        "low": np.full(n, 2.0),
    } | changes
    counts = sparse.csr_matrix(rng.poisson(np.stack(list(rate.values()), 1)))
    place = np.stack([x, y], 1) * 100.0
    return Section(
        name, name[0], 1, np.arange(n).astype(str), np.array(list(rate)), counts, place, place,
        np.full(2, 2.0), None, "circle", 100.0, 200.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "first"), [("top_mean", "high"), ("highly_variable", "loud"), ("spatially_variable", "half")]
)
def test_each_rule_puts_its_own_gene_first(rule, first):
    sections = [section(), section("B1", 1)]
    assert panels.choose(Panel(size=1, rule=rule), sections) == [first]
    added = panels.choose(Panel(size=1, rule=rule, add=["low", first]), sections)
    assert added == [first, "low"]


def test_the_default_is_the_papers_choice(toy_sections, toy):
    own = panels.choose(toy.panel, toy_sections.values())
    assert own == top_mean_panel(toy_sections.values(), toy.panel.size)


def test_only_the_sections_that_may_choose_are_looked_at():
    quiet = section("B1", 1, loud=np.full(SIDE**2, 20.0), half=6.0 * (np.arange(SIDE**2) % 2 * 9 + 1))
    panel = Panel(size=1, rule="highly_variable")
    assert panels.choose(panel, [quiet]) == ["half"] != panels.choose(panel, [section()])


def test_residuals_by_pencil():
    counts = sparse.csc_matrix(np.array([[4.0, 0], [0, 4]]))
    found = panels.residuals(counts, np.array([[4.0], [4]]))  # each expected 2: (4 - 2) / sqrt(2 + 4 / 100)
    expected = min(2 / (2 + 4 / panels.THETA) ** 0.5, 2**0.5)
    np.testing.assert_allclose(found, [[expected, -expected], [-expected, expected]])


def test_morans_i_by_pencil():
    near = sparse.csr_matrix(np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]))
    values = np.array([[1.0, 1, 5], [0, 1, 5], [-1, -2, 5]])
    # first: 3 spots / weight 4 * (2 * (1*0) + 2 * (0*-1)) / 2 = 0; second: 3 / 4 * (2*1*1 + 2*1*-2) / 6
    np.testing.assert_allclose(panels.moran(values, near), [0, -0.25, 0])


def test_neighbours_are_the_eight_around_a_spot_of_a_square():
    near = panels.neighbours(section())
    assert near.sum(1).max() == 8 and near.sum(1).min() == 3 and (near != near.T).nnz == 0


def test_too_few_genes_are_refused():
    with pytest.raises(ValueError, match="a panel of 5 genes needs that many genes common to all sections"):
        panels.choose(Panel(size=5, rule="spatially_variable"), [section()])
