"""What a run predicted, beside what was measured: the only thing that metrics, tables and figures read."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stlib import paths
from stlib.fingerprint import seal, sealed
from stlib.h5ad import write_h5ad
from stlib.sections import Section


@dataclass(frozen=True)
class Predictions:
    """Predicted and measured expression of N locations; G genes over all folds.

    Attributes
    ----------
    prediction, truth
        (N, G) float32, on the label scale. A fold has its own panel under `strict`, so a row is NaN in the
        genes outside the panel of its fold.
    genes
        Names (G,).
    obs
        One row each: barcode, section, patient, fold, known (measured and shown to the model; never scored),
        x_px, y_px, x_um, y_um.
    """

    prediction: np.ndarray
    truth: np.ndarray
    genes: np.ndarray
    obs: pd.DataFrame

    def fold(self, name: str) -> "Predictions":
        """Return the rows of one fold and the genes of its panel."""
        rows = (self.obs["fold"] == name).to_numpy()
        panel = ~np.isnan(self.truth[rows]).all(0)
        return Predictions(
            self.prediction[np.ix_(rows, panel)],
            self.truth[np.ix_(rows, panel)],
            self.genes[panel],
            self.obs[rows],
        )


def obs_of(section: Section, fold: str, known: bool = False) -> pd.DataFrame:
    """Return the `obs` of a section in a fold, see `Predictions`."""
    (x_px, y_px), (x_um, y_um) = section.position.T, (section.position * section.um_per_px).T
    about = {"section": section.name, "patient": section.patient, "fold": fold, "known": known}
    places = {"x_px": x_px, "y_px": y_px, "x_um": x_um, "y_um": y_um}
    return pd.DataFrame({"barcode": section.barcodes} | about | places)


def concatenate(parts: list[Predictions]) -> Predictions:
    """Put folds together; genes outside a fold's panel become NaN in its rows."""
    genes = list(dict.fromkeys(gene for part in parts for gene in part.genes))
    place = {gene: column for column, gene in enumerate(genes)}

    def widen(name: str) -> np.ndarray:
        blocks = []
        for part in parts:
            block = np.full((len(part.obs), len(genes)), np.nan, np.float32)
            block[:, [place[gene] for gene in part.genes]] = getattr(part, name)
            blocks.append(block)
        return np.concatenate(blocks)

    obs = pd.concat([part.obs for part in parts], ignore_index=True)
    return Predictions(widen("prediction"), widen("truth"), np.array(genes), obs)


def save_predictions(path: Path, predictions: Predictions, about: dict[str, str]) -> None:
    """Write an .h5ad: X is the prediction, layers["truth"] the measurement, uns["about"] what made it."""
    import anndata

    obs = predictions.obs.copy()
    obs.index = obs["fold"] + "/" + obs["section"] + "/" + obs["barcode"]
    table = anndata.AnnData(
        X=predictions.prediction,
        obs=obs,
        var=pd.DataFrame(index=predictions.genes),
        layers={"truth": predictions.truth},
        obsm={"spatial": obs[["x_px", "y_px"]].to_numpy()},
        uns={"about": about},
    )
    write_h5ad(path, table)
    seal(path)


def load_predictions(path: Path) -> Predictions:
    """Read what `save_predictions` wrote.

    Raises
    ------
    FileNotFoundError
        If the run is missing.
    ValueError
        If the file is damaged.
    """
    import anndata

    remedy = f"make its run again (`make {os.path.relpath(path.with_name('run.json'), paths.OUT)}`)"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; {remedy}")
    sealed(path, remedy)
    table = anndata.read_h5ad(path)
    obs = table.obs.reset_index(drop=True)
    for name in obs.columns[obs.dtypes == "category"]:
        obs[name] = obs[name].astype(str)
    return Predictions(table.X, table.layers["truth"], table.var_names.to_numpy(), obs)
