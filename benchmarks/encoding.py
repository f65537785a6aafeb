"""Frozen features, against the bare network in the same batches, and image by image; and a second run."""

import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from benchmarks.measure import Found, Row, rates, seconds
from stlib import features, paths
from stlib.encoders import BATCH, Timm
from stlib.slide import write_pyramid

MODEL, PX, SINGLE = "resnet50@untrained", 112, 8  # images one by one, of those in a batch
SLIDE_PX, SPOTS = 2048, 300


def rows() -> Found:
    """Measure features a second, and what a second call costs."""
    patches = np.random.default_rng(0).integers(0, 256, (BATCH, PX, PX, 3), np.uint8)
    encoder = Timm(MODEL, "cpu")
    encoder.encode(patches[:1])  # builds the network
    ready = torch.randn(BATCH, 3, PX, PX).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def bare() -> None:
        encoder._network(ready)

    ours, plain = seconds(lambda: encoder.encode(patches), bare, repeats=3)
    single, _ = seconds(lambda: [encoder.encode(one[None]) for one in patches[:SINGLE]], bare, repeats=1)
    rate = rates(BATCH, ours)
    what = f"frozen features of ResNet-50, {PX} px, float32"
    first, second = again()
    return [
        Row(what, "the bare network, same batches", rate, rates(BATCH, plain), "features/s", 0.8),
        Row(what, "image by image", rate, rates(SINGLE, single), "features/s"),
        Row(f"features of {SPOTS} spots, second call", "first call", second, first, least=20),
    ]


def again() -> tuple[list[float], list[float]]:
    """Return processor seconds of a first and of a second call, on a slide of their own."""
    with tempfile.TemporaryDirectory() as folder:
        kept, paths.DATA = paths.DATA, Path(folder)
        try:
            rng = np.random.default_rng(0)
            image = rng.integers(0, 256, (SLIDE_PX, SLIDE_PX, 3), np.uint8)
            write_pyramid(image, paths.slide_file("made", "S1"), 0.5)
            level = {"spot": SimpleNamespace(px=PX, out_px=PX)}
            params = SimpleNamespace(name="made", encoder="stain", levels=level)
            place = rng.uniform(0, SLIDE_PX, (SPOTS, 2))
            section = SimpleNamespace(name="S1", position=place, size_px=np.array([SLIDE_PX] * 2))
            start = time.process_time()
            features.features(params, section, "spot")
            first = time.process_time() - start
            (second,) = seconds(lambda: features.features(params, section, "spot"))
        finally:
            paths.DATA = kept
    return [first], second
