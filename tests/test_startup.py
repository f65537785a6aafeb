"""What notebooks do not wait for: packages that cost seconds and are needed by others alone."""

import ast
import subprocess
import sys

from stlib import paths

HEAVY = {"torch_geometric", "torch._dynamo", "lightning_fabric", "timm", "faiss", "anndata", "scanpy"}
CONTROLS = "import stlib.feed, stlib.models.known_mean, stlib.models.smooth_ridge"


def imports(notebook: str) -> str:
    body = ast.parse((paths.NOTEBOOKS / f"{notebook}.py").read_text()).body
    return "\n".join(ast.unparse(line) for line in body if isinstance(line, ast.Import | ast.ImportFrom))


def test_tables_figures_and_controls_start_without_what_only_training_needs():
    code = "\n".join(
        [imports("08_tables"), imports("09_figures"), CONTROLS, "import sys; print(*sys.modules)"]
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert not HEAVY & set(out.split())
    assert "stlib.models.smooth_ridge" in out.split()
