"""A pair of sections, and the stages that compete to align it: each must beat what stood before."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from stlib.alignment import Field, Score, Stage
from stlib.views import View, score

STRETCH = 1.25  # a section is not stretched or shrunk more than this
MOST_STRAIN = 0.5  # of a field: it may not halve or double a distance, let alone fold
LEAST_INLIERS = 20  # feature matches that agree, as in ASIGN's code; chance gives up to 5


@dataclass
class Pair:
    """Two sections, the best map so far in um (matrix, then field in the fixed frame), and its stages."""

    moving: list[View]  # at the scale of the search, of the scores, and of the refinement
    fixed: list[View]  # likewise
    note: str = ""  # of every stage, e.g. that the moving slide is looked at from behind
    matrix: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(2, 3))  # the slides as they lie
    field: Field | None = None
    stages: list[Stage] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.score = self.measure(self.matrix)

    @property
    def aligned(self) -> bool:
        """Whether any stage was taken over."""
        return any(stage.accepted for stage in self.stages)

    def measure(self, matrix: np.ndarray, bend: Field | None = None) -> Score:
        """Score a map."""
        return score(matrix, self.moving[1], self.fixed[1], bend)

    def propose(
        self,
        name: str,
        matrix: np.ndarray | None,
        bend: Field | None = None,
        inliers: int | None = None,
        note: str = "",
    ) -> bool:
        """Take a map over if it scores better, neither distorts nor folds, and rests on inliers enough.

        Parameters
        ----------
        matrix
            In um (2, 3); None if the stage found nothing.
        bend
            The field after it.
        inliers
            Matches that agree, if it rests on matches.
        note
            Why it found nothing.
        """
        before = self.score
        after = Score() if matrix is None else self.measure(matrix, bend)
        accepted = matrix is not None and after.total > before.total and plausible(matrix, bend)
        accepted = accepted and (inliers is None or inliers >= LEAST_INLIERS)
        notes = "; ".join(text for text in (self.note, note) if text)
        self.stages.append(Stage(name, before, after, accepted, inliers, notes))
        if accepted:
            self.matrix, self.field, self.score = matrix, bend, after
        return accepted


def plausible(matrix: np.ndarray, bend: Field | None = None) -> bool:
    """Return whether a map in um neither mirrors, nor stretches more than a section can, nor folds."""
    stretch = np.linalg.svd(matrix[:, :2], compute_uv=False)
    rigid = np.linalg.det(matrix[:, :2]) > 0 and stretch.max() < STRETCH and stretch.min() > 1 / STRETCH
    return bool(rigid and (bend is None or bend.strain <= MOST_STRAIN))
