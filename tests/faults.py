"""The list of what was broken on purpose, gathered from the marks of the tests: ``python tests/faults.py``.

A test that repeats a fault is marked ``@pytest.mark.fault(name, trigger, observed)``; `results/faults.md` is
that list, and `test_faults` demands that it is.
"""

import ast
from pathlib import Path

from stlib import paths

TABLE = paths.ROOT / "results" / "faults.md"
HEAD = """Faults made on purpose, and what was observed. Each line is repeated by its test, whose mark it is.

| fault | trigger | observed | test |
| --- | --- | --- | --- |
"""


def faults() -> list[tuple[str, str, str, str]]:
    """Return name, trigger, what was observed, and the test, in the order of the files."""
    found = []
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for test in ast.parse(path.read_text()).body:
            if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
                marks = [
                    mark for mark in test.decorator_list if ast.unparse(mark).startswith("pytest.mark.fault(")
                ]
                words = [[ast.literal_eval(word) for word in mark.args] for mark in marks]
                found += [(*three, f"{path.stem}::{test.name}") for three in words]
    return found


def table() -> str:
    """Return the list as markdown."""
    return HEAD + "".join(f"| {' | '.join(line)} |\n" for line in faults())


if __name__ == "__main__":
    paths.write_text(TABLE, table())
