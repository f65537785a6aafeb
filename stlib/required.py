"""What must stand before a run begins: else one sentence says what makes all of it."""

from collections.abc import Sequence

from stlib import paths
from stlib.params import load_params
from stlib.tables import load_table, runs_needed, target


def prepared(datasets: Sequence[str]) -> None:
    """Refuse datasets that were not prepared; each size is one.

    Raises
    ------
    FileNotFoundError
        If one does not exist, or has no prepared sections.
    """
    names = [load_params(name).name for name in datasets]
    absent = [name for name in names if not (paths.processed(name) / "manifest.json").exists()]
    if absent:
        makes = [f"`make prepare DATASET={base}`" for base in dict.fromkeys(n.split("@")[0] for n in absent)]
        raise FileNotFoundError(
            f"a run needs datasets prepared, found no {' and no '.join(absent)}; run {' and '.join(makes)}"
        )


def made(table: str, dataset: str) -> None:
    """Refuse a table some of whose runs were not made.

    Raises
    ------
    FileNotFoundError
        If the record of a run is not there.
    """
    needed = [run.folder / "run.json" for run in runs_needed(load_table(table), dataset)]
    absent = [record for record in needed if not record.exists()]
    if absent:
        first = absent[0].relative_to(paths.OUT)
        raise FileNotFoundError(
            f"tables/{table}.yaml needs {len(needed)} runs of {dataset}, {len(absent)} of them were not made "
            f"(first: {first}); `make {target(table)} DATASET={dataset}` makes them"
        )
