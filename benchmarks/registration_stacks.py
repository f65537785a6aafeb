"""Random stacks of painted tissue: how many are aligned right, declared failed, or silently wrong.

``python benchmarks/registration_stacks.py [number] [jobs]`` paints stacks whose true maps are known: 2 to 12
sections, turned by any angle, shifted, warped, some of them mirrored, blank or missing, each with its own
size and um per px. The tissue is as large as that of the toy dataset, or small. The full number (100 of
either) writes results/registration_stacks.md.
"""

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tqdm import tqdm

from stlib import paths
from stlib.alignment import Registration
from stlib.params import Registration as Settings
from stlib.params import Spot
from stlib.registration import register_stack
from stlib.slide import Slide, write_pyramid
from stlib.toy import Options, Toy, sunflower
from stlib.toy_paint import paint

NUMBER = 100
RADIUS_UM = {"as large as the toy's": 1300.0, "small": 800.0}
WRONG_UM = 100.0  # mean error that counts as wrong: half the pitch of her2st's spots
MIRRORED, BLANK, MISSING = 0.15, 0.1, 0.15  # chances of a section
GLASS_UM = 700.0, 1100.0  # beside the tissue, in all
SPOT = Spot(shape="circle", size_um=100.0, pitch_um=200.0)
SETTINGS = Settings(um_per_px=8.0)
INTRODUCTION = f"""\
# Random stacks: aligned right, declared failed, silently wrong

Painted by `benchmarks/registration_stacks.py` (seeded): 2 to 12 sections 48 um apart, up to two in a row
missing; any angle, shifts, a smooth warp of 25 um, mirror images and blank slides, another size and another
um per px for each.

A section counts as wrong from a mean error of {WRONG_UM:.0f} um, of the step to the section it was aligned
to, or of the whole way to the common frame, drift along the stack included. Sections as cut: m mirrored, b
blank. The middle one, or the nearest with tissue, is the frame.
"""


@dataclass(frozen=True)
class Cut:
    """One section of a stack."""

    toy: Toy  # the block at this section's scale and size
    name: str
    mirrored: bool
    blank: bool

    def image(self) -> np.ndarray:
        """Return the slide, uint8 (h, w, 3)."""
        if self.blank:
            size = self.toy.options.size_px
            glass = 245 + self.toy.random("slide", self.name).normal(0, 2, (size, size, 1))
            return np.repeat(glass, 3, 2).clip(0, 255).astype(np.uint8)
        image = paint(self.toy, self.name)
        return image[:, ::-1] if self.mirrored else image

    def to_slide(self, places: np.ndarray) -> np.ndarray:
        """Map places in the block (N, 2), um, to px of the slide."""
        px = self.toy.cuts[self.name].to_slide(places)
        return px * [-1, 1] + [self.toy.options.size_px, 0] if self.mirrored else px


def stack(number: int, radius_um: float) -> list[Cut]:
    """Return the sections of a stack; equal numbers give equal stacks."""
    rng = np.random.default_rng([2026, number])
    length = int(rng.integers(2, 13))
    layers = [str(n) for n in range(1, 16)]
    kept = layers[:1]  # a missing section leaves twice the distance; never are more than two in a row missing
    for name in layers[1:]:
        if len(kept) < length and (rng.random() > MISSING or int(name) - int(kept[-1]) > 2):
            kept.append(name)
    cuts = []
    for name in kept:
        um = float(rng.uniform(3.0, 5.0))
        options = Options(
            seed=number, genes=3, um_per_px=um, size_px=int((2 * radius_um + rng.uniform(*GLASS_UM)) / um),
            radius_um=radius_um, spacing_um=48.0, rotation_deg=180.0, shift_um=100.0, warp_um=25.0,
            shares={"visible": 0.45, "hidden": 0.35, "patient": 0.2}, sd=0.8, base_sd=1.2, depth=3000.0,
            depth_sd=0.4, dispersion=0.35,
        )  # fmt: skip
        toy = Toy(options, {"P": layers, "Q": ["q"]}, SPOT)
        cuts.append(Cut(toy, name, bool(rng.random() < MIRRORED), bool(rng.random() < BLANK)))
    return cuts


def align(cuts: list[Cut]) -> list[Registration]:
    """Paint a stack and register it."""
    with TemporaryDirectory() as folder:
        slides = []
        for cut in cuts:
            path = Path(folder) / f"{cut.name}.tif"
            write_pyramid(cut.image(), path, cut.toy.options.um_per_px)
            slides.append(Slide(path))
        return register_stack(slides, SETTINGS, [cut.name for cut in cuts])


