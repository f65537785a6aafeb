"""Predictions of a new slide: what goes to disk, and that scanpy draws it; the whole path on the toy."""

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from stlib import slide_maps, slide_predictions
from stlib.batch import Shape
from stlib.expression import log_proportion, panel_counts
from stlib.models import build, configure
from stlib.new_slide import NewSlide, beside, known_section
from stlib.sections import load_sections
from stlib.splits import whole
from stlib.task import Task, feed_of
from stlib.train import learn, predict


@pytest.fixture(scope="module")
def own(toy, toy_sections):
    """P1-1 as if it were new, at half the px of the file it came from."""
    new = NewSlide("mine", "P1-1", np.array([1.0, 1.0]), np.array([2.0, 2.0]), "", "")
    return new, toy_sections["P1-1"]


@pytest.fixture(scope="module")
def table(toy, own):
    new, section = own
    values = np.arange(2.0 * len(section)).reshape(-1, 2)
    return slide_predictions.as_table(toy, new, section, ["A", "B"], values, {"model": "mean"})


def test_places_are_pixels_of_the_slide_as_it_came(own, table):
    new, section = own
    np.testing.assert_allclose(table.obsm["spatial"], 2 * section.position)
    factors = table.uns["spatial"]["mine"]["scalefactors"]
    assert factors["spot_diameter_fullres"] == 100  # um, at 1 um per px
    image = table.uns["spatial"]["mine"]["images"]["hires"]
    assert image.dtype == np.uint8 and image.shape[2] == 3
    assert factors["tissue_hires_scalef"] == pytest.approx(image.shape[1] / (2 * section.size_px[0]))
    assert table.obs["array_col"].tolist() == section.array[:, 0].tolist()
    assert table.uns["about"] == {"model": "mean", "values": slide_predictions.SCALE, "dataset": "toy"}


def test_it_is_written_and_scanpy_draws_it(table, tmp_path):
    import scanpy

    path = slide_predictions.write_table(tmp_path / "mine.h5ad", table)
    again = anndata.read_h5ad(path)
    np.testing.assert_array_equal(again.X, table.X)
    with pytest.warns(FutureWarning, match="squidpy"):  # scanpy's own successor; it draws, nevertheless
        (ax,) = scanpy.pl.spatial(again, color="B", show=False)
    image, spots = ax.images[0], ax.collections[0]
    assert image.get_array().shape == table.uns["spatial"]["mine"]["images"]["hires"].shape
    assert len(spots.get_paths()) == len(table)


def test_locations_and_genes_lie_over_the_slide(toy, own):
    _, section = own
    values = np.arange(len(section), dtype=float)
    figure = slide_maps.over_slide(toy, section, pd.DataFrame({"A": values, "B": -values}))
    titles = [ax.get_title() for ax in figure.axes[:3]]
    assert titles == [f"{len(section)} locations on tissue", "A, predicted", "B, predicted"]
    np.testing.assert_array_equal(figure.axes[1].collections[0].get_array(), values)
    np.testing.assert_allclose(figure.axes[1].get_xlim(), [0, 3360])  # um


def test_a_slide_without_any_measurement_goes_through_the_chain(toy, own, tmp_path):
    """Counts are taken away: the prediction is that of the same places with their counts hidden."""
    _, section = own
    bare = replace(
        section,
        counts=sparse.csr_matrix((len(section), 0)),
        genes=np.array([], str),
        patient="new",
        rate=None,
    )
    fold = whole(toy, "2d", without="P1")
    assert fold.name == "without-P1" and not {"P1-1", "P1-2", "P1-3"} & {
        *fold.train,
        *fold.counted,
        *fold.panel,
    }
    task = Task(toy, fold, "ridge", "2d", 0, tmp_path, "recipe")
    model, _, fabric = learn(task, feed_of(task))
    hidden = predict(model, feed_of(task), ("P1-1",), (), fabric)["P1-1"]
    bare = replace(bare, name="P1-1")  # its slide stands under that name
    found = predict(model, feed_of(task, (bare,)), ("P1-1",), (), fabric)["P1-1"]
    np.testing.assert_allclose(found, hidden, atol=1e-6)
    assert np.ptp(found, axis=0).max() > 0.1


def test_every_patient_trains_for_a_slide_that_is_none_of_theirs(toy):
    fold = whole(toy, "2d")
    assert fold.name == "everyone" and fold.test == ()
    assert {*fold.train, *fold.validation} == set(toy.with_slide)
    with pytest.raises(ValueError, match="the only one, and none is left to train on"):
        whole(toy.model_copy(update={"sections": {"P1": ["P1-1"]}}), "2d", without="P1")


