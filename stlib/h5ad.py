"""AnnData on disk: made in memory, then written, because HDF5 crashes where a disk fills while it writes."""

from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from stlib.paths import replacing

if TYPE_CHECKING:
    import anndata


def write_h5ad(path: Path, table: "anndata.AnnData") -> None:
    """Write an .h5ad, compressed.

    Raises
    ------
    OSError
        See `stlib.paths.writing`.
    """
    import anndata
    import h5py

    table.strings_to_categoricals()
    name = uuid4().hex  # of no file; two threads may write at once
    with h5py.File(name, "w", driver="core", backing_store=False) as file:
        anndata.io.write_elem(file, "/", table, dataset_kwargs={"compression": "gzip"})
        file.flush()
        content = file.id.get_file_image()
    with replacing(path) as temporary:
        temporary.write_bytes(content)
