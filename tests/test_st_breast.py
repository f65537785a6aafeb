"""The reader of ST-Data on small files of the true format: each trap of the source, and what is refused."""

import gzip
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import yaml
from PIL import Image

from stlib import datasets, download, paths
from stlib.datasets import st_breast
from stlib.metrics import overview
from stlib.params import Params, load_params
from stlib.records import parse

GENES = ["ENSG00000141736", "ENSG00000111640+ENSG00000254709", "ENSG00000108821.1"]
SIZE = (320, 340)  # 10 px to an array step: pixel = (place - 1) * 10
SPOTS = {
    "2x3": (10.1, 20),
    "3x3": (20, 20.2),
    "3x4": (20.1, 30),
    "5x9": (39.9, 80),
    "8x2": (70, 9.8),
}  # under tissue
COUNTS = {  # all of the array that was sequenced, in another order; 30x30 and 31x30 lie off tissue
    "30x30": "9\t9\t9",
    "3x3": "0\t0\t70000",
    "2x3": "7\t0\t0",
    "31x30": "1\t0\t0",
    "8x2": "1\t1\t1",
    "5x9": "0\t2\t0",
    "3x4": "0\t12\t3",
}


def tiny(stacks=None, **changes) -> Params:
    """Return the parameters of ST-Data, for one section unless told."""
    content = yaml.safe_load((paths.PARAMS / "st_breast.yaml").read_text())
    stacks = stacks or {"BC1": ["BC1_C1"]}
    known = {patient: stack[0] for patient, stack in stacks.items()}
    content |= {"sections": stacks, "known": known, "same_tissue_group": {}, "folds": {}} | changes
    return parse(Params, content, "params/tiny.yaml")


def names(section: str) -> dict[str, str]:
    """Return the files of a section; prefixes change within a patient, as they do in the record."""
    patient, replicate = section.split("_")
    number, prefix = patient[2:], "BC" if replicate == "C2" else "BT"
    return {
        "count_matrix": f"{section}_stdata.tsv.gz",
        "histology_image": f"HE_{prefix}{number}_{replicate}.jpg",
        "spot_coordinates": f"spots_{prefix}{number}_{replicate}.csv.gz",
    }


def write(
    folder, section="BC1_C1", spots=SPOTS, counts=COUNTS, genes=GENES, image=SIZE, head=",X,Y", **other
):
    """Write the files of a section and its row of metadata.csv; `other` replaces names in that row."""
    folder.mkdir(parents=True, exist_ok=True)
    name = names(section)
    pairs = spots.items() if isinstance(spots, dict) else spots
    lines = [head, *(f"{spot},{x},{y}" for spot, (x, y) in pairs)]
    (folder / name["spot_coordinates"]).write_bytes(gzip.compress("\n".join(lines).encode()))
    lines = ["\t" + "\t".join(genes), *(f"{spot}\t{row}" for spot, row in counts.items())]
    (folder / name["count_matrix"]).write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    replicate = section.split("_")[1]
    if isinstance(image, tuple):
        Image.new("RGB", image, "white").save(folder / name["histology_image"])
    elif image is not None:
        Image.fromarray(image).save(folder / name["histology_image"], quality=95)
    table = folder / "metadata.csv"
    columns = ["replicate", "type", "patient", *sorted(name)]  # in another order than the record's
    row = name | other | {"patient": section.split("_")[0], "replicate": replicate, "type": "TNBC"}
    before = table.read_text() if table.exists() else ",".join(columns) + "\n"
    table.write_text(before + ",".join(row[column] for column in columns) + "\n")
    return folder


@pytest.mark.parametrize("level", ["", "Human breast cancer in situ capturing transcriptomics"])
def test_five_spots_by_hand(tmp_path, level):
    write(tmp_path / level)
    section = st_breast.read(tiny(), tmp_path, "BC1_C1")
    assert (section.name, section.patient, section.layer, section.shape) == ("BC1_C1", "BC1", 1, "circle")
    assert section.barcodes.tolist() == ["3x3", "2x3", "8x2", "5x9", "3x4"]  # under tissue only, as counted
    assert section.counts.toarray().tolist() == [[0, 0, 70000], [7, 0, 0], [1, 1, 1], [0, 2, 0], [0, 12, 3]]
    assert section.genes.tolist() == GENES  # neither split at "+" nor cut at "."
    assert section.array.tolist() == [[3, 3], [2, 3], [8, 2], [5, 9], [3, 4]]
    assert section.position.tolist() == [[20, 20.2], [10.1, 20], [70, 9.8], [39.9, 80], [20.1, 30]]
    assert section.size_px.tolist() == [320, 340]
    assert section.um_per_px.tolist() == [20, 20]  # 6400 / 320, 6800 / 340
    assert (section.size_um, section.pitch_um) == (100, 200)
    without = st_breast.read(tiny(), tmp_path, "BC1_C1", slide=False)
    assert without.size_px is None and without.um_per_px == pytest.approx([20, 20], rel=0.02)


