"""The audit: constants by pencil, and the real counts where they are at hand."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse, stats

from stlib import audit, flaw_table, paths
from stlib.cohort import Cohort
from stlib.expression import top_mean_panel
from stlib.params import load_params
from stlib.sections import Section

HER2ST = Path(os.environ.get("STLIB_HER2ST", paths.raw("her2st"))).resolve()
FULL = "all but the known section"
TRUTHS = [  # shared with nobody's code: computed once from the published counts, four decimals
    ("all sections of the test patients", "folds", 0.5795, 0.5897, 0.4573),
    (FULL, "folds", 0.5918, 0.5938, 0.4483),
    (FULL, "folds", 0.5734, 0.5845, 0.4695),
    (FULL, "folds", 0.3147, 0.4422, 0.7292),
]


@pytest.fixture(scope="module")
def her2st():
    if not (HER2ST / "ST-cnts").is_dir():
        pytest.skip("needs the her2st counts; set STLIB_HER2ST to their folder")
    params = load_params("her2st")
    return params, audit.read_counts(params, HER2ST)


def two_patients():
    """P has one spot a section, profile (1, 1) then (3, 1); Q's sections have (1, 1) and (1, 1)."""
    params = load_params("toy").model_copy(
        update={
            "sections": {"P": ["P1", "P2"], "Q": ["Q1", "Q2"]},
            "known": {"P": "P1", "Q": "Q1"},
            "folds": {"3d": {"P": ["P"], "Q": ["Q"]}},
        }
    )
    counts = {"P1": [[0, 0]], "P2": [[2, 0]], "Q1": [[0, 0]], "Q2": [[0, 0]]}  # plus one each
    sections = {
        name: Section(
            name=name, patient=name[0], layer=int(name[1]),
            barcodes=np.array(["1x1"]), genes=np.array(["g", "h"]), counts=sparse.csr_matrix(value),
            array=np.ones((1, 2)), position=np.ones((1, 2)), um_per_px=np.ones(2), size_px=None,
            shape="circle", size_um=100, pitch_um=200,
        )
        for name, value in counts.items()
    }  # fmt: skip
    return params, sections


def test_constants_by_pencil():
    params, sections = two_patients()
    table = audit.control_table(params, sections, ["g", "h"]).set_index(["tested on", "mean over"])
    # P2 is (ln 3/4, ln 1/4), all else (ln 1/2, ln 1/2); the known section of P predicts the latter for P2
    own = (np.log(3 / 2) ** 2 + np.log(1 / 2) ** 2) / 2
    last = table.loc[[(FULL, "patients")]].iloc[-1]
    assert last["mse"] == pytest.approx(own / 2, rel=1e-6)  # P scores `own`, Q scores 0
    assert last["mse_sd"] == pytest.approx(own / np.sqrt(2), rel=1e-6)
    assert last["mse_high"] - last["mse"] == pytest.approx(stats.t.ppf(0.975, 1) * own / 2, rel=1e-6)
    assert last["mse"] - last["mse_low"] == pytest.approx(last["mse_high"] - last["mse"])
    assert last["pcc_per_spot_zero"] == 0  # all flat


def test_a_patient_without_its_known_section_has_no_own_mean():
    params, sections = two_patients()
    del sections["P1"]
    table = audit.control_table(params, sections, ["g", "h"])
    assert table["mse"].iloc[-1] == 0  # Q alone
    with pytest.raises(
        ValueError, match=r"no section is left to test .*, found \['P2'\]; add the missing files"
    ):
        audit.control_table(params, {"P2": sections["P2"]}, ["g", "h"])


def test_a_missing_file_is_refused_or_skipped(monkeypatch, tmp_path):
    params, sections = two_patients()

    def read(params, folder, name, slide=True):
        if name == "Q2":
            raise FileNotFoundError("Q2 is not there")
        return replace(sections[name])

    monkeypatch.setattr(
        audit.datasets, "reader", lambda params: type("reader", (), {"read": staticmethod(read)})
    )
    with pytest.raises(FileNotFoundError, match="Q2 is not there. With MISSING=skip"):
        audit.read_counts(params, tmp_path)
    assert list(audit.read_counts(params, tmp_path, "skip")) == ["P1", "P2", "Q1"]
    with pytest.raises(ValueError, match="missing is 'refuse' or 'skip', found 'ignore'"):
        audit.read_counts(params, tmp_path, "ignore")


def test_the_printed_numbers_stand_under_ours():
    printed = audit.reported("her2st").set_index("reported")
    assert printed.loc["ASIGN 3D", ["mse", "mae", "pcc_per_spot_zero"]].tolist() == [0.363, 0.473, 0.693]
    assert audit.reported("toy").empty
    params, sections = two_patients()
    text = audit.markdown(audit.control_table(params, sections, ["g", "h"]), printed.reset_index())
    assert (
        "| reported: ASIGN 3D | | | 0.363 ± 0.054 | 0.473 ± 0.053 | 0.693 ± 0.091 |" in text
        and "| reported: ASIGN 2D | | | 0.579 | 0.590 | 0.476 |" in text
        and "PCC per spot, flat as 0 |" in text
    )


def test_the_controls_of_her2st_are_what_they_were_measured_to_be(her2st):
    params, sections = her2st
    table = audit.control_table(params, sections, top_mean_panel(sections.values(), params.panel.size))
    folds = table[table["mean over"] == "folds"]
    for row, (tested_on, over, *values) in zip(folds.to_dict("records"), TRUTHS, strict=True):
        assert (row["tested on"], row["mean over"]) == (tested_on, over)
        assert [round(row[name], 4) for name in audit.NAMES] == values, row["control"]
    own = table.iloc[-1]
    assert own["mean over"] == "patients"
    assert [round(own[name], 4) for name in audit.NAMES] == [0.3120, 0.4404, 0.7324]
    assert [round(own[f"{name}_sd"], 3) for name in audit.NAMES] == [0.030, 0.021, 0.092]
    assert [round(own[f"mse_{end}"], 3) for end in ("low", "high")] == [0.287, 0.337]


def test_pooled_over_a_fold_a_constant_per_patient_of_her2st_has_a_correlation(her2st):
    params, sections = her2st
    panel = top_mean_panel(sections.values(), params.panel.size)
    found = flaw_table.poolings(Cohort.of(params, sections, panel)).loc["mean of the known section"]
    assert np.isnan(found["pcc_per_gene"]) and round(found["pcc_per_gene_pooled"], 3) == 0.365
