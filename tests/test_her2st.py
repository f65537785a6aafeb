"""The reader on six spots in the true format, and on the real files where they are at hand."""

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from stlib import paths
from stlib.datasets import her2st
from stlib.manifest import matches, read_manifest
from stlib.params import Params, load_params
from stlib.records import parse

HER2ST = Path(os.environ.get("STLIB_HER2ST", paths.raw("her2st"))).resolve()
real = pytest.mark.skipif(
    not HER2ST.is_dir(), reason="needs the her2st files; set STLIB_HER2ST to their folder"
)

HEAD = "x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected"
SPOTS = {  # 10 px to a step: pixel = (new - 1) * 10
    "2x2": "2\t2\t2.1\t2\t11\t10\t1",
    "3x2": "3\t2\t3\t2.2\t20\t12\t1",
    "10x13": "10\t13\t9.9\t13\t89\t120\t1",
    "17x14": "17\t14\t17\t14\t160\t130\t1",  # dead: no counts
}
GENES = ["ERBB2", "AC087350.1", "GAPDH"]
COUNTS = {"10x13": "0\t12\t3", "2x2": "7\t0\t0", "3x2": "0\t0\t1234567"}


def tiny(**changes) -> Params:
    """Return the parameters of her2st, for one section."""
    content = yaml.safe_load((paths.PARAMS / "her2st.yaml").read_text())
    content |= {"sections": {"A": ["A2"]}, "known": {}, "same_tissue_group": {}, "folds": {}} | changes
    return parse(Params, content, "params/tiny.yaml")


def write(folder, spots=SPOTS, counts=COUNTS, genes=GENES, size_px=(320, 340), section="A2"):
    """Write the files of one section; counts may be None (no file), size_px too."""
    patient = section[0]
    for name in ("ST-cnts", "ST-spotfiles", f"ST-imgs/{patient}/{section}"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = list(spots.values()) if isinstance(spots, dict) else spots
    (folder / f"ST-spotfiles/{section}_selection.tsv").write_text("\n".join([HEAD, *rows]) + "\n")
    if counts is not None:
        pairs = counts.items() if isinstance(counts, dict) else counts
        text = "\n".join(["\t" + "\t".join(genes), *(f"{spot}\t{row}" for spot, row in pairs)]) + "\n"
        (folder / f"ST-cnts/{section}.tsv.gz").write_bytes(gzip.compress(text.encode()))
    if size_px is not None:
        Image.new("RGB", size_px, "white").save(folder / f"ST-imgs/{patient}/{section}/BT1_C1_HE.jpg")
    return folder


@pytest.mark.parametrize("level", ["", "data"])
def test_six_numbers_by_hand(tmp_path, level):
    write(tmp_path / level)
    section = her2st.read(tiny(), tmp_path, "A2")
    assert (section.name, section.patient, section.layer, section.shape) == ("A2", "A", 2, "circle")
    assert section.barcodes.tolist() == ["10x13", "2x2", "3x2"] and section.genes.tolist() == GENES
    assert section.counts.dtype == np.int32 and section.counts.format == "csr" and section.counts.nnz == 4
    assert section.counts.toarray().tolist() == [[0, 12, 3], [7, 0, 0], [0, 0, 1234567]]
    assert section.array.tolist() == [[9.9, 13], [2.1, 2], [3, 2.2]]
    assert section.position.tolist() == [[89, 120], [11, 10], [20, 12]]
    assert section.size_px.tolist() == [320, 340]
    assert section.um_per_px.tolist() == [20, 20]  # 6400 / 320, 6800 / 340
    assert (section.size_um, section.pitch_um) == (100, 200)
    assert her2st.image(tiny(), tmp_path, "A2").name == "BT1_C1_HE.jpg"


def test_without_slide_the_spots_tell_the_scale(tmp_path):
    write(tmp_path, size_px=None)
    for params in (tiny(sections={}, counts_only={"A": ["A2"]}), tiny()):
        section = her2st.read(params, tmp_path, "A2", slide=False)
        assert section.size_px is None
        assert section.um_per_px == pytest.approx([20, 20])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"counts": COUNTS | {"9x9": "1\t1\t1"}}, r"A2.tsv.gz.*counts without spot: \['9x9'\] \(1 in all\)"),
        (
            {"counts": {k: COUNTS[k] for k in ("2x2", "3x2")}},
            r"spot without counts: \['10x13'\].*All spots but \['17x14'",
        ),
        ({"counts": [*COUNTS.items(), ("2x2", "1\t1\t1")]}, r"each barcode occurs once.*\['2x2'"),
        (
            {"spots": [*SPOTS.values(), SPOTS["2x2"]]},
            r"A2_selection.tsv: a spot has one row; found \['2x2'\] repeated",
        ),
        ({"counts": COUNTS | {"2x2": "7\t-1\t0"}}, "A2.tsv.gz: counts are whole numbers"),
        ({"counts": COUNTS | {"2x2": "0\t0\t0"}}, r"each spot has counts.*\['2x2'\]"),
        ({"spots": SPOTS | {"2x2": "2\t2\tnan\t2\t11\t10\t1"}}, r"coordinates are finite.*\['2x2'\]"),
        (
            {"spots": SPOTS | {"2x2": "2\t2\t2.1\t2\t\t10\t1"}},
            "A2_selection.tsv: each row has 7 numbers; found could not",
        ),
        ({"spots": SPOTS | {"2x2": "2\t2\t2.1"}}, "A2_selection.tsv: each row has 7 numbers"),
        ({"spots": SPOTS | {"2x2": "2.5\t2\t2.1\t2\t11\t10\t1"}}, "x and y are whole numbers"),
        ({"spots": SPOTS | {"2x2": "2\t2\t2.1\t2\t11\t10\t0"}}, "each spot is selected"),
        (
            {"spots": SPOTS | {"10x13": "10\t13\t33.2\t13\t322\t120\t1"}},
            r"on the slide \(320 x 340 px\).*\['10x13'\]",
        ),
        (
            {"size_px": (240, 255)},
            r"one scale; found \[20.0, 20.0\] um per px.*\[26.6667, 26.6667\] by the slide of \[240,",
        ),
    ],
)
def test_bad_files_are_refused(tmp_path, files, message):
    write(tmp_path, **files)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message):
        her2st.read(tiny(), tmp_path, "A2")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_spot_that_the_source_is_known_to_have(tmp_path):
    write(tmp_path, counts=COUNTS | {"2x2": "0\t0\t0"})
    source = yaml.safe_load((paths.PARAMS / "her2st.yaml").read_text())["source"]
    source["options"]["empty_spots"] = {"A2": ["2x2"]}
    assert len(her2st.read(tiny(source=source), tmp_path, "A2")) == 3