def errors(cuts: list[Cut], maps: list[Registration]) -> tuple[np.ndarray, np.ndarray]:
    """Return how far places of the tissue are mapped from the truth, mean of each section (S,), um.

    First by the step to the section it was aligned to, then by the whole way to the common frame, drift along
    the stack included.
    """
    by_name = {cut.name: cut for cut in cuts}
    frame = next((one.section for one in maps if one.ok and not one.stages), maps[0].section)
    radius_um = cuts[0].toy.options.radius_um
    disc = sunflower(np.zeros((1, 3)), 0.8 * radius_um, 200)[0, :, :2]  # um in the block

    def error(one: Registration, cut: Cut, onto: Cut) -> float:
        true = onto.to_slide(disc) * onto.toy.options.um_per_px
        return float(np.linalg.norm(one.to_um(cut.to_slide(disc)) - true, axis=1).mean())

    steps, ways = [], []
    for cut, one in zip(cuts, maps, strict=True):
        onto = one.onward.section if one.onward else frame
        steps.append(error(replace(one, onward=None), cut, by_name[onto]))
        ways.append(error(one, cut, by_name[frame]))
    return np.array(steps), np.array(ways)


def verdict(cuts: list[Cut], maps: list[Registration], step: np.ndarray, way: np.ndarray) -> str:
    """Return ``right``, ``declared`` (a section with tissue is said to be unproven) or ``silently wrong``."""
    ok, blank = np.array([one.ok for one in maps]), np.array([cut.blank for cut in cuts])
    if (ok & (blank | (step > WRONG_UM) | (way > WRONG_UM))).any():
        return "silently wrong"
    return "right" if (ok | blank).all() else "declared"


@dataclass(frozen=True)
class Outcome:
    """What came out of one stack."""

    line: str  # of the table
    verdict: str
    sections: list[tuple[bool, bool, bool, float, float]]  # mirrored, blank, proven; um off: step, way
    messages: list[str]
    seconds: float


def outcome(number: int, radius_um: float) -> Outcome:
    """Make a stack, align it and compare."""
    start, cuts = time.process_time(), stack(number, radius_um)
    maps = align(cuts)
    seconds, (step, way) = time.process_time() - start, errors(cuts, maps)
    proven, found = np.array([one.ok for one in maps]), verdict(cuts, maps, step, way)
    what = " ".join(f"{cut.name}{'m' * cut.mirrored}{'b' * cut.blank}" for cut in cuts)
    line = f"| {number} | {what} | {found} | {proven.sum()} | {step[proven].max(initial=0):.0f} | "
    line += f"{way[proven].max(initial=0):.0f} |"
    sections = [
        (cut.mirrored, cut.blank, one.ok, *pair)
        for cut, one, *pair in zip(cuts, maps, step.tolist(), way.tolist(), strict=True)
    ]
    return Outcome(line, found, sections, [one.message for one in maps if not one.ok], seconds)


def main(number: int = NUMBER, jobs: int = 1) -> None:
    """Align all stacks, and write what came out."""
    parts = [INTRODUCTION]
    for size, radius_um in RADIUS_UM.items():
        found = []
        with ProcessPoolExecutor(jobs) as pool:
            outcomes = pool.map(outcome, range(number), [radius_um] * number)
            for one in tqdm(outcomes, total=number, unit="stack", desc=f"tissue {size}"):
                tqdm.write("\n    ".join([one.line, *one.messages]))
                found.append(one)
        parts.append(f"## Tissue {size}: radius {radius_um:.0f} um\n\n{report(found)}")
        print(parts[-1].split("\n\n|")[0])
    if number == NUMBER:
        paths.write_text(paths.RESULTS / "registration_stacks.md", "\n\n".join(parts) + "\n")


def report(found: list[Outcome]) -> str:
    """Return counts, errors and time as markdown, then a line per stack."""
    verdicts, sections = [one.verdict for one in found], [row for one in found for row in one.sections]
    mirrored, blank, ok, step, way = (np.array(column) for column in zip(*sections, strict=True))
    moved = ok & (way > 1e-6)
    text = [
        f"{len(found)} stacks of {len(sections)} sections, {mirrored.sum()} mirrored, {blank.sum()} blank.",
        "",
        *(f"- {word}: {verdicts.count(word)} stacks" for word in ("right", "declared", "silently wrong")),
        f"- sections with tissue that are declared unproven: {int((~ok & ~blank).sum())}; "
        f"blank ones not declared: {int((ok & blank).sum())}",
        *(
            f"- mean error of proven sections, {word}: median {np.median(error[moved]):.0f} um, 95 % below "
            f"{np.quantile(error[moved], 0.95):.0f} um, largest {error[moved].max():.0f} um"
            for word, error in (("step", step), ("whole way", way))
        ),
        f"- {sum(one.seconds for one in found):.0f} s of one core, painting included",
        "",
        "| stack | sections | verdict | proven | largest error of a step, um | of a whole way, um |",
        "|---|---|---|---|---|---|",
        *(one.line for one in found),
    ]
    return "\n".join(text)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
