"""Folds by patient, and who may look at what: the protocols 2d, 3d and hd in two settings.

Those of the protocol transfer follow from them, see `stlib.transfer`.

========  =================================  ==========================================================
protocol  question                           known when a test section is predicted
========  =================================  ==========================================================
2d        a new patient from slides alone    nothing
3d        one section measured, the others   the expression of the known section of the same patient
hd        the bins of a new slide            nothing
========  =================================  ==========================================================

`strict` chooses panel, scale and epoch without the test patients (in 3d their known section is measured, so
it may be used). `published` follows the papers: the panel looks at all sections, and in 2d the known section
of each test patient joins the training sections.
"""

from dataclasses import dataclass
from typing import get_args

from stlib.params import Params, Setting


@dataclass(frozen=True)
class Fold:
    """Names of sections, by what may be done with them; one of another dataset is ``<dataset>/<section>``."""

    name: str  # as in the params file
    train: tuple[str, ...]  # sections whose slides and counts the model learns from
    validation: tuple[str, ...]  # of one training patient, held back to choose the epoch; empty: it is fixed
    test: tuple[str, ...]  # sections that are predicted and scored
    known: tuple[str, ...]  # measured sections of the test patients, shown to the model as input (3d)
    panel: tuple[str, ...]  # sections whose counts choose the genes
    counted: tuple[str, ...]  # whose counts may be used as statistics, slide or not: never a hidden one


def folds(params: Params, protocol: str, setting: str = "strict") -> list[Fold]:
    """Return the folds of a dataset under a protocol and setting.

    Raises
    ------
    ValueError
        If the dataset declares no folds for the protocol, or the setting is unknown.
    """
    if setting not in get_args(Setting):
        raise ValueError(f"setting is {' or '.join(get_args(Setting))}, found '{setting}'")
    if protocol not in params.folds:
        raise ValueError(
            f"params/{params.base}.yaml declares no folds for protocol '{protocol}' "
            f"(found {list(params.folds)})"
        )
    tested = params.folds[protocol]
    return [fold_of(params, protocol, setting, name, patients) for name, patients in tested.items()]


def whole(params: Params, protocol: str, without: str = "") -> Fold:
    """Return the fold that trains on every patient, for a slide that is in no dataset.

    `protocol` is the question that is asked of the slide. If the slide shows a patient of the dataset's own,
    `without`, he is left out, and who is the same tissue.
    """
    left = [without, *params.twins(without)] if without else []
    if set(params.sections) <= set(left):
        raise ValueError(
            f"params/{params.base}.yaml: the slide shows patient '{without}', the only one, and none is left "
            "to train on. Give a slide of another patient"
        )
    name = f"without-{without}" if without else "everyone"
    return fold_of(params, protocol, "strict", name, left)


def fold_of(params: Params, protocol: str, setting: str, name: str, tested: list[str]) -> Fold:
    """Return the fold that tests some patients of a dataset and may train on all others."""
    trained = [patient for patient in params.sections if patient not in tested]
    known = [params.known[patient] for patient in tested if patient in params.known]
    seen = known if protocol == "3d" or setting == "published" else []

    validation = None
    if setting == "strict":
        validation = _validation_patient(trained, params, least=2 if protocol == "3d" else 1)
    held_back = params.sections[validation] if validation else []
    train = [s for patient in trained if patient != validation for s in params.sections[patient]] + seen
    test = [s for patient in tested for s in params.sections.get(patient, []) if s not in seen]
    counted = [
        s for patient, sections in params.counts_only.items() if patient not in tested for s in sections
    ]
    counted = [s for patient in trained for s in params.sections[patient]] + counted + seen
    everyone = setting == "published" or params.panel.choice == "published"
    return Fold(
        name=name,
        train=tuple(train),
        validation=tuple(held_back),
        test=tuple(test),
        known=tuple(known) if protocol == "3d" else (),
        panel=tuple(params.patient_of) if everyone else tuple(counted),
        counted=tuple(counted),
    )


def _validation_patient(trained: list[str], params: Params, least: int) -> str | None:
    """Return the training patient with the fewest sections, at least `least`; None if under three train."""
    sizes = {patient: len(params.sections[patient]) for patient in trained}
    fitting = [patient for patient, size in sizes.items() if size >= least]
    if len(trained) < 3 or not fitting:
        return None
    return min(reversed(fitting), key=sizes.get)  # of equals the last
