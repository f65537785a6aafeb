"""Which files a source has, and which of them are here unchanged: paths, sizes and checksums.

A checksum is a SHA-256, or a git blob id, which is what `git hash-object` prints: SHA-1 over ``blob <size>``,
a NUL byte and the content. Beside the size, the first 12 digits of a blob id will do.
"""

import csv
import hashlib
import re
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from stlib.fingerprint import file_hash
from stlib.paths import replacing


@dataclass(frozen=True)
class File:
    """One file of a source.

    Raises
    ------
    ValueError
        If the path leaves the folder, the size is not positive, or neither checksum nor version is given.
    """

    path: str  # below the local folder; never out of it
    bytes: int
    blob: str = ""  # Git blob id: 40 hex digits, or the first 12 or more
    sha256: str = ""  # 64 hex digits
    etag: str = ""  # the version that the source announced, without quotes
    url: str = ""  # where it is; empty: `path` below the source's URL

    def __post_init__(self) -> None:
        parts = Path(self.path).parts
        inside = parts and not Path(self.path).is_absolute() and ".." not in parts and "\\" not in self.path
        digits = re.fullmatch("([0-9a-f]{12,40})?", self.blob) and re.fullmatch(
            "([0-9a-f]{64})?", self.sha256
        )
        pinned = self.blob or self.sha256 or self.etag
        if not (inside and self.bytes > 0 and digits and pinned and re.match("(https?://|$)", self.url)):
            raise ValueError(
                "a file is a relative path, its bytes and 12 to 40 hex digits of its blob id, or the 64 of "
                f"its SHA-256, or the version that its source announced; found {list(astuple(self))}"
            )

    @property
    def checksum(self) -> str:
        """What the content is held against, in words."""
        return f"SHA-256 {self.sha256}" if self.sha256 else f"blob id {self.blob or 'unknown'}"

    def address(self, url: str) -> str:
        """Return where the file is, given the source's URL."""
        return self.url or f"{url.rstrip('/')}/{self.path}"


def read_manifest(path: Path) -> list[File]:
    """Read the files of a source from a table with the columns path and bytes, and blob, sha256, etag or url.

    Raises
    ------
    ValueError
        If a row is no `File`, or a path occurs twice.
    """
    with open(path, newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    files = []
    for number, row in enumerate(rows, start=2):
        cells = {field.name: row.get(field.name) or "" for field in fields(File)}
        size = int(cells["bytes"]) if re.fullmatch("[1-9][0-9]*", cells["bytes"]) else 0
        try:
            files.append(File(**cells | {"bytes": size}))
        except ValueError as error:
            raise ValueError(f"{path.name}, line {number}: {error}. Correct the line") from None
    names = [file.path for file in files]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{path.name}: each path stands once, found {sorted(repeated)} twice. Remove a line")
    return files


def write_manifest(path: Path, files: Iterable[File]) -> None:
    """Write what `read_manifest` reads."""
    with replacing(path) as temporary, open(temporary, "w", newline="") as table:
        rows = csv.writer(table, delimiter="\t", lineterminator="\n")
        rows.writerow(field.name for field in fields(File))
        rows.writerows(map(astuple, files))


def blob_id(path: Path) -> str:
    """Return the git blob id of a file."""
    header = b"blob %d\0" % path.stat().st_size
    with open(path, "rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.sha1(header, usedforsecurity=False)).hexdigest()


def matches(path: Path, file: File) -> bool:
    """Tell whether a local file has the size and the checksum of the manifest."""
    if path.stat().st_size != file.bytes:
        return False
    if file.sha256:
        return file_hash(path) == file.sha256
    return not file.blob or blob_id(path).startswith(file.blob)


def found(path: Path, file: File) -> str:
    """Return the checksum of what is there, in the words of `File.checksum`."""
    return f"SHA-256 {file_hash(path)}" if file.sha256 else f"blob id {blob_id(path)}"


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
        size, other = (folder / first.path).stat().st_size, found(folder / first.path, first)
        raise ValueError(
            f"{folder}: {len(differing)} file(s) differ from the manifest, e.g. {first.path}: expected "
            f"{first.bytes:,} bytes with {first.checksum}, found {size:,} with {other}. Delete them and run "
            "`make data` again"
        )
    return missing
