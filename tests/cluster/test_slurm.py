"""The grid on a real Slurm of one node, which `slurm.sh` starts in a folder of its own.

Three makes and some ten notebooks: about two minutes on two cores. Slurm is Debian's `slurm-wlm` and `munge`.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from checkout import MODEL, Checkout

from stlib.checkpoint import read_about

HERE = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
MISSING = [name for name in ("slurmctld", "slurmd", "srun", "munged") if not shutil.which(name, path=HERE)]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"needs a Slurm (Debian: slurm-wlm, munge); not installed: {', '.join(MISSING)}"
)
ONE, TWO = "LAUNCH=srun -n1 -c1", "LAUNCH=srun -n2 -c1 --kill-on-bad-exit=1"
EPOCHS = 150


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A checkout whose make finds the Slurm."""
    folder = tmp_path_factory.mktemp("slurm")
    script = Path(__file__).with_name("slurm.sh")
    subprocess.run([script, "start", folder, "4"], check=True, timeout=120)
    try:
        one = Checkout(tmp_path_factory.mktemp("checkout"), EPOCHS)
        one.environment["SLURM_CONF"] = str(folder / "slurm.conf")
        yield one
    finally:
        subprocess.run([script, "stop", folder], check=True, timeout=120)


def ended(*makes):
    """Return exit codes, and all that was said."""
    said = [make.communicate(timeout=1500)[0] for make in makes]
    return [make.returncode for make in makes], "".join(said)


def test_two_makes_at_once_make_every_run_once(here):
    codes, said = ended(*(here.make(ONE, here.target("mean")) for _ in range(2)))
    assert codes == [0, 0], said
    for run in ("data/tiny", "preprocessing/tiny", "2d/tiny/mean/strict-s0"):
        assert said.count(f"running: runs/{run}\n") == 1, said


def test_a_job_that_the_scheduler_kills_is_made_by_the_same_make_from_where_it_stood(here):
    make, kept = here.make(ONE, here.target(MODEL)), here.run(MODEL) / "checkpoints" / "P1.final.safetensors"
    while not kept.exists() and make.poll() is None:
        time.sleep(0.1)
    subprocess.run(["scancel", "--user", str(os.getuid())], env=here.environment, check=True)
    codes, said = ended(make)
    assert codes == [2] and not (here.run(MODEL) / "run.json").exists(), said
    before = pd.DataFrame(read_about(kept)["history"])
    assert 0 < len(before) < EPOCHS

    codes, said = ended(here.make(ONE, here.target(MODEL), here.target("mean")))
    assert codes == [0] and said.count("running:") == 1, said  # `mean` stands
    after = pd.read_csv(here.run(MODEL) / "history.csv", float_precision="round_trip")
    assert len(after) == EPOCHS
    assert after["seconds"][: len(before)].tolist() == before["seconds"].tolist()  # not trained again


def test_the_tasks_of_a_job_train_together(here):
    alone = pd.read_csv(here.run(MODEL) / "history.csv")
    shutil.rmtree(here.run(MODEL))
    codes, said = ended(here.make(TWO, here.target(MODEL)))
    assert codes == [0], said
    both = pd.read_csv(here.run(MODEL) / "history.csv")
    np.testing.assert_allclose(both["loss"][:20], alone["loss"][:20], rtol=1e-4)
    assert said.count("running:") == 1  # one notebook
