"""Tables: what stands in `tables/`, how a declaration is read, and the runs that follow from it."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from made import YAML

from stlib import metrics, paths, results, scores, steps, tables
from stlib.models import method
from stlib.params import load_params, sized
from stlib.transfer import native

# ---- what stands in tables/ ----------------------------------------


@pytest.mark.parametrize("name", tables.names())
def test_every_table_names_metrics_datasets_and_reported_rows_that_exist(name):
    table = tables.load_table(name)
    published = scores.published()
    for row in table.rows:
        for column in table.metrics:
            metrics.find(column.metric)
            for dataset in table.reported_dataset:
                if row.protocol not in load_params(sized(dataset)[0]).folds and dataset not in row.train:
                    continue
                for size in table.sizes if row.protocol in ("hd", "transfer") else [""]:
                    reported = scores.reported(published, table, row, column, dataset, size)["reported"]
                    assert np.isnan(reported) != bool(row.reported and column.reported)


@pytest.mark.parametrize("name", tables.names())
def test_every_row_names_a_method_and_a_variant_that_exist(name):
    for row in tables.load_table(name).rows:
        trained = [load_params(sized(name)[0]) for name in row.train.values()]
        for protocol in {native(params) for params in trained} or {row.protocol}:
            assert protocol in method(row.model).PROTOCOLS, row.label


def test_every_published_table_of_magnet_is_declared_with_all_its_rows_and_sizes():
    printed = scores.published().query("paper == 'MagNet' and table in ['1', '2', '3', '4']")
    wanted = {
        (*row, f"{size:g}um")
        for *row, size in printed[["table", "row", "resolution_um"]].itertuples(index=False)
    }
    declared = [tables.load_table(name) for name in tables.names() if name.startswith("magnet")]
    cited = {
        (row.reported.table, row.reported.row, size)
        for table in declared
        for row in table.rows
        if row.reported
        for size in table.sizes
    }
    assert cited == wanted


def test_rows_of_a_dataset_with_sizes_stand_for_each_size_of_the_table():
    one, two = (tables.load_table(f"magnet_table{number}") for number in (1, 2))
    rows = tables.rows_for(one, "toy_hd")
    assert [row.size for row in rows] == [size for size in one.sizes for _ in one.rows]
    assert {run.dataset for run in tables.runs_needed(one, "toy_hd")} == {
        "toy_hd@8um",
        "toy_hd@16um",
        "toy_hd@55um",
    }
    assert {row.size for row in tables.rows_for(two, "toy_hd")} == {"16um"}
    assert tables.rows_for(one, "toy") == [] and tables.rows_for(two, "breast_hd@8um") == []
    assert {row.protocol for row in tables.rows_for(tables.load_table("table1"), "toy_hd")} == {"hd"}
    assert {row.protocol for row in tables.rows_for(tables.load_table("table1"), "toy")} == {"2d", "3d"}


def test_a_dataset_like_another_has_its_rows_and_may_have_fewer_seeds():
    """tiny is like toy, tiny_hd like toy_hd; a transfer trains on their own sizes."""
    ablation = tables.load_table("asign_table2")
    assert tables.rows_for(ablation, "tiny") == tables.rows_for(ablation, "toy")
    seeds = {name: {run.seed for run in tables.runs_needed(ablation, name)} for name in ("tiny", "toy")}
    assert seeds == {"tiny": {0}, "toy": {0, 1, 2}}
    backbones, spots = tables.load_table("magnet_table4"), tables.load_table("pixnet_table2")
    assert tables.absences(backbones, "tiny_hd") == tables.absences(backbones, "toy_hd") != []
    for name in ("tiny_hd", "toy_hd"):
        assert {run.dataset for run in tables.runs_needed(spots, name)} == {f"{name}@100um"}
    breast = load_params("breast_hd@16um").model_copy(update={"name": "other@16um", "like": "breast_hd"})
    assert tables._trained_on(tables.rows_for(spots, "breast_hd")[0], breast) == "st_breast"


def test_every_published_number_of_pixnet_is_declared():
    printed = scores.published().query("paper == 'PixNet'")
    declared = [tables.load_table(f"pixnet_table{number}") for number in (1, 2, 3)]
    cited = {
        (row.reported.table, dataset, row.reported.row, column.reported)
        for table in declared
        for row in table.rows
        if row.reported
        for dataset in table.reported_dataset.values()
        for column in table.metrics
        if column.reported
    }
    assert set(zip(*(printed[name] for name in ("table", "dataset", "row", "metric")), strict=True)) == cited


def test_a_transfer_is_trained_on_one_dataset_and_stands_for_each_size_of_another():
    table = tables.load_table("pixnet_table2")
    runs = [run for run in tables.runs_needed(table, "toy_hd") if run.model == "pixnet"]
    assert runs == [
        tables.Run("transfer", "toy_hd@100um", "pixnet", "strict", 0, to)
        for to in ("toy_hd@8um", "toy_hd@16um")
    ]
    other = tables.load_table("transfer")
    assert {run.dataset for run in tables.runs_needed(other, "toy_hd")} == {"toy_st"}
    assert tables.rows_for(other, "tiny_hd") == []
    assert runs[0].folder == results.Run(*runs[0]).folder
    assert {run.dataset for run in tables.runs_needed(table, "breast_hd")} == {"st_breast"}
    assert tables.rows_for(table, "toy") == [] and tables.rows_for(table, "crc_hd") == []
    third = tables.runs_needed(tables.load_table("pixnet_table3"), "toy_hd")
    assert {run.dataset for run in third} == {"toy_hd@16um", "toy_hd@8um", "toy_hd@8um+16um"}
    assert {run.to for run in third} == {"toy_hd@16um"}


ABLATIONS = ["asign_table2", "asign_table3", "asign_table4", "asign_table6", "asign_table7", "asign_tables2"]


def test_every_published_table_of_asign_is_declared_with_all_its_rows():
    published = scores.published()
    printed = published[(published["paper"] == "ASIGN") & published["table"].str.fullmatch("[IV]+|S[12]")]
    declared = [tables.load_table(name) for name in tables.names() if name.startswith("asign")]
    declared += [tables.load_costs(name) for name in tables.names("costs")]
    cited = {
        (row.reported.table, row.reported.row) for table in declared for row in table.rows if row.reported
    }
    assert cited == set(zip(printed["table"], printed["row"], strict=True))


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_is_trained_with_three_seeds_and_stands_beside_the_whole_and_the_papers(name):
    table = tables.load_table(name)
    assert table.seeds == [0, 1, 2]
    assert {"asign", "asign@paper"} < {row.model for row in table.rows}
    assert all(row.protocol == "3d" for row in table.rows)


def test_tables_share_their_runs():
    three, four, six = (
        tables.runs_needed(tables.load_table(f"asign_table{number}"), "toy") for number in (3, 4, 6)
    )
    shared = {run.model for run in set(three) & set(four)}
    assert {"controls", "asign", "asign@paper", "asign@no_cli", "asign@paper_no_cli"} == shared
    assert sum(run.model == "asign@paper_no_cli" for run in six) == 3  # two rows, one run a seed


@pytest.mark.parametrize("name", tables.names())
def test_every_shared_run_computes_the_models_that_a_table_expects_of_it(name):
    for row in tables.load_table(name).rows:
        shared = row.role != "method" or row.run == tables.SHARED
        assert shared == (row.model in steps.CONTROLS[row.protocol]), row.label


def test_the_reported_numbers_are_all_there_once():
    published = pd.read_csv(paths.TABLES / "reported.csv", dtype=str)
    assert list(published) == ["paper", "table", "dataset", "resolution_um", "row", "metric", "mean", "std"]
    assert published["paper"].value_counts().to_dict() == {"ASIGN": 328, "MagNet": 217, "PixNet": 192}
    assert not published.duplicated(list(published)[:6]).any()


# ---- the declaration ----------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("caption:", "captoin:", r"tables/small.yaml: .*unknown key 'captoin' \(nearest: 'caption'\)"),
        ("role: control", "rolle: control", r"unknown key 'rows.0.rolle'"),
        ("decimals: 3", "decimals: three", r"decimals: .*found 'three'"),
        ("label: Ridge", "label: Mean", "different labels, found 'Mean, 2d, strict' 2 times"),
        ("metric: mse", "metric: pcc_per_gene", "found 'pcc_per_gene' 2 times"),
        ("title: a table for tests\n", "", "key 'title' is missing"),
        (
            "title: a table for tests",
            "title: a\nkind: cost",
            "kind is one of .*'scores', 'costs'.*found 'cost'",
        ),
        ("{toy: HER2}", "{toi: HER2}", "reported_dataset names dataset 'toi', .*params/ .nearest: 'toy'"),
        ("{toy: HER2}", "{toy: HER}", "the papers' 'HER', .*reported.csv .nearest: 'HER2'"),
        (
            "role: control",
            "role: control, train: {toy: her2st}",
            "row 'Mean': `train` is said of a row of the protocol transfer, .*found protocol 2d",
        ),
        ("datasets: [toy]", "datasets: [tow]", "a row names dataset 'tow', .*params/ .nearest: 'toy'"),
    ],
)
def test_a_wrong_declaration_is_refused(folder, old, new, message):
    (folder / "small.yaml").write_text(YAML.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        tables.load_table("small")


COSTS = """
kind: costs
title: a table for tests
caption: What a step takes.
decimals: 2
batch: 8
metrics: [{metric: step_s}, {metric: epoch_s, reported: runtime_s_per_epoch}]
reported_dataset: {toy: HER2}
rows:
  - {label: 32 px, model: asign, protocol: 3d, patch_px: 32}
  - {label: 64 px, model: stnet, protocol: 2d, patch_px: 64, absent: {toy: "it is small"}}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("metric: step_s", "metric: stepp_s", "names metric 'stepp_s', .*measured cost .nearest: 'step_s'"),
        ("metric: step_s", "metric: epoch_s", "found 'epoch_s' 2 times"),
        ("64 px", "32 px", "different labels, found '32 px' 2 times"),
        ("{toy: HER2}", "{toi: HER2}", "reported_dataset names dataset 'toi', .*params/ .nearest: 'toy'"),
        ("{toy: HER2}", "{toy: HER}", "the papers' 'HER', .*reported.csv .nearest: 'HER2'"),
        ("absent: {toy", "absent: {tow", "a row names dataset 'tow', .*params/ .nearest: 'toy'"),
    ],
)
def test_a_wrong_declaration_of_costs_is_refused(folder, old, new, message):
    (folder / "costly.yaml").write_text(COSTS)
    tables.load_costs("costly")
    (folder / "costly.yaml").write_text(COSTS.replace(old, new, 1))
    with pytest.raises(ValueError, match=f"tables/costly.yaml: .*{message}"):
        tables.load_costs("costly")


