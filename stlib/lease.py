"""One GPU for each command, on a machine of several: ``LAUNCH=".venv/bin/python -m stlib.lease 0,1,2,3"``.

The command becomes this process, sees one free GPU of those named, and holds it until it ends, however it
ends. Where none is free it waits.
"""

import fcntl
import os
import sys
import tempfile
import time
from pathlib import Path

POLL = 1.0  # seconds between two looks


def lease(gpus: list[str]) -> str:
    """Return a GPU that no other process holds; this one and what it becomes hold it from now on."""
    while True:
        for gpu in gpus:
            file = os.open(
                Path(tempfile.gettempdir()) / f"stlib-{os.getuid()}-gpu-{gpu}", os.O_RDWR | os.O_CREAT
            )
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
            os.set_inheritable(file, True)
            return gpu
        time.sleep(POLL)


if __name__ == "__main__":  # python -m stlib.lease 0,1 command ...
    os.environ["CUDA_VISIBLE_DEVICES"] = lease(sys.argv[1].split(","))
    os.execvp(sys.argv[2], sys.argv[2:])
