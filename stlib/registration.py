"""Align the serial sections of one block: a map from each slide to the middle one, and how far to trust it.

Sections tens of um apart share their outline and their architecture, not their cells, so feature matchers
find few true pairs. In the route ``robust`` outline and stain density lead: a search over all rotations and
shifts of the slide and of its mirror image, then rigid, similarity and affine refinement, then a smooth
field. The route ``ants`` is that of ASIGN's paper (section III.B, appendix D): XFeat matches, then ANTs
rigid, affine and SyN (ASIGN's released code uses the affine part alone). Each stage is scored before and
after, and one that makes things worse is refused.

An alignment that another rotation or the mirror image nearly equals is not proven: it says so (``ok=False``).
A section that is not proven is no bridge for others: they are aligned to the next proven one.

What is proven is each step. Errors of steps add up, and structures that lean through the block take the map
with them: nothing in the images tells that from a shift. On painted tissue the error of the whole way grows
like the root of the number of sections passed, faster where the tissue is small
(`results/registration_stacks.md`).

Maps are those of `stlib.alignment`, in px; inside, everything is in um, so pixels need not be square.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from stlib import params as declared
from stlib import paths
from stlib.alignment import Registration, compose, rescale, save_registration
from stlib.params import Params
from stlib.register_linear import refine, search, turn
from stlib.register_smooth import BLUR_UM, smooth_field
from stlib.slide import Slide
from stlib.stages import Pair
from stlib.views import View, score, see

SEARCH_UM, SCORE_UM = 32, 16  # um per px of the search over rotations, and of all scores
BEST = 3  # starts of either hand that are refined before one is chosen
RIVALS = 12  # starts of either hand that an alignment has to beat; 5 of 36 may be its own rotation
OTHER_ROTATION = 30  # degrees; from here on a rotation counts as another alignment
LEAST_LEAD = 0.3  # of a proven score over all those, and over all of the other hand
LEAST_TISSUE = 0.1  # of the stack's median area; what shows less counts as blank
MOST_APART = 3  # places in the stack between sections that are aligned: tissue changes
ROBUST = declared.Registration(um_per_px=8.0)


def align(moving: list[View], fixed: list[View], settings: declared.Registration) -> Registration:
    """Find the map from one section to another, each seen at the scales of `_views`; in um on both sides."""
    hands = [_Hand(moving, fixed), _Hand([view.mirrored() for view in moving], fixed)]
    mirrored = hands[1].best - hands[0].best >= LEAST_LEAD
    hand, other = hands[::-1] if mirrored else hands
    pair = Pair(hand.moving, fixed, note="mirrored" * mirrored)
    if settings.route == "ants":
        from stlib import register_ants

        register_ants.match(pair, settings.xfeat)
    if not pair.aligned:
        pair.propose("outline and density", hand.searched)
        pair.propose("rigid", hand.rigid)
    if settings.route == "ants":
        register_ants.refine(pair)
    else:
        pair.propose("similarity", refine("similarity", pair.matrix, pair.moving[1], fixed[1]))
        pair.propose("affine", refine("affine", pair.matrix, pair.moving[2], fixed[2]))
    rivals = [total for matrix, total in hand.tried if turn(matrix, pair.matrix) >= OTHER_ROTATION]
    lead = pair.score.total - max(*rivals, other.best)
    ok = lead >= LEAST_LEAD
    if ok:  # where the alignment is wrong, a field would only hide it
        if settings.route == "ants":
            register_ants.bend(pair)
        else:
            _bend(pair)
    return Registration(
        matrix=compose(pair.matrix, moving[1].flip) if mirrored else pair.matrix,
        um_per_px=np.ones(2),
        field=pair.field,
        stages=tuple(pair.stages),
        ok=ok,
        message="" if ok else _doubt(pair, lead),
    )


def register_stack(
    slides: Sequence[Slide], settings: declared.Registration = ROBUST, names: Sequence[str] = ()
) -> list[Registration]:
    """Map each section of a block to the middle one, index L // 2, through proven neighbours.

    A slide without tissue is declared failed; where it is the middle one, the nearest with tissue takes its
    place as the common frame.

    Parameters
    ----------
    slides
        In cutting order; one is enough.
    names
        Of the sections. Default: their numbers from 1.

    Returns
    -------
    list of Registration
        In level-0 px. `stages` are those of the step to the neighbour; `ok` and `message` speak for the whole
        way.

    Raises
    ------
    ValueError
        If there is no slide.
    """
    if not slides:
        raise ValueError("a stack has at least one slide, found none")
    names = list(names) or [str(i + 1) for i in range(len(slides))]
    um_per_px = [np.asarray(slide.um_per_px) for slide in slides]
    views = []
    for slide in slides:
        image, scale = slide.thumbnail(settings.um_per_px)
        views.append(_views(image, scale * slide.um_per_px))
    least = LEAST_TISSUE * float(np.median([_area(one) for one in views]))
    present = [i for i, one in enumerate(views) if _area(one) > least]
    middle = min(present or [len(slides) // 2], key=lambda i: abs(i - len(slides) // 2))
    maps = {middle: Registration(np.eye(2, 3), um_per_px[middle], section=names[middle])}
    proven, tried, news = [middle] if present else [], set(), True
    while news:
        news = False
        for i in sorted(set(present) - set(proven), key=lambda i: abs(i - middle)):
            nearest = [j for j in proven if abs(i - j) <= MOST_APART]
            nearest.sort(key=lambda j: (abs(i - j), abs(j - middle)))
            for j in [j for j in nearest if (i, j) not in tried]:
                tried.add((i, j))
                step = align(views[i], views[j], settings)
                if step.ok or i not in maps:
                    maps[i] = replace(
                        _in_px(step, um_per_px[i], um_per_px[j]),
                        message=step.message and f"section {names[i]} onto {names[j]}: {step.message}",
                        section=names[i],
                        onward=None if j == middle else maps[j],
                    )
                if step.ok:
                    proven.append(i)
                    news = True
                    break
    for i in [i for i in range(len(slides)) if i not in maps or i not in present]:
        why = (
            f"no section within {MOST_APART} places is proven"
            if i in present
            else "it shows no tissue, or hardly any beside its neighbours; look at the slide, or leave the "
            "section out of the params file"
        )
        maps[i] = Registration(
            rescale(np.eye(2, 3), 1 / um_per_px[i], 1 / um_per_px[middle]),
            um_per_px[middle],
            ok=False,
            message=f"section {names[i]} lies as it was put on the slide: {why}",
            section=names[i],
        )
    return [maps[i] for i in range(len(slides))]


def register_dataset(params: Params) -> dict[str, Registration]:
    """Align every stack of a dataset, save the maps beside the prepared data, and return them by section."""
    found = {}
    for patient, names in tqdm(params.sections.items(), unit="stack", desc=f"align {params.name}"):
        with ExitStack() as opened:
            slides = [opened.enter_context(Slide(paths.slide_file(params.name, name))) for name in names]
            maps = register_stack(slides, params.registration, names)
        for one in maps:
            found[one.section] = one
            if not one.ok:
                tqdm.write(f"{params.name}, patient {patient}, section {one.section}: {one.message}")
    save_registration(params.name, found)
    return found


class _Hand:
    """A section as it lies, or its mirror image: where it could lie on the other one, and how well."""

    def __init__(self, moving: list[View], fixed: list[View]) -> None:
        self.moving = moving
        starts = search(moving[0], fixed[0])
        refined = [refine("rigid", start, moving[0], fixed[0]) for start in starts[:BEST]]
        maps = [*starts[:RIVALS], *(matrix for matrix in refined if matrix is not None)]
        self.tried = [(matrix, score(matrix, moving[1], fixed[1]).total) for matrix in maps]
        self.best = max(total for _, total in self.tried)
        self.searched = starts[0]
        self.rigid = max(self.tried[RIVALS:], key=lambda one: one[1], default=(None, 0))[0]


def _views(image: np.ndarray, um_per_px: np.ndarray) -> list[View]:
    """See an image at the scale of the search, of the scores, and at its own."""
    return see(image, um_per_px, (SEARCH_UM, SCORE_UM, um_per_px.mean()))


def _area(views: list[View]) -> float:
    """Return the area of the tissue, um2, if it shows at every scale, else 0."""
    return min(view.area for view in views)


def _in_px(found: Registration, moving_um_per_px: np.ndarray, fixed_um_per_px: np.ndarray) -> Registration:
    """Return a map from um to um as one of px."""
    matrix = rescale(found.matrix, 1 / moving_um_per_px, 1 / fixed_um_per_px)
    return replace(found, matrix=matrix, um_per_px=fixed_um_per_px)


def _bend(pair: Pair) -> None:
    """Propose a smooth field after the affine map, believed as far as small windows agree under it.

    The less two sections share, the more of their local shifts is the lean of structures through the block,
    which varies as smoothly as a deformation does. Regression to the mean: the best estimate of a shift is
    the measured one times its reliability.
    """
    moving, fixed = pair.moving[1], pair.fixed[1]
    moved = moving.onto(moving.blurred(BLUR_UM), pair.matrix, fixed)
    cover = moving.onto(moving.mask.astype(np.float32), pair.matrix, fixed) > 0.5
    found = smooth_field(moved, cover, fixed.blurred(BLUR_UM), fixed)
    if found is None:
        pair.propose("smooth", None, note="no field predicts held-out shifts better than none")
    else:
        reliability = max(pair.measure(pair.matrix, found).detail, 0.0)
        pair.propose("smooth", pair.matrix, found.damped(reliability))


def _doubt(pair: Pair, lead: float) -> str:
    """Say why an alignment is not proven."""
    taken = [stage.name for stage in pair.stages if stage.accepted]
    return (
        f"alignment not proven: it must beat every other rotation, and every one of the mirror image, by "
        f"{LEAST_LEAD}, found {lead:.2f} (overlap {pair.score.overlap:.2f}, similarity "
        f"{pair.score.similarity:.2f}, detail {pair.score.detail:.2f}, accepted "
        f"stages: {', '.join(taken) or 'none'}). Look at the overlay: are the sections of one block?"
    )