def test_a_missing_table_names_the_nearest(folder):
    with pytest.raises(FileNotFoundError, match="tables/smal.yaml does not exist.*nearest: 'small'"):
        tables.load_table("smal")


# ---- the runs ----------------------------------------


def test_controls_share_one_run_and_each_run_is_needed_once(table):
    needed = tables.runs_needed(table, "toy")
    assert [(run.protocol, run.model) for run in needed] == [
        ("2d", "controls"),
        ("2d", "stnet"),
        ("2d", "asign@no_graph"),
        ("3d", "controls"),
    ]
    assert set(needed) == {tables.Run(run.protocol, "toy", run.model, "strict", 0) for run in needed}


def test_what_is_not_trained_has_one_seed(table):
    three = table.model_copy(update={"seeds": [4, 5, 6]})
    seeds = {row.label: [run.seed for run in tables.runs_of(three, row, "toy")] for row in three.rows}
    assert seeds["Good"] == [4, 5, 6] and seeds["Mean"] == seeds["Overlap"] == [4]


def test_rows_are_kept_to_the_datasets_and_protocols_they_exist_for(table, tmp_path, monkeypatch):
    text = (paths.PARAMS / "toy.yaml").read_text().replace("name: toy", "name: other")
    lines = [line for line in text.splitlines() if not line.startswith("  3d:")]
    (tmp_path / "other.yaml").write_text("\n".join(lines))
    monkeypatch.setattr(paths, "PARAMS", tmp_path)
    assert [row.label for row in tables.rows_for(table, "other")] == ["Mean", "Ridge", "Good", "Bad"]


