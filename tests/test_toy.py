"""The toy tissue: the truth is what the options ask for, and it never changes unseen."""

import hashlib
import re

import numpy as np
import pytest

from stlib import paths
from stlib.datasets import toy as reader
from stlib.params import Params, load_params
from stlib.slide import Slide
from stlib.toy import PARTS, Options, Toy
from stlib.toy_paint import paint


def changed(params: Params, **options) -> Params:
    """Return the same dataset with other numbers."""
    source = params.source.model_copy(update={"options": {**params.source.options, **options}})
    return params.model_copy(update={"source": source})


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params("toy")


@pytest.fixture(scope="module")
def tissue(params) -> Toy:
    return reader.tissue(params)


@pytest.fixture(scope="module")
def measured(tissue) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {section: tissue.measure(section) for section in tissue.cuts}


@pytest.fixture(scope="module")
def slide(tissue) -> np.ndarray:
    return paint(tissue, "P1-1")


# -- frozen --------------------------------------------------------------------------------------------------


def test_the_tissue_is_frozen(tissue, measured, slide):
    """The tissue was fixed before any model existed; who changes it does so knowingly, here."""
    spots = [tissue.spots(section) for section in tissue.cuts]
    frozen = {
        "counts": [counts for counts, _ in measured.values()],
        "array": [array for array, _ in spots],
        "position, 1e-3 px": [np.rint(position * 1e3) for _, position in spots],
        "log rate, 1e-4": [np.rint(np.log(rate) * 1e4) for _, rate in measured.values()],
        "slide P1-1": [slide],
    }
    lines = []
    for name, arrays in frozen.items():
        digest = hashlib.sha256()
        for array in arrays:
            digest.update(np.ascontiguousarray(array, "<i8").tobytes())
        lines.append(f"{digest.hexdigest()}  {name}\n")
    assert "".join(lines) == (paths.ROOT / "tests" / "expected" / "toy.sha256").read_text()


def test_another_seed_is_another_tissue(params, measured):
    other = reader.tissue(changed(params, seed=8))
    assert other.measure("P1-1")[0].shape != measured["P1-1"][0].shape


# -- the truth -----------------------------------------------------------------------------------------------


def test_shares_of_variance_come_out_as_asked(params, tissue):
    asked = params.options(Options)
    parts = [tissue.parts(tissue.patient_of[name], tissue.places(name), 50) for name in tissue.cuts]
    found = np.concatenate(parts, 1).var(1).mean(1)  # over spots, then genes: (3,)
    np.testing.assert_allclose(found, [asked.shares[part] * asked.sd**2 for part in PARTS], rtol=1e-9)


def test_the_parts_add_up_to_the_rate(params, tissue, measured):
    """Beside the parts, a spot has a depth and a gene has a level: log rate - parts = a_s + b_g."""
    _, rate = measured["P2-2"]
    rest = np.log(rate) - tissue.parts("P2", tissue.places("P2-2"), 50).sum(0)
    depth = rest.mean(1, keepdims=True)
    np.testing.assert_allclose(
        rest - depth, np.tile(tissue.base - tissue.base.mean(), (len(rate), 1)), atol=1e-9
    )
    assert np.std(depth) == pytest.approx(params.options(Options).depth_sd, rel=0.2)


def test_patient_part_is_one_offset_per_patient_and_gene(tissue):
    parts = [tissue.parts("P3", tissue.places(name), 50)[2] for name in ("P3-1", "P3-3")]
    assert np.ptp(np.concatenate(parts), axis=0).max() < 1e-12
    other = tissue.parts("P4", tissue.places("P4-1"), 50)[2]
    assert np.abs(other[0] - parts[0][0]).mean() > 0.1


