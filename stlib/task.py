"""One fold for one model: what it is, with which settings, on which genes, and what makes its batches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stlib import panels
from stlib.alignment import Registration
from stlib.feed import Feed
from stlib.models import Config, configure, method
from stlib.params import Params
from stlib.sections import Section, load_sections
from stlib.splits import Fold


@dataclass(frozen=True)
class Task:
    """One fold for one model: what is trained, on what, and where its state is kept."""

    params: Params
    fold: Fold
    model: str  # with @variant, if any
    protocol: str
    seed: int
    folder: Path  # of the checkpoints
    recipe: str  # fingerprint; a checkpoint of another recipe is not resumed

    def about(self, stage: str) -> dict[str, Any]:
        """Return what a checkpoint of a stage must say to be resumed."""
        return {
            "model": self.model,
            "fold": self.fold.name,
            "stage": stage,
            "seed": self.seed,
            "recipe": self.recipe,
        }

    def checkpoint(self, stage: str) -> Path:
        """Return where the state of a stage is kept."""
        return self.folder / f"{self.fold.name}.{stage}.safetensors"


def config_of(params: Params, model: str, protocol: str) -> Config:
    """Return a model's settings under a protocol, with the dataset's overrides and its limit on epochs."""
    overrides = params.overrides.get(model.split("@")[0], {})
    return configure(model, protocol, **overrides).limited(params.training.max_epochs)


def panel_of(params: Params, fold: Fold, sections: dict[str, Section]) -> list[str]:
    """Return the genes of a fold, chosen on the sections that may choose them, and those added by name.

    Of a transfer those of them that the other dataset measures.

    Raises
    ------
    ValueError
        If it measures none.
    """
    choosing = [sections[name] for name in fold.panel]
    panel = panels.choose(params.panel, choosing)
    away = [section for name, section in sections.items() if "/" in name]
    measured = [set(section.genes) for section in away]
    kept = [gene for gene in panel if all(gene in genes for genes in measured)]
    if not kept:
        raise ValueError(
            f"{params.name}: a transfer needs genes of the panel, e.g. '{panel[0]}', that the other dataset "
            f"measures, by id; found none, there they are called e.g. '{away[0].genes[0]}'"
        )
    return kept


def feed_of(
    task: Task, new: tuple[Section, ...] = (), aligned: dict[str, Registration] | None = None
) -> Feed:
    """Return what makes the batches of a fold.

    Parameters
    ----------
    new
        Sections that are in no dataset, and of which nothing was measured, to be predicted.
    aligned
        Of a stack with new sections: how it is aligned, see `Feed`.
    """
    params, fold = task.params, task.fold
    config, kind = config_of(params, task.model, task.protocol), method(task.model)
    touched = [*fold.train, *fold.validation, *fold.test, *fold.known, *fold.panel, *fold.counted]
    own = [name for name in params.patient_of if name in touched]
    everything = load_sections(params, [*own, *(name for name in touched if "/" in name)])
    shown = {name: s for name, s in everything.items() if "/" in name or name in params.with_slide}
    return Feed(
        params,
        shown | {section.name: section for section in new},
        panel_of(params, fold, everything),
        config,
        unit=kind.UNIT,
        needs=kind.needs(config),
        protocol=task.protocol,
        hidden=(*(name for name in fold.test if name not in fold.known), *(section.name for section in new)),
        measured=fold.known,
        counted=[everything[name] for name in fold.counted],
        aligned=aligned,
    )
