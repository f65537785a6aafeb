"""What holds for any input: Hypothesis looks for one that breaks it.

Metrics, graphs, overlap, pooling, readers, tables and params.
"""

import csv
import gzip
import io
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays
from made import footprints
from scipy import stats
from test_metrics import made

from stlib import graph, layout, metrics, overlap, paths, render
from stlib.counts import read_counts
from stlib.params import Params, content_of
from stlib.pooling import pooling
from stlib.records import parse
from stlib.statistics import holm

NUMBERS = some.floats(-100, 100, width=32) | some.sampled_from([0.0, 1.0])  # equal ones are frequent
SEEDS = some.integers(0, 2**32 - 1)


@some.composite
def pairs(draw, rows=(2, 7), columns=(1, 5)):
    """Prediction and truth (N, G), constants included."""
    shape = draw(some.integers(*rows)), draw(some.integers(*columns))
    return [draw(arrays(np.float64, shape, elements=NUMBERS)) for _ in range(2)]


@some.composite
def points(draw, most=25):
    """Places (N, 2), on a coarse lattice or anywhere, coincident ones included."""
    n, seed, side = draw(some.integers(1, most)), draw(SEEDS), draw(some.sampled_from([2, 5, 1000]))
    rng = np.random.default_rng(seed)
    return rng.integers(0, side, (n, 2)).astype(float) if side < 1000 else rng.uniform(0, side, (n, 2))


# ---- metrics -----------------------------------------------------------------------------------------------


@given(pairs())
def test_errors_are_those_of_a_plain_loop(pair):
    prediction, truth = pair
    differences = [p - t for p, t in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True)]
    assert metrics.mse(prediction, truth) == pytest.approx(sum(d * d for d in differences) / len(differences))
    assert metrics.mae(prediction, truth) == pytest.approx(sum(map(abs, differences)) / len(differences))


@given(pairs())
def test_correlations_are_those_of_scipy_and_a_constant_has_none(pair):
    prediction, truth = pair
    found = metrics.pcc_per_gene(prediction, truth)
    assert np.array_equal(metrics.pcc_per_spot(prediction.T, truth.T), found, equal_nan=True)
    for gene, r in enumerate(found):
        one, two = prediction[:, gene], truth[:, gene]
        if np.ptp(one) == 0 or np.ptp(two) == 0:
            assert np.isnan(r)
        elif min(np.ptp(one), np.ptp(two)) > 1e-3:  # below, SciPy itself warns of rounding
            assert -1 <= r <= 1 and r == pytest.approx(stats.pearsonr(one, two)[0], abs=1e-6)


@given(pairs((3, 7)), some.floats(0.1, 10), some.floats(-10, 10))
def test_scale_and_shift_of_a_gene_leave_its_correlation(pair, scale, shift):
    prediction, truth = (side.round(2) for side in pair)
    before = metrics.pcc_per_gene(prediction, truth)
    np.testing.assert_allclose(metrics.pcc_per_gene(prediction * scale + shift, truth), before, atol=1e-6)
    np.testing.assert_allclose(metrics.pcc_per_gene(-prediction, truth), -before, atol=1e-12)


@given(pairs((4, 7), (2, 4)), SEEDS)
def test_no_score_depends_on_the_order_of_spots(pair, seed):
    prediction, truth = pair
    order = np.random.default_rng(seed).permutation(len(truth))
    for name in metrics.METRICS:
        one, other = (
            metrics.score(made({"A1": (prediction[rows], truth[rows])}), name).iloc[0]
            for rows in (slice(None), order)
        )
        assert one == pytest.approx(other, abs=1e-5, nan_ok=True), name


@settings(max_examples=10)
@given(some.lists(some.floats(0, 1) | some.just(float("nan")), min_size=1, max_size=9))
def test_corrected_p_are_larger_and_in_order(values):
    raw = pd.Series(values)
    corrected = holm(raw)
    assert corrected.isna().equals(raw.isna())
    defined = raw.notna()
    assert (corrected[defined] >= raw[defined]).all() and (corrected[defined] <= 1).all()
    assert corrected[defined].iloc[np.argsort(raw[defined], kind="stable")].is_monotonic_increasing


