"""The reader of DLPFC on small files in Space Ranger's layout: each trap, and what is refused."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import tifffile
import yaml
from test_tenx import write_matrix
from test_visium import grid, write_positions

from stlib import datasets, download, paths
from stlib.datasets import dlpfc
from stlib.metrics import overview
from stlib.params import Params, load_params
from stlib.records import parse

GENES = ["ENSG00000197971", "ENSG00000132639"]
COUNTS = {(3, 1): [0, 12], (0, 0): [7, 0], (4, 2): [1, 70000]}  # place (column, row) under tissue -> counts
PLACES = grid()  # 20 px to 100 um, from (60, 70) px
NAME = {place: f"SPOT{n:04d}-1" for n, place in enumerate(zip(PLACES[0], PLACES[1], strict=True))}


def tiny(stacks=None, **changes) -> Params:
    """Return the parameters of DLPFC, for one section unless told."""
    content = yaml.safe_load((paths.PARAMS / "dlpfc.yaml").read_text())
    stacks = stacks or {"Br1": ["151507"]}
    known = {patient: stack[0] for patient, stack in stacks.items()}
    content |= {"sections": stacks, "known": known, "folds": {}} | changes
    return parse(Params, content, "params/tiny.yaml")


def options(**values):
    return load_params("dlpfc").source.model_dump() | {"options": values}


def write(
    folder,
    section="151507",
    counts=COUNTS,
    places=PLACES,
    under=None,
    barcodes=None,
    genes=GENES,
    image=(1500, 1400),
    hires=2000 / 1500,
):
    """Write the files of a section; `image` is a shape (rows, columns), pixels, or None for no slide."""
    at = folder / section
    under = set(counts) if under is None else under
    write_positions(at / "spatial/tissue_positions_list.csv", places, under)
    table, barcodes = np.array(list(counts.values())).T, barcodes or [NAME[place] for place in counts]
    write_matrix(at / "filtered_feature_bc_matrix.h5", table, barcodes, genes)
    factors = {"spot_diameter_fullres": 14.0, "tissue_hires_scalef": hires}  # 70 um, not the spot's 55
    (at / "spatial/scalefactors_json.json").write_text(json.dumps(factors))
    if image is not None:
        pixels = np.full((*image, 3), 255, np.uint8) if isinstance(image, tuple) else image
        tifffile.imwrite(at / f"{section}_full_image.tif", pixels, resolution=(96, 96), resolutionunit="INCH")
    return folder


def test_three_spots_by_hand(tmp_path):
    section = dlpfc.read(tiny(), write(tmp_path), "151507")
    assert (section.name, section.patient, section.layer, section.shape) == ("151507", "Br1", 1, "circle")
    assert section.barcodes.tolist() == [NAME[place] for place in COUNTS]  # joined by barcode: another order
    assert section.array.tolist() == [[3, 1], [0, 0], [4, 2]]  # column, row
    assert section.position.tolist() == [[90, 87], [60, 70], [100, 105]]  # x, y; the file has y before x
    assert section.counts.toarray().tolist() == [[0, 12], [7, 0], [1, 70000]]
    assert section.genes.tolist() == GENES and section.size_px.tolist() == [1400, 1500]
    assert (section.size_um, section.pitch_um) == (55, 100)
    assert dlpfc.read(tiny(), tmp_path, "151507", slide=False).size_px is None


def test_the_scale_is_that_of_the_pitch(tmp_path):
    section = dlpfc.read(tiny(), write(tmp_path), "151507")
    assert section.um_per_px == pytest.approx([5, 5], rel=1e-3)  # 100 um in 20 px
    # 55 um / spot_diameter_fullres would be 3.93, the TIFF's 96 dpi 264.6


def test_spots_off_tissue_are_left_out(tmp_path):
    write(tmp_path, under={(3, 1), (4, 2)})  # as with a matrix of all places
    assert dlpfc.read(tiny(), tmp_path, "151507").array.tolist() == [[3, 1], [4, 2]]


def test_layers_follow_the_numbers(tmp_path):
    stack = ["151507", "151508", "151509", "151510"]
    for section in stack:
        write(tmp_path, section)
    params = tiny({"Br1": stack})
    assert [dlpfc.read(params, tmp_path, section).layer for section in stack] == [1, 2, 3, 4]
    with pytest.raises(
        ValueError, match=r"sections.Br1 stands in cutting order, \['151507', '151508'\]; found"
    ):
        dlpfc.read(tiny({"Br1": ["151508", "151507"]}), tmp_path, "151508")


EXCHANGED = (*PLACES[:2], PLACES[3], PLACES[2])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"places": EXCHANGED}, "columns run to the right.*Check that x and y are not exchanged"),
        (
            {"under": {*COUNTS, (6, 2)}},
            r"0 barcode\(s\) without place and 1 spot\(s\) without counts, e.g. \['SPOT",
        ),
        (
            {"barcodes": [NAME[3, 1], NAME[0, 0], "OTHER-1"]},
            r"1 barcode\(s\) without place and 1 spot\(s\) without counts, e.g. \['OTHER-1', 'SPOT0130-1'\]",
        ),
        ({"counts": COUNTS | {(4, 2): [0, 0]}}, "each spot has counts"),
        ({"counts": COUNTS | {(4, 2): [0, -1]}}, "counts are whole numbers from 0 up"),
        ({"image": (150, 140)}, r"has 1500 px along its longer side; found \[140, 150\]"),
        ({"image": (90, 1500)}, r"spots lie on the slide \(1500 x 90 px\)"),
    ],
)
def test_bad_files_are_refused(tmp_path, files, message):
    write(tmp_path, **files)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message):
        dlpfc.read(tiny(), tmp_path, "151507")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_spot_that_the_source_is_known_to_have(tmp_path):
    write(tmp_path, counts=COUNTS | {(4, 2): [0, 0]})
    params = tiny(source=options(empty_spots={"151507": [NAME[4, 2]]}))
    assert len(dlpfc.read(params, tmp_path, "151507")) == 3


def test_options_are_strict(tmp_path):
    with pytest.raises(ValueError, match="source.options: unknown key 'empty_spot' .nearest: 'empty_spots'"):
        dlpfc.read(tiny(source=options(empty_spot={})), write(tmp_path), "151507")


def test_a_section_that_is_not_listed(tmp_path):
    with pytest.raises(ValueError, match="has no section '151508' .nearest: '151507'"):
        dlpfc.read(tiny(), write(tmp_path), "151508")


@pytest.mark.parametrize("name", [path.format("151507") for path in dlpfc.FILES.values()])
def test_missing_files_say_how_to_get_them(tmp_path, name):
    (write(tmp_path) / "151507" / name).unlink()
    with pytest.raises(
        FileNotFoundError, match=f"{name} is not there. `make data DATASET=dlpfc` downloads it"
    ):
        dlpfc.fetch(tiny(), tmp_path)


def test_counts_alone_need_no_slide(tmp_path):
    write(tmp_path, image=None)
    params = tiny(sections={}, known={}, counts_only={"Br1": ["151507"]})
    dlpfc.fetch(params, tmp_path)
    assert dlpfc.read(params, tmp_path, "151507").size_px is None


# ---- downloads ---------------------------------------------------------------------------------------------


def test_files_come_from_two_places_into_one_layout(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(download, "PAUSE_S", 0)
    monkeypatch.setattr(paths, "DATA", tmp_path / "house")
    local = write(tmp_path / "served") / "151507"
    served = {  # address -> file
        "/s3/h5/151507_filtered_feature_bc_matrix.h5": local / "filtered_feature_bc_matrix.h5",
        "/s3/images/151507_full_image.tif": local / "151507_full_image.tif",
        "/github/151507/tissue_positions_list.txt": local / "spatial/tissue_positions_list.csv",
        "/github/151507/scalefactors_json.json": local / "spatial/scalefactors_json.json",
    }
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.command, self.path))
            if self.path not in served:
                return self.send_error(404)
            body = served[self.path].read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'W/"{len(body):x}-64"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        url = f"http://127.0.0.1:{http.server_port}"
        source = options(positions_url=f"{url}/github") | {"url": f"{url}/s3"}
        own = paths.raw("dlpfc")
        dlpfc.fetch(tiny(source=source), own)
        assert sorted(asked) == sorted((how, path) for how in ("GET", "HEAD") for path in served)
        assert len(dlpfc.read(tiny(source=source), own, "151507")) == 3
        asked.clear()
        dlpfc.fetch(tiny(source=source), own)
        assert asked == []
        slide = own / "151507/151507_full_image.tif"
        slide.write_bytes(slide.read_bytes()[:-1] + b"?")
        with pytest.raises(ValueError, match="151507_full_image.tif: expected .* bytes with SHA-256"):
            dlpfc.fetch(tiny(source=source), own)
        with pytest.raises(
            FileNotFoundError, match="151508_filtered_feature_bc_matrix.h5 could not be read .404"
        ):
            dlpfc.fetch(tiny({"Br1": ["151507", "151508"]}, source=source), own)
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


# ---- the params file, and the whole way --------------------------------------------------------------------

# datasets.md, table 3.2: section, donor, layer
TABLE = """
151507 Br5292 1  151508 Br5292 2  151509 Br5292 3  151510 Br5292 4
151669 Br5595 1  151670 Br5595 2  151671 Br5595 3  151672 Br5595 4
151673 Br8100 1  151674 Br8100 2  151675 Br8100 3  151676 Br8100 4
"""


def test_the_params_file_lists_donors_layers_and_folds():
    params, words = load_params("dlpfc"), TABLE.split()
    rows = [(words[i], words[i + 1], int(words[i + 2])) for i in range(0, len(words), 3)]
    assert [(s, params.patient_of[s], datasets.layer(params, s)) for s in params.with_slide] == rows
    assert list(params.known.values()) == [section for section, _, layer in rows if layer == 1]
    assert params.folds["2d"] == params.folds["3d"] == {donor: [donor] for donor in params.sections}
    assert "044446d6bd8fc154aa74f7be62ec67effb1ec376" in params.source.options["positions_url"]


def test_the_papers_total_is_printed_beside_ours():
    lines = datasets.compare({"sections": 12, "spots": 47_681}, load_params("dlpfc").expect).splitlines()
    assert lines[0].split(maxsplit=1)[1] == "12 as expected"
    assert lines[1].split(maxsplit=1)[1] == "47681 as expected WARNING: the paper prints 42474"


def test_from_files_to_predictions(tmp_path, chain, painted):
    rng = np.random.default_rng(0)
    stack = ["151507", "151508"]
    params = tiny(
        {"Br1": stack},
        name="dlpfc_mini",
        panel={"size": 3},
        encoder="stain",
        levels={
            level: {"px": px, "out_px": 32} for level, px in (("spot", 32), ("region", 128), ("global", 256))
        },
        graph={"radius_px": 10},
        registration={"um_per_px": 16},
        folds={"3d": {"a": ["Br1"]}},
    )
    for number, section in enumerate(stack):
        image = painted(700, 750, shift=(10 * number, 5))
        places = grid(pitch_px=10, origin=(30, 35))
        counts = {}
        for column, row, x, y in zip(*places, strict=True):
            if image[int(y), int(x)].min() < 200 and column % 4 == row % 4 == 0:  # on tissue, a few of them
                counts[column, row] = rng.poisson([column + 1, row + 1, 20]) + 1
        write(
            tmp_path / "raw",
            section,
            counts,
            places,
            genes=[*GENES, "ENSG00000111640"],
            image=image,
            hires=2000 / 750,
        )
    sections, registered, predictions, totals = chain(params, tmp_path / "raw")
    assert totals["sections"] == 2 and totals["genes_union"] == totals["genes_common"] == 3
    assert all(found.ok for found in registered.values())
    assert set(predictions.obs["section"]) >= {"151508"} and np.isfinite(predictions.prediction).all()
    assert overview(predictions)["pcc_per_gene"]["Br1"] > 0.5  # two of three genes follow the place
