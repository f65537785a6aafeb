"""What a notebook takes before its own work: papermill, a kernel, and its imports.

A notebook of nothing but the import statements of the real one, and the modules that its work imports later,
is executed; processor seconds of all processes count.
"""

import ast
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

from benchmarks.measure import Found, Row
from stlib import paths

LATER = {  # kind -> notebook, what it imports when it is told the model, seconds allowed
    "tables": ("08_tables", "", 8),
    "figures": ("09_figures", "", 8),
    "controls": ("04_train_2d", "import stlib.train, stlib.models.smooth_ridge", 8),
    "training": ("04_train_2d", "import stlib.train, timm, torch_geometric.nn, stlib.models.asign", 20),
}
EXECUTE = "import sys; from stlib.execute import papermill; papermill(*sys.argv[1:])"


def imports(notebook: str) -> str:
    """Return the import statements of a notebook."""
    body = ast.parse((paths.NOTEBOOKS / f"{notebook}.py").read_text()).body
    return "\n".join(ast.unparse(line) for line in body if isinstance(line, ast.Import | ast.ImportFrom))


def started(code: str) -> float:
    """Execute a notebook of one cell; return processor seconds of papermill and the kernel."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.ipynb", Path(folder) / "target.ipynb"
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
        notebook.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "python3"}
        nbformat.write(notebook, source)
        command = [sys.executable, "-c", EXECUTE]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command, source, target], check=True, cwd=paths.ROOT, stderr=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def rows() -> Found:
    """Measure each kind of notebook."""
    return [
        Row(
            f"start-up of {kind}",
            "allowed",
            [started(f"{imports(notebook)}\n{later}")],
            [float(most)],
            "s",
            1,
        )
        for kind, (notebook, later, most) in LATER.items()
    ]