# ---- graphs ------------------------------------------------------------------------------------------------


@given(points(), some.integers(1, 8))
def test_each_node_has_its_nearest_neighbours(position, k):
    (source, target), distance = graph.knn_graph(position, k)
    assert (source != target).all()
    assert (np.bincount(target, minlength=len(position)) == min(k, len(position) - 1)).all()
    for node in range(len(position)):
        all_of_them = np.sort(np.delete(np.linalg.norm(position - position[node], axis=1), node))
        np.testing.assert_allclose(distance[target == node], all_of_them[:k], rtol=1e-6)


@given(points(), some.floats(0.5, 300))
def test_a_radius_graph_is_symmetric_and_complete(position, radius):
    edges, distance = graph.radius_graph(position, radius)
    assert (distance <= radius * (1 + 1e-6)).all()
    near = np.linalg.norm(position[:, None] - position[None], axis=2) <= radius
    np.fill_diagonal(near, False)
    assert set(map(tuple, edges.T)) == set(map(tuple, np.argwhere(near))) == set(map(tuple, edges[::-1].T))


@given(points(), some.floats(0.5, 300), SEEDS)
def test_a_graph_follows_its_nodes_when_they_are_shuffled(position, radius, seed):
    order = np.random.default_rng(seed).permutation(len(position))
    plain = graph.radius_graph(position, radius)[0]
    shuffled = graph.radius_graph(position[order], radius)[0]
    assert set(map(tuple, order[shuffled].T)) == set(map(tuple, plain.T))


@given(points(), some.integers(1, 300))
def test_each_spot_lies_in_its_cell(position, size):
    parents, cells = graph.grid_parents(position, size)
    assert (np.floor(position / size) == cells[parents]).all() and set(parents) == set(range(len(cells)))
    source, target = graph.grid_graph(cells)
    assert (np.linalg.norm(cells[source] - cells[target], axis=1) <= graph.GRID_REACH).all()
    assert set(zip(source, target, strict=True)) == set(zip(target, source, strict=True))


# ---- overlap -----------------------------------------------------------------------------------------------


@given(some.floats(0, 30), some.floats(0.1, 10), some.floats(0.1, 10))
def test_circles_overlap_between_0_and_1_whichever_is_first(distance, one, other):
    found = overlap.circle_overlap(distance, one, other)
    assert 0 <= found <= 1 and found == pytest.approx(overlap.circle_overlap(distance, other, one), abs=1e-9)
    assert (found == 0) == (distance >= one + other) or found < 1e-6
    assert overlap.circle_overlap(0.0, one, one) == 1


# ---- pooling -----------------------------------------------------------------------------------------------


