"""The folders of a checkout. No other module knows where anything lies.

Two variables of the environment move them: ``STLIB_DATA`` (raw and processed data, caches) and
``STLIB_OUT`` (runs, results, figures), so that a test can compute anew beside the data it shares.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).resolve().parent.parent
PARAMS = ROOT / "params"
TABLES = ROOT / "tables"
NOTEBOOKS = ROOT / "notebooks"
LOCK = ROOT / "requirements.lock"

DATA = Path(os.environ.get("STLIB_DATA", ROOT / "data")).resolve()
OUT = Path(os.environ.get("STLIB_OUT", ROOT)).resolve()
RUNS = OUT / "runs"
RESULTS = OUT / "results"
FIGURES = OUT / "figures"


def raw(dataset: str) -> Path:
    """Return the folder of the files as their source publishes them."""
    return DATA / "raw" / dataset


def processed(dataset: str) -> Path:
    """Return the folder of the sections in the house's own form."""
    return DATA / "processed" / dataset


def section_file(dataset: str, section: str) -> Path:
    """Return the path of a section's counts and positions (.h5ad)."""
    return processed(dataset) / f"{section}.h5ad"


def slide_file(dataset: str, section: str) -> Path:
    """Return the path of a section's slide (tiled pyramidal TIFF); all sizes of a dataset share it."""
    return processed(dataset.split("@")[0]) / f"{section}.tif"


def cache(kind: str) -> Path:
    """Return the folder of what is derived and addressed by content, e.g. ``features``."""
    return DATA / "cache" / kind


REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # why a file cannot be written


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say which file could not be written, why, and what to do, where a disk is full or read-only.

    Raises
    ------
    OSError
        With the number of the cause, whatever a library raised.
    """
    try:
        yield
    except Exception as error:
        number = getattr(error, "errno", None)
        if number not in REFUSED:  # not every library hands the number on
            if not path.parent.exists() or os.statvfs(path.parent).f_bavail:
                raise
            number = errno.ENOSPC
        raise OSError(
            number,
            f"{path} could not be written ({os.strerror(number)}); what stood there before still stands. "
            "Make room, or move the folder with STLIB_DATA or STLIB_OUT, and run this again",
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it there when the block ends without an error.

    A reader never sees half a file: the content is flushed to disk before the rename, and a block
    that raises leaves what was there before. What a killed process left goes with the next write.

    Raises
    ------
    OSError
        See `writing`.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with replacing(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    path, node = Path(path), os.uname().nodename
    temporary = path.with_name(f".{path.stem}.{node}.{os.getpid()}.partial{path.suffix}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent, f".{path.stem}.{node}.", f".partial{path.suffix}")
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _sweep(folder: Path, before: str, after: str) -> None:
    """Remove the temporary files of one target whose process, named between the two, is dead."""
    for name in os.listdir(folder):
        pid = name.removeprefix(before).removesuffix(after)
        if name == f"{before}{pid}{after}" and pid.isdecimal() and not _lives(int(pid)):
            (folder / name).unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    """Return whether a process of this machine lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        pass
    return True


def take_room(file: BinaryIO, size: int) -> None:
    """Let a file end `size` bytes after where it stands, with room on the disk for all of them.

    A file that is mapped needs it: where the disk fills, a page without room kills the process.
    """
    start = file.tell()
    if hasattr(os, "posix_fallocate") and size:  # macOS has none
        os.posix_fallocate(file.fileno(), start, size)
    file.truncate(start + size)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system frees even if this process is killed; another one waits."""
    with writing(folder / ".lock"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_text(path: Path, text: str) -> Path:
    """Write a text file whole or not at all; return its path."""
    with replacing(path) as temporary:
        temporary.write_text(text)
    return path
