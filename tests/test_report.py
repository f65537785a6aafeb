"""The report: what it is put together from; its page as a whole is tested in test_notebooks.py."""

import numpy as np
import pandas as pd
import pytest

from stlib import layout, paths, render, report


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A folder that results, figures and runs are kept in."""
    for name in ("OUT", "RUNS", "RESULTS", "FIGURES"):
        monkeypatch.setattr(paths, name, tmp_path / ("" if name == "OUT" else name.lower()))
    return tmp_path


def test_numbers_of_a_table_come_back_with_the_same_look(table, found, tmp_path):
    laid = layout.scores(table, found, ["a note, with # in it"])
    (tmp_path / "small.csv").write_text(render.csv(laid))
    again = layout.scores(table, report.numbers_of(tmp_path / "small.csv"))
    assert again.blocks == laid.blocks and again.heads == laid.heads


def test_lines_beside_a_table_lead_to_the_run_of_their_row(tmp_path):
    line = report.RunLine("runs-a", "runs/a", 0, 1.0, 1.0, 1, "made", "aa", "")
    (tmp_path / "t.genes.csv").write_text(
        "protocol,setting,size,label\n2d,strict,,A < B\n2d,strict,8um,A < B\n"
    )
    shown = report._plain(tmp_path / "t.genes.csv", {("2d", "strict", "", "A < B"): [line]})
    assert shown.count("A &lt; B") == 2 and shown.count('<a href="#runs-a">A &lt; B</a>') == 1


def test_an_audit_is_a_report_without_a_table(out):
    (out / "results" / "toy").mkdir(parents=True)
    (out / "results" / "toy" / "audit.md").write_text("| a |\n|---|\n| 1.25 |\n")
    assert "<td>1.25</td>" in report.write("toy", out / "report").read_text()


def test_a_report_needs_a_table(out):
    with pytest.raises(FileNotFoundError, match="none stands in results/toy; make one first, e.g. make"):
        report.write("toy", out / "report")


def test_a_run_that_is_not_the_tables_tells_nothing_of_it(out):
    """Two runs of a table: one stands as it was, one was made anew by other code."""
    lines = pd.DataFrame(
        {
            "protocol": "2d",
            "dataset": "toy",
            "model": ["mean", "ridge"],
            "setting": "strict",
            "seed": 0,
            "to": np.nan,
            "device": "made",
            "train_seconds": 60.0,
            "seconds": 90.0,
            "peak_memory_mb": 7,
            "fingerprint": ["aa", "bb"],
        }
    )
    lines.to_csv(out / "small.runs.csv", index=False)
    for name in ("mean", "ridge"):
        folder = out / "runs" / "2d" / "toy" / name / "strict-s0"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text('{"fingerprint": "aa", "parameters": {"k": 1}}')
    (_, one), (_, other) = report._told(out / "small.runs.csv")
    assert (one.anchor, one.minutes, one.train_minutes) == ("runs-2d-toy-mean-strict-s0", 1.5, 1.0)
    assert '"k": 1' in one.parameters and other.parameters == ""


def test_long_lists_are_cut_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MOST_LINES", 2)
    (tmp_path / "t.genes.csv").write_text("gene\n<a>\nb\nc\n")
    shown = report._plain(tmp_path / "t.genes.csv", {})
    assert "&lt;a&gt;" in shown and "<td>c" not in shown and "1 more lines in t.genes.csv" in shown
