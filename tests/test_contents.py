"""The page of what stands."""

import re

import pytest

from stlib import contents, paths, tables


def piece(paper, item):
    return next(one for one in contents.published() if (one.paper, one.item) == (paper, item))


def test_every_declared_table_of_a_paper_is_listed_once_and_every_schematic_by_name():
    named = [one.name for one in contents.published() if one.kind in ("scores", "costs")]
    declared = [*tables.names(), *tables.names("costs")]
    assert sorted(named) == sorted(
        name for name in declared if name not in ("table1", "patient_c", "transfer")
    )
    exempt = [(one.paper, one.item) for one in contents.published() if one.kind == "schematic"]
    assert exempt == [
        *(("ASIGN", f"Figure {n}") for n in (1, 2, 3)),
        ("MagNet", "Figure 2"),
        *(("PixNet", f"Figure {n}") for n in (1, 2)),
    ]


def test_every_figure_that_is_listed_is_drawn_by_the_page_of_figures():
    lines = (paths.NOTEBOOKS / "09_figures.py").read_text().splitlines()
    source = "\n".join(line for line in lines if not line.startswith("#"))  # what is drawn, not what is said
    for one in contents.published():
        assert one.kind != "figure" or one.name in source, one


def test_what_make_has_to_make():
    """A table of bins is nothing for spots; costs are of a dataset that has all their protocols."""
    found = {name: contents.records(name) for name in ("tiny", "tiny_hd", "her2st_small")}
    assert "runs/tables/tiny/asign_table7/strict-s0/run.json" in found["tiny"]
    assert "runs/cost/tiny/asign_tables1/strict-s0/run.json" in found["tiny"]
    assert "runs/tables/tiny_hd/magnet_table4/strict-s0/run.json" in found["tiny_hd"]
    assert not [name for name in found["tiny_hd"] if "asign" in name]
    every = {name for records in found.values() for name in records}
    for one in contents.published():
        assert one.kind not in ("scores", "costs") or any(f"/{one.name}/" in name for name in every), one
    assert {f"runs/figures/{name}/run.json" for name in found} < every


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A folder of results with one table and two maps of one figure."""
    for name, value in {"OUT": "", "RESULTS": "results", "FIGURES": "figures"}.items():
        monkeypatch.setattr(paths, name, tmp_path / value)
    for file in (
        "results/toy/asign_table1.md",
        "results/tiny/asign_table1.md",
        "figures/toy/asign_figure5_A_2d.png",
        "figures/toy/asign_figure5_B_2d.png",
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    return tmp_path


def test_the_page_claims_what_there_is_and_no_more(out):
    lines = contents.page().splitlines()
    assert "| `make reproduce-asign-table1` | [toy](../results/toy/asign_table1.md) | tiny |" in "".join(
        line for line in lines if "Table I |" in line
    )
    assert [line for line in lines if "| Figure 5 |" in line][0].endswith(
        "| `make figures` | [toy](../figures/toy/asign_figure5_A_2d.png) |  |"
    )
    assert (
        sum("nothing yet" in line for line in lines)
        == len([one for one in contents.published() if one.kind != "schematic"]) - 2
    )


def test_the_committed_page_leads_somewhere_and_leaves_nothing_out():
    text = (paths.ROOT / "results" / "contents.md").read_text()
    linked = {(paths.ROOT / "results" / link).resolve() for link in re.findall(r"\]\(([^)]+)\)", text)}
    assert linked and all(path.exists() for path in linked)
    for one in contents.published():
        if one.kind in ("scores", "costs"):
            stands = {path.resolve() for path in (paths.ROOT / "results").glob(f"*/{one.name}.md")}
            assert {path for path in stands if path.parent.name not in contents.PASSING} <= linked, one
