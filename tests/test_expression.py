import numpy as np
import pytest
from scipy import sparse

from stlib.expression import common_genes, log_proportion, sum_over, top_mean_panel
from stlib.sections import Section


def section(name, genes, counts):
    counts = sparse.csr_matrix(np.array(counts, np.int32))
    n = counts.shape[0]
    place = np.stack([np.arange(n), np.zeros(n)], 1).astype(float)
    return Section(
        name, name[0], 1, np.array([f"s{i}" for i in range(n)]), np.array(genes), counts, place, place,
        np.ones(2), None, "circle", 100.0, 200.0,
    )  # fmt: skip


def test_log_proportion_equals_the_reference_of_the_released_pipeline():
    counts = np.array([[0, 3, 10], [5, 0, 2], [1, 1, 7]]).T  # there: genes x spots
    expected = np.array(
        [
            [-2.197225, -0.405465, -1.504077],
            [-0.559616, -1.945910, -1.252763],
            [-0.693147, -1.992430, -1.011601],
        ]
    )
    np.testing.assert_allclose(log_proportion(counts), expected, atol=1e-6)


def test_panel_is_the_unweighted_mean_over_sections():
    one = section("A1", ["a", "b", "c"], [[9, 0, 0]])
    two = section("B1", ["c", "b", "a"], [[6, 7, 0]] * 10)
    # over sections a: 4.5, b: 3.5, c: 3; by spots b would lead
    assert top_mean_panel([one, two], 2) == ["a", "b"]


def test_only_genes_of_every_section_qualify():
    one, two = section("A1", ["a", "b"], [[1, 1]]), section("B1", ["b", "c"], [[1, 9]])
    assert common_genes([one, two]) == ["b"]
    with pytest.raises(
        ValueError, match="a panel of 2 genes needs that many genes common to all sections, found 1 in 2"
    ):
        top_mean_panel([one, two], 2)


def test_panel_gene_absent_from_a_section():
    with pytest.raises(ValueError, match=r"section 'A1': the panel needs gene\(s\) \['x'\]"):
        section("A1", ["a"], [[1]]).columns(["x"])


def test_sum_over_parents_by_hand():
    counts = np.array([[1, 0], [2, 1], [4, 4]])
    np.testing.assert_array_equal(sum_over(np.array([0, 1, 0]), counts, 2), [[5, 4], [2, 1]])
