"""What must stand before a run begins, and the command that makes it."""

import pytest
from test_results import out

from stlib import paths
from stlib.results import Run

__all__ = ["out"]


def test_a_run_without_its_data_says_what_prepares_them_all_at_once(monkeypatch, out):
    monkeypatch.setattr(paths, "DATA", out / "data")
    message = "found no toy_hd@100um and no toy_hd@16um; run `make prepare DATASET=toy_hd`$"
    with pytest.raises(FileNotFoundError, match=message):
        Run("transfer", "toy_hd@100um", "pixnet", to="toy_hd@16um").begin()


@pytest.mark.parametrize("step", ["2d", "tables", "registration"])
def test_a_dataset_that_is_misspelt_is_named_with_the_nearest(step):
    with pytest.raises(FileNotFoundError, match=r"params/her2ts.yaml does not exist.*nearest: 'her2st'"):
        Run(step, "her2ts", "table1").begin()


@pytest.mark.parametrize("step", ["tables", "figures"])
def test_a_table_without_its_runs_says_how_many_and_what_makes_them(step):
    done = Run("3d", "toy", "controls")
    done.folder.mkdir(parents=True)
    done.record.write_text("{}")
    message = (
        r"tables/table1.yaml needs 14 runs of toy, 13 of them were not made \(first: "
        r"runs/2d/toy/controls/strict-s0/run.json\); `make reproduce-table1 DATASET=toy` makes them"
    )
    with pytest.raises(FileNotFoundError, match=message):
        Run(step, "toy", "table1" * (step == "tables")).begin()
