"""The toy's stainer: a section of the toy tissue painted as haematoxylin and eosin.

The fields of the tissue are smooth, so they are computed on a coarse grid, with splines between. Nuclei,
collagen and fat cells are drawn on them pixel by pixel, anew for every section. Light passes as through glass
(Lambert and Beer): what arrives is exp(-amount of stain times its optical density) in R, G and B.
"""

import numpy as np
from scipy import ndimage
from scipy.interpolate import RectBivariateSpline
from scipy.spatial import cKDTree

from stlib.toy import TYPES, Toy

STEP_PX = 8  # of the coarse grid
NUCLEUS_PX = 5  # grid of the nuclei: one at most in each cell
NUCLEI = {  # chance of a nucleus in a cell, radius in px, haematoxylin
    "tumour": (0.55, 2.4, 0.8),
    "stroma": (0.10, 1.5, 0.9),
    "immune": (0.95, 1.7, 1.1),
    "fat": (0.03, 1.5, 0.9),
}
FAT_CELL_PX = 25
DENSITY = np.array([[0.62, 0.72, 0.31], [0.10, 0.95, 0.28]])  # of haematoxylin and eosin in R, G, B
GLASS = 245


def paint(toy: Toy, section: str) -> np.ndarray:
    """Paint a section, uint8 (H, W, 3), at about 2 um per px."""
    block, cut, size = toy.blocks[toy.patient_of[section]], toy.cuts[section], toy.options.size_px
    rng = toy.random("slide", section)
    grid = np.arange(0, size + STEP_PX, STEP_PX) + 0.5
    places = cut.places(np.stack(np.meshgrid(grid, grid), -1))  # (grid, grid, 3)

    def fine(field: np.ndarray) -> np.ndarray:
        return RectBivariateSpline(grid, grid, field)(np.arange(size) + 0.5, np.arange(size) + 0.5)

    gland = block.gland(places)
    types = [fine(fraction) for fraction in np.moveaxis(block.cell_types(places), -1, 0)]
    tumour, stroma, immune, fat = types
    course = places[..., :2] @ [0.11, 0.06] + 5 * block.fibre(places) + gland  # rad, across the fibres
    collagen = 1 + np.sin(fine(course) + rng.normal(0, 0.7, (size, size)))  # 0 to 2
    inside = fine(block.margin_um(places) + 10 * gland) > 0
    fat_cells = (fat > 0.5) & inside
    lumen = (fine(gland) > 1.3) & (tumour > 0.7)

    stain = np.empty((2, size, size))
    stain[0] = 0.16 * tumour + 0.02 * stroma + 0.10 * immune + _nuclei(types, rng)
    stain[1] = 0.30 * tumour + (0.18 + 0.15 * collagen) * stroma + 0.12 * immune + 0.10 * fat
    stain[:, fat_cells] = np.outer([0.05, 0.3], _membranes(np.argwhere(fat_cells), size, rng))
    stain[:, lumen | ~inside] = 0
    stain = ndimage.gaussian_filter(stain, (0, 0.7, 0.7))
    colour = DENSITY * block.stain * rng.uniform(0.95, 1.05, (2, 1))
    light = np.tensordot(stain, -colour, (0, 0))  # (H, W, 3)
    np.exp(light, out=light)
    light *= GLASS + rng.normal(0, 2, (size, size, 1))
    return np.rint(light, out=light).clip(0, 255, out=light).astype(np.uint8)


def _nuclei(types: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Return haematoxylin (H, W) in nuclei: as many, as large and as dark as the cell types have them."""
    size = len(types[0])
    centre = _jittered(size, NUCLEUS_PX, rng)
    row, column = centre.astype(int).T
    chance, radius, dark = np.array([NUCLEI[name] for name in TYPES]).T
    reach = np.cumsum([field[row, column] * p for field, p in zip(types, chance, strict=True)], 0)  # (4, n)
    kind = (rng.uniform(size=len(centre)) > reach).sum(0)  # 4: none here
    centre, kind = centre[kind < len(TYPES)], kind[kind < len(TYPES)]
    radius, dark = radius[kind] * rng.uniform(0.8, 1.2, len(kind)), dark[kind]
    stain = np.zeros((size, size))
    for offset in np.ndindex(7, 7):
        row, column = pixel = (np.floor(centre) + offset - 3).astype(int).T
        distance = np.hypot(*(pixel + 0.5 - centre.T))
        cover = dark * np.clip(radius + 0.5 - distance, 0, 1)
        on = (cover > 0) & ((pixel >= 0) & (pixel < size)).all(0)
        np.maximum.at(stain, (row[on], column[on]), cover[on])
    return stain


def _membranes(px: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return 1 where a pixel (n, 2: row, column) lies between two fat cells (of Voronoi), 0 inside one."""
    distance, _ = cKDTree(_jittered(size, FAT_CELL_PX, rng)).query(px, k=2)
    return (distance[:, 1] - distance[:, 0] < 2.5).astype(float)


def _jittered(size: int, step: int, rng: np.random.Generator) -> np.ndarray:
    """Return one random place in each cell of a grid (n, 2: row, column)."""
    corner = np.stack(np.meshgrid(np.arange(0, size, step), np.arange(0, size, step), indexing="ij"), -1)
    places = corner.reshape(-1, 2) + rng.uniform(0, step, (corner.size // 2, 2))
    return places[(places < size).all(1)]
