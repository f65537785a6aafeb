"""The parts of `make bench` are there; what they measure is nobody's test."""

import ast

from stlib import paths

FOLDER = paths.ROOT / "benchmarks"


def test_each_part_has_rows():
    tree = ast.parse((FOLDER / "__main__.py").read_text())
    (parts,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "PARTS"
    )
    assert len(parts) == 9
    for name in parts:
        defined = [node.name for node in ast.parse((FOLDER / f"{name}.py").read_text()).body
                   if isinstance(node, ast.FunctionDef)]  # fmt: skip
        assert "rows" in defined, name
