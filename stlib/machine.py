"""What computes here, with which packages, and how much memory it took."""

import os
import platform
import resource
import sys
from importlib import metadata
from pathlib import Path

VERSIONS = ("stlib", "numpy", "scipy", "torch", "torch-geometric", "timm", "scikit-learn", "SimpleITK")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    return {name: metadata.version(name) for name in VERSIONS} | {"python": platform.python_version()}


def peak_memory_mb() -> int:
    """Return the largest resident size of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KB on Linux, bytes on macOS
    return peak // (1024 * 1024 if sys.platform == "darwin" else 1024)


def device() -> str:
    """Return what computes here, in words."""
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        return sys.modules["torch"].cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or not x86
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"
