"""What a transfer brought to one scale, counted: kept in `run.json`, said in the caption of a table."""

from typing import Any

import numpy as np

from stlib.params import Params
from stlib.predictions import Predictions
from stlib.sections import load_sections
from stlib.transfer import area_um2, scale, views


def brought(trained: Params, tested: Params, predictions: Predictions) -> dict[str, Any]:
    """Count what `stlib.transfer` did to the tested sections, which must be prepared.

    `trained` is the dataset at home; `predictions` are of a run, all folds.

    Returns
    -------
    dict
        Plain data, at home and there: `um_per_px` of the slides, `patch_px` of the finest level, `area_um2`
        of a location. Besides `genes` asked for and `kept`, the least and the most of a fold; and how often
        slides are `halved` more than at home, the least and the most.
    """
    home = load_sections(trained, trained.with_slide)
    away = {
        f"{tested.name}/{name}": found for name, found in load_sections(tested, tested.with_slide).items()
    }
    seen = list(views(trained, home | away, list(away)).values())[len(home) :]
    kept = [len(predictions.fold(name).genes) for name in predictions.obs["fold"].unique()]
    patches, halved = [view.params.levels["spot"].px for view in seen], [view.halved for view in seen]
    return {
        "genes": trained.panel.size,
        "kept": [min(kept), max(kept)],
        "um_per_px": [round(scale(list(part.values())), 3) for part in (home, away)],
        "patch_px": [trained.levels["spot"].px, round(float(np.mean(patches)))],
        "halved": [min(halved), max(halved)],
        "area_um2": [round(area_um2(next(iter(part.values()))), 1) for part in (home, away)],
    }


def sentence(dataset: str, to: str, facts: dict[str, Any]) -> str:
    """Say it, for a caption.

    Examples
    --------
    >>> facts = {"genes": 50, "kept": [48, 50], "um_per_px": [2.0, 1.0], "patch_px": [64, 128]}
    >>> print(sentence("a", "b", facts | {"halved": [1, 1], "area_um2": [7854.0, 64.0]}))
    a to b: 48 to 50 of 50 genes are measured in both; slides of 2.0 and 1.0 um per px, patches of 128 um \
are 64 and 128 px, and a dense network sees the tested slides halved 1 times more; locations of 7854.0 and \
64.0 um^2.
    """
    (here, there), (least, most) = facts["um_per_px"], facts["kept"]
    genes = f"{least} to {most}" if least < most else f"{most}"
    times = " to ".join(map(str, dict.fromkeys(facts["halved"])))
    return (
        f"{dataset} to {to}: {genes} of {facts['genes']} genes are measured in both; slides of {here} and "
        f"{there} um per px, patches of {facts['patch_px'][0] * here:.0f} um are {facts['patch_px'][0]} and "
        f"{facts['patch_px'][1]} px, and a dense network sees the tested slides halved {times} times more; "
        f"locations of {facts['area_um2'][0]} and {facts['area_um2'][1]} um^2."
    )
