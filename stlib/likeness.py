"""Is a slide like those that a model was trained on? Measured by what their spots look like.

Of each section the mean of its spots' features is taken. How far it lies from the mean of others, in
standard deviations of a spot, root mean square over the features, is its distance: 0 for a copy, 1 if a
typical feature is off by as much as spots differ. What distance is usual, the training patients tell: each
against all others. A slide farther away than any of them is unlike the training data, and predictions for it
are extrapolated; one that is not may be unlike them in what the features do not see.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Likeness:
    """How far a slide and each training patient lie from (the other) training patients."""

    features: str  # what was compared, e.g. stain
    slide: float  # distance of the slide to all training patients
    patients: dict[str, float]  # patient -> distance to the other ones

    @property
    def unlike(self) -> bool:
        """Whether the slide is farther away than each of the patients."""
        return self.slide > max(self.patients.values(), default=np.inf)

    def __str__(self) -> str:
        if not self.patients:
            return (
                f"{self.features}: distance {self.slide:.2f}; one patient trained, so none says what is usual"
            )
        usual = ", ".join(f"{name} {value:.2f}" for name, value in self.patients.items())
        verdict = "WARNING: unlike the training data" if self.unlike else "not unlike them"
        return f"{self.features}: distance {self.slide:.2f}, of training patients {usual}: {verdict}"


def distance(features: np.ndarray, others: Sequence[np.ndarray]) -> float:
    """Return how far the mean of some spots lies from that of others.

    Parameters
    ----------
    features
        Of the spots (N, D).
    others
        Of each other section (M, D), which count alike.

    Examples
    --------
    >>> distance(np.array([[3.0], [5.0]]), [np.array([[0.0], [2.0]])])
    3.0
    """
    mean = np.mean([one.mean(0) for one in others], 0)
    spread = np.sqrt(np.mean([one.var(0) for one in others], 0))
    return float(np.sqrt(np.mean(((features.mean(0) - mean) / np.maximum(spread, 1e-6)) ** 2)))


def likeness(
    name: str, slide: np.ndarray, training: Mapping[str, np.ndarray], patient_of: Mapping[str, str]
) -> Likeness:
    """Compare a slide with the training sections.

    Parameters
    ----------
    slide
        Features of its locations (N, D).
    training
        Section -> features of its locations (M, D).
    patient_of
        Section -> patient; sections of one patient are not held against each other.
    """
    patients = {}
    for patient in dict.fromkeys(patient_of[section] for section in training):
        own = [found for section, found in training.items() if patient_of[section] == patient]
        others = [found for section, found in training.items() if patient_of[section] != patient]
        if others:
            patients[patient] = max(distance(found, others) for found in own)
    return Likeness(name, distance(slide, [*training.values()]), patients)
