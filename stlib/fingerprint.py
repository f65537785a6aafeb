"""What a run was made of: code, parameters, data and lock, as one hash.

Make compares times, which a fresh clone makes meaningless. Equal fingerprints mean that a new run would be
the same run.
"""

import ast
import hashlib
import json
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from stlib import paths
from stlib.params import Params

PACKAGE = Path(__file__).parent
# no run computes with these
DESCRIPTIVE = {"title", "notes", "showcase", "expect", "same_tissue_group", "absent"}


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def kept_hash(path: Path, stamp: Path) -> str:
    """Return the SHA-256 of a large file, computed once.

    It is kept at `stamp` with size and time of change, and computed anew when these differ. Where the file
    itself was left behind (a GPU machine to which only caches were carried), what is kept counts.

    Raises
    ------
    FileNotFoundError
        If there is neither the file nor its hash.
    """
    kept = _stamp(stamp)
    if not path.exists():
        if kept:
            return kept["sha256"]
        raise FileNotFoundError(f"{path} is not there; prepare the dataset with `make data`")
    state = _state(path)
    if {key: kept.get(key) for key in state} != state:
        kept = state | {"sha256": file_hash(path)}
        with suppress(OSError):  # a full or read-only disk: it is computed again the next time
            _keep(stamp, kept)
    return kept["sha256"]


def seal(path: Path) -> None:
    """Keep the SHA-256 of a file that was just written, beside it: `sealed` holds the file against it."""
    _keep(_seal(path), _state(path) | {"sha256": file_hash(path)})


def sealed(path: Path, remedy: str = "make it again") -> str:
    """Return the SHA-256 of a file that was sealed; one of the size and time of its seal is not read again.

    Where the file itself was left behind, what is kept counts. `remedy` is what the message advises, besides
    to delete the file.

    Raises
    ------
    FileNotFoundError
        If there is neither the file nor its seal.
    ValueError
        If the content is another than the one that was sealed, or none was.
    """
    if path.exists() and not intact(path):
        raise ValueError(
            f"{path} is damaged: its bytes are not those that were written, whose SHA-256 is "
            f"{_stamp(_seal(path)).get('sha256', 'unknown')}. Delete it and {remedy}"
        )
    return kept_hash(path, _seal(path))


def intact(path: Path) -> bool:
    """Return whether a file is there with the content that was sealed."""
    kept = _stamp(_seal(path))
    if not path.exists() or not kept:
        return False
    return {key: kept.get(key) for key in _state(path)} == _state(path) or file_hash(path) == kept["sha256"]


def _seal(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _keep(path: Path, kept: dict[str, Any]) -> None:
    """Write what `_stamp` reads."""
    paths.write_text(path, json.dumps(kept | {"check": text_hash(kept)}))


def _stamp(path: Path) -> dict[str, Any]:
    """Return a hash that was kept, with size and time; nothing if there is none that can be read."""
    try:
        kept = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    whole = isinstance(kept, dict) and kept.pop("check", "") == text_hash(kept)
    return kept if whole else {}


def _state(path: Path) -> dict[str, int]:
    """Return what tells whether a file was changed; compared for equality, so that no clock matters."""
    return {"size": path.stat().st_size, "mtime_ns": path.stat().st_mtime_ns}


def listing_hash(folder: Path) -> str:
    """Return the hash of names, sizes and times of change of the files in a folder, hidden ones left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [path for path in files if "/." not in f"/{path.relative_to(folder)}"]
    return text_hash(
        [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    )


def text_hash(*parts: Any) -> str:
    """Return the SHA-256 of plain data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def modules(roots: list[str]) -> list[Path]:
    """Return the files of stlib that `roots` import, directly or not, themselves included.

    Read from the source, so that nothing is imported to know it; imports inside functions count. Roots are
    named as ``stlib.train`` is.
    """
    found: dict[str, Path] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if name in found or path is None:
            continue
        found[name] = path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "stlib":
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names if alias.name.split(".")[0] == "stlib"]
    return sorted(set(found.values()))


def _file(module: str) -> Path | None:
    """Return the file of a module of stlib, or None if the name is no module."""
    stem = PACKAGE.joinpath(*module.split(".")[1:])
    for path in (stem.with_suffix(".py") if stem != PACKAGE else stem / "__init__.py", stem / "__init__.py"):
        if path.exists():
            return path
    return None


def resolved(params: Params, models: list[str]) -> dict[str, Any]:
    """Return the parameters a run computes with: no prose, no overrides of models that it does not build."""
    content = params.model_dump(mode="json", by_alias=True, exclude=DESCRIPTIVE)
    names = {model.split("@")[0] for model in models}
    content["overrides"] = {key: value for key, value in content["overrides"].items() if key in names}
    content["source"] = {key: content["source"][key] for key in ("reader", "options")}
    return content


def named_files(content: dict[str, Any], roots: list[str]) -> list[Path]:
    """Return the files that settings name (``file:<path>``): weights, texts of genes.

    `content` holds the resolved parameters of a run, `roots` its modules; the defaults of those that are
    models count, whether or not they are overridden.
    """
    words = [content["encoder"], *(value for own in content["overrides"].values() for value in own.values())]
    for path in (_file(root) for root in roots if root.startswith("stlib.models.")):
        nodes = ast.walk(ast.parse(path.read_text()))
        words += [node.value for node in nodes if isinstance(node, ast.Constant)]
    found = [re.fullmatch(r"(?:[^@\s]+@)?file:([^<]+)", word) for word in words if isinstance(word, str)]
    return [paths.ROOT / match[1] for match in found if match]


def weights_hash(file: Path) -> str:
    """Return the hash of a file of weights, computed once, or a word that it is absent."""
    kept = paths.cache("hashes") / f"{text_hash(str(file))[:32]}.json"
    return kept_hash(file, kept) if file.exists() or kept.exists() else "absent"


def data_hash(datasets: list[str], *, registered: bool = False) -> str:
    """Return the hash of the prepared sections, and of their alignment if the run uses it."""
    folders = [paths.processed(dataset) for dataset in datasets]
    names = ["manifest.json"] + ["registration.json"] * registered
    files = [folder / name for folder in folders for name in names]
    return text_hash([file_hash(path) if path.exists() else "absent" for path in files])


def code_hash(roots: list[str]) -> str:
    """Return the hash of the code that `roots` reach; comments, docstrings and layout may change freely."""
    return text_hash([(str(path.relative_to(PACKAGE)), _code(path)) for path in modules(roots)])


def _code(path: Path) -> str:
    """Return what a file computes, without its docstrings."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:]
    return ast.dump(tree)


def notebook_hash(notebook: str) -> str:
    """Return the hash of a notebook's code cells; prose may change freely."""
    cells = ("\n" + (paths.NOTEBOOKS / f"{notebook}.py").read_text()).split("\n# %%")
    return text_hash([cell for cell in cells if not cell.startswith(" [markdown]")])


if __name__ == "__main__":  # python -m stlib.fingerprint <folder>
    print(listing_hash(Path(sys.argv[1])))