def test_each_axis_has_its_scale(tmp_path):
    write(tmp_path, spots={s: (x, y * 1.1) for s, (x, y) in SPOTS.items()}, image=(320, 374))
    assert st_breast.read(tiny(), tmp_path, "BC1_C1").um_per_px.tolist() == [20, 6800 / 374]


def test_file_names_come_from_the_metadata(tmp_path):
    stack = tiny({"BC1": ["BC1_C1", "BC1_C2"]})
    for section in stack.with_slide:
        write(tmp_path, section)
    assert [st_breast.image(stack, tmp_path, s).name for s in stack.with_slide] == [
        "HE_BT1_C1.jpg",
        "HE_BC1_C2.jpg",
    ]
    assert [st_breast.read(stack, tmp_path, s).layer for s in stack.with_slide] == [1, 2]


def test_layers_follow_the_wells(tmp_path):
    for section in ("BC1_D2", "BC1_E1", "BC1_E2"):
        write(tmp_path, section)
    stack = tiny({"BC1": ["BC1_D2", "BC1_E1", "BC1_E2"]})
    assert [st_breast.read(stack, tmp_path, s).layer for s in stack.with_slide] == [1, 2, 3]
    turned = tiny({"BC1": ["BC1_E1", "BC1_D2"]})
    with pytest.raises(
        ValueError, match=r"sections.BC1 stands in cutting order, \['BC1_D2', 'BC1_E1'\]; found"
    ):
        st_breast.read(turned, tmp_path, "BC1_E1")


def test_ids_are_rounded(tmp_path):
    spots = {"2.0x2.98" if spot == "2x3" else spot: place for spot, place in SPOTS.items()}
    counts = {"2.03x3" if spot == "2x3" else spot: row for spot, row in COUNTS.items()}
    write(tmp_path, spots=spots, counts=counts)
    assert "2x3" in st_breast.read(tiny(), tmp_path, "BC1_C1").barcodes


def test_spots_without_any_count_are_dropped(tmp_path):
    write(tmp_path, counts=COUNTS | {"8x2": "0\t0\t0"})
    section = st_breast.read(tiny(), tmp_path, "BC1_C1")
    assert len(section) == 4 and "8x2" not in section.barcodes


def test_a_header_without_the_cell_above_the_spots(tmp_path):
    write(tmp_path, head="X,Y")
    assert len(st_breast.read(tiny(), tmp_path, "BC1_C1")) == 5


TURNED = {s: (y, x) for s, (x, y) in SPOTS.items()}
MIRRORED = {s: (320 - x, y) for s, (x, y) in SPOTS.items()}


@pytest.mark.filterwarnings("ignore:.*array steps from where the slide's frame")
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"spots": TURNED}, "columns run to the right and rows down.*Check that X is the pixel column"),
        ({"spots": MIRRORED}, r"rows down; found \[-10.0, 10.0\] px per step"),
        ({"image": (240, 255)}, r"spots and slide have one scale; found .*\[26.6667, 26.6667\] by the slide"),
        ({"spots": SPOTS | {"9x9": (80, 80)}}, "spots under tissue have counts; found 5 of 6"),
        ({"spots": SPOTS | {"9x9": ("", 80)}}, "X and Y are numbers; found"),
        ({"spots": SPOTS | {"nine": (80, 80)}}, "a spot is called column x row, e.g. 10x13; found 'nine'"),
        (
            {"spots": SPOTS | {"8x2": ("70", "9,5")}},
            r"a row is a spot and X, Y; found .* 1 row\(s\) of another",
        ),
        ({"spots": [*SPOTS.items(), ("2.1x3", (10.1, 20))]}, "a spot has one row; found '2x3' repeated"),
        ({"head": ",Y,X"}, r"a row is a spot and X, Y; found the header \['', 'Y', 'X'\]"),
        ({"counts": COUNTS | {"2.1x3": "1\t0\t0"}}, r"each barcode occurs once.*\['2x3'"),
        ({"counts": COUNTS | {"2x3": "7\t-1\t0"}}, "stdata.tsv.gz: counts are whole numbers"),
        (
            {"spots": {s: (x + 251, y) for s, (x, y) in SPOTS.items()}},
            r"lie on the slide .320 x 340 px.*\'8x2",
        ),
        ({"histology_image": "../HE.jpg"}, r"a file is named without a folder; found \['../HE.jpg'\]"),
        ({"histology_image": ".hidden"}, r"a file is named without a folder; found \['.hidden'\]"),
    ],
)
def test_bad_files_are_refused(tmp_path, files, message):
    write(tmp_path, **files)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message):
        st_breast.read(tiny(), tmp_path, "BC1_C1")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_slide_with_another_frame_is_reported(tmp_path):
    write(
        tmp_path, spots={s: (x + 10, y) for s, (x, y) in SPOTS.items()}
    )  # one array step, as in her2st's A6
    with pytest.warns(
        UserWarning, match=r"spots lie \[1.0\d?, 0.0\d?\] array steps from where the slide's frame"
    ):
        st_breast.read(tiny(), tmp_path, "BC1_C1")