@given(SEEDS, some.integers(1, 6), some.sampled_from(["circle", "square"]), some.sampled_from([2, 4]))
def test_a_location_pools_as_many_pixels_as_it_has(seed, n, shape, stride):
    rng = np.random.default_rng(seed)
    prints = footprints(rng.uniform(3, 37, (n, 2)), rng.uniform(2, 9), shape)
    pool = pooling(prints, (0, 0, 40, 40), stride, (40 // stride, 40 // stride), dtype=np.float64)
    rows = np.asarray(pool.matrix.sum(1)).ravel()
    np.testing.assert_allclose(rows, pool.pixels)  # P 1 = a: a constant map has itself as its mean
    order = rng.permutation(n)
    again = pooling(prints[order], (0, 0, 40, 40), stride, (40 // stride, 40 // stride), dtype=np.float64)
    np.testing.assert_allclose(again.matrix.toarray(), pool.matrix[order].toarray())
    assert (pool.matrix.data > 0).all()


# ---- readers -----------------------------------------------------------------------------------------------


@given(SEEDS, some.integers(1, 9), some.integers(1, 9))
def test_counts_come_back_from_a_table_of_text(tmp_path, seed, spots, genes):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 10 ** rng.integers(0, 9, (spots, genes)))
    barcodes = [f"{x}x{y}" for x, y in rng.permutation(100)[: 2 * spots].reshape(-1, 2)]
    lines = ["\t".join(["", *(f"G{n}" for n in range(genes))])]
    lines += ["\t".join([name, *map(str, row)]) for name, row in zip(barcodes, counts, strict=True)]
    (tmp_path / "A.tsv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    names, _, found = read_counts(tmp_path / "A.tsv.gz")
    assert names.tolist() == barcodes and np.array_equal(found.toarray(), counts)


@given(SEEDS, some.integers(1, 9), some.integers(1, 9))
def test_counts_come_back_from_a_10x_matrix_in_any_order_of_barcodes(tmp_path, seed, spots, genes):
    from test_tenx import write_matrix

    from stlib.tenx import read_matrix

    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, (genes, spots)) * rng.integers(1, 1000, (genes, spots))
    names = rng.permutation([f"B{n}-1" for n in range(spots)]).tolist()
    write_matrix(tmp_path / "m.h5", counts, names, [f"G{n}" for n in range(genes)])
    barcodes, _, found = read_matrix(tmp_path / "m.h5")
    assert barcodes.tolist() == names and np.array_equal(found.toarray(), counts.T)


@settings(max_examples=5)
@given(SEEDS, some.integers(3, 12))
def test_a_section_comes_back_from_the_house_and_from_a_lab(tmp_path, seed, n):
    import lab

    from stlib.datasets import folder
    from stlib.sections import read_section, write_section

    one = lab.section(seed=seed, n=n)
    write_section(tmp_path / "house" / "S1.h5ad", one)
    lab.same(read_section(tmp_path / "house" / "S1.h5ad"), one)
    with warnings.catch_warnings(action="ignore"):
        lab.same(folder.read(lab.params("folder"), lab.plain(tmp_path / "lab", one), "S1"), one)


# ---- tables and params -------------------------------------------------------------------------------------


@given(some.floats(-1e6, 1e6), some.integers(0, 6))
def test_a_printed_number_is_the_rounded_one_and_never_minus_zero(value, decimals):
    text, signed = layout.fixed(value, decimals), layout.signed(value, decimals)
    assert float(text) == float(signed) == pytest.approx(value, abs=0.5000001 * 10**-decimals)
    assert not (float(text) == 0 and text.startswith("-")) and signed[0] in "+-"


@settings(max_examples=5)
@given(SEEDS, some.integers(0, 5))
def test_a_table_parses_back_to_its_numbers(table, found, seed, decimals):
    rng = np.random.default_rng(seed)
    given_numbers = found.assign(mean=rng.normal(size=len(found)) * 10.0 ** rng.integers(-4, 3))
    declared = table.model_copy(update={"decimals": decimals})
    laid = layout.scores(declared, given_numbers, ["a note, with a comma"])
    body = [line for line in io.StringIO(render.csv(laid)) if not line.startswith("#")]
    back = [float(line["mean"]) for line in csv.DictReader(body)]
    np.testing.assert_allclose(back, given_numbers["mean"].round(decimals), atol=1e-12)
    cells = [
        line.split("|")[2].strip(" *") for line in render.markdown(laid).splitlines() if line.startswith("| ")
    ]
    printed = [float(cell.split()[0]) for cell in cells if re.match(r"-?\d", cell)]
    wanted = given_numbers.loc[given_numbers["metric"] == "pcc_per_gene", "mean"].round(decimals) + 0.0
    assert sorted(set(printed)) == sorted(set(wanted.round(decimals)))


@given(some.sampled_from(sorted(path.stem for path in paths.PARAMS.glob("*.yaml"))), SEEDS)
def test_params_survive_a_round_trip_through_yaml(name, seed):
    content = content_of(paths.PARAMS / f"{name}.yaml")  # over that of the dataset it is like
    if "sizes" in content:
        return
    first = parse(Params, content, name)
    keys = np.random.default_rng(seed).permutation(list(content)).tolist()  # the order of keys says nothing
    text = yaml.safe_dump({key: content[key] for key in keys}, sort_keys=False)
    assert parse(Params, yaml.safe_load(text), name) == first
    dumped = yaml.safe_dump(first.model_dump(mode="json", by_alias=True))
    assert parse(Params, yaml.safe_load(dumped), name) == first
