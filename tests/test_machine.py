"""What computes here."""

import platform

import numpy as np

from stlib import machine


def test_versions_are_those_that_are_installed():
    found = machine.versions()
    assert found["python"] == platform.python_version() and found["numpy"] == np.__version__


def test_peak_memory_is_in_megabytes_and_never_falls():
    before = machine.peak_memory_mb()
    held = np.ones(2**26)  # 512 MB
    assert held.nbytes == 2**29 and 100 < before <= machine.peak_memory_mb()
    assert machine.peak_memory_mb() > 512


def test_a_processor_is_named_with_its_cores(monkeypatch):
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 7)
    monkeypatch.setattr(machine.sys, "modules", {})  # without torch no GPU is asked for
    assert machine.device().endswith(", 7 cores")
