"""Files with bits turned, parts lost, moved or put in: a clear error in seconds, never a hang or a crash.

Decoders are C; each format is read in a process of its own with a limit on time and memory. A format that
carries checksums tells every change that matters; one that carries none (JPEG, plain TIFF) may be read as
another image, which is what the checksums of a source's manifest are for.
"""

import gzip
import io
import multiprocessing
import random
import resource
import tarfile
import warnings

import lab
import numpy as np
import pyarrow
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image
from pyarrow import parquet
from test_archive import Server, serving
from test_tenx import write_matrix

from stlib import bins, download, images
from stlib.archive import take_members
from stlib.counts import read_counts
from stlib.sections import read_section, write_section
from stlib.slide import Slide, write_pyramid
from stlib.tenx import read_matrix

IMAGE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
CHANGES, SECONDS, MEMORY = 60, 60, 6 * 2**30


def decoded(path):
    write_pyramid(path, path.with_name("out.tif"), 1.0)
    return pixels(path.with_name("out.tif"))


def pixels(path):
    with Slide(path) as slide:
        return slide.read(0, 0, *map(int, slide.size_px)).tobytes()


def plain(read):
    return lambda path: [
        np.asarray(part.toarray() if hasattr(part, "toarray") else part).tolist() for part in read(path)
    ]


def positions(path):
    def refuse(requirement, found):
        return ValueError(f"{path}: {requirement}; found {found}")

    return [[values.tolist() for values in batch[1:]] for batch in bins._batches(path, refuse)]


def write_positions(path):
    place = np.stack(np.meshgrid(np.arange(5), np.arange(6)), -1).reshape(-1, 2)
    names = [f"s_008um_{row:05d}_{column:05d}-1" for column, row in place]
    columns = [names, np.ones(30, int), place[:, 1], place[:, 0], *(10.0 + 20 * place[:, ::-1].T)]
    parquet.write_table(pyarrow.table(dict(zip(bins.COLUMNS, columns, strict=True))), path)


APERIO = "Aperio Image Library v1\r\n120x90 (64x64) |AppMag = 20|MPP = 0.5"
FORMATS = {  # how a file is written, how it is read, and whether it tells every change of its content
    "a.png": (lambda path: Image.fromarray(IMAGE).save(path), decoded, True),
    "a.jpg": (lambda path: Image.fromarray(IMAGE).save(path), decoded, False),
    "zlib.tif": (lambda p: tifffile.imwrite(p, IMAGE, compression="zlib", photometric="rgb"), decoded, False),
    "plain.tif": (lambda path: tifffile.imwrite(path, IMAGE, photometric="rgb"), decoded, False),
    "jpeg.tif": (
        lambda p: tifffile.imwrite(p, IMAGE, tile=(64, 64), compression="jpeg", photometric="rgb"),
        decoded,
        False,
    ),
    "a.svs": (
        lambda p: tifffile.imwrite(
            p, IMAGE, photometric="rgb", tile=(64, 64), description=APERIO, metadata=None
        ),
        decoded,
        False,
    ),
    "pyramid.tif": (lambda path: write_pyramid(IMAGE, path, 0.5), pixels, False),
    "A.tsv.gz": (
        lambda path: path.write_bytes(gzip.compress(b"\tA\tB\tC\n1x2\t1\t2\t3\n2x2\t0\t0\t9\n")),
        plain(read_counts),
        True,
    ),
    "m.h5": (write_matrix, plain(read_matrix), False),
    "t.parquet": (write_positions, positions, False),
    "S1.h5ad": (lambda p: write_section(p, lab.section()), lambda p: read_section(p).counts.nnz, True),
}  # fmt: skip


def changed(content, rng):
    """Turn bits, lose the end, clear, copy or put in a part."""
    found, place = bytearray(content), rng.randrange(len(content))
    kind = rng.choice(["bits", "bits", "end", "clear", "copy", "put in"])
    if kind == "bits":
        for _ in range(rng.choice([1, 1, 3, 20])):
            found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    elif kind == "end":
        del found[place:]
    elif kind == "clear":
        size = min(rng.choice([4, 64, 512]), len(found) - place)
        found[place : place + size] = bytes(size)
    elif kind == "copy":
        found[place : place + 50] = found[: rng.randrange(1, 200)]
    else:
        found[place:place] = rng.randbytes(rng.choice([1, 8]))
    return bytes(found)


