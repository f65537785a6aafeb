"""Trained on one dataset, or on some sizes, and tested on another: the protocol `transfer`.

The trained dataset is at home: its params file says levels, encoder, settings and limits. A section of
another one is named ``<dataset>/<section>``, and is seen as networks trained at home expect it:

- patches and cells are as wide in um as at home, so that every size has the same context around it;
- slides are halved until a pixel of a dense network is as wide as at home, to a factor of 1.41 at most;
- columns and rows are counted in steps of the array at home;
- labels are those to be expected if as much had been counted as on the area of a tested location: their scale
  depends on how much was (`stlib.expression.thinned_log_proportion`);
- the panel is chosen at home, and keeps the genes that the tested sections measure, by id.

Where both are sizes of one dataset, the folds are its own and a slide is never on both sides, at any size.
Where they are two datasets, one model is trained on all of the first, but for patients whose tissue is in the
second, too. What chooses the epoch is a patient at home: nothing is known of the tested dataset.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stlib.params import Level, Levels, Params, load_params
from stlib.sections import Section, whose
from stlib.splits import Fold, fold_of, folds

NATIVE = ("hd", "2d")  # protocols whose folds and settings a dataset lends; the first that it has


def native(params: Params) -> str:
    """Return the protocol that the models of a trained dataset are set for.

    Raises
    ------
    ValueError
        If the dataset has folds for none.
    """
    for protocol in NATIVE:
        if protocol in params.folds:
            return protocol
    raise ValueError(
        f"params/{params.base}.yaml: what is trained on in the protocol transfer needs folds for "
        f"{' or '.join(NATIVE)}, found {list(params.folds)}"
    )


def transfer_folds(trained: Sequence[Params], tested: Params, setting: str = "strict") -> list[Fold]:
    """Return the folds of a transfer.

    Parameters
    ----------
    trained
        The dataset at home, and further sizes of it.
    tested
        Another dataset, or a size.
    setting
        ``strict``; papers say too little for another one.

    Raises
    ------
    ValueError
        For another setting, or if nobody is left to train on.
    """
    home, *more = trained
    if setting != "strict":
        raise ValueError(f"the protocol transfer has the setting 'strict' alone, found '{setting}'")
    if home.base == tested.base:
        own = folds(home, native(home))
        return [_moved(fold, more, tested, tested.folds[native(tested)][fold.name]) for fold in own]
    groups = home.same_tissue_group, tested.same_tissue_group
    shared = set(groups[0].values()) & set(groups[1].values())
    left = [patient for patient in home.sections if groups[0].get(patient) not in shared]
    if not left:
        raise ValueError(
            f"a transfer from {home.name} to {tested.name} needs patients whose tissue is not in both; found "
            "none. Choose another dataset to train on"
        )
    kept_out = [patient for patient in home.sections if patient not in left]
    return [_moved(fold_of(home, native(home), "strict", "all", kept_out), more, tested, tested.sections)]


def _moved(fold: Fold, more: Sequence[Params], tested: Params, patients: Sequence[str]) -> Fold:
    """Return a fold of the home that trains on further sizes, too, and tests patients of another dataset."""
    names = [f"{tested.name}/{section}" for patient in patients for section in tested.sections[patient]]
    return replace(
        fold,
        train=_everywhere(fold.train, more),
        validation=_everywhere(fold.validation, more),
        test=tuple(names),
    )


def _everywhere(sections: Sequence[str], more: Sequence[Params]) -> tuple[str, ...]:
    """Return sections at home, then at each further size."""
    return (*sections, *(f"{params.name}/{section}" for params in more for section in sections))


@dataclass(frozen=True)
class View:
    """How a section is seen."""

    section: Section  # its array counted in steps of the one at home
    params: Params  # of its dataset, with the levels of the home in pixels of its slide
    halved: int = 0  # how often its slide is halved more than those at home
    share: float = 1.0  # area of a tested location over that of one of its own


def views(home: Params, sections: dict[str, Section], tested: Sequence[str]) -> dict[str, View]:
    """Return how each section is seen by networks that are trained at home, see above.

    Some sections at least are at home; `tested` names those that are predicted.

    Raises
    ------
    ValueError
        If a slide is so coarse that it would have to be enlarged.
    """
    own = [section for name, section in sections.items() if "/" not in name]
    if len(own) == len(sections):
        return {name: View(section, home) for name, section in sections.items()}
    found, um_per_px = {}, scale(own)
    wanted = area_um2(sections[next(name for name in tested if "/" in name)])
    for name, section in sections.items():
        share = wanted / area_um2(section)
        if "/" not in name:
            found[name] = View(section, home, share=share)
        else:
            params, ratio = load_params(whose(home, name)[0]), um_per_px / scale([section])
            levels = {
                level: _scaled(home.levels[level], ratio, f"{home.name}, levels.{level}, on {name}")
                for level in ("spot", "region", "global")
            }
            steps = section.array * (section.pitch_um / home.spot.pitch_um)
            found[name] = View(
                replace(section, array=steps),
                params.model_copy(update={"levels": Levels(**levels)}),
                round(float(np.log2(ratio))),
                share,
            )
    return found


def area_um2(section: Section) -> float:
    """Return what one location of a section covers, um^2."""
    return section.size_um**2 * (np.pi / 4 if section.shape == "circle" else 1.0)


def scale(sections: Sequence[Section]) -> float:
    """Return the mean um per px of slides."""
    return float(np.mean([section.um_per_px for section in sections]))


def _scaled(level: Level, ratio: float, where: str) -> Level:
    """Return a level as wide in um on a slide with `ratio` times the pixels."""
    px = round(level.px * ratio)
    if px < level.out_px:
        raise ValueError(
            f"{where}: no image is enlarged, so {level.px} px at home need {level.out_px} px or more there; "
            f"found {px}. Lower out_px"
        )
    return Level(px=px, out_px=level.out_px)
