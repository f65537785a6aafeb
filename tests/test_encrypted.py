"""Members of encrypted archives, packed here by 7-Zip as the authors of her2st packed theirs."""

import gzip
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from test_her2st import COUNTS, GENES, HEAD, SPOTS, tiny, write

from stlib import download, encrypted, paths
from stlib.datasets import her2st
from stlib.encrypted import PROGRAMS, unpack

PROGRAM = next(filter(None, map(shutil.which, PROGRAMS)), None)
packed = pytest.mark.skipif(PROGRAM is None, reason="needs 7-Zip, which packs and opens AES")
SECRET = "published"
CONTENT = {
    "matrices/A1.tsv.gz": gzip.compress(b"counts"),
    "HE/A1.jpg": b"slide",
    "annotation/A1.jpg": b"drawn",
}


def pack(path, content=CONTENT, password=SECRET):
    """Write a .zip with AES-256 of 7-Zip, as on Zenodo."""
    home = path.parent / f"of {path.name}"
    for name, body in content.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(body)
    command = [PROGRAM, "a", "-tzip", "-mem=AES256", f"-p{password}", str(path), "."]
    subprocess.run(command, cwd=home, check=True, capture_output=True)
    return path


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@packed
def test_members_are_decrypted_and_go_where_they_are_told(tmp_path):
    archive, wanted = pack(tmp_path / "a.zip"), {"A1.tsv.gz": "cnts/A1.tsv.gz", "HE/A1.jpg": "imgs/A/A1.jpg"}
    unpack(archive, SECRET, wanted, tmp_path / "raw")
    assert files(tmp_path / "raw") == {
        "cnts/A1.tsv.gz": CONTENT["matrices/A1.tsv.gz"],
        "imgs/A/A1.jpg": b"slide",
    }
    unpack(archive, SECRET, {"A1.tsv.gz": "plain.tsv"}, tmp_path / "raw")
    assert (tmp_path / "raw/plain.tsv").read_bytes() == b"counts"
    archive.write_bytes(b"")
    unpack(archive, SECRET, wanted, tmp_path / "raw")  # what is there is kept; the archive is not opened


@packed
def test_another_password_and_a_corrupted_byte_leave_nothing(tmp_path):
    archive = pack(tmp_path / "a.zip")
    with pytest.raises(ValueError, match="HE/A1.jpg opens with the published password; found"):
        unpack(archive, "other", {"HE/A1.jpg": "A1.jpg"}, tmp_path / "raw")
    content = bytearray(archive.read_bytes())
    at = content.index(b"HE/A1.jpg") + len("HE/A1.jpg") + 11 + 16 + 2  # AES field, salt, verifier: first byte
    content[at] ^= 1
    archive.write_bytes(content)
    with pytest.raises(ValueError, match="HE/A1.jpg opens with the published password"):
        unpack(archive, SECRET, {"HE/A1.jpg": "A1.jpg"}, tmp_path / "raw")
    assert files(tmp_path / "raw") == {}


@packed
def test_a_member_that_is_absent_or_not_the_only_one(tmp_path):
    archive = pack(tmp_path / "a.zip")
    with pytest.raises(FileNotFoundError, match="a.zip: the archive has a member B1.jpg; found none"):
        unpack(archive, SECRET, {"B1.jpg": "B1.jpg"}, tmp_path)
    with pytest.raises(ValueError, match="one member is called A1.jpg; found .*HE/A1.jpg.*Name it with its"):
        unpack(archive, SECRET, {"A1.jpg": "A1.jpg"}, tmp_path)


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"<html>please log in</html>")
    with pytest.raises(ValueError, match="a.zip: a whole .zip; found a damaged one"):
        unpack(tmp_path / "a.zip", SECRET, {"A1.jpg": "A1.jpg"}, tmp_path)


@packed
def test_without_the_program_it_says_what_to_install(tmp_path, monkeypatch):
    archive = pack(tmp_path / "a.zip")
    monkeypatch.setattr(encrypted, "PROGRAMS", ("no such program",))
    with pytest.raises(FileNotFoundError, match="needs 7-Zip; found none of no such program. Install 7zip"):
        unpack(archive, SECRET, {"HE/A1.jpg": "A1.jpg"}, tmp_path)


@packed
def test_her2st_comes_from_encrypted_archives(tmp_path, monkeypatch):
    """The whole of `fetch` by the route zenodo: three archives of one section, one of which is cut once."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(paths, "DATA", tmp_path)
    monkeypatch.setattr(download, "PAUSE_S", 0)
    plain = write(tmp_path / "plain")
    counts, slide = plain / "ST-cnts/A2.tsv.gz", plain / "ST-imgs/A/A2/BT1_C1_HE.jpg"
    spots = gzip.compress(("\n".join([HEAD, *SPOTS.values()]) + "\n").encode())
    inside = {
        "count-matrices": ({"count-matrices/A2.tsv.gz": counts.read_bytes()}, "one"),
        "spot-selections": ({"A2_selection.tsv.gz": spots}, "two"),
        "images": ({"images/HE/A2.jpg": slide.read_bytes(), "images/annotation/A2.jpg": b"x"}, "one"),
    }
    bodies = {
        f"/{name}.zip": pack(tmp_path / f"{name}.zip", *content).read_bytes()
        for name, content in inside.items()
    }
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = bodies[self.path.removesuffix("?download=1")]
            asked.append((self.command, self.path.split("?")[0]))
            cut = asked[-1] == ("GET", "/images.zip") and asked.count(asked[-1]) == 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"1"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[: len(body) // 2] if cut else body)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    params = tiny()
    options = params.source.options | {"route": "zenodo"}
    params = params.model_copy(update={"source": params.source.model_copy(update={"options": options})})
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}).start()
    rows = (paths.PARAMS / her2st.ARCHIVES).read_text()
    for old, new in (
        ("https://zenodo.org/records/4751624/files", f"http://127.0.0.1:{http.server_port}"),
        ("zNLXkYk3Q9znUseS", "one"),
        ("yUx44SzG6NdB32gY", "two"),
    ):
        assert old in rows
        rows = rows.replace(old, new)
    (tmp_path / her2st.ARCHIVES).write_text(rows)
    monkeypatch.setattr(paths, "PARAMS", tmp_path)
    try:
        her2st.fetch(params, paths.raw("her2st"))
        first = list(asked)
        her2st.fetch(params, paths.raw("her2st"))
    finally:
        http.shutdown()
        http.server_close()
    section = her2st.read(params, paths.raw("her2st"), "A2")
    assert section.barcodes.tolist() == list(COUNTS) and section.genes.tolist() == GENES
    assert section.size_px.tolist() == [320, 340]
    assert first.count(("GET", "/images.zip")) == 2 and asked == first  # cut, and again; then all is here