def test_counts_are_negative_binomial(params, measured):
    counts = np.concatenate([counts for counts, _ in measured.values()])
    rate = np.concatenate([rate for _, rate in measured.values()])
    dispersion = params.options(Options).dispersion
    assert counts.sum() / rate.sum() == pytest.approx(1, abs=0.01)
    standard = (counts - rate) / np.sqrt(rate + dispersion * rate**2)
    assert standard.mean() == pytest.approx(0, abs=0.01)
    assert standard.var() == pytest.approx(1, abs=0.03)
    assert np.median(counts.sum(1)) == pytest.approx(params.options(Options).depth, rel=0.1)


def test_neighbouring_sections_resemble_each_other_more_than_distant_ones(tissue):
    grid = np.stack(np.meshgrid(np.arange(-800, 801, 100), np.arange(-800, 801, 100)), -1).reshape(-1, 2)
    for patient in tissue.blocks:
        parts = [tissue.parts(patient, np.insert(grid, 2, z, axis=1), 50) for z in (48, 96, 144, 600)]
        alike = np.array(
            [
                [np.corrcoef(parts[0][k].ravel(), other[k].ravel())[0, 1] for k in (0, 1)]
                for other in parts[1:]
            ]
        )
        assert (np.diff(alike, axis=0) < 0).all()  # visible and hidden part: 48, 96, 552 um apart
        assert (alike[0] > [0.85, 0.98]).all() and (alike[0] < 1).all()


def test_stroma_near_tumour_is_another_state(tissue, monkeypatch):
    block, place = tissue.blocks["P1"], np.zeros((1, 3))
    for tumour, near in ((-5.0, 0), (5.0, 1)):
        types = np.array([0, 1, 0, 0]) + np.zeros((1, 1, 4))  # stroma everywhere under the spot ...

        def cell_types(points, tumour=tumour, types=types):
            wide = np.ptp(points[..., 0]) > 200  # ... but not around it
            return (
                np.array([tumour > 0, tumour < 0, 0, 0]) + np.zeros((*points.shape[:2], 4)) if wide else types
            )

        monkeypatch.setattr(block, "cell_types", cell_types)
        np.testing.assert_allclose(block.mixture(place, 50), [[0, 1 - near, 0, 0, near]], atol=1e-12)


def test_mixture_is_made_of_fractions(tissue):
    mixture = tissue.blocks["P2"].mixture(tissue.places("P2-1"), 50)
    np.testing.assert_allclose(mixture.sum(1), 1)
    assert mixture.min() >= 0 and (mixture.max(0) > 0.5).sum() >= 3


# -- the cut -------------------------------------------------------------------------------------------------


def test_true_map_and_its_inverse_agree(params, tissue):
    px = np.stack(np.meshgrid(np.linspace(0, 1680, 30), np.linspace(0, 1680, 30)), -1)
    for cut in tissue.cuts.values():
        um = cut.to_block(px)
        np.testing.assert_allclose(cut.to_slide(um), px, atol=1e-9)
    assert cut.places(px).shape == (30, 30, 3) and (cut.places(px)[..., 2] == 3 * 48).all()


def test_a_cut_rotates_shifts_and_warps_within_its_limits(params, tissue):
    asked = params.options(Options)
    px = np.stack(np.meshgrid(np.arange(5, 1680, 10), np.arange(5, 1680, 10)), -1).reshape(-1, 2)
    warps = []
    for cut in tissue.cuts.values():
        centred, um = (px - 840) * 2.0, cut.to_block(px)
        u, _, v = np.linalg.svd((um - um.mean(0)).T @ centred)  # Kabsch: the best rotation
        rotation = u @ v
        assert abs(np.rad2deg(np.arctan2(rotation[1, 0], rotation[0, 0]))) < asked.rotation_deg + 3
        assert np.linalg.norm(um.mean(0)) < asked.shift_um + 2 * asked.warp_um
        warps.append(np.sqrt(((um - centred @ cut.rotation.T - cut.shift_um) ** 2).sum(1).mean()))
    assert 0.7 * asked.warp_um < np.mean(warps) < 1.3 * asked.warp_um


