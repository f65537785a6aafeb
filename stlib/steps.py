"""The steps from raw files to figures: the notebook of each, and the modules that it calls.

A step trains models under a protocol (`CONTROLS`), or it prepares data or draws results. What a run of a step
was made of, and when it is done, is `stlib.results`.
"""

from collections.abc import Iterable

NOTEBOOK = {
    "tour": "00_tour", "data": "01_data", "preprocessing": "02_preprocessing",
    "registration": "03_registration", "2d": "04_train_2d", "3d": "05_train_3d",
    "tables": "08_tables", "figures": "09_figures", "audit": "10_audit", "ablations": "07_ablations",
    "cost": "12_cost", "hd": "06_train_hd", "slides": "11_your_slides", "transfer": "13_transfer",
}  # fmt: skip
CONTROLS = {
    "2d": ("mean", "ridge", "oracle"),
    "3d": (
        *("mean", "known_mean", "ridge", "nearest", "smooth", "smooth_ridge"),
        *("overlap", "similarity", "oracle"),
    ),
    "hd": ("mean", "ridge", "oracle"),
    "transfer": ("mean", "ridge", "oracle"),
}
CALLED = {  # step -> modules, besides those of models and readers
    **dict.fromkeys(CONTROLS, ["stlib.train"]),
    "slides": ["stlib.measured", "stlib.slide_predictions", "stlib.slide_scores", "stlib.train"],
    "cost": ["stlib.cost"],
    "tour": ["stlib.train", "stlib.metrics", *(f"stlib.models.{name}" for name in CONTROLS["3d"])],
    "data": ["stlib.datasets"],
    "preprocessing": ["stlib.features", "stlib.graph", "stlib.expression"],
    "registration": ["stlib.registration", "stlib.graph"],
    "tables": [
        *("stlib.scores", "stlib.comparisons", "stlib.genewise", "stlib.regions"),
        *("stlib.render", "stlib.conditions"),
    ],
    "figures": [
        *("stlib.comparisons", "stlib.figures", "stlib.overlays", "stlib.overviews"),
        *("stlib.profile", "stlib.scores"),
    ],
    "ablations": ["stlib.comparisons", "stlib.figures", "stlib.overviews", "stlib.scores"],
    "audit": ["stlib.audit", "stlib.flaw_table", "stlib.models.oracle"],
}
READING = ("data", "audit")  # steps that read raw files
MADE = ("toy", "toy_hd")  # readers of data that are made here: their true rates are known


def modules_of(step: str, models: Iterable[str], reader: str) -> list[str]:
    """Return the modules that a step calls, itself; what these import follows from them.

    Parameters
    ----------
    step
        A key of `NOTEBOOK`.
    models
        Files of `stlib/models/`, with @variant if wanted.
    reader
        A module of `stlib.datasets`.

    Examples
    --------
    >>> modules_of("cost", ["asign@paper", "asign"], "her2st")
    ['stlib.cost', 'stlib.models.asign']
    >>> modules_of("data", [], "her2st")
    ['stlib.datasets', 'stlib.datasets.her2st']
    """
    files = dict.fromkeys(f"stlib.models.{name.split('@')[0]}" for name in models)
    readers = [f"stlib.datasets.{reader}"] if step in READING else []
    return [*CALLED[step], *files, *readers]
