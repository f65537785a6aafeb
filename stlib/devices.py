"""What a training computes on: Lightning Fabric, told of the processes that a launcher started."""

import os
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy

WAIT = timedelta(hours=1)  # the others wait this long while rank 0 validates or predicts


class Started(DDPStrategy):
    """Processes that a launcher started; Fabric, which would start its own, refuses to in a notebook."""

    def _configure_launcher(self) -> None:
        """Set no launcher."""


def fabric(gpu: bool, precision: Any) -> Fabric:
    """Return where and how precisely this process computes, in touch with those started together.

    With `gpu` each of the processes of a machine takes a GPU of its own; for `precision` see
    `stlib.params.Training`.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    kind = "cuda" if gpu else "cpu"
    if size == 1:  # told, or Fabric would look for a cluster by itself
        return Fabric(accelerator=kind, devices=1, precision=precision, plugins=LightningEnvironment())
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    # a launcher shows a process all devices of its machine, or one
    devices = [
        torch.device(kind, i % torch.cuda.device_count()) if gpu else torch.device(kind) for i in range(here)
    ]
    strategy = Started(
        parallel_devices=devices,
        cluster_environment=TorchElasticEnvironment(),
        timeout=WAIT,
        find_unused_parameters=True,  # of a batch without a known spot, say
        forward_sync_buffers=False,  # see `stlib.ranks.Statistics`
    )
    together = Fabric(strategy=strategy, num_nodes=size // here, precision=precision)
    together.launch()
    return together
