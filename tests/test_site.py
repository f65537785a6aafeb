"""The static site: every link leads somewhere, also offline, and one that does not is named."""

import base64
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat import v4

from stlib import paths
from stlib.site import Site

DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
PNG = base64.b64decode(DOT)
README = """# A house

See [below](#the-tables), [the table](results/toy/table1.md#its-rows), [its folder](results/toy/),
[the maps](figures/toy), [the paper](https://example.org/paper) and [one line](stlib/code.py).

## The tables

| a | b |
|---|---|
| 1 | 2 |

![dots](figures/toy/table1.png)
"""


@pytest.fixture
def root(tmp_path):
    """A repository of one notebook, one dataset and one module."""
    for name, text in {
        "README.md": README,
        "results/toy/table1.md": "A table, its first line\n\n# Its rows\n\n| a |\n|---|\n| 1 |\n",
        "results/toy/audit.md": "| a |\n|---|\n| 1 |\n",
        "results/ledger.md": "# What helped\n",
        "stlib/code.py": "x = 1\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "figures/toy").mkdir(parents=True)
    (tmp_path / "figures/toy/table1.png").write_bytes(PNG)
    cells = [
        v4.new_markdown_cell("# 01 Data\n\nIt costs $\\frac{a}{b}$, and `$HOME` is code."),
        v4.new_code_cell("print(1)", outputs=[v4.new_output("stream", name="stdout", text="1\n")]),
        v4.new_code_cell("display(figure)", outputs=[v4.new_output("display_data", {"image/png": DOT})]),
    ]
    (tmp_path / "notebooks/rendered").mkdir(parents=True)
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "notebooks/rendered/01_data.ipynb")
    return tmp_path


@lru_cache(maxsize=100)
def page(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(), "html.parser")


def asked_for(site: Path) -> list[tuple[Path, str]]:
    """Every page, and what it links to or shows."""
    return [
        (path, tag[key])
        for path in site.rglob("*.html")
        for key in ("href", "src")
        for tag in page(path).find_all(**{key: True})
    ]


def lead_somewhere(site: Path) -> int:
    """Follow every link as a browser does; return how many lead to files of the site."""
    local = 0
    for path, link in asked_for(site):
        target, _, name = link.partition("#")
        if link.startswith(("http", "mailto:", "data:")):
            continue
        file = (path.parent / unquote(target)).resolve() if target else path
        assert file.is_file() and file.is_relative_to(site), (path, link)
        assert not name or file.suffix != ".html" or page(file).find(id=unquote(name)), (path, link)
        local += 1
    return local


def test_a_site_by_hand(root):
    Site(root).write(root / "site")
    files = sorted(
        str(path.relative_to(root / "site")) for path in (root / "site").rglob("*") if path.is_file()
    )
    assert files == [
        *("figures/toy/table1.png", "index.html", "notebooks/01_data.html", "results/ledger.html"),
        *("results/toy/audit.html", "results/toy/index.html", "results/toy/table1.html", "site.css"),
        "stlib/code.py",
    ]
    front = page(root / "site/index.html")
    links = {tag.text: tag["href"] for tag in front.main.find_all("a", class_=False)}
    assert links == {
        "below": "#The-tables",
        "the table": "results/toy/table1.html#Its-rows",
        "its folder": "results/toy/index.html",
        "the maps": "results/toy/index.html",
        "the paper": "https://example.org/paper",
        "one line": "stlib/code.py",
    }
    assert [tag.text for tag in front.nav.find_all("a")] == ["stlib", "01 data", "toy", "ledger"]
    assert front.find("div", class_="scroll").table.td.text == "1"
    dataset = page(root / "site/results/toy/index.html")
    assert [item.text for item in dataset.main.find_all("li")] == ["audit", "table1: A table, its first line"]
    assert dataset.img["src"] == "../../figures/toy/table1.png"
    assert lead_somewhere(root / "site") > 20


def test_a_formula_is_drawn_and_code_is_not(root):
    Site(root).write(root / "site")
    found = page(root / "site/notebooks/01_data.html").main
    assert [drawn["aria-label"] for drawn in found.find_all("svg")] == [r"\frac{a}{b}"]
    assert found.find("p").get_text(" ", strip=True).startswith("It costs") and "$HOME" in found.text
    assert not found.find_all("script")


def test_an_image_is_called_as_its_part_of_the_page(root):
    Site(root).write(root / "site")
    (image,) = page(root / "site/notebooks/01_data.html").main.find_all("img")
    assert image["alt"] == "01 Data"


def test_links_that_lead_nowhere_are_named_and_nothing_is_written(root):
    Site(root).write(root / "site")
    before = (root / "site/index.html").read_text()
    ends = ("results/gone.md", "../outside.md", "#no-part", "results/ledger.md#no-part", "figures/none.png")
    links = [f"[it]({end})" for end in ends[:-1]] + [f"![none]({ends[-1]})"]
    (root / "README.md").write_text("# A house\n\n" + " ".join(links) + "\n")
    (root.parent / "outside.md").write_text("not of the repository")
    with pytest.raises(ValueError, match="links lead to files of the repository") as error:
        Site(root).write(root / "site")
    named = str(error.value).splitlines()[1:]
    assert named == [f"README.md: {link}" for link in ends]
    assert (root / "site/index.html").read_text() == before and not (root / ".site.partial").exists()


def test_the_site_of_this_repository_has_no_broken_link(tmp_path):
    Site(paths.ROOT).write(tmp_path / "site")
    assert lead_somewhere(tmp_path / "site") > 1000
    for path, link in asked_for(tmp_path / "site"):
        assert not link.startswith("http") or link.startswith("https://"), (path, link)
    scripts = [path for path in (tmp_path / "site").rglob("*.html") if page(path).find("script")]
    assert not scripts
