"""Members of an archive from a server in this process that cuts, changes and refuses on demand."""

import io
import tarfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from stlib import download, paths
from stlib.archive import take_members
from stlib.datasets import visium_hd
from stlib.download import KEPT
from stlib.manifest import read_manifest
from stlib.records import parse

NOISE = np.random.default_rng(0).bytes(300_000)
CONTENT = {  # member -> bytes; noise does not shrink, so that a cut lies inside a member
    "binned_outputs/square_008um/filtered_feature_bc_matrix.h5": NOISE[:200_000],
    "binned_outputs/square_008um/analysis/clusters.csv": NOISE[200_000:],
    "binned_outputs/square_008um/spatial/scalefactors_json.json": b"{}",
}
MATRIX, _, SCALE = CONTENT
WANTED = {MATRIX: f"S1/{MATRIX}", SCALE: f"S1/{SCALE}"}


def pack(content=CONTENT, links=()):
    """Return a .tar.gz; `links` are hard links to the first member."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packed:
        for name, body in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            packed.addfile(info, io.BytesIO(body))
        for name in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE, next(iter(content))
            packed.addfile(info)
    return out.getvalue()


class Server:
    """Serves `body`; `words` holds what to do with each coming request, the last word stays."""

    def __init__(self):
        self.body, self.words, self.asked, self.sent, self.version = pack(), ["whole"], [], 0, "a"

    def answer(self, request):
        wanted = request.headers.get("Range", "")
        self.asked.append(wanted)
        word = self.words.pop(0) if len(self.words) > 1 else self.words[0]
        if word == "404":
            return request.send_error(404)
        if word == "changed":
            self.version = "b"
        body, status = self.body, 200
        if wanted and word != "rangeless":
            body, status = body[int(wanted.removeprefix("bytes=").removesuffix("-")) :], 206
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("ETag", f'"{self.version}"')
        request.end_headers()
        body = body[:100_000] if word == "cut" else body
        self.sent += len(body)
        try:
            request.wfile.write(body)
        except ConnectionError:  # who has all members hangs up
            pass


@contextmanager
def serving(state):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.answer(self)

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}).start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(download, "PAUSE_S", 0)
    state = Server()
    with serving(state) as url:
        state.url = f"{url}/S1_binned_outputs.tar.gz"
        yield state


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_only_the_wanted_members_are_stored_and_remembered(server, tmp_path):
    take_members(server.url, WANTED, tmp_path)
    assert files(tmp_path) == {*WANTED.values(), KEPT, ".lock"}
    assert (tmp_path / WANTED[MATRIX]).read_bytes() == CONTENT[MATRIX]
    kept = {file.path: file for file in read_manifest(tmp_path / KEPT)}
    assert kept.keys() == set(WANTED.values()) and len(kept[WANTED[MATRIX]].sha256) == 64
    take_members(server.url, WANTED, tmp_path)
    assert server.asked == [""]  # a second call asks for nothing


@pytest.mark.fault(
    "a connection that is cut inside an archive",
    "the server sends 100 KB, twice",
    "continued at its byte; the member is whole",
)
def test_a_cut_connection_goes_on_where_it_ended(server, tmp_path):
    server.words = ["cut", "cut", "whole"]
    take_members(server.url, WANTED, tmp_path)
    assert server.asked == ["", "bytes=100000-", "bytes=200000-"]
    assert (tmp_path / WANTED[MATRIX]).read_bytes() == CONTENT[MATRIX]


def test_a_server_without_range_is_passed_over_to_the_same_byte(server, tmp_path):
    server.words = ["cut", "rangeless"]
    take_members(server.url, WANTED, tmp_path)
    assert (tmp_path / WANTED[MATRIX]).read_bytes() == CONTENT[MATRIX]


@pytest.mark.fault(
    "an archive that changes while it comes",
    "another version (ETag) after a cut",
    "ValueError; nothing of it is stored",
)
def test_an_archive_that_changes_meanwhile_is_refused(server, tmp_path):
    server.words = ["cut", "changed"]
    with pytest.raises(ValueError, match="is another file than before byte 100,000. Run this again"):
        take_members(server.url, WANTED, tmp_path)
    assert files(tmp_path) == {".lock"}


@pytest.mark.fault(
    "an archive that is cut off",
    "the .tar.gz ends inside its last member",
    "ValueError; complete members are kept and not asked for again, the rest comes with the next run",
)
def test_what_was_complete_is_kept_and_the_rest_comes_later(server, tmp_path):
    whole = server.body
    server.body = whole[:250_000]  # the first member is in it, the last one is not
    with pytest.raises(ValueError, match="a whole .tar.gz; found a damaged one"):
        take_members(server.url, WANTED, tmp_path)
    assert files(tmp_path) == {WANTED[MATRIX], KEPT, ".lock"}
    before = (tmp_path / WANTED[MATRIX]).stat().st_mtime_ns
    server.body = whole
    take_members(server.url, WANTED, tmp_path)
    assert files(tmp_path) == {*WANTED.values(), KEPT, ".lock"}
    assert (tmp_path / WANTED[MATRIX]).stat().st_mtime_ns == before


def test_reading_ends_with_the_last_wanted_member(server, tmp_path):
    tail = {"later.bin": np.random.default_rng(1).bytes(3_000_000)}
    server.body = pack({SCALE: CONTENT[SCALE]} | tail)
    take_members(server.url, {SCALE: "scale.json"}, tmp_path)
    assert files(tmp_path) == {"scale.json", KEPT, ".lock"}


@pytest.mark.parametrize("name", [f"./{SCALE}", SCALE])
def test_names_may_begin_with_a_dot(server, tmp_path, name):
    server.body = pack({name: b"{}"})
    take_members(server.url, {SCALE: "scale.json"}, tmp_path)
    assert (tmp_path / "scale.json").read_bytes() == b"{}"


@pytest.mark.fault(
    "an archive with links and paths out of its folder",
    "a member ../../evil, a hard link under a wanted name",
    "ValueError; nothing is written outside the folder",
)
def test_links_and_strangers_are_never_written(server, tmp_path):
    server.body = pack({"../../evil": b"x", MATRIX: b"matrix"}, links=[SCALE])
    with pytest.raises(ValueError, match="scalefactors_json.json is a file; found a link or a folder. Name"):
        take_members(server.url, WANTED, tmp_path / "raw")
    assert files(tmp_path) == {f"raw/{name}" for name in (WANTED[MATRIX], KEPT, ".lock")}


def test_a_member_that_is_not_there_and_an_archive_that_is_not(server, tmp_path):
    server.body = pack({MATRIX: b"matrix"})
    with pytest.raises(FileNotFoundError, match="the archive has the members .*scalefactors.*found none"):
        take_members(server.url, WANTED, tmp_path)
    server.words = ["404"]
    with pytest.raises(FileNotFoundError, match="could not be read .*404.*unpack it by hand"):
        take_members(server.url, WANTED, tmp_path)
    assert len(server.asked) == 2  # asking again would not change the answer


def test_a_member_for_which_there_is_no_room_is_not_begun(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: SimpleNamespace(free=199_999))
    with pytest.raises(OSError, match="filtered_feature_bc_matrix.h5 need 0.000 GB; found"):
        take_members(server.url, WANTED, tmp_path)  # of 200,000 bytes
    assert files(tmp_path) == {".lock"}


@pytest.mark.fault(
    "a raw file that was edited",
    "two bytes changed after the download",
    "ValueError that names it; deleted, it comes again",
)
def test_a_file_that_changed_here_is_noticed(server, tmp_path):
    take_members(server.url, WANTED, tmp_path)
    (tmp_path / WANTED[SCALE]).write_bytes(b"[]")
    with pytest.raises(ValueError, match="1 file.s. differ from the manifest, e.g. S1/.*scalefactors"):
        take_members(server.url, WANTED, tmp_path)
    (tmp_path / WANTED[SCALE]).unlink()
    take_members(server.url, WANTED, tmp_path)
    assert (tmp_path / WANTED[SCALE]).read_bytes() == b"{}"


def test_a_dataset_is_fetched_from_archive_and_image(tmp_path, monkeypatch):
    """The whole of `fetch`: bins of two sides from the archive, the slide beside them, once."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(paths, "DATA", tmp_path)
    names = [
        f"binned_outputs/square_{side:03d}um/{name}" for side in (2, 8) for name in visium_hd.FILES.values()
    ]
    bodies = {
        "/exp/3.0.0/Some_Colon/Some_Colon_binned_outputs.tar.gz": pack({name: b"x" for name in names}),
        "/exp/3.0.0/Some_Colon/Some_Colon_tissue_image.btf": b"image",
    }
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.command, self.path))
            body = bodies[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"1"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}).start()
    content = yaml.safe_load((paths.PARAMS / "crc_hd.yaml").read_text())
    content |= content.pop("sizes")["8um"]
    content |= {"name": "tiny@8um", "sections": {"P1": ["P1CRC"]}, "folds": {}}
    content["source"] |= {"url": f"http://127.0.0.1:{http.server_port}/exp/"}
    content["source"]["options"] = {"remote": {"P1CRC": "3.0.0/Some_Colon"}, "bins_um": [2, 8]}
    params = parse(visium_hd.Params, content, "params/tiny.yaml")
    folder = paths.raw("visium_hd")
    try:
        visium_hd.fetch(params, folder)
        first = list(asked)
        visium_hd.fetch(params, folder)
    finally:
        http.shutdown()
        http.server_close()
    assert files(folder) == {*(f"P1CRC/{name}" for name in names), "P1CRC/tissue_image.btf", KEPT, ".lock"}
    assert [command for command, _ in first] == ["GET", "HEAD", "GET"] and asked == first
    other = params.model_copy(update={"sections": {"P2": ["P2CRC"]}})
    with pytest.raises(ValueError, match="remote: every section has its place.*found none for 'P2CRC'"):
        visium_hd.fetch(other, folder)
