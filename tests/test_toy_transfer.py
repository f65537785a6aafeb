"""What PixNet's Table 2 must show on the toy: trained on spots of 100 um alone, tested on bins."""

import pandas as pd
import pytest

from stlib.paths import ROOT

PATIENTS = pd.read_csv(ROOT / "results" / "toy_hd" / "pixnet_table2.patients.csv")  # a fold is a patient
SIZES = ["8um", "16um"]
CROPS = ["stnet", "egn", "bleep", "triplex", "histogene"]  # what they see of a location is cut around it


def scores(size: str, metric: str) -> pd.DataFrame:
    """Return patients x models."""
    found = PATIENTS[(PATIENTS["size"] == size) & (PATIENTS["metric"] == metric)]
    return found.pivot(index="unit", columns="model", values="value")


@pytest.mark.parametrize("size", SIZES)
def test_pixnet_beats_the_training_mean_in_each_fold(size):
    errors = scores(size, "mse")
    assert (errors["pixnet"] < errors["mean"]).all() and (errors["oracle"] < errors["pixnet"]).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("model", CROPS)
def test_pixnet_predicts_bins_better_than_methods_that_crop(size, model):
    assert scores(size, "mse").mean()["pixnet"] < scores(size, "mse").mean()[model]
    assert scores(size, "pcc_per_gene").mean()["pixnet"] > scores(size, "pcc_per_gene").mean()[model]