def test_what_a_dataset_does_not_allow_is_said(table):
    row = table.rows[3].model_copy(update={"absent": {"toy": "it has no stars"}})
    assert tables.absences(table, "toy") == []
    changed = table.model_copy(update={"rows": [row, *table.rows[4:]]})
    assert tables.absences(changed, "toy") == ["Good, 2d, is not shown: it has no stars."]
    assert [one.label for one in tables.rows_for(changed, "toy")] == ["Bad", "Overlap"]


def test_a_reason_is_given_for_a_dataset_with_sizes_by_its_own_name(table):
    row = table.rows[3].model_copy(update={"absent": {"toy_hd": "it has no stars"}})
    changed = table.model_copy(update={"rows": [row]})
    assert tables.absences(changed, "toy_hd") == ["Good, 2d, is not shown: it has no stars."]


def test_a_method_may_be_absent_from_a_dataset(table, monkeypatch):
    toy = tables.load_params("toy").model_copy(update={"absent": {"asign": "it lacks patients"}})
    monkeypatch.setattr(tables, "load_params", lambda name: toy)
    assert tables.absences(table, "toy") == ["Bad, 2d, is not shown: it lacks patients."]
    assert "Bad" not in [row.label for row in tables.rows_for(table, "toy")]
    without = toy.model_copy(update={"folds": {"3d": toy.folds["3d"]}})
    monkeypatch.setattr(tables, "load_params", lambda name: without)
    assert tables.absences(table, "toy") == []  # nothing is said of a protocol without folds