@pytest.mark.fault("a damaged spot file", "a .csv.gz cut off, a row too short", "ValueError that names it")
@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b"", lambda b: b"plain"])
def test_a_damaged_spot_file(tmp_path, damage):
    path = write(tmp_path) / names("BC1_C1")["spot_coordinates"]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="csv.gz(: a row is a spot| is truncated or damaged)"):
        st_breast.read(tiny(), tmp_path, "BC1_C1")


def test_metadata_that_does_not_fit(tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match="a section has one row; found 0 of 'BC1_C2' .nearest: 'BC1_C1'"):
        st_breast.read(tiny({"BC1": ["BC1_C2"]}), tmp_path, "BC1_C2")
    table = tmp_path / "metadata.csv"
    table.write_text(table.read_text() + table.read_text().splitlines()[1] + "\n")
    with pytest.raises(ValueError, match="a section has one row; found 2 of 'BC1_C1'"):
        st_breast.read(tiny(), tmp_path, "BC1_C1")
    table.write_text(table.read_text().replace("spot_coordinates", "spots"))
    with pytest.raises(ValueError, match="metadata.csv: the columns .'count_matrix', .* are filled; found"):
        st_breast.read(tiny(), tmp_path, "BC1_C1")


def test_missing_files_say_how_to_get_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="metadata.csv is not there. `make data DATASET=st_breast`"):
        st_breast.fetch(tiny(), tmp_path)
    write(tmp_path, image=None)
    with pytest.raises(FileNotFoundError, match="HE_BT1_C1.jpg is not there"):
        st_breast.fetch(tiny(), tmp_path)
    st_breast.fetch(tiny(sections={}, known={}, counts_only={"BC1": ["BC1_C1"]}), tmp_path)  # needs no slide


def test_options_are_strict(tmp_path):
    source = load_params("st_breast").source.model_dump() | {"options": {"labels": True}}
    with pytest.raises(ValueError, match="source.options: unknown key 'labels'"):
        st_breast.read(tiny(source=source), write(tmp_path), "BC1_C1")


# ---- downloads ---------------------------------------------------------------------------------------------