LABELS = "Row.names\tx\ty\tpixel_x\tpixel_y\tlabel"


def label(folder, *rows):
    """Write the labels of a section; the pixels are those of another image."""
    path = folder / "ST-pat/lbl/A2_labeled_coordinates.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([LABELS, *rows]) + "\n")


def test_labels_are_joined_on_the_fitted_place(tmp_path):
    assert her2st.read(tiny(), write(tmp_path), "A2").region is None
    label(
        tmp_path,
        "1x1\t3\t2.2\t900\t900\tadipose tissue",
        "1x2\t9.9\t13\t900\t900\tinvasive cancer",
        "1x3\tNA\tNA\tNA\tNA\tbreast glands",  # no place
        "1x4\t17\t14\t900\t900\tundetermined",  # a spot without counts
    )
    found = her2st.read(tiny(), tmp_path, "A2")
    assert dict(zip(found.barcodes, found.region, strict=True)) == {
        "10x13": "invasive cancer", "2x2": "", "3x2": "adipose tissue",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "1x1\t3\t2.2\t9\t9\tadipose",
            "each row has 6 words, the last one of invasive cancer, .* found '1x1",
        ),
        ("1x1\t3\t2.3\t9\t9\tundetermined", r"labels lie on spots .* found 1 that do not, e.g. \[\(3.0, 2.3"),
        ("1x1\t2.1\t2\t9\t9\tundetermined", "a spot has one label; found 'breast glands' and 'undetermined'"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, row, message):
    label(write(tmp_path), "1x0\t2.1\t2\t9\t9\tbreast glands", row)
    with pytest.raises(ValueError, match=message):
        her2st.read(tiny(), tmp_path, "A2")


def test_options_are_strict(tmp_path):
    write(tmp_path)
    source = yaml.safe_load((paths.PARAMS / "her2st.yaml").read_text())["source"]
    source["options"]["empty_spot"] = {}
    with pytest.raises(
        ValueError, match=r"her2st.yaml, source.options: unknown key 'empty_spot' \(nearest: 'empty_spots'"
    ):
        her2st.read(tiny(source=source), tmp_path, "A2")


def test_a_spot_file_with_other_columns(tmp_path):
    path = write(tmp_path) / "ST-spotfiles/A2_selection.tsv"
    path.write_text(path.read_text().replace("pixel_x\tpixel_y", "pixel_y\tpixel_x"))
    with pytest.raises(
        ValueError, match="the columns are x y new_x new_y pixel_x pixel_y selected, tab-separated; found"
    ):
        her2st.read(tiny(), tmp_path, "A2")


