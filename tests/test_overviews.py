"""Whole figures of numbers: what stands where; how it looks is seen by eye."""

import numpy as np
import pandas as pd
from made import predict

from stlib import comparisons, overviews, scores
from stlib.params import Panel
from stlib.tables import Column

NAN = float("nan")


def test_a_table_has_a_panel_per_metric_and_labels_once():
    lines = [
        {"protocol": "2d", "setting": "strict", "size": "", "label": label, "model": model, "role": role,
         "metric": metric, "mean": 0.5, "low": 0.4, "high": 0.6, "reported": NAN}
        for label, model, role in (("Mean", "mean", "control"), ("ASIGN", "asign", "method"))
        for metric in ("pcc_per_gene", "mse")
    ]  # fmt: skip
    figure = overviews.table_dots(pd.DataFrame(lines))
    assert [ax.get_xlabel().split("\n")[0] for ax in figure.axes] == ["PCC per gene", "MSE"]
    shown = [[tick.label1.get_visible() for tick in ax.yaxis.get_major_ticks()] for ax in figure.axes]
    assert all(shown[0]) and not any(shown[1])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "method",
        "control",
        "best control",
    ]


def test_boxes_say_what_a_dot_is_and_what_was_tested(table):
    patients = scores.by_patient(table, "toy", scores.patient_scores(table, "toy", predict))
    figure = overviews.patient_boxes(patients, comparisons.tests(table, "toy", patients))
    assert [ax.get_xlabel().split("\n")[0] for ax in figure.axes] == ["PCC per gene", "MSE"]
    said = figure.get_supxlabel()
    assert "a dot is a patient (2d: 2 patients, 3d: 2 patients)" in said and "Welch" in said
    alone = patients[patients["unit"] == "A"]
    one = overviews.patient_boxes(alone, comparisons.tests(table, "toy", alone))
    assert "2d: 1 patient, 3d: 1 patient)" in one.get_supxlabel()
    assert "one patient allows no test" in one.get_supxlabel()


def test_each_metric_of_patients_has_a_panel(table):
    wider = table.model_copy(update={"metrics": [*table.metrics, Column(metric="pcc_per_spot_zero")]})
    patients = scores.by_patient(wider, "toy", scores.patient_scores(wider, "toy", predict))
    figure = overviews.patient_boxes(patients, comparisons.tests(wider, "toy", patients))
    assert any("flat as 0" in ax.get_xlabel() for ax in figure.axes) and len(figure.axes) == 3


def test_a_fold_of_a_pooled_metric_is_no_patient(table):
    pooled = Column(metric="pcc_per_gene_pooled")
    wider = table.model_copy(update={"metrics": [*table.metrics, pooled]})
    patients = scores.by_patient(wider, "toy", scores.patient_scores(wider, "toy", predict))
    assert set(patients["unit"]) == {"A", "B", "f"}  # two patients, one fold
    for units, numbers in (("ABf", "2d: 2 patients, 3d: 2 patients"), ("Af", "2d: 1 patient, 3d: 1 patient")):
        some = patients[patients["unit"].isin([*units])]
        said = overviews.patient_boxes(some, comparisons.tests(wider, "toy", some)).get_supxlabel()
        assert f"({numbers})" in said and ("one patient allows no test" in said) == ("B" not in units)


def test_an_ablation_of_two_tables_is_drawn_once():
    line = {"metric": "mse", "mean": 0.2, "low": 0.1, "high": 0.3, "seed_low": 0.15, "seed_high": 0.25}
    line |= {"patients": np.array([0.1, 0.3]), "verdict": "worse", "model": "asign@no_cli", "size": ""}
    found = pd.DataFrame([line | {"group": f"ASIGN Table {n}", "label": f"of {n}"} for n in ("III", "IV")])
    figure = overviews.ablations(found, ["mse"])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["Table III", "of III"]
    assert figure.legends[0].get_texts()[-1].get_text() == "95 % over seeds"
    one = overviews.ablations(found.assign(seed_low=np.nan, seed_high=np.nan), ["mse"])  # was trained once
    assert one.legends[0].get_texts()[-1].get_text() == "a patient"


def test_a_profile_has_a_bar_and_a_number_per_patient():
    counted = pd.DataFrame(
        {"sections": [3, 1], "spots": [1200, 30], "region patches": [9, 2], "global patches": [4, 1]},
        ["A", "B"],
    )
    figure = overviews.dataset_profile(counted, "Two patients")
    assert [ax.get_title() for ax in figure.axes] == [
        "4 sections", "1,230 spots", "11 region patches", "5 global patches",
    ]  # fmt: skip
    assert [text.get_text() for text in figure.axes[1].texts] == ["1,200", "30"]


def test_genes_stand_in_the_order_of_their_rank_and_say_who_lacks_them():
    genes = [f"G{i:02d}" for i in range(23)]
    panel = Panel(rule="highly_variable", size=21, add=["G21", "G22"])
    (ax,) = overviews.gene_list(panel, genes, set(genes[:-1]), ["G03"]).axes
    shown = {text.get_text(): text for text in ax.texts}
    assert [name for name in shown if name.startswith("G")] == genes
    assert shown["G22"].get_color() == overviews.GREY and shown["G03"].get_color() == overviews.RED
    assert shown["1-3"].get_position()[0] == 0 and shown["22-23"].get_position()[0] == 7
    *_, chosen, lacks, mapped = ax.texts
    said = "21 genes of the highest variance of residuals over all sections, the highest first"
    assert chosen.get_text() == f"{said}; then 2 added by name"
    assert lacks.get_text().startswith("1 that the strict panel") and lacks.get_color() == overviews.GREY
    assert mapped.get_text() == "mapped in figures: G03" and mapped.get_color() == overviews.RED