def test_a_variant_may_be_absent_alone(monkeypatch):
    figure = tables.load_table("pixnet_figure4")
    toy = tables.load_params("toy_hd@16um")
    changed = toy.model_copy(update={"absent": {"pixnet@wide": "it is too wide"}})
    monkeypatch.setattr(tables, "load_params", lambda name: changed)
    shown = [row.model for row in tables.rows_for(figure, "toy_hd@16um")]
    assert "pixnet" in shown and "pixnet@sum" in shown and "pixnet@wide" not in shown
    assert tables.absences(figure, "toy_hd@16um")[-1] == (
        "decoder of one width, hd, is not shown: it is too wide."
    )


def test_a_run_lies_where_results_keeps_it():
    run = tables.Run("3d", "toy", "asign@no_graph", "published", 2)
    kept = results.Run("3d", "toy", "asign@no_graph", "published", 2)
    assert run.folder / "predictions.h5ad" == kept.predictions


def test_the_fragment_has_a_target_with_help_and_the_runs_of_each_dataset(folder):
    lines = tables.fragment().splitlines()
    assert "TABLES := small" in lines
    assert "reproduce-small: runs/tables/$(DATASET)/small/strict-s0/run.json  ## a table for tests" in lines
    (runs,) = [line for line in lines if line.startswith("RUNS_small_toy := ")]
    assert runs.split()[2] == "runs/2d/toy/controls/strict-s0/run.json"
    assert "runs/2d/toy/asign@no_graph/strict-s0/run.json" in runs.split()


def test_a_table_of_costs_has_a_target_and_no_runs(folder):
    (folder / "dear_one.yaml").write_text(COSTS)
    assert tables.names() == ["small"] and tables.names("costs") == ["dear_one"]
    assert tables.load_costs("dear_one").rows[0].patch_px == 32
    made = tables.fragment()
    assert (
        "reproduce-dear-one: runs/cost/$(DATASET)/dear_one/strict-s0/run.json  ## a table for tests" in made
    )
    assert "RUNS_dear_one" not in made


def test_the_fragment_is_printed_without_the_heavy_libraries():
    code = "import sys; from stlib import tables; print(tables.fragment())"
    code += "; assert not {'numpy', 'pandas', 'torch'} & set(sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=paths.ROOT, check=True
    ).stdout
    assert ".PHONY: reproduce-table1" in out


def test_a_table_shows_the_sizes_that_it_names():
    eight = tables.load_table("magnet_table3")
    assert [params.name for params in tables.shown(eight, "toy_hd")] == ["toy_hd@8um"]
    assert [params.name for params in tables.shown(eight, "toy")] == ["toy"]
    assert tables.shown(eight, "toy_hd@16um") == []
