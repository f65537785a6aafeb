"""A few members of a large archive, taken while it comes: .tar.gz cannot be read from the middle.

Nothing else of the archive is stored, and reading ends with the last member that is wanted. A cut connection
is resumed at its byte (HTTP Range); a killed process begins the archive anew, but keeps every member that was
complete. No checksum is published, so what came is believed once, as in `stlib.download`: size and SHA-256 of
each member stand in the same manifest, and hold from then on.
"""

import io
import shutil
import tarfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import requests
from requests import RequestException
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from stlib import download
from stlib.download import FINAL, HEADERS, KEPT, TIMEOUT_S
from stlib.fingerprint import file_hash
from stlib.manifest import File, read_manifest, verify, write_manifest
from stlib.paths import alone, replacing


def take_members(url: str, wanted: Mapping[str, str], folder: Path) -> None:
    """Bring members of an archive into `folder`.

    Parameters
    ----------
    url
        Of a .tar.gz.
    wanted
        Member -> path below `folder`. Where a member is written follows from this alone, never from the
        archive.
    folder
        Gets the files, and a manifest of them. Only one process at a time writes to it.

    Raises
    ------
    FileNotFoundError
        If the archive cannot be had, or lacks a member.
    ValueError
        If the archive is damaged, a member is a link, or a file that is there is another than the one that
        came.
    OSError
        If the disk has too little room for a member.
    """
    manifest = folder / KEPT
    with alone(folder):
        kept = {file.path: file for file in read_manifest(manifest)} if manifest.exists() else {}
        verify([kept[path] for path in wanted.values() if path in kept and (folder / path).exists()], folder)
        missing = {
            name: path for name, path in wanted.items() if path not in kept or not (folder / path).exists()
        }
        if not missing:
            return
        try:
            with Stream(url) as stream, tarfile.open(fileobj=stream, mode="r|gz", bufsize=2**20) as archive:
                for member in archive:
                    path = missing.pop(str(PurePosixPath(member.name)), None)
                    if path is None:
                        continue
                    if not member.isreg():
                        raise ValueError(
                            f"{url}: {member.name} is a file; found a link or a folder. Name a folder that "
                            "has the files with DATA="
                        )
                    download.make_sure_of_room(folder, member.size, PurePosixPath(member.name).name)
                    with replacing(folder / path) as temporary, open(temporary, "wb") as out:
                        shutil.copyfileobj(archive.extractfile(member), out, 2**20)
                    kept[path] = File(path, member.size, sha256=file_hash(folder / path), url=url)
                    write_manifest(manifest, kept.values())
                    if not missing:
                        return
        except (RequestException, HTTPError) as error:
            raise FileNotFoundError(
                f"{url} could not be read ({error}). Run this again, or unpack it by hand: {dict(missing)} "
                f"below {folder}, or name a folder that has the files with DATA="
            ) from error
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise ValueError(
                f"{url}: a whole .tar.gz; found a damaged one ({error}). Run this again"
            ) from error
        raise FileNotFoundError(
            f"{url}: the archive has the members {sorted(missing)}; found none of that name. Name a folder "
            "that has the files with DATA="
        )


class Stream(io.RawIOBase):
    """The bytes of a URL from first to last, connected anew wherever a connection ends early.

    `position` and `size` are the bytes that were read, and all there are.
    """

    def __init__(self, url: str) -> None:
        self.url, self.position, self.size, self._version = url, 0, 0, ""
        self._response: requests.Response | None = None
        self._bar = tqdm(unit="B", unit_scale=True, desc=PurePosixPath(url).name)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:
        """Read up to `len(buffer)` bytes; 0 at the end alone."""
        for number in range(download.ATTEMPTS):
            try:
                if self._response is None:
                    self._connect()
                content = self._response.raw.read(len(buffer))
                if content or self.position == self.size:
                    break
                raise RequestException(f"{self.url} ended early, at byte {self.position:,} of {self.size:,}")
            except (RequestException, HTTPError) as error:
                self._disconnect()
                answer = getattr(error, "response", None)
                final = answer is not None and answer.status_code in FINAL
                if final or number + 1 == download.ATTEMPTS:
                    raise
                time.sleep(download.PAUSE_S * 2**number)
        buffer[: len(content)] = content
        self.position += len(content)
        self._bar.update(len(content))
        return len(content)

    def _connect(self) -> None:
        """Ask for what was not read yet; of a server that ignores Range, pass over what was."""
        headers = dict(HEADERS)
        if self.position:
            headers["Range"] = f"bytes={self.position}-"
        response = requests.get(self.url, headers=headers, timeout=TIMEOUT_S, stream=True)
        response.raise_for_status()
        skipped = self.position if response.status_code == 206 else 0
        size = skipped + int(response.headers.get("content-length", 0))
        version = response.headers.get("etag", "")
        if self.position and (size, version) != (self.size, self._version):
            raise ValueError(f"{self.url} is another file than before byte {self.position:,}. Run this again")
        self.size, self._version, self._response, self._bar.total = size, version, response, size
        while skipped < self.position:
            passed = len(response.raw.read(min(2**20, self.position - skipped)))
            if not passed:
                raise RequestException(f"{self.url} ended early, at byte {skipped:,} of {size:,}")
            skipped += passed

    def _disconnect(self) -> None:
        if self._response is not None:
            self._response.close()
        self._response = None

    def close(self) -> None:
        """End the connection and the bar."""
        self._disconnect()
        self._bar.close()
        super().close()