def test_missing_files_say_how_to_get_them(tmp_path):
    write(tmp_path, counts=None, size_px=None)
    with pytest.raises(
        FileNotFoundError, match=r"ST-cnts/A2.tsv.gz is not there. `make data DATASET=her2st` downloads"
    ):
        her2st.read(tiny(), tmp_path, "A2")
    write(tmp_path, size_px=None)
    with pytest.raises(
        FileNotFoundError, match=r"ST-imgs/A/A2/\*.jpg is not there.*DATASET=her2st DATA=folder"
    ):
        her2st.read(tiny(), tmp_path, "A2")


def test_a_section_has_one_slide(tmp_path):
    write(tmp_path)
    Image.new("RGB", (320, 340)).save(tmp_path / "ST-imgs/A/A2/copy.jpg")
    with pytest.raises(
        ValueError, match=r"a section has one slide, ST-imgs/A/A2/\*.jpg finds \['BT1_C1_HE.jpg', 'copy.jpg'"
    ):
        her2st.read(tiny(), tmp_path, "A2")


def test_names_of_sections():
    with pytest.raises(ValueError, match=r"params/her2st.yaml has no section 'A7' \(nearest: 'A2'\)"):
        her2st.read(tiny(), Path(), "A7")
    with pytest.raises(
        ValueError, match="called by its patient's letter and its number; correct 'C1' of patient 'A'"
    ):
        her2st.read(tiny(sections={"A": ["C1"]}), Path(), "C1")


