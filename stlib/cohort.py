"""The counts of a dataset as demonstrations need them: labels, what stands in for the slide, folds.

No image is opened. Where a demonstration needs what a spot looks like, it takes the genes that follow the
panel: they are measured where the slide is, and are never predicted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from stlib.expression import common_genes, log_proportion, panel_counts, top_mean_panel
from stlib.params import Params
from stlib.predictions import Predictions, concatenate, obs_of
from stlib.sections import Section

LOOKS = 1000  # genes that stand in for the slide, at most


@dataclass(frozen=True)
class Cohort:
    """Sections of patients of whom one is known; N spots of a section, G genes, D that stand in for looks."""

    params: Params
    panel: list[str]  # genes to score (G)
    sections: dict[str, list[str]]  # patient -> its sections in cutting order, the known one among them
    folds: dict[str, list[str]]  # fold -> patients tested
    section: dict[str, Section]  # section -> what was read
    counts: dict[str, np.ndarray]  # section -> raw counts of the panel (N, G)
    labels: dict[str, np.ndarray]  # section -> log proportions of the panel (N, G)
    looks: dict[str, np.ndarray]  # those of the genes that follow (N, D), standardised by the known section

    @classmethod
    def of(cls, params: Params, sections: Mapping[str, Section], panel: list[str]) -> Self:
        """Arrange what was read.

        A patient takes part who has a known section and another one.

        Raises
        ------
        ValueError
            If fewer than two folds have such a patient.
        """
        own = {
            patient: [name for name in names if name in sections]
            for patient, names in params.sections.items()
        }
        own = {
            patient: names
            for patient, names in own.items()
            if len(names) > 1 and params.known.get(patient) in names
        }
        folds = {
            fold: [patient for patient in tested if patient in own]
            for fold, tested in params.folds["3d"].items()
        }
        folds = {fold: tested for fold, tested in folds.items() if tested}
        if len(folds) < 2:
            raise ValueError(
                f"{params.name}: the demonstrations need two folds with a patient of whom the known section "
                f"and another one are there, found {len(folds)} ({sorted(sections)}). Add the missing files"
            )
        used = {name: sections[name] for names in own.values() for name in names}
        counts = {name: panel_counts(one, panel) for name, one in used.items()}
        labels = {name: log_proportion(found).astype(np.float64) for name, found in counts.items()}
        looks = _looks(used, panel, {name: params.known[one.patient] for name, one in used.items()})
        return cls(params, panel, own, folds, used, counts, labels, looks)

    def known(self, name: str) -> str:
        """Return the known section of a section's patient."""
        return self.params.known[self.section[name].patient]

    def hidden(self, fold: str) -> list[str]:
        """Return the sections that are tested: those of the fold's patients but the known ones."""
        own = [name for patient in self.folds[fold] for name in self.sections[patient]]
        return [name for name in own if name != self.known(name)]

    def training(self, fold: str) -> list[str]:
        """Return all sections of the patients that the fold does not test."""
        return [
            name
            for patient, names in self.sections.items()
            if patient not in self.folds[fold]
            for name in names
        ]

    @cached_property
    def place(self) -> dict[str, np.ndarray]:
        """Section -> column and row of each spot, from the middle of its section (N, 2): no registration."""
        return {name: one.array - one.array.mean(0) for name, one in self.section.items()}

    def stack(self, values: Mapping[str, np.ndarray], names: Iterable[str]) -> np.ndarray:
        """Return what several sections have, one below the other."""
        return np.concatenate([values[name] for name in names])

    def predictions(self, predicted: Mapping[str, np.ndarray]) -> Predictions:
        """Put what was predicted for hidden sections beside what was measured: section -> (N, G)."""
        parts = []
        for fold in self.folds:
            for name in self.hidden(fold):
                values = [found.astype(np.float32) for found in (predicted[name], self.labels[name])]
                obs = obs_of(self.section[name], fold)
                parts.append(Predictions(*values, np.array(self.panel), obs))
        return concatenate(parts)


def _looks(
    sections: Mapping[str, Section], panel: list[str], known: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Return section -> log proportions of up to `LOOKS` genes that follow the panel (N, D), standardised."""
    size = min(len(panel) + LOOKS, len(common_genes(sections.values())))
    chosen = set(panel)
    genes = [gene for gene in top_mean_panel(sections.values(), size) if gene not in chosen]
    raw = {name: log_proportion(panel_counts(one, genes)) for name, one in sections.items()}
    centre = {name: raw[name].mean(0) for name in set(known.values())}
    scale = {name: np.maximum(raw[name].std(0), 1e-6) for name in centre}
    return {name: (found - centre[known[name]]) / scale[known[name]] for name, found in raw.items()}
