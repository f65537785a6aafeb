"""Verified downloads that resume: what is missing comes from its source, and a byte that differs is noticed.

pooch moves the bytes. A file grows beside its target under another name, continues there after a cut (HTTP
Range), and takes its own name only when size and git blob id are those of the manifest. The blob id is what
`git hash-object` prints: SHA-1 over ``blob <size>``, a NUL byte and the content. Beside the size, its first
12 digits will do.
"""

import csv
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pooch
from requests import RequestException, Response
from tqdm import tqdm
from tqdm.utils import CallbackIOWrapper

ATTEMPTS = 4
PAUSE_S = 1.0  # before the second attempt; doubles with each
FINAL = (401, 403, 404, 410)  # answers that asking again does not change
CHUNK = 2**16  # bytes


@dataclass(frozen=True)
class File:
    """One file of a source.

    Attributes
    ----------
    path
        Below the source's URL, and below the local folder.
    bytes
        Size.
    blob
        Git blob id: 40 hex digits, or the first 12 or more.
    """

    path: str
    bytes: int
    blob: str


def read_manifest(path: Path) -> list[File]:
    """Read the files of a source from a table with the columns path, bytes and blob.

    Raises
    ------
    ValueError
        If a row is no path inside the folder, a positive size and a blob id, or a path occurs twice.
    """
    with open(path, newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    files = []
    for number, row in enumerate(rows, start=2):
        name, size, blob = (row.get(column) or "" for column in ("path", "bytes", "blob"))
        inside = name and not Path(name).is_absolute() and ".." not in Path(name).parts
        if not (inside and re.fullmatch("[1-9][0-9]*", size) and re.fullmatch("[0-9a-f]{12,40}", blob)):
            raise ValueError(
                f"{path.name}, line {number}: a file is a relative path, its bytes and 12 to 40 hex digits "
                f"of its blob id, separated by tabs; found {list(row.values())}. Correct the line"
            )
        files.append(File(name, int(size), blob))
    names = [file.path for file in files]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{path.name}: each path stands once, found {sorted(repeated)} twice. Remove a line")
    return files


def blob_id(path: Path) -> str:
    """Return the git blob id of a file."""
    header = b"blob %d\0" % path.stat().st_size
    with open(path, "rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.sha1(header, usedforsecurity=False)).hexdigest()


def matches(path: Path, file: File) -> bool:
    """Tell whether a local file has the size and the blob id of the manifest."""
    return path.stat().st_size == file.bytes and blob_id(path).startswith(file.blob)


def verify(files: Iterable[File], folder: Path) -> list[File]:
    """Compare what `folder` holds with the manifest, and return the files it lacks.

    Raises
    ------
    ValueError
        If a file is there with another content; nothing is changed.
    """
    files = list(files)
    missing = [file for file in files if not (folder / file.path).exists()]
    differing = [file for file in files if file not in missing and not matches(folder / file.path, file)]
    if differing:
        first = differing[0]
        size, blob = (folder / first.path).stat().st_size, blob_id(folder / first.path)
        raise ValueError(
            f"{folder}: {len(differing)} file(s) differ from the manifest, e.g. {first.path}: expected "
            f"{first.bytes:,} bytes with blob id {first.blob}, found {size:,} with {blob}. Delete them and "
            "run `make data` again"
        )
    return missing


def download(files: Iterable[File], url: str, folder: Path) -> None:
    """Bring all files into `folder`: verify those that are there, download the others.

    Parameters
    ----------
    files
        Of the manifest.
    url
        What their paths are relative to.
    folder
        Gets the same paths. Only one process at a time writes to it; another one waits, then finds the files.

    Raises
    ------
    FileNotFoundError
        If a file cannot be had; the message says what to put where, and from where. A later call continues.
    ValueError
        If the content differs from the manifest, here or at the source.
    """
    with _alone(folder):
        missing = verify(files, folder)
        total = sum(file.bytes for file in missing)
        with tqdm(total=total, unit="B", unit_scale=True, desc=folder.name, disable=not missing) as bar:
            while missing:
                _download(missing, url.rstrip("/"), folder, bar)
                missing = missing[1:]


def _download(missing: list[File], url: str, folder: Path, bar: tqdm) -> None:
    """Download the first of the missing files; the others are there for the message."""
    file = missing[0]
    target = folder / file.path
    partial = target.with_name(f".{target.name}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    bar.update(partial.stat().st_size if partial.exists() else 0)
    for pause in [*(PAUSE_S * 2**attempt for attempt in range(ATTEMPTS - 1)), None]:
        try:
            return _attempt(file, f"{url}/{file.path}", partial, target, bar)
        except RequestException as error:
            if pause is None or (error.response is not None and error.response.status_code in FINAL):
                raise FileNotFoundError(_wanted(missing, url, folder, error)) from error
        except ValueError:
            if pause is None:
                raise
        time.sleep(pause)


def _attempt(file: File, url: str, partial: Path, target: Path, bar: tqdm) -> None:
    """Download what the last attempt left, and give the file its name if it is the right one."""
    try:
        _append(file, url, partial, bar)
        if partial.stat().st_size < file.bytes:
            raise RequestException(f"{url} ended early, at byte {partial.stat().st_size:,} of {file.bytes:,}")
        if not matches(partial, file):
            found = blob_id(partial)
            bar.update(-partial.stat().st_size)
            partial.unlink()
            raise ValueError(_differs(file, url, f"blob id {found}"))
        os.replace(partial, target)
    finally:
        if partial.exists() and not partial.stat().st_size:
            partial.unlink()


def _append(file: File, url: str, partial: Path, bar: tqdm) -> None:
    """Append to `partial` what it lacks; begin anew where the server ignores Range."""
    with open(partial, "ab") as out:
        start = out.tell()
        if start >= file.bytes:
            return

        def begin(response: Response, **_: object) -> None:
            if response.status_code not in (200, 206):
                return
            skipped = start if response.status_code == 206 else 0
            announced = int(response.headers.get("content-length", file.bytes - skipped))
            if skipped + announced != file.bytes:  # a login page, a pointer, another version
                raise ValueError(_differs(file, url, f"{skipped + announced:,} bytes"))
            if skipped < start:
                out.truncate(0)
                bar.update(-start)

        headers = {"Accept-Encoding": "identity"}  # Range counts the bytes that are sent, compressed or not
        if start:
            headers["Range"] = f"bytes={start}-"
        get = pooch.HTTPDownloader(chunk_size=CHUNK, headers=headers, hooks={"response": begin})
        get(url, CallbackIOWrapper(bar.update, out, "write"), None)
        out.flush()
        os.fsync(out.fileno())


def _differs(file: File, url: str, found: str) -> str:
    return (
        f"{url} is not the file of the manifest: expected {file.bytes:,} bytes with blob id {file.blob}, "
        f"found {found}. Try again; if it stays so, name a folder that has the file with DATA="
    )


def _wanted(missing: list[File], url: str, folder: Path, reason: Exception) -> str:
    """Say which files to put where by hand, and from where."""
    listed = [f"  {f.bytes:,} bytes from {url}/{f.path} at {folder / f.path}" for f in missing[:3]]
    more = [f"  and {len(missing) - 3} more files of the manifest"] if len(missing) > 3 else []
    return (
        f"{missing[0].path} is not there and could not be downloaded ({reason}). Run this again to continue, "
        "name a folder that has the files with DATA=, or put\n" + "\n".join(listed + more)
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system frees even if this process is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
