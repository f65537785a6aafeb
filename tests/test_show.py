"""What the notebooks put on the page beside their figures."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd

from stlib import show
from stlib.alignment import Score, Stage
from stlib.models import configure
from stlib.params import load_params
from stlib.splits import folds

NAN = float("nan")


def test_scores_are_means_with_their_spread_and_the_headline_of_each_patient():
    one = pd.DataFrame(
        {"pcc_per_gene": [0.2, 0.4], "mse": [1.0, 3.0]}, index=pd.Index(["P1", "P2"], name="patient")
    )
    flat = one.assign(pcc_per_gene=NAN)
    text = show.scores({"asign": one, "mean": flat}).splitlines()
    assert text[0] == "mean ± standard deviation over 2 patients"
    assert text[2].split("  ") == ["asign", "0.30 ± 0.14", "2.00 ± 1.41"]
    assert text[3].split() == ["mean", "undefined", "2.00", "±", "1.41"]
    assert text[5] == "pcc_per_gene of each patient"
    assert [line.split() for line in text[6:]] == [
        ["P1", "P2"],
        ["asign", "0.20", "0.40"],
        ["mean", "undefined", "undefined"],
    ]


def test_one_patient_has_no_spread():
    one = pd.DataFrame({"pcc_per_gene": [0.2]}, index=pd.Index(["P1"], name="patient"))
    text = show.scores({"asign": one})
    assert text.startswith("patient P1\n") and "±" not in text


def test_scores_do_not_depend_on_what_cannot_be_printed():
    one = pd.DataFrame({"mse": np.array([0.5, 0.5000001])}, index=pd.Index(["P1", "P2"], name="patient"))
    assert "0.50 ± 0.00" in show.scores({"m": one})


def test_settings_show_every_number_of_the_params_file():
    text = show.settings(load_params("toy")).data
    assert text.startswith("<details><summary>the settings of toy, from params/toy.yaml</summary>\n")
    assert (
        "```yaml\nname: toy" in text and "um_per_px: 2.0" in text and "global: {px: 384, out_px: 96}" in text
    )


def test_an_idea_is_the_docstring_of_its_file_and_the_settings():
    text = show.idea("smooth", configure("smooth", "3d")).data
    assert "the known section's labels, denoised" in text and "sigma_um=" in text


def test_folds_name_who_is_looked_at():
    found = show.folds(folds(load_params("toy"), "3d"))
    assert (
        found.loc["P1", "known"] == "P1-1"
        and found.loc["P1", "test"] == "P1-2 P1-3"
        and "P1" not in found.loc["P2", "test"]
    )
    assert show.folds(folds(load_params("toy"), "2d")).loc["P1", "known"] == "-"


def test_stages_say_what_they_changed_and_whether_it_was_taken_over():
    better, none = Score(0.5, 0.25, 0.125, 1.0), Score(0.0, 0.0, 0.0, 0.0)
    stages = [
        Stage("rigid", none, better, True),
        Stage("smooth", better, none, False, note="no field is better"),
    ]
    text = show.stages({"S1": SimpleNamespace(stages=stages)}).data
    cells = re.findall(r"<t[hd]>(.*?)</t[hd]>", text)
    assert cells[:2] + cells[-3:] == ["section", "stage", "", "no", "no field is better"]
    assert cells[8:12] == ["S1", "rigid", "0.00 → 0.50", "0.00 → 0.25"] and "matches" not in cells
    assert show.stages({}).data == "nothing to align"