@pytest.fixture
def record(tmp_path, monkeypatch):
    """Serve a folder as the record does: a listing with SHA-256, each file at an address of its own."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(download, "PAUSE_S", 0)
    monkeypatch.setattr(paths, "DATA", tmp_path / "house")
    served = write(tmp_path / "served")
    asked, errors = [], ["busy"]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path == "/files":
                listing = [self.item(path) for path in sorted(served.iterdir())]
                body = json.dumps({"message": errors.pop()} if errors else listing).encode()
            else:
                body = (served / self.path.split("/")[2]).read_bytes()
            assert "Mozilla" in self.headers["User-Agent"]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def item(self, path):
            body = path.read_bytes()
            url = f"http://{self.headers['Host']}/file/{path.name}/download"
            about = {"size": len(body), "sha256_hash": hashlib.sha256(body).hexdigest(), "download_url": url}
            return {"filename": path.name, "id": "x", "content_details": about}

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    source = load_params("st_breast").source.model_dump() | {
        "url": f"http://127.0.0.1:{http.server_port}/files"
    }
    yield tiny(source=source), served, asked
    http.shutdown()
    thread.join()
    http.server_close()


def test_the_record_is_downloaded_and_verified(record):
    params, served, asked = record
    own = paths.raw("st_breast")
    st_breast.fetch(params, own)
    assert {p.name for p in own.iterdir()} == {p.name for p in served.iterdir()} | {".lock", "files.tsv"}
    assert asked[:3] == ["/files", "/files", "/file/metadata.csv/download"]  # the first answer was an error
    assert len(st_breast.read(params, own, "BC1_C1")) == 5
    asked.clear()
    st_breast.fetch(params, own)
    assert asked == []

    slide = own / "HE_BT1_C1.jpg"
    slide.write_bytes(slide.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match="HE_BT1_C1.jpg: expected .* bytes with SHA-256"):
        st_breast.fetch(params, own)


def test_a_file_that_changed_at_the_source_is_refused(record):
    params, served, _ = record
    own = paths.raw("st_breast")
    st_breast.fetch(params, own)
    (own / "HE_BT1_C1.jpg").unlink()
    (served / "HE_BT1_C1.jpg").write_bytes(b"x" * (served / "HE_BT1_C1.jpg").stat().st_size)
    with pytest.raises(ValueError, match="is not the file of the manifest.*found SHA-256"):
        st_breast.fetch(params, own)
    assert not (own / "HE_BT1_C1.jpg").exists()


def test_metadata_naming_what_the_record_does_not_list(record):
    params, served, _ = record
    table = served / "metadata.csv"
    table.write_text(table.read_text().replace("HE_BT1", "HE_BC1"))
    with pytest.raises(ValueError, match=r"the record lists each file; found no \['HE_BC1_C1.jpg'\]"):
        st_breast.fetch(params, paths.raw("st_breast"))


# ---- the params file, and the whole way --------------------------------------------------------------------


def test_the_params_file_follows_the_papers_rules():
    params = load_params("st_breast")
    assert len(params.sections) == 22 and {len(stack) for stack in params.sections.values()} == {3}
    assert list(params.sections) == sorted(params.sections) and "BC23901" not in params.sections
    for patient, stack in params.sections.items():
        assert stack == sorted(stack) and all(name.startswith(f"{patient}_") for name in stack)
        assert params.known[patient] == stack[0]
    blocks = list(params.folds["3d"].values())
    assert params.folds["2d"] == params.folds["3d"] and [len(block) for block in blocks] == [5, 5, 5, 7]
    assert sum(blocks, []) == sorted(params.sections)  # contiguous
    groups = load_params("her2st").same_tissue_group
    assert set(groups.values()) == set(params.same_tissue_group.values()) and len(groups) == 4
    assert re.search("29ntw7sh4r/files.*version=5", params.source.url)


def test_the_papers_total_is_printed_beside_ours():
    expect = load_params("st_breast").expect
    lines = datasets.compare({"sections": 66, "spots": 30_040}, expect).splitlines()
    assert lines[1].split(maxsplit=1)[1] == "30040 as expected WARNING: the paper prints 41544"
    assert "expected 30011 to 30111" in datasets.compare({"spots": 41_544}, expect)


def test_from_files_to_predictions(tmp_path, chain, painted):
    rng = np.random.default_rng(0)
    stacks = {"BC1": ["BC1_C1", "BC1_C2"]}
    params = tiny(
        stacks,
        name="st_mini",
        panel={"size": 3},
        encoder="stain",
        levels={
            level: {"px": px, "out_px": 32} for level, px in (("spot", 32), ("region", 64), ("global", 128))
        },
        graph={"radius_px": 16},
        folds={"3d": {"a": ["BC1"]}},
        registration={"um_per_px": 16},
    )
    for number, section in enumerate(params.with_slide):
        image = painted(640, 680, shift=(10 * number, 5))
        places = {f"{x}x{y}": ((x - 1) * 20, (y - 1) * 20) for x in range(1, 33) for y in range(1, 35)}
        places = {spot: (x, y) for spot, (x, y) in places.items() if image[y, x].min() < 200}  # on tissue
        array = {f"{x}x{y}": (x, y) for x in range(1, 34) for y in range(1, 36)}
        counts = {s: "\t".join(map(str, rng.poisson([x, y, 20]) + 1)) for s, (x, y) in array.items()}
        write(tmp_path / "raw", section, spots=places, counts=counts, image=image)
    sections, registered, predictions, totals = chain(params, tmp_path / "raw")
    assert totals["sections"] == 2 and totals["genes_common"] == 3
    assert all(found.ok for found in registered.values())
    assert overview(predictions).index.tolist() == ["BC1"]
    assert set(predictions.obs["section"]) >= {"BC1_C2"} and np.isfinite(predictions.prediction).all()
    scores = overview(predictions)["pcc_per_gene"]
    assert scores["BC1"] > 0.5  # two of three genes follow the place