def read_changed(path, name, wanted, answers):
    """Read changes of a file; send what was wrong with the answer to each, and an end."""
    _, read, strict = FORMATS[name]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    content, rng = path.read_bytes(), random.Random(0)
    for number in range(CHANGES):
        path.write_bytes(other := changed(content, rng))
        answers.put(f"{number}: no answer")
        try:
            silent = read(path) != wanted
            answers.put("another content, unnoticed" if silent and strict and other != content else "")
        except ValueError as error:
            clear = path.name in str(error) and len(str(error)) > 40
            answers.put("" if clear else f"{number}: says {error}")
        except BaseException as error:  # anything else is what must not come
            answers.put(f"{number}: {type(error).__name__}: {error}")
    answers.put("end")


@pytest.mark.fault(
    "a slide, an archive or a matrix with bits turned, parts lost, moved or put in",
    "60 changes each of .png, .jpg, .tif (three kinds), .svs, a pyramid, .tsv.gz, .h5, .parquet, .h5ad",
    "ValueError that names the file, or the content as it was (formats without checksums: another one); no "
    "hang, no crash, no other error",
)
@pytest.mark.parametrize("name", FORMATS)
def test_a_changed_file_is_refused_or_read_in_seconds(tmp_path, name):
    write, read, _ = FORMATS[name]
    path = tmp_path / name
    write(path)
    apart = multiprocessing.get_context(
        "forkserver"
    )  # a fork of this process may hang: decoders have threads
    apart.set_forkserver_preload([__name__])
    answers = apart.Queue()
    process = apart.Process(target=read_changed, args=(path, name, read(path), answers))
    process.start()
    found = []
    try:
        while not found or found[-1] != "end":
            found.append(answers.get(timeout=SECONDS))
    finally:
        process.kill()
    assert [answer for answer in found[1::2] if answer] == [] and len(found) == 2 * CHANGES + 1


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(download, "PAUSE_S", 0)
    state = Server()
    with serving(state) as url:
        state.url = f"{url}/a.tar.gz"
        yield state


def packed(names):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, kind in names:
            info = tarfile.TarInfo(name or "x")
            info.type, info.size, info.linkname = kind, 4 * (kind == tarfile.REGTYPE), "/etc/hostname"
            archive.addfile(info, io.BytesIO(b"evil"))
    return out.getvalue()


PARTS = some.sampled_from(["..", "/", ".", "a", "\\", "~", "\n", "C:"])
NAMES = some.lists(PARTS, max_size=9).map("".join) | some.just("wanted")
KINDS = some.sampled_from(
    [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE]
)


@pytest.mark.fault(
    "an archive whose members have any names: parents, roots, links, pipes",
    "30 archives of up to 6 members, and one that is wanted",
    "only what is wanted is written, inside its folder, or ValueError says why not",
)
@given(some.lists(some.tuples(NAMES, KINDS), max_size=6))
def test_no_member_of_an_archive_leaves_its_folder(server, tmp_path_factory, members):
    folder = tmp_path_factory.mktemp("archive")
    server.body = packed(members)
    try:
        take_members(server.url, {"wanted": "in/it.txt"}, folder / "raw")
        assert (folder / "raw/in/it.txt").read_bytes() == b"evil"
    except (ValueError, FileNotFoundError) as error:
        assert "found" in str(error)
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    assert left <= {"raw/.lock", "raw/files.tsv", "raw/in/it.txt"}


def test_scales_of_changed_tags_are_refused_or_read(tmp_path):
    path = tmp_path / "a.tif"
    write_pyramid(IMAGE, path, 0.5)
    content, rng = path.read_bytes(), random.Random(1)
    for _ in range(CHANGES):
        path.write_bytes(changed(content, rng))
        try:
            images.image_size(path), images.tagged_scale(path)
        except ValueError as error:
            assert "a.tif: the slide is truncated or damaged" in str(error)
