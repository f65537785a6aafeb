"""What PixNet's Table 2 shows on the toy: trained on spots of 100 um alone, tested on bins."""

import pandas as pd
import pytest

from stlib.paths import ROOT

PATIENTS = pd.read_csv(ROOT / "results" / "toy_hd" / "pixnet_table2.patients.csv")


def errors(size: str) -> pd.DataFrame:
    """Return the squared errors, patients x models."""
    found = PATIENTS[(PATIENTS["size"] == size) & (PATIENTS["metric"] == "mse")]
    return found.pivot(index="unit", columns="model", values="value")


@pytest.mark.parametrize("size", ["8um", "16um"])
def test_pixnet_beats_the_training_mean(size):
    """On P2 at 8 um it does not, and neither does the ridge: the level that its slide tells is wrong."""
    found = errors(size)
    wrong = ["P2"] if size == "8um" else []
    assert (found.drop(wrong)["pixnet"] < found.drop(wrong)["mean"]).all()
    assert (found.loc[wrong, ["pixnet", "ridge", "stnet", "eggn"]].T > found.loc[wrong, "mean"]).all(None)
    assert found["pixnet"].mean() < found["mean"].mean()


def test_pixnet_against_what_crops():
    """The README says it: at 16 um better than all that crop but SGN, at 8 um than two of them."""
    mean = errors("16um").mean()
    assert mean["pixnet"] < mean[["stnet", "histogene", "egn", "eggn", "bleep", "triplex", "ridge"]].min()
    assert mean["pixnet"] > mean["sgn"]
    mean = errors("8um").mean()
    assert (
        mean[["stnet", "histogene"]].min() > mean["pixnet"] > mean[["egn", "eggn", "bleep", "triplex"]].max()
    )


@pytest.mark.parametrize("size", ["8um", "16um"])
def test_nobody_beats_the_oracle(size):
    found = errors(size)
    assert found.lt(found["oracle"], axis=0).sum().sum() == 0
