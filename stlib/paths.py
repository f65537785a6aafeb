"""The folders of a checkout. No other module knows where anything lies.

Two variables of the environment move them: ``STLIB_DATA`` (raw and processed data, caches) and
``STLIB_OUT`` (runs, results, figures), so that a test can compute anew beside the data it shares.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

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


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it there when the block ends without an error.

    A reader never sees half a file: the content is flushed to disk before the rename, and a block
    that raises leaves what was there before.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with replacing(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    own = uuid4().hex[:12]  # not the process id, of which containers on one file system have the same
    temporary = path.with_name(f".{path.stem}.{own}.partial{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system frees even if this process is killed; another one waits."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_text(path: Path, text: str) -> Path:
    """Write a text file whole or not at all; return its path."""
    with replacing(path) as temporary:
        temporary.write_text(text)
    return path
