"""pyproject.toml, requirements.lock and environment.yml say the same."""

import re
import tomllib
from importlib import metadata

import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement

from stlib.paths import LOCK, ROOT

DECLARED = [
    Requirement(line)
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
]


def pins() -> dict[str, str]:
    """Return name -> version that the lock pins for the running interpreter."""
    found = {}
    for line in re.findall(r"^([A-Za-z0-9._-]+==[^\\\n]+?)\s*\\?$", LOCK.read_text(), re.MULTILINE):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(default_environment()):
            found[requirement.name.lower()] = str(requirement.specifier).removeprefix("==")
    return found


def test_every_declared_dependency_is_locked_within_its_bounds():
    locked = pins()
    assert len(locked) > 150
    for requirement in DECLARED:
        assert requirement.specifier.contains(locked[requirement.name.lower()]), requirement


def test_every_pin_has_a_hash_and_no_index_is_named():
    text = LOCK.read_text()
    assert "://" not in text and "--index" not in text
    for block in re.split(r"\n(?=[A-Za-z0-9])", text):
        if "==" in block.splitlines()[0]:
            assert "--hash=sha256:" in block, block.splitlines()[0]


def test_conda_users_install_the_lock_itself():
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict)]
    assert pip == ["--require-hashes", "-r requirements.lock"]
    assert "python=3.11" in content["dependencies"]


def test_this_environment_is_the_locked_one():
    locked = pins()
    for requirement in DECLARED:
        assert metadata.version(requirement.name) == locked[requirement.name.lower()]


def test_the_users_packages_are_there():
    wanted = (
        "jupyterlab papermill jupytext torch torch-geometric numpy pandas anndata scanpy openslide-python "
        "seaborn nbval pytest"
    )
    assert set(wanted.split()) <= {requirement.name for requirement in DECLARED}