def test_all_bins_of_a_slide_and_their_map(toy_hd, tmp_path):
    section = load_sections(toy_hd, ["P1"])["P1"]
    model = build("mean", configure("mean", "hd"), Shape(("A", "B")))
    for value in model.state_dict().values():
        value.fill_(1.5)
    store = slide_predictions.predict_whole(model, toy_hd, section, section, tmp_path / "p.zarr")
    assert np.isfinite(store[:]).all(2).sum() == len(section)
    figure = slide_maps.whole(toy_hd, section, store, ["B"])
    shown = figure.axes[1].images[1]
    pitch, (column, row) = section.pitch_um, section.array.min(0)
    assert shown.get_extent()[0] == column * pitch and shown.get_extent()[3] == row * pitch


def test_a_dense_network_sees_the_slide_as_often_halved_as_in_training(toy, own):
    small = {"encoder": "test_resnet@untrained", "hidden": 4, "halvings": 2}
    model = build("pixnet", configure("pixnet", "2d", **small), Shape(("A",)))
    tiles = slide_predictions.dense_tiles(model, toy, own[1])
    assert tiles.halvings == 2 and tiles.size_px == (420, 420)  # of 1680 px


def test_likeness_of_a_slide_to_itself(toy, toy_sections):
    training = {name: toy_sections[name] for name in ("P1-1", "P2-1", "P3-1")}
    (found,) = slide_predictions.compare(toy, toy_sections["P4-1"], training)
    assert found.features == "stain" and set(found.patients) == {"P1", "P2", "P3"}
    assert 0 < found.slide < 5


def test_a_measured_neighbour_is_carried_over(toy, toy_sections, tmp_path):
    """P1-2 without its counts, aligned to P1-1: smoothing finds what another patient's mean does not."""
    section = toy_sections["P1-2"]
    bare = replace(
        section, counts=sparse.csr_matrix((len(section), 0)), genes=np.array([], str), patient="new"
    )
    stacked, aligned = beside(toy, bare, toy_sections["P1-1"])
    assert (stacked.patient, stacked.layer) == ("P1", 2) and all(found.ok for found in aligned.values())
    task = Task(toy, whole(toy, "3d", without="P1"), "smooth", "3d", 0, tmp_path, "recipe")
    assert task.fold.known == ("P1-1",) and not {"P1-2", "P1-3"} & {*task.fold.train, *task.fold.counted}
    model, _, fabric = learn(task, feed_of(task))
    found = predict(model, feed_of(task, (stacked,), aligned), ("P1-1", "P1-2"), ("P1-1",), fabric)["P1-2"]
    panel = feed_of(task).panel
    truth, near = (log_proportion(panel_counts(toy_sections[name], panel)) for name in ("P1-2", "P1-1"))
    assert ((found - truth) ** 2).mean() < 0.8 * ((near.mean(0) - truth) ** 2).mean()


def test_a_neighbour_that_is_not_of_the_block_is_reported(toy, toy_sections):
    with pytest.warns(UserWarning, match="alignment not proven.*Without it only the mean of P2-1 is known"):
        _, aligned = beside(toy, toy_sections["P1-2"], toy_sections["P2-1"])
    assert not all(found.ok for found in aligned.values())


@pytest.mark.parametrize(
    ("name", "patient", "message"),
    [
        ("P9-1", "", "KNOWN is a section with a slide of params/toy.yaml, found 'P9-1' .nearest: 'P.-1'"),
        (
            "P2-1",
            "P1",
            "shows patient 'P1' .* KNOWN is the known section of that patient, P1-1; found 'P2-1'",
        ),
        (
            "P1-2",
            "P1",
            "other sections are hidden: KNOWN is the known section of that patient, P1-1; found 'P1-2'",
        ),
    ],
)
def test_a_section_that_cannot_be_shown_is_refused(toy, own, name, patient, message):
    with pytest.raises(ValueError, match=message):
        known_section(toy, name, replace(own[0], patient=patient))


def test_a_slide_is_not_its_own_neighbour(toy, own):
    new = replace(own[0], patient="P1", shows="P1-1")
    with pytest.raises(
        ValueError, match="KNOWN is a measured neighbour .* found 'P1-1', which the slide itself"
    ):
        known_section(toy, "P1-1", new)


def test_places_that_are_no_whole_numbers_stay_so(toy, own):
    new, section = own
    values = np.zeros((len(section), 1))
    table = slide_predictions.as_table(
        toy, new, replace(section, array=section.array + 0.5), ["A"], values, {}
    )
    assert table.obs["array_row"].tolist() == (section.array[:, 1] + 0.5).tolist()


def test_any_section_may_be_shown_to_a_slide_that_is_new(toy, own):
    assert known_section(toy, "P3-2", own[0]) == "P3-2"
    assert known_section(toy, "P1-1", replace(own[0], patient="P1")) == "P1-1"
