"""Downloads against a server in this process that cuts, corrupts and refuses on demand."""

import hashlib
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from stlib import download as module
from stlib.download import KEPT, ask, download, download_unpublished
from stlib.manifest import File, blob_id, matches, read_manifest, verify, write_manifest

CONTENT = {  # path -> bytes, long enough for several chunks
    "ST-cnts/A1.tsv.gz": bytes(range(256)) * 1200,
    "ST-cnts/A2.tsv.gz": bytes(range(255, -1, -1)) * 900,
    "README.txt": b"hello\n",
}


def blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


FILES = [File(path, len(content), blob(content)) for path, content in CONTENT.items()]
A1, A2, README = FILES


class Server:
    """Serves CONTENT; `behave[path]` holds a word for each coming request, the last word stays."""

    def __init__(self) -> None:
        self.behave: dict[str, list[str]] = {}
        self.asked: list[tuple[str, str]] = []  # (path, Range)
        self.version = ""  # sent as ETag; with If-Range of another one, the whole is answered

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path, wanted = request.path.removeprefix("/pinned/"), request.headers.get("Range", "")
        self.asked.append((path, wanted))
        words = self.behave.get(path, ["whole"])
        word = words.pop(0) if len(words) > 1 else words[0]
        if word in ("404", "503"):
            return request.send_error(int(word))
        body, status = CONTENT[path], 200
        if word == "corrupt":
            body = body[:-1] + b"?"
        if word == "login":
            body = b"<html>please log in</html>"
        same = request.headers.get("If-Range", f'"{self.version}"') == f'"{self.version}"'
        if wanted and same and word != "rangeless":
            body, status = body[int(wanted.removeprefix("bytes=").removesuffix("-")) :], 206
        request.send_response(status)
        if word != "lengthless":
            request.send_header("Content-Length", str(len(body)))
        if self.version:
            request.send_header("ETag", f'"{self.version}"')
        request.end_headers()
        if request.command == "HEAD":
            return None
        request.wfile.write(body[: len(body) // 2] if word in ("cut", "lengthless") else body)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(module, "PAUSE_S", 0)
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.answer(self)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_port}/pinned"
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


def content(folder):
    """Return path -> bytes of all files but the lock."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", KEPT)]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_blob_id_is_that_of_git(tmp_path):
    for text, expected in (("hello\n", "ce013625030ba8dba906f756967f9e9ca394464a"), ("", "e69de29bb2d1")):
        (tmp_path / "file").write_text(text)
        assert blob_id(tmp_path / "file").startswith(expected)


def test_a_file_matches_by_size_and_blob_id(tmp_path):
    (tmp_path / "file").write_text("hello\n")
    assert matches(tmp_path / "file", File("file", 6, "ce013625030b"))
    assert not matches(tmp_path / "file", File("file", 7, "ce013625030b"))
    assert not matches(tmp_path / "file", File("file", 6, "ce013625030c"))


def test_manifest_is_read(tmp_path):
    (tmp_path / "x.tsv").write_text("path\tbytes\tblob\na/b.txt\t6\tce013625030b\n")
    assert read_manifest(tmp_path / "x.tsv") == [File("a/b.txt", 6, "ce013625030b")]


@pytest.mark.parametrize(
    "row",
    [
        "a.txt\t6\tce0136",
        "a.txt\t0\tce013625030b",
        "a.txt\t6",
        "/a.txt\t6\tce013625030b",
        "../a\t6\tce013625030b",
    ],
)
def test_manifest_line_that_names_no_file(tmp_path, row):
    (tmp_path / "x.tsv").write_text(f"path\tbytes\tblob\n{row}\n")
    with pytest.raises(
        ValueError, match="x.tsv, line 2: a file is a relative path, its bytes and 12 to 40 hex"
    ):
        read_manifest(tmp_path / "x.tsv")


def test_manifest_with_a_path_twice(tmp_path):
    (tmp_path / "x.tsv").write_text("path\tbytes\tblob\n" + "a.txt\t6\tce013625030b\n" * 2)
    with pytest.raises(ValueError, match=r"each path stands once, found \['a.txt'\] twice"):
        read_manifest(tmp_path / "x.tsv")


def test_all_files_arrive_and_are_asked_for_once(server, tmp_path):
    short = [File(file.path, file.bytes, file.blob[:12]) for file in FILES]
    download(short, server.url + "/", tmp_path)
    assert content(tmp_path) == CONTENT
    download(short, server.url, tmp_path)
    assert server.asked == [(path, "") for path in CONTENT]


@pytest.mark.fault(
    "a connection that is cut inside a file",
    "half of the file, with and without a length",
    "continued at its byte; the file is whole",
)
@pytest.mark.parametrize("word", ["cut", "lengthless"])
def test_a_cut_connection_is_continued_where_it_broke(server, tmp_path, word):
    server.behave[A1.path] = [word, "whole"]
    download([A1], server.url, tmp_path)
    (_, first), (_, second) = server.asked
    assert first == "" and 0 < int(second[len("bytes=") : -1]) <= A1.bytes // 2
    assert content(tmp_path) == {A1.path: CONTENT[A1.path]}


def test_a_server_without_range_is_asked_for_the_whole(server, tmp_path):
    server.behave[A1.path] = ["cut", "rangeless"]
    download([A1], server.url, tmp_path)
    assert [bool(wanted) for _, wanted in server.asked] == [False, True]
    assert content(tmp_path) == {A1.path: CONTENT[A1.path]}


@pytest.mark.fault(
    "a server that goes down",
    "a cut, then 503 for ever",
    "FileNotFoundError with the remedy; a later call goes on at the byte",
)
def test_a_later_call_continues(server, tmp_path):
    server.behave[A1.path] = ["cut", "503"]
    with pytest.raises(FileNotFoundError, match=f"{A1.path} is not there and could not be downloaded .503"):
        download([A1], server.url, tmp_path)
    assert len(server.asked) == module.ATTEMPTS and not (tmp_path / A1.path).exists()
    server.behave.clear()
    download([A1], server.url, tmp_path)
    assert server.asked[-1][1].startswith("bytes=")
    assert content(tmp_path) == {A1.path: CONTENT[A1.path]}


@pytest.mark.fault(
    "a corrupted partial download",
    "rubbish under the name of the unfinished file, shorter and longer",
    "dropped; the file comes anew",
)
def test_a_partial_file_that_fits_nothing_is_dropped(server, tmp_path):
    partial = tmp_path / "ST-cnts/.A1.tsv.gz.partial"
    partial.parent.mkdir()
    for rubbish in (b"x" * 1000, b"x" * (A1.bytes + 1)):
        partial.write_bytes(rubbish)
        download([A1], server.url, tmp_path)
        assert content(tmp_path) == {A1.path: CONTENT[A1.path]}
        (tmp_path / A1.path).unlink()


@pytest.mark.fault(
    "a corrupted transfer", "the last byte changed on the way, once", "asked for again; the file is whole"
)
def test_a_corrupted_transfer_is_repeated(server, tmp_path):
    server.behave[A1.path] = ["corrupt", "whole"]
    download([A1], server.url, tmp_path)
    assert content(tmp_path) == {A1.path: CONTENT[A1.path]}


@pytest.mark.fault(
    "another file at the source",
    "a changed byte for ever, a login page",
    "ValueError that names expected and found; nothing is stored",
)
@pytest.mark.parametrize(("word", "found"), [("corrupt", "found blob id"), ("login", "found 26 bytes")])
def test_another_content_is_refused_and_leaves_nothing(server, tmp_path, word, found):
    server.behave[A1.path] = [word]
    with pytest.raises(
        ValueError, match=f"A1.tsv.gz is not the file of the manifest: expected 307,200 bytes.*{found}"
    ):
        download([A1], server.url, tmp_path)
    assert content(tmp_path) == {}


def test_a_missing_file_says_what_to_put_where(server, tmp_path):
    server.behave[A2.path] = ["404"]
    with pytest.raises(
        FileNotFoundError, match="ST-cnts/A2.tsv.gz is not there and could not be downloaded .404"
    ) as caught:
        download([A1, A2, README], server.url, tmp_path)
    place = tmp_path / A2.path
    assert f"  {A2.bytes:,} bytes from {server.url}/ST-cnts/A2.tsv.gz at {place}" in str(caught.value)
    assert [path for path, _ in server.asked] == [A1.path, A2.path]  # asked once: the answer will not change
    assert content(tmp_path) == {A1.path: CONTENT[A1.path]}


@pytest.mark.fault("no network", "a closed port", "FileNotFoundError that lists what to put where")
def test_without_network_all_that_is_missing_is_listed(server, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    files = [*FILES, File("four", 4, "0" * 40)]
    with pytest.raises(
        FileNotFoundError, match="name a folder that has the files with DATA=, or put"
    ) as caught:
        download(files, url, tmp_path)
    assert all(f"{file.bytes:,} bytes from {url}/{file.path}" in str(caught.value) for file in FILES)
    assert str(caught.value).endswith("and 1 more files of the manifest")
    assert content(tmp_path) == {}


@pytest.mark.fault(
    "a raw file with another content",
    "a file of the manifest written by hand",
    "ValueError; it is left as it is",
)
def test_a_file_with_another_content_is_not_overwritten(server, tmp_path):
    (tmp_path / README.path).write_text("HELLO\n")
    with pytest.raises(
        ValueError, match=r"1 file\(s\) differ from the manifest, e.g. README.txt: expected 6 bytes"
    ):
        download(FILES, server.url, tmp_path)
    assert content(tmp_path) == {README.path: b"HELLO\n"} and server.asked == []


def test_verify_returns_what_is_missing(tmp_path):
    (tmp_path / README.path).write_bytes(CONTENT[README.path])
    assert verify(FILES, tmp_path) == [A1, A2]


@pytest.mark.fault(
    "two download into one folder", "two threads", "each file is asked for once, all are whole"
)
def test_two_at_a_time_download_once(server, tmp_path):
    server.behave[A1.path] = ["cut", "whole"]
    both = [threading.Thread(target=download, args=(FILES, server.url, tmp_path)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert content(tmp_path) == CONTENT and len(server.asked) == 4


def test_the_bar_counts_bytes_once(server, tmp_path, monkeypatch):
    bars = []

    @contextmanager
    def recorded(**options):
        with original(**options) as bar:
            bars.append((bar, options))
            yield bar

    original = module.tqdm
    recorded.write = original.write
    monkeypatch.setattr(module, "tqdm", recorded)
    server.behave[A1.path] = ["cut", "rangeless"]
    server.behave[A2.path] = ["corrupt", "cut", "whole"]
    download(FILES, server.url, tmp_path)
    bar, options = bars[0]
    assert options["unit"] == "B" and bar.n == bar.total == sum(len(body) for body in CONTENT.values())


def test_the_room_that_is_needed_is_told_before_anything_is_asked_for(server, tmp_path, monkeypatch, capsys):
    """A1 and A2 have 307,200 and 230,400 bytes; of A1 the first 100,000 are here."""
    partial = tmp_path / "ST-cnts/.A1.tsv.gz.partial"
    partial.parent.mkdir()
    partial.write_bytes(CONTENT[A1.path][:100_000])
    free = [437_599]
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free[0]))
    with pytest.raises(
        OSError, match="2 file.s. need 0.000 GB; found 0.000 GB free. Make room, or set STLIB"
    ):
        download([A1, A2], server.url, tmp_path)
    assert server.asked == []
    free[0] += 1
    download([A1, A2], server.url, tmp_path)
    assert f"{tmp_path.name}: 2 file(s), 0.000 GB to come, 0.000 GB free" in capsys.readouterr().out
    download([A1, A2], server.url, tmp_path)
    assert capsys.readouterr().out == ""  # nothing is missing


# ---- other checksums, and none -----------------------------------------------------------------------------


def by_sha256(path, url=""):
    return File(path, len(CONTENT[path]), sha256=hashlib.sha256(CONTENT[path]).hexdigest(), url=url)


def test_a_file_with_its_own_address_and_a_sha256(server, tmp_path):
    elsewhere = File("a.gz", A1.bytes, sha256=by_sha256(A1.path).sha256, url=f"{server.url}/{A1.path}")
    download([elsewhere], "http://nowhere.invalid", tmp_path)
    assert content(tmp_path) == {"a.gz": CONTENT[A1.path]}
    server.behave[A2.path] = ["corrupt"]
    with pytest.raises(ValueError, match="A2.tsv.gz is not the file of the manifest.*found SHA-256 "):
        download([by_sha256(A2.path)], server.url, tmp_path)


@pytest.mark.parametrize("path", ["../out.txt", "/out.txt", "a/../../out.txt", "..\\out.txt", ""])
def test_no_path_leaves_the_folder(path):
    with pytest.raises(ValueError, match="a file is a relative path"):
        File(path, 6, sha256="0" * 64)


def test_a_manifest_comes_back(tmp_path):
    files = [A1, by_sha256(A2.path, "https://x.org/y"), File("c", 3, etag="1-2")]
    write_manifest(tmp_path / "x.tsv", files)
    assert read_manifest(tmp_path / "x.tsv") == files


@pytest.fixture
def addresses(server):
    server.version = "v1"
    return {"counts.gz": f"{server.url}/{A1.path}", "about.txt": f"{server.url}/{README.path}"}


def test_what_has_no_checksum_is_held_against_what_came_first(server, addresses, tmp_path):
    download_unpublished(addresses, tmp_path)
    assert content(tmp_path) == {"counts.gz": CONTENT[A1.path], "about.txt": CONTENT[README.path]}
    kept = read_manifest(tmp_path / KEPT)
    assert [(f.path, f.bytes, f.etag, f.url) for f in kept] == [
        ("counts.gz", A1.bytes, "v1", addresses["counts.gz"]),
        ("about.txt", README.bytes, "v1", addresses["about.txt"]),
    ]
    assert [f.sha256 for f in kept] == [by_sha256(path).sha256 for path in (A1.path, README.path)]
    server.asked.clear()
    download_unpublished(addresses, tmp_path)
    assert server.asked == []  # all is known and here

    (tmp_path / "about.txt").write_bytes(b"HELLO\n")
    with pytest.raises(ValueError, match="about.txt: expected 6 bytes with SHA-256"):
        download_unpublished(addresses, tmp_path)


@pytest.mark.fault(
    "a file whose version changes after a cut",
    "another ETag",
    "the new version comes whole; the halves are never joined",
)
@pytest.mark.parametrize(("version", "continued"), [("v1", True), ("v2", False)])
def test_a_cut_file_is_continued_in_the_same_version_only(server, addresses, tmp_path, version, continued):
    server.behave[A1.path] = ["whole", "cut", "503"]  # the first answers the question for its size
    with pytest.raises(FileNotFoundError, match="counts.gz is not there and could not be downloaded"):
        download_unpublished(addresses, tmp_path)
    half = (tmp_path / ".counts.gz.partial").read_bytes()
    (tmp_path / ".counts.gz.partial").write_bytes(b"?" * len(half))  # seen in what comes of it
    server.behave.clear()
    server.version = version
    download_unpublished(addresses, tmp_path)
    assert (content(tmp_path)["counts.gz"] == CONTENT[A1.path]) is not continued


def test_without_network_it_says_which_page_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAUSE_S", 0)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
    with pytest.raises(FileNotFoundError, match="/x could not be read.*name a folder that has the files"):
        download_unpublished({"x": url}, tmp_path)


def test_a_server_that_announces_no_size_or_version(server, tmp_path):
    with pytest.raises(ValueError, match="the version that its source announced; found"):
        download_unpublished({"x": f"{server.url}/{README.path}"}, tmp_path)


def test_an_answer_that_is_refused_is_asked_for_again(server):
    server.behave[README.path] = ["login", "whole"]

    def hello(response):
        if response.text != "hello\n":
            raise ValueError("no greeting")
        return response.text

    assert ask(f"{server.url}/{README.path}", hello) == "hello\n"
    server.behave[README.path] = ["login"]
    with pytest.raises(ValueError, match="no greeting"):
        ask(f"{server.url}/{README.path}", hello)