def test_fetch_downloads_what_is_needed_into_the_own_folder_only(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(her2st, "download", lambda files, url, folder: asked.append((files, url, folder)))
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    own = paths.raw("her2st")
    params = load_params("her2st_small")
    with pytest.raises(
        FileNotFoundError, match="ST-cnts/C2.tsv.gz is not there"
    ):  # nothing came, and that is seen
        her2st.fetch(params, own)
    files, url, folder = asked.pop()
    assert folder == own and url.endswith("85df7411b987a7dec3feff9718b869a7a82091ec/data")
    slides = [file.path for file in files if "imgs" in file.path]
    assert slides == [f"ST-imgs/{s[0]}/{s}/{n}" for s, n in zip(params.with_slide, FOUR, strict=True)]
    assert len(files) == 2 * len(params.patient_of) + 4
    with pytest.raises(FileNotFoundError, match="ST-cnts/A2.tsv.gz is not there"):
        her2st.fetch(tiny(), tmp_path / "mine")
    her2st.fetch(tiny(), write(tmp_path / "mine"))
    assert not asked


FOUR = ["5714_HE_BT_C2.jpg", "5714_HE_BT_D1.jpg", "5714_HE_BT_D2.jpg", "BT10737_D2_HE.jpg"]


def test_fetch_of_a_section_that_the_source_does_not_have(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    with pytest.raises(
        ValueError, match=r"params/her2st.files.tsv has no files of section\(s\) \['A9'\] \(found A1, A2"
    ):
        her2st.fetch(tiny(sections={"A": ["A9"]}), paths.raw("her2st"))


def test_the_manifest_lists_three_files_of_each_section():
    files = read_manifest(paths.PARAMS / her2st.MANIFEST)
    size = {
        kind: sum(file.bytes for file in files if file.path.startswith(kind))
        for kind in ("ST-c", "ST-s", "ST-i")
    }
    assert len(files) == 3 * 36
    assert size == {"ST-c": 37_242_079, "ST-s": 502_816, "ST-i": 339_662_939}  # of datasets.md, section 1.1


# ---- the real files ----------------------------------------------------------------------------------------

# datasets.md, table 1.4: section, spots in the counts, rows of the spot file, genes, UMI, least UMI of a spot
TABLE = """
A1 346 348 15045 1553744   4  A2 325 325 15526 2617254   1  A3 359 360 15517 2558270   1
A4 343 344 15583 2404491   1  A5 332 333 15638 2310573   5  A6 360 361 15645 2542219   1
B1 295 295 15109 1056954   1  B2 270 270 15290 1098676   1  B3 298 299 15215  898866   7
B4 283 284 15289  935146   1  B5 289 290 15273 1081382   1  B6 277 278 15387  975977 127
C1 176 177 15557 1660052   1  C2 187 187 15706 1926633   1  C3 180 182 15821 2033498   1
C4 184 187 15842 2213922 859  C5 181 183 15721 2014132   2  C6 178 179 15772 2256695   1
D1 306 309 15661 2539708 740  D2 303 305 15396 1664473   2  D3 301 303 15529 1962385   1
D4 302 303 15503 1985847   1  D5 306 309 15666 1957774   0  D6 315 318 15409 1768395  45
E1 587 587 15701 1302468 408  E2 572 572 15167 1980694 565  E3 570 570 15097 1944310 377
F1 691 691 14861 2459000 604  F2 695 695 15041 2637749 500  F3 712 712 15067 2696467 308
G1 441 441 14992  946921 285  G2 467 467 15258 1133937 350  G3 463 463 15035  906390 139
H1 613 613 15029 1092551 163  H2 603 603 14907 1238483 221  H3 510 510 14873  727556 338
"""


@pytest.fixture(scope="module")
def sections():
    params = load_params("her2st")
    return {name: her2st.read(params, HER2ST, name, slide=False) for name in params.patient_of}


@real
def test_real_files_are_those_of_the_manifest():
    files = read_manifest(paths.PARAMS / her2st.MANIFEST)
    here = [file for file in files if (HER2ST / file.path).exists()]
    assert len(here) >= 2 * 36
    assert [file.path for file in here if not matches(HER2ST / file.path, file)] == []


@real
def test_real_totals(sections):
    every = list(sections.values())
    assert sum(map(len, every)) == 13_620
    assert sum(int(section.counts.sum()) for section in every) == 63_083_592
    assert sum(section.counts.nnz for section in every) == 28_625_827
    assert len(set().union(*(section.genes for section in every))) == 18_758
    assert len(set(every[0].genes).intersection(*(section.genes for section in every))) == 11_871


@real
def test_real_sections_are_those_of_the_table(sections):
    words = TABLE.split()
    rows = {words[i]: tuple(map(int, words[i + 1 : i + 6])) for i in range(0, len(words), 6)}
    lines = {
        name: (HER2ST / f"ST-spotfiles/{name}_selection.tsv").read_text().count("\n") - 1 for name in sections
    }
    found = {
        name: (len(s), lines[name], len(s.genes), int(s.counts.sum()), int(s.counts.sum(1).min()))
        for name, s in sections.items()
    }
    assert found == rows


@real
def test_real_panel_is_the_printed_one(sections):
    shared = sorted(set.intersection(*(set(section.genes) for section in sections.values())))
    means = []
    for section in sections.values():
        order = np.argsort(section.genes)
        columns = order[np.searchsorted(section.genes, shared, sorter=order)]
        means.append(np.asarray(section.counts.mean(0)).ravel()[columns])
    panel = np.array(shared)[np.argsort(-np.mean(means, axis=0))[:250]]
    text = "\n".join(panel) + "\n"
    assert text.startswith("IGKC\nTMSB10\nERBB2\nIGLC2\n")
    assert hashlib.sha256(text.encode()).hexdigest() == load_params("her2st").expect.panel_sha256


@real
def test_real_pixels_follow_the_frame_in_all_sections_but_a6(sections):
    # pixel = (new - 1) * W / 32, and W from the scale of the spots
    off = {}
    for name, section in sections.items():
        step_px = 200 / section.um_per_px
        off[name] = np.abs(section.position - (section.array - 1) * step_px).max()
    assert [name for name, distance in off.items() if distance > 1] == ["A6"]
    assert 200 < off["A6"] < 250  # about one array step


@real
def test_real_slides_give_the_scale_of_the_spots(sections):
    params = load_params("her2st_small")
    sizes = {"C2": (9274, 9911), "C3": (9270, 9936), "C4": (9278, 9916), "B4": (9272, 9923)}
    for name in params.with_slide:
        section = her2st.read(params, HER2ST, name)
        assert tuple(section.size_px) == sizes[name]
        np.testing.assert_array_equal(section.um_per_px, (6400, 6800) / section.size_px)
        np.testing.assert_allclose(section.um_per_px, sections[name].um_per_px, rtol=1e-4)
    her2st.require(params, HER2ST)


@real
def test_real_labels_cover_every_spot_of_one_section_of_each_patient(sections):
    labelled = {name: section for name, section in sections.items() if section.region is not None}
    if not (HER2ST / "ST-pat").is_dir():
        pytest.skip("needs ST-pat beside the counts")
    assert sorted(labelled) == ["A1", "B1", "C1", "D1", "E1", "F1", "G2", "H1"]
    for section in labelled.values():
        assert set(section.region) <= set(her2st.REGIONS)  # none is empty
    assert (labelled["A1"].region == "invasive cancer").sum() == 282
