"""What a trained model says of a slide that is in no dataset, in the forms that others read.

Of each location an AnnData row: scanpy and squidpy draw it on the slide at once. Of all bins of a slide,
where a dataset keeps a sample of them, a Zarr array (`stlib.wholeslide`, `stlib.genemaps`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import zarr

from stlib import features, genemaps, paths, wholeslide
from stlib.h5ad import write_h5ad
from stlib.likeness import Likeness, likeness
from stlib.models import Method
from stlib.new_slide import NewSlide
from stlib.params import Params
from stlib.sections import Section
from stlib.slide import Slide
from stlib.stain import Stain
from stlib.tiles import Tiles, of_section

if TYPE_CHECKING:
    import anndata

SCALE = "t = ln((x + 1) / sum over the panel of (x + 1))"  # see stlib.expression.log_proportion
HIRES_PX = 2000  # longer side of the image that goes along
ARRAY_SIDE = 64  # columns and rows of a tile of a whole slide


def compare(params: Params, section: Section, training: dict[str, Section]) -> list[Likeness]:
    """Return how like the training sections a slide is, by stain and by the dataset's frozen features.

    `training` are the sections that the model was trained on.
    """
    encoders = {by.name: by for by in (Stain(), features.encoder(params.encoder))}
    patient_of = {name: one.patient for name, one in training.items()}
    return [
        likeness(
            name,
            features.features(params, section, "spot", by),
            {other: features.features(params, one, "spot", by) for other, one in training.items()},
            patient_of,
        )
        for name, by in encoders.items()
    ]


def predict_whole(model: Method, params: Params, every: Section, sample: Section, path: Path) -> zarr.Array:
    """Predict all locations of a slide, more than one batch holds, into a Zarr array.

    Parameters
    ----------
    every, sample
        All locations of the slide, and those over which features are standardised, as in training.
    path
        The folder of the array; predictions that stand there are kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if model.UNIT == "window":
        about = {"dataset": params.name, "section": every.name, "model": type(model).__name__}
        return genemaps.predict_slide(model, dense_tiles(model, params, every), every.array, path, about)
    device = str(next(iter(model.state_dict().values())).device)
    places = every.array, every.position
    return wholeslide.predict_slide(model, params, sample, *places, path, side=ARRAY_SIDE, device=device)


def dense_tiles(model: Method, params: Params, section: Section) -> Tiles:
    """Return a slide as a network of UNIT ``window`` takes it."""
    return of_section(paths.slide_file(params.name, section.name), section, model.config.halvings)


def as_table(
    params: Params,
    new: NewSlide,
    section: Section,
    genes: Sequence[str],
    values: np.ndarray,
    about: dict[str, Any],
) -> "anndata.AnnData":
    """Return predictions as an AnnData in the scverse layout.

    Parameters
    ----------
    params, new, section
        The dataset, the slide, and N locations on its copy.
    genes, values
        Names (G,), and predicted expression (N, G).
    about
        What made them: plain data for ``uns["about"]``.

    Returns
    -------
    anndata.AnnData
        ``X`` (N, G) float32; ``obs`` in_tissue, array_row, array_col; ``obsm["spatial"]`` centres in level-0
        px of the slide as it came, x right and y down; ``uns["spatial"]`` its image and scale.
    """
    import anndata

    with Slide(paths.slide_file(params.name, section.name)) as slide:
        coarse = float((slide.size_px * slide.um_per_px).max()) / HIRES_PX
        image, scale = slide.thumbnail(coarse)
    whole = not (section.array % 1).any()  # some arrays are counted in pitches
    column, row = (section.array.astype(int) if whole else section.array).T
    obs = pd.DataFrame({"in_tissue": 1, "array_row": row, "array_col": column}, index=section.barcodes)
    return anndata.AnnData(
        X=np.asarray(values, np.float32),
        obs=obs,
        var=pd.DataFrame(index=list(genes)),
        obsm={"spatial": section.position * new.px},
        uns={
            "spatial": {
                new.title: {
                    "images": {"hires": image},
                    "scalefactors": {
                        "tissue_hires_scalef": float(1 / np.mean(scale * new.px)),
                        "spot_diameter_fullres": section.size_um / float(np.mean(new.um_per_px)),
                    },
                    "metadata": {},
                }
            },
            "um_per_px": new.um_per_px,
            "about": about | {"values": SCALE, "dataset": params.name},
        },
    )


def write_table(path: Path, table: "anndata.AnnData") -> Path:
    """Write an .h5ad whole or not at all; return its path."""
    write_h5ad(path, table)
    return path
