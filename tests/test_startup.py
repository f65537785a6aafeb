"""What notebooks do not wait for: packages that cost seconds and are needed by others alone."""

import ast
import subprocess
import sys

from stlib import paths

HEAVY = {"torch_geometric", "torch._dynamo", "lightning_fabric", "timm", "faiss", "anndata", "scanpy"}
CONTROLS = "import stlib.train, stlib.feed, stlib.models.known_mean, stlib.models.smooth_ridge"


def imports(notebook: str) -> str:
    body = ast.parse((paths.NOTEBOOKS / f"{notebook}.py").read_text()).body
    return "\n".join(ast.unparse(line) for line in body if isinstance(line, ast.Import | ast.ImportFrom))


def modules(code: str) -> set[str]:
    command = [sys.executable, "-W", "ignore", "-c", f"{code}\nimport sys; print(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_tables_and_controls_start_without_what_only_training_needs():
    loaded = modules("\n".join([imports("08_tables"), CONTROLS]))
    assert not HEAVY & loaded
    assert "stlib.models.smooth_ridge" in loaded


def test_figures_start_without_torch():
    loaded = modules(imports("09_figures"))
    assert not (HEAVY | {"torch"}) & loaded
    assert "stlib.figures" in loaded