def test_without_motion_a_cut_is_the_scale_alone(params):
    still = reader.tissue(changed(params, rotation_deg=0.0, shift_um=0.0, warp_um=0.0)).cuts["P2-2"]
    np.testing.assert_allclose(
        still.to_block(np.array([[840.0, 840.0], [841.0, 838.0]])), [[0, 0], [2, -4]], atol=1e-12
    )


# -- spots and slide -----------------------------------------------------------------------------------------


def test_spots_lie_on_a_regular_array_under_the_tissue(tissue, slide):
    for section in tissue.cuts:
        array, position = tissue.spots(section)
        assert 120 <= len(array) <= 150
        np.testing.assert_allclose(position, 840 + (array - 7.5) * 100)  # 16 x 16, 200 um = 100 px
    _, position = tissue.spots("P1-1")
    patches = np.stack([slide[y - 25 : y + 25, x - 25 : x + 25] for x, y in position.astype(int)])
    assert (patches.min(-1) < 225).mean((1, 2)).min() > 0.1  # each spot has stain under it
    assert slide[:40, :40].mean() > 235  # a corner is glass


def test_the_slide_shows_the_cell_types(tissue, slide):
    """Blue-black nuclei where tumour and immune cells are, white where fat is."""
    _, position = tissue.spots("P1-1")
    tumour, _, immune, fat, _ = tissue.blocks["P1"].mixture(tissue.places("P1-1"), 50).T
    patches = np.stack([slide[y - 25 : y + 25, x - 25 : x + 25] for x, y in position.astype(int)])
    dark = (patches[..., 0] < 150).mean((1, 2))  # haematoxylin takes red
    white = (patches.min(-1) > 225).mean((1, 2))
    assert np.corrcoef(dark, tumour + immune)[0, 1] > 0.8
    assert np.corrcoef(white, fat)[0, 1] > 0.8


def test_the_slide_knows_nothing_of_gradients_offsets_and_counts(params, tissue, slide):
    other = reader.tissue(changed(params, sd=0.1, dispersion=2.0, depth=100.0, genes=30))
    for block in other.blocks.values():
        block.hidden = []
    np.testing.assert_array_equal(paint(other, "P1-1"), slide)


# -- the reader ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(params) -> Params:
    """Return two patients with a section each, on slides of 0.8 mm."""
    small = changed(params, size_px=400, radius_um=300.0, shift_um=20.0, genes=12)
    return small.model_copy(update={"sections": {"P1": ["P1-1"], "P2": ["P2-1"]}})


@pytest.fixture
def folder(small, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    reader.fetch(small, paths.raw("toy"))
    return paths.raw("toy")


def test_a_folder_of_the_users_is_only_read(small, tmp_path):
    reader.fetch(small, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_fetched_is_read(small, folder):
    toy = reader.tissue(small)
    section = reader.read(small, folder, "P2-1")
    counts, rate = toy.measure("P2-1")
    array, position = toy.spots("P2-1")
    assert (section.name, section.patient, section.layer, section.dispersion) == ("P2-1", "P2", 1, 0.35)
    assert section.barcodes[0] == f"{array[0, 0]}x{array[0, 1]}" and section.genes[:3].tolist() == [
        "ERBB2",
        "MDK",
        "TG001",
    ]
    np.testing.assert_array_equal(section.counts.toarray(), counts)
    np.testing.assert_array_equal(section.array, array)
    np.testing.assert_allclose(section.position, position, rtol=1e-8)
    np.testing.assert_allclose(section.rate, rate, rtol=1e-8)
    with Slide(reader.image(small, folder, "P2-1")) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 400, 400), paint(toy, "P2-1"))
        np.testing.assert_allclose(slide.um_per_px, section.um_per_px)


