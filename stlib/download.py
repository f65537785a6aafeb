"""Verified downloads that resume: what is missing comes from its source, and a byte that differs is noticed.

pooch moves the bytes. A file grows beside its target under another name, continues there after a cut (HTTP
Range), and takes its own name only when size and checksum are those of the manifest (`stlib.manifest`).

A source that publishes no checksums is believed once (`download_unpublished`): size and version (ETag) are
those it announces, the SHA-256 is that of what came; both are kept beside the files and hold from then on.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pooch
import requests
from requests import RequestException, Response
from tqdm import tqdm
from tqdm.utils import CallbackIOWrapper

from stlib.fingerprint import file_hash
from stlib.manifest import File, found, matches, read_manifest, verify, write_manifest
from stlib.paths import alone, writing

T = TypeVar("T")

KEPT = "files.tsv"  # the manifest beside files whose source has none that could be committed
ATTEMPTS = 4
PAUSE_S = 1.0  # before the second attempt; doubles with each
FINAL = (401, 403, 404, 410)  # answers that asking again does not change
CHUNK = 2**16  # bytes
TIMEOUT_S = 30
HEADERS = {
    "Accept-Encoding": "identity",  # Range counts the bytes that are sent, compressed or not
    "User-Agent": "Mozilla/5.0 (compatible; stlib)",  # some hosts refuse what does not look like a browser
}


def download(files: Iterable[File], url: str, folder: Path) -> None:
    """Bring all files into `folder`: verify those that are there, download the others.

    Parameters
    ----------
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
    OSError
        If the disk has too little room; nothing is asked for.
    """
    with alone(folder):
        missing = verify(files, folder)
        total = sum(file.bytes for file in missing)
        if missing:
            begun = [_partial(folder / file.path) for file in missing]
            here = sum(path.stat().st_size for path in begun if path.exists())
            make_sure_of_room(folder, max(total - here, 0), f"{len(missing)} file(s)")
        with tqdm(total=total, unit="B", unit_scale=True, desc=folder.name, disable=not missing) as bar:
            while missing:
                _download(missing, url, folder, bar)
                missing = missing[1:]


def make_sure_of_room(folder: Path, needed: int, what: str) -> None:
    """Say how much is to come and how much room there is, before anything comes.

    `folder` is there already; `needed` is in bytes, and `what` names them in the message.

    Raises
    ------
    OSError
        If it does not fit.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"{folder}: {what} need {needed / 1e9:,.3f} GB; found {free / 1e9:,.3f} GB free. Make room, or "
            "set STLIB_DATA to a folder on a larger disk"
        )
    tqdm.write(f"{folder.name}: {what}, {needed / 1e9:,.3f} GB to come, {free / 1e9:,.3f} GB free")


def download_unpublished(addresses: Mapping[str, str], folder: Path) -> None:
    """Bring files that have no published checksum: as announced the first time, and unchanged ever after.

    Parameters
    ----------
    addresses
        Path below `folder` -> URL.
    folder
        Gets the files, and a manifest of them, `KEPT`.

    Raises
    ------
    FileNotFoundError, ValueError, OSError
        As `download` does.
    """
    manifest = folder / KEPT
    kept = {file.path: file for file in read_manifest(manifest)} if manifest.exists() else {}
    new = {path: url for path, url in addresses.items() if path not in kept or kept[path].url != url}
    for path, url in tqdm(new.items(), unit="file", desc=f"{folder.name}: sizes", disable=not new):
        kept[path] = ask(url, lambda response, path=path, url=url: _announced(response, path, url), "HEAD")
    write_manifest(manifest, kept.values())
    try:
        download([kept[path] for path in addresses], "", folder)
    finally:
        for path, file in kept.items():
            if not file.sha256 and (folder / path).exists():
                kept[path] = replace(file, sha256=file_hash(folder / path))
        write_manifest(manifest, kept.values())


def _announced(response: Response, path: str, url: str) -> File:
    """Return size and version of a file from the head of an answer."""
    size, etag = (response.headers.get(name, "") for name in ("content-length", "etag"))
    return File(path, int(size or 0), etag=etag.removeprefix("W/").strip('"'), url=url)


def ask(url: str, answer: Callable[[Response], T], method: str = "GET") -> T:
    """Return what `answer` makes of a small page, e.g. a listing; it may raise ValueError to ask again.

    Raises
    ------
    FileNotFoundError
        If the page cannot be had.
    ValueError
        If `answer` refuses each time.
    """

    def attempt() -> T:
        response = requests.request(method, url, headers=HEADERS, timeout=TIMEOUT_S, allow_redirects=True)
        response.raise_for_status()
        return answer(response)

    try:
        return _patiently(attempt)
    except RequestException as error:
        raise FileNotFoundError(
            f"{url} could not be read ({error}). Run this again, or name a folder that has the files with "
            "DATA="
        ) from error


def _patiently(attempt: Callable[[], T]) -> T:
    """Do what needs the network; again, after a pause, where that may change the answer."""
    for number in range(1, ATTEMPTS):
        try:
            return attempt()
        except RequestException as error:
            if error.response is not None and error.response.status_code in FINAL:
                raise
        except ValueError:
            pass
        time.sleep(PAUSE_S * 2 ** (number - 1))
    return attempt()


def _download(missing: list[File], url: str, folder: Path, bar: tqdm) -> None:
    """Download the first of the missing files; the others are there for the message."""
    file = missing[0]
    target = folder / file.path
    partial = _partial(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    bar.update(partial.stat().st_size if partial.exists() else 0)
    try:
        with writing(target):
            _patiently(lambda: _attempt(file, file.address(url), partial, target, bar))
    except RequestException as error:
        raise FileNotFoundError(_wanted(missing, url, folder, error)) from error


def _partial(target: Path) -> Path:
    """Return where a file grows."""
    return target.with_name(f".{target.name}.partial")


def _attempt(file: File, url: str, partial: Path, target: Path, bar: tqdm) -> None:
    """Download what the last attempt left, and give the file its name if it is the right one."""
    try:
        _append(file, url, partial, bar)
        if partial.stat().st_size < file.bytes:
            raise RequestException(f"{url} ended early, at byte {partial.stat().st_size:,} of {file.bytes:,}")
        if not matches(partial, file):
            other = found(partial, file)
            bar.update(-partial.stat().st_size)
            partial.unlink()
            raise ValueError(_differs(file, url, other))
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

        headers = dict(HEADERS)
        if start:
            headers["Range"] = f"bytes={start}-"
        if start and file.etag:
            headers["If-Range"] = f'"{file.etag}"'  # the rest of this version, or the whole of another
        get = pooch.HTTPDownloader(chunk_size=CHUNK, headers=headers, hooks={"response": begin})
        get(url, CallbackIOWrapper(bar.update, out, "write"), None)
        out.flush()
        os.fsync(out.fileno())


def _differs(file: File, url: str, found: str) -> str:
    return (
        f"{url} is not the file of the manifest: expected {file.bytes:,} bytes with {file.checksum}, "
        f"found {found}. Try again; if it stays so, name a folder that has the file with DATA="
    )


def _wanted(missing: list[File], url: str, folder: Path, reason: Exception) -> str:
    """Say which files to put where by hand, and from where."""
    listed = [f"  {f.bytes:,} bytes from {f.address(url)} at {folder / f.path}" for f in missing[:3]]
    more = [f"  and {len(missing) - 3} more files of the manifest"] if len(missing) > 3 else []
    return (
        f"{missing[0].path} is not there and could not be downloaded ({reason}). Run this again to continue, "
        "name a folder that has the files with DATA=, or put\n" + "\n".join(listed + more)
    )
