"""The README, the page of findings and the map of the library say what results, Makefile and folder say."""

import re

import stlib
from stlib.paths import ROOT
from stlib.rendered import QUOTING, quote

README = (ROOT / "README.md").read_text()
QUOTED = {
    "README.md": ["her2st_small/table1"],
    "results/findings.md": [
        "toy/table1",
        "her2st_c/patient_c",
        "toy_hd/magnet_table2",
        "toy_hd/pixnet_table2",
    ],
}
TABLES = [name for names in QUOTED.values() for name in names]


def test_tables_are_those_of_the_results():
    assert [page.relative_to(ROOT).as_posix() for page in QUOTING] == list(QUOTED)
    for page, names in zip(QUOTING, QUOTED.values(), strict=True):
        text = page.read_text()
        assert re.findall(r"<!-- results/(\S+)\.md -->", text) == names
        assert quote(text) == text


def test_a_changed_result_is_noticed(tmp_path):
    for name in TABLES:
        (tmp_path / "results" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "results" / f"{name}.md").write_text("caption\n\n**2d**\n\n| a |\n| 1 |\n\n- note\n")
    changed = "".join(quote(page.read_text(), tmp_path) for page in QUOTING)
    assert (
        changed != "".join(page.read_text() for page in QUOTING)
        and "| 1 |" in changed
        and "- note" not in changed
    )


def test_every_make_target_it_names_exists():
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z][a-z0-9-]+)(?![\w/-])", README, re.MULTILINE))
    assert {"test", "audit", "data", "lab", "reproduce-table1"} <= named
    tables = {f"reproduce-{path.stem.replace('_', '-')}" for path in (ROOT / "tables").glob("*.yaml")}
    for target in named - tables:
        assert re.search(rf"^([a-z]+ )*{target}[ :]", makefile, re.MULTILINE), target


def test_the_map_of_the_library_names_each_module():
    modules = {path.stem for path in (ROOT / "stlib").glob("*.py")} - {"__init__"}
    assert set(re.findall(r"`(\w+)`", stlib.__doc__)) == modules


def test_the_figures_it_shows_exist():
    for page in QUOTING:
        for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text()):
            assert (page.parent / path).exists(), path


def test_ci_runs_the_test_command_and_nothing_else():
    lines = [
        line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert lines == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "make test"]
    assert "make test" in README
