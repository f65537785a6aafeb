"""A static site of what was run: README, executed notebooks, tables and figures, with links between them.

``make site`` writes it to ``site/``, from files of the repository alone; nothing is computed, and no page
asks another host for anything. A link or an image that leads nowhere is an error, so that the site has none.
"""

import html
import io
import logging
import os
import re
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from bs4 import BeautifulSoup
from matplotlib import mathtext
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from pygments.formatters import HtmlFormatter
from tqdm import tqdm

from stlib import paths

STYLE = "site.css"
NO_NAME = "No description has been provided for this image"  # by nbconvert
FORMULA = re.compile(r"\$([^$\n]+)\$")
LAYOUT = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="{up}{style}">
</head>
<body>
<nav>
{menu}
</nav>
<main>
{body}
</main>
</body>
</html>
"""
CSS = """
body { margin: 0; display: flex; font: 15px/1.5 system-ui, sans-serif; color: #222; }
nav { flex: 0 0 15em; padding: 1.5em 1em; background: #f6f6f4; min-height: 100vh; box-sizing: border-box; }
nav ul { list-style: none; margin: 0 0 1em; padding: 0; }
nav [aria-current] { font-weight: bold; }
main { flex: 1; min-width: 0; max-width: 72em; padding: 1em 2em 4em; }
a { color: #1a5a96; }
a.anchor-link, .prompt { display: none; }
img { max-width: 100%; }
main svg { vertical-align: middle; }
figure { margin: 2em 0; }
pre, .scroll { overflow-x: auto; }
pre { padding: 0.6em; background: #f6f6f4; font-size: 13px; line-height: 1.35; }
table { border-collapse: collapse; font-size: 13px; margin: 1em 0; }
th, td { padding: 2px 8px; border-bottom: 1px solid #e4e4e0; white-space: nowrap; }
@media (max-width: 50em) { body { display: block; } nav { min-height: 0; } }
"""


@dataclass(frozen=True)
class Page:
    """A file of the repository, or a dataset, as a page."""

    source: Path  # the file, or the folder results/<dataset>
    target: str  # where the page lies in the site
    title: str  # its name in the menu
    group: str | None  # the part of the menu that lists it; None: none does, it is linked from others


class Site:
    """All pages of a repository."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def pages(self) -> dict[Path, Page]:
        """Source -> page, in the order of the menu: README, notebooks, datasets, what was measured."""
        found = [Page(self.root / "README.md", "index.html", "stlib", "")]
        for path in sorted((self.root / "notebooks/rendered").glob("*.ipynb")):
            found.append(Page(path, f"notebooks/{path.stem}.html", path.stem.replace("_", " "), "Notebooks"))
        results = self.root / "results"
        for folder in self._datasets:
            where = folder.relative_to(self.root)
            found.append(Page(folder, f"{where}/index.html", folder.name, "Tables and figures"))
        for path in sorted(results.glob("*.md")):
            found.append(Page(path, f"results/{path.stem}.html", path.stem.replace("_", " "), "Measured"))
        for path in sorted(results.glob("*/*.md")):
            where = path.relative_to(self.root).with_suffix(".html")
            found.append(Page(path, str(where), f"{path.parent.name}: {path.stem}", None))
        return {page.source: page for page in found}

    @property
    def _datasets(self) -> list[Path]:
        """The folders ``results/<dataset>``, those that have figures alone included."""
        names = {
            path.parent.name for kind in ("results", "figures") for path in self.root.glob(f"{kind}/*/*")
        }
        return [self.root / "results" / name for name in sorted(names)]

    def write(self, out: Path) -> None:
        """Write every page, and every file that one links to or shows.

        The folder appears when the site is complete, in place of an earlier one.

        Raises
        ------
        ValueError
            If links or images lead nowhere; all of them are named.
        """
        partial = out.with_name(f".{out.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        (partial / STYLE).write_text(CSS + HtmlFormatter().get_style_defs(".highlight"))
        bodies = {
            page: BeautifulSoup(self._body(page), "html.parser")
            for page in tqdm(self.pages.values(), unit="page", desc="site")
        }
        parts = {page.target: parts_of(body) for page, body in bodies.items()}
        broken = []
        for page, body in bodies.items():
            lost = self._link(page, body, parts, partial)
            broken += [f"{page.source.relative_to(self.root)}: {link}" for link in lost]
            draw_formulas(body)
            name_images(body)
            for wide in body.find_all("table"):
                wide.wrap(body.new_tag("div", attrs={"class": "scroll"}))
            title, up = html.escape(page.title), "../" * page.target.count("/")
            text = LAYOUT.format(title=title, up=up, style=STYLE, menu=self._menu(page), body=body)
            target = partial / page.target
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        if broken:
            shutil.rmtree(partial)
            listed = "\n".join(broken)
            raise ValueError(f"links lead to files of the repository; these do not, correct them:\n{listed}")
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)

    def _body(self, page: Page) -> str:
        if page.source.suffix == ".ipynb":
            quiet = logging.getLogger("nbconvert of the site")
            quiet.setLevel(logging.ERROR)  # it asks for what `name_images` adds
            return HTMLExporter(template_name="basic", log=quiet).from_filename(str(page.source))[0]
        if page.source.suffix == ".md":
            return markdown2html(page.source.read_text())
        return self._dataset(page.source)

    def _dataset(self, folder: Path) -> str:
        """Return the page of a dataset: its tables by name, and its figures."""
        tables = ""
        for path in sorted(folder.glob("*.md")):
            first = path.read_text().splitlines()[0]
            about = "" if first.startswith("|") else f": {html.escape(first)}"
            tables += f'<li><a href="{quote(path.name)}">{html.escape(path.stem)}</a>{about}</li>'
        figures = "".join(
            f'<figure><figcaption>{html.escape(path.stem)}</figcaption><img alt="{html.escape(path.stem)}" '
            f'src="{quote(os.path.relpath(path, folder))}"></figure>'
            for path in sorted((self.root / "figures" / folder.name).rglob("*.png"))
        )
        return f"<h1>{html.escape(folder.name)}</h1><ul>{tables}</ul>{figures}"

    def _link(
        self, page: Page, body: BeautifulSoup, parts: dict[str, dict[str, str]], out: Path
    ) -> list[str]:
        """Let links lead to pages, their parts, and copies of other files; return those that lead nowhere."""
        broken = []
        base = page.source if page.source.suffix == "" else page.source.parent
        for tag, key in [(t, k) for k in ("href", "src") for t in body.find_all(**{k: True})]:
            link = urlsplit(tag[key])
            if link.scheme or link.netloc:
                continue
            path = Path(os.path.normpath(base / unquote(link.path)))
            target = self._target(path, out) if link.path else page.target
            part = unquote(link.fragment)
            if target in parts and part:
                part = parts[target].get(part.lower())
            if target is None or part is None:
                broken.append(tag[key])
                continue
            there = quote(os.path.relpath(target, Path(page.target).parent)) if link.path else ""
            tag[key] = there + (f"#{quote(part)}" if part else "")
        return broken

    def _target(self, path: Path, out: Path) -> str | None:
        """Return where a file of the repository lies in the site, None if there is no such file."""
        if path.is_relative_to(self.root / "figures") and path.is_dir():
            path = self.root / "results" / path.name
        if path in self.pages:
            return self.pages[path].target
        if not (path.is_file() and path.is_relative_to(self.root)):
            return None
        where = path.relative_to(self.root)
        copied = out / where
        copied.parent.mkdir(parents=True, exist_ok=True)
        if not copied.exists():
            shutil.copyfile(path, copied)
        return str(where)

    def _menu(self, here: Page) -> str:
        """Return the menu, as seen from a page; tables stand on the page of their dataset."""
        parts: dict[str, list[str]] = {}
        for page in self.pages.values():
            link = quote(os.path.relpath(page.target, Path(here.target).parent))
            mark = ' aria-current="page"' if page == here else ""
            if page.group is not None:
                entry = f'<li><a href="{link}"{mark}>{html.escape(page.title)}</a></li>'
                parts.setdefault(page.group, []).append(entry)
        return "\n".join(f"{name}<ul>{''.join(entries)}</ul>" for name, entries in parts.items())


def parts_of(body: BeautifulSoup) -> dict[str, str]:
    """Return the names of a page's parts by their lower case: GitHub's are, nbconvert's are not."""
    return {tag["id"].lower(): tag["id"] for tag in body.find_all(id=True)}


def draw_formulas(body: BeautifulSoup) -> None:
    """Replace each formula in the text, ``$...$``, by its drawing: a page needs no script to show it."""
    for text in body.find_all(string=FORMULA):
        if text.find_parent(["pre", "code", "svg"]):
            continue
        parts = FORMULA.split(str(text))  # text, formula, text, ...
        for place, part in enumerate(parts):
            if place % 2:
                drawn = io.StringIO()
                mathtext.math_to_image(f"${part}$", drawn, format="svg")
                _, start, rest = drawn.getvalue().partition("<svg")
                image = BeautifulSoup(start + rest, "html.parser").svg
                image["role"], image["aria-label"] = "img", part
                text.insert_before(image)
            else:
                text.insert_before(part)
        text.extract()


def name_images(body: BeautifulSoup) -> None:
    """Let an image that says nothing of itself be called as the part of the page that it stands in."""
    for image in body.find_all("img", alt=lambda text: text is None or text == NO_NAME):
        heading = image.find_previous(["h1", "h2", "h3"])
        image["alt"] = heading.text.rstrip("¶") if heading else ""


if __name__ == "__main__":  # python -m stlib.site
    Site(paths.ROOT).write(paths.OUT / "site")
    print("site/index.html")
