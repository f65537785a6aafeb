"""No array of all pairs: graphs of 200,000 locations fit into a memory that a hundredth of one would not."""

import subprocess
import sys

N = 200_000
MADE = f"""
import re
from pathlib import Path

import numpy as np
from stlib.propagation import propagate
from stlib.stack import stack_graph
import torch

def peak_mb():  # of this program alone; getrusage begins with the size of what started it
    return int(re.search("VmHWM:[^0-9]*([0-9]+)", Path("/proc/self/status").read_text())[1]) / 1e3

rng = np.random.default_rng(0)
side = int(np.ceil(({N} / 2) ** 0.5))
grid = np.stack(np.divmod(np.arange({N} // 2), side), 1) * 200.0
place = np.concatenate([grid, grid + 60]) + rng.normal(0, 5, ({N}, 2))
group = np.repeat([0, 1], {N} // 2)
features = rng.standard_normal(({N}, 8), np.float32)
before = peak_mb()
graph = stack_graph(place, place, group, features, pitch=200, intra=4, cross=3, radius=112, candidates=4)
labels = torch.randn({N}, 4)
spread = propagate(labels, torch.from_numpy(group == 0), torch.from_numpy(graph.edge_index),
                   torch.from_numpy(graph.edge_weight).clamp(min=1e-6), 2)
assert bool(spread.isfinite().all()) and graph.across.any() and not graph.across.all()
print(peak_mb() - before)
"""


def test_graphs_of_200_000_locations_take_no_array_of_all_pairs():
    command = [sys.executable, "-W", "ignore", "-c", MADE]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    taken_mb, pairs_mb = float(out), N**2 / 8e6  # a bit for each pair: 5 GB
    assert taken_mb < 1000 < pairs_mb / 4