def test_fetching_again_makes_only_what_is_missing_or_other(small, folder):
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    reader.fetch(small, folder)
    assert times == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    (folder / "P1-1.rate.tsv").unlink()
    reader.fetch(small, folder)
    assert reader.read(small, folder, "P1-1").rate.shape[1] == 12
    other = changed(small, genes=10)
    with pytest.raises(
        ValueError, match=r"made from other options than params/toy\.yaml; run `make data` again"
    ):
        reader.read(other, folder, "P1-1")
    reader.fetch(other, folder)
    assert reader.read(other, folder, "P1-1").counts.shape[1] == 10


def test_reading_says_what_is_wrong(small, folder, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"P1-1\.spots\.tsv: not made yet; run `make data DATASET=toy`"
    ):
        reader.read(small, tmp_path / "empty", "P1-1")
    for kind in ("spots", "rate"):
        table = folder / f"P1-1.{kind}.tsv"
        whole = table.read_text()
        table.write_text(whole[: whole.rindex("\n", 0, -1) + 1])  # the last spot is missing
        with pytest.raises(
            ValueError, match=r"the tables of P1-1 list the same spots and genes, found other"
        ):
            reader.read(small, folder, "P1-1")
        table.write_text(whole)
    table = folder / "P1-1.counts.tsv"
    whole = table.read_text()
    table.write_text(re.sub(r"\t(\d+)\n$", r"\t\1.5\n", whole))
    with pytest.raises(ValueError, match=r"P1-1\.counts\.tsv: counts are whole numbers .* 1 spot"):
        reader.read(small, folder, "P1-1")
    table.write_text(whole + "1x1\t" * 20)
    with pytest.raises(ValueError, match=r"P1-1\.counts\.tsv: damaged .*Delete it"):
        reader.read(small, folder, "P1-1")


def test_options_that_make_no_tissue_are_refused(small):
    shares = {"visible": 0.5, "hidden": 0.3, "patient": 0.3}
    with pytest.raises(
        ValueError, match=r"params/toy\.yaml, source\.options: shares: .*must sum to 1, found"
    ):
        changed(small, shares=shares).options(Options)
    with pytest.raises(ValueError, match=r"needs two patients, found \['P1'\]"):
        reader.tissue(small.model_copy(update={"sections": {"P1": ["P1-1"]}}))
    with pytest.raises(ValueError, match=r"unknown key 'depht' \(nearest: 'depth'\)"):
        changed(small, depht=1.0).options(Options)


def test_the_region_of_a_spot_is_its_most_frequent_cell_type(tissue):
    regions = tissue.regions("P1-1")
    mixture = tissue.blocks["P1"].mixture(tissue.places("P1-1"), tissue.spot.size_um / 2)
    assert len(regions) == len(tissue.spots("P1-1")[0])
    fat = mixture[:, 3] > 0.5
    assert (regions[fat] == "fat").all() and (regions[mixture[:, 0] > 0.5] == "tumour").all()
    assert (regions[mixture[:, 1] + mixture[:, 4] > 0.5] == "stroma").all() and len(set(regions)) > 2


def test_further_patients_of_a_seed_are_other_people_with_the_same_genes(params):
    def made(names: str, first: int) -> Toy:
        options = Options(**params.source.options | {"first": first})
        return Toy(options, {name: [f"{name}-1"] for name in names}, params.spot)

    one, other = made("ABC", 1), made("CD", 3)
    assert np.array_equal(one.genes, other.genes) and np.array_equal(one.base, other.base)
    same, own = ((toy.spots("C-1")[1], toy._offset["C"]) for toy in (one, other))
    assert all(map(np.array_equal, same, own))  # number 3 in both
    assert len({toy._offset[name].tobytes() for toy, name in ((one, "A"), (one, "B"), (other, "D"))}) == 3
    middle = np.zeros((1, 3))
    assert not np.array_equal(one.blocks["A"].mixture(middle, 50), other.blocks["D"].mixture(middle, 50))
