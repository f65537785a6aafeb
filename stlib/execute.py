"""Execute a notebook for its record, one at a time, in as many processes as a launcher started.

``python -m stlib.execute build/04_train_2d.ipynb runs/2d/toy/asign/strict-s0/run.json -r dataset toy ...``;
what follows the record goes to papermill.

Two that make the same run do not mix: the second waits until the first has ended, however it ended, and finds
the run done or makes it itself. Of several processes, started together by torchrun or srun, rank 0 executes
the notebook; where it trains a model the others train beside it, else they have nothing to do.
"""

import fcntl
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from stlib import paths
from stlib.results import Run
from stlib.steps import CONTROLS

if TYPE_CHECKING:
    from torch.distributed import TCPStore

ANEW = ("slides", "audit")  # each is a question of its own: one that stands answers another
LAST = 12  # lines of the log that are shown after a failure
LONG = timedelta(days=30)  # for another make to end


def main() -> int:
    """Return 0 once the record stands."""
    notebook, record, *words = sys.argv[1:]
    told = dict(zip(words[1::3], words[2::3], strict=True))  # -r name value
    run = replace(Run.at(Path(record).resolve().parent), data=told.get("data", ""))
    rank, size = joined()
    trains = size > 1 and run.step in CONTROLS and not run.shared
    if size > 1 and not trains:
        leave()
    store = meeting(rank) if trains else None
    if rank > 0:
        if trains and store.get("stlib") == b"train":
            run.assist()
        return 0
    with held(run):
        stands = run.step not in ANEW and run.complete()
        if trains:
            store.set("stlib", "stands" if stands else "train")
        if stands:
            os.utime(run.record)
            return 0
        return _execute(notebook, run, words)


def papermill(notebook: Path, out: Path, *words: str) -> None:
    """Execute a notebook, without a word of papermill's own; its errors are raised."""
    sys.modules.setdefault(
        "rfc3987_syntax", None
    )  # else a grammar of IRIs is made, a second, for no notebook
    from papermill.cli import papermill as execute

    quiet = ["--log-level", "ERROR", "--no-progress-bar", "--kernel", "python3"]
    execute([*quiet, str(notebook), str(out), *words], standalone_mode=False)


def _execute(notebook: str, run: Run, words: list[str]) -> int:
    out, failed = run.folder / "notebook.ipynb", run.folder / "notebook.failed.ipynb"
    run.record.unlink(missing_ok=True)
    print(f"running: {_shown(run.folder)}", flush=True)
    try:
        papermill(Path(notebook), out, *words)
        if run.record.exists():
            failed.unlink(missing_ok=True)
            return 0
        print(f"the notebook ended without {run.record.name}", file=sys.stderr)
    except Exception:
        traceback.print_exc()
    if out.exists():
        out.replace(failed)
    print("\n".join((run.folder / "log.txt").read_text().splitlines()[-LAST:]))
    print(
        f"failed: see {_shown(failed)}; finished folds and epochs are kept, the same make goes on there",
        flush=True,
    )
    return 1


def _shown(path: Path) -> Path:
    return path.relative_to(paths.OUT)


@contextmanager
def held(run: Run) -> Iterator[None]:
    """Hold a run's log, alone: from here on it is what this process and its kernel write their errors to.

    The log itself is locked. The kernel inherits it, so that a run is held as long as any of its processes
    lives; the system frees it when the last one is gone, even if it was killed.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    with open(run.folder / "log.txt", "a") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting: another make is at {_shown(run.folder)}", flush=True)
            fcntl.flock(log, fcntl.LOCK_EX)
        log.truncate(0)
        os.dup2(log.fileno(), sys.stderr.fileno())
        yield


def joined() -> tuple[int, int]:
    """Return the rank of this process and how many there are: (0, 1) for one that was started alone.

    The tasks of a step of srun get the variables that torchrun would have set. A batch script is no step:
    what it starts is alone.
    """
    env = os.environ
    tasks = int(env.get("SLURM_STEP_NUM_TASKS", 1))
    if "WORLD_SIZE" not in env and tasks > 1:
        step = 100 * int(env["SLURM_JOB_ID"]) + int(env["SLURM_STEP_ID"])
        env |= {
            "RANK": env["SLURM_PROCID"],
            "WORLD_SIZE": str(tasks),
            "LOCAL_RANK": env["SLURM_LOCALID"],
            "LOCAL_WORLD_SIZE": re.match(r"\d+", env["SLURM_STEP_TASKS_PER_NODE"])[0],  # 4(x2): of each node
            "MASTER_ADDR": first_node(env["SLURM_STEP_NODELIST"]),
            "MASTER_PORT": str(20000 + step % 10000),  # one for each step
        }
    return int(env.get("RANK", 0)), int(env.get("WORLD_SIZE", 1))


def leave() -> None:
    """Forget the other processes."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)


def first_node(nodes: str) -> str:
    """Return the first name of a list as Slurm writes it.

    Examples
    --------
    >>> first_node("gpu[07-09,12],cpu1"), first_node("one,two")
    ('gpu07', 'one')
    """
    return re.sub(r"\[(\w+).*?\]", r"\1", nodes).split(",")[0]


def meeting(rank: int) -> "TCPStore":
    """Return the store in which rank 0 says whether the others are needed, and in which a training meets.

    Rank 0 keeps it, or torchrun for it. A process whose rank 0 is gone cannot read it, and ends.
    """
    from torch.distributed import TCPStore

    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=rank == 0 and not kept, wait_for_workers=False)
    store.set_timeout(LONG)
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # so that no kernel opens another one there
    return store


if __name__ == "__main__":
    sys.exit(main())
