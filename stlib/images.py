"""Files of images: what they tell without being decoded, and their pixels, in bands where they are large.

JPEG, PNG and TIFF of any size, and what scanners write. `stlib.slide` makes pyramids of them; no module but
these two opens an image.
"""

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import openslide
import tifffile
from PIL import Image, JpegImagePlugin, PngImagePlugin
from tqdm import tqdm

from stlib.paths import REFUSED, take_room, writing

READ = 2**24  # bytes of a compressed image that are decoded ahead
ROWS = 256  # of a scanner's slide that are read at once
DECODERS = {  # called by name: Image.open refuses large images
    ".jpg": JpegImagePlugin.JpegImageFile,
    ".jpeg": JpegImagePlugin.JpegImageFile,
    ".png": PngImagePlugin.PngImageFile,
}
TIFF = (".tif", ".tiff", ".btf")
SCANNERS = (".svs", ".ndpi", ".scn", ".mrxs", ".bif")  # read by OpenSlide alone
UM_OF_UNIT = {2: 25_400.0, 3: 10_000.0}  # of a TIFF's resolution: inch, cm


def image_size(path: Path) -> tuple[int, int]:
    """Return width and height of an image file, px, without decoding it."""
    suffix = _suffix(path)
    with file_errors(path):
        if suffix in DECODERS:
            with DECODERS[suffix](path) as image:
                return image.size
        if suffix in SCANNERS:
            with openslide.OpenSlide(path) as slide:
                return slide.dimensions
        with tifffile.TiffFile(path) as tiff:
            height, width = tiff.pages[0].shape[:2]
            return width, height


def tagged_scale(path: Path) -> np.ndarray | None:
    """Return um per px along x and y (2,) as the file of a slide tells, None if it does not.

    A JPEG or PNG never does: what its tags say is the resolution of a screen or a printer.
    """
    with file_errors(path):
        if openslide.OpenSlide.detect_format(path):
            with openslide.OpenSlide(path) as slide:
                scale = [slide.properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
            return None if None in scale else np.array(scale, float)
        if path.suffix.lower() not in TIFF:
            return None
        with tifffile.TiffFile(path) as tiff:
            tags = tiff.pages[0].tags
            px = [tags[name].value for name in ("XResolution", "YResolution") if name in tags]
            unit = UM_OF_UNIT.get(int(tags["ResolutionUnit"].value) if "ResolutionUnit" in tags else 2)
        if len(px) < 2 or unit is None or not all(count for pair in px for count in pair):
            return None
        return np.array([unit * per / count for count, per in px])


@contextmanager
def bands(path: Path, folder: Path) -> Iterator[tuple[np.ndarray, Callable[[int, int], np.ndarray]]]:
    """Yield width and height of any slide (2,), and a function that reads its rows from one to another.

    What OpenSlide opens (.svs, .ndpi, .mrxs, a pyramid) is read by it, other images as `write_pyramid` does.
    """
    with file_errors(path):
        known = openslide.OpenSlide.detect_format(path)
    if known:
        with file_errors(path):
            slide = openslide.OpenSlide(path)
        width, height = slide.dimensions

        def rows(low: int, high: int) -> np.ndarray:
            with file_errors(path):
                return on_white(slide, (0, low), 0, (width, high - low))

        with slide:
            yield np.array([width, height]), rows
    else:
        pixels = decode(path, folder)
        require_rgb(pixels.shape, pixels.dtype, path)
        yield np.array(pixels.shape[1::-1]), lambda low, high: np.asarray(pixels[low:high])


def decode(path: Path, folder: Path) -> np.ndarray:
    """Return the pixels of an image file, whatever its size; those of a compressed TIFF lie in `folder`."""
    suffix = _suffix(path)
    if suffix in SCANNERS:
        return _copied(path, folder)
    with file_errors(path):
        if suffix in DECODERS:
            with DECODERS[suffix](path) as image:
                return np.asarray(image)
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages[0]
            end = max(np.add(page.dataoffsets, page.databytecounts))
            if end > path.stat().st_size:  # a decoder of JPEG tiles would fill in what is missing
                raise ValueError(f"its pixels end at byte {end}, the file at {path.stat().st_size}")
            if page.is_memmappable:
                return tifffile.memmap(path, page=0, mode="r")
            shape, dtype = page.shape, page.dtype
    require_rgb(shape, dtype, path)
    with file_errors(path), tifffile.TiffFile(path) as tiff:
        return _unpack(tiff.pages[0], folder, path.name)


def _copied(path: Path, folder: Path) -> np.ndarray:
    """Read a scanner's slide into an array on the disk (H, W, 3)."""
    folder.mkdir(parents=True, exist_ok=True)
    with bands(path, folder) as (size_px, read):
        width, height = map(int, size_px)
        pixels = scratch(folder, (height, width, 3))
        for top in tqdm(range(0, height, ROWS), unit="band", desc=path.name):
            pixels[top : top + ROWS] = read(top, min(top + ROWS, height))
    return pixels


def _unpack(page: tifffile.TiffPage, folder: Path, name: str) -> np.ndarray:
    """Decode strips or tiles one by one into an array on the disk (H, W, 3)."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = scratch(folder, page.shape)
    for part, (_, _, y, x, _), size in tqdm(
        page.segments(maxworkers=1, buffersize=READ), total=len(page.dataoffsets), unit="strip", desc=name
    ):
        if part is not None:  # (1, h, w, 3); an empty strip stays black
            there = pixels[y : y + size[1], x : x + size[2]]
            there[:] = part[0, : there.shape[0], : there.shape[1]]
    return pixels


def scratch(folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return a black image on the disk; its file has no name, and goes when the array goes."""
    with tempfile.TemporaryFile(dir=folder) as file:
        with writing(folder):
            take_room(file, math.prod(shape))
        return np.memmap(file, np.uint8, "r+", shape=shape)


def require_rgb(shape: tuple[int, ...], dtype: np.dtype, source: object) -> None:
    """Raise a ValueError unless pixels are 8-bit RGB."""
    if len(shape) != 3 or shape[2] != 3 or dtype != np.uint8:
        found = f"shape {tuple(shape)} of {dtype}"
        raise ValueError(f"{source}: a slide is 8-bit RGB (H, W, 3), found {found}; convert it first")


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (*DECODERS, *TIFF, *SCANNERS):
        readable = ", ".join([*DECODERS, *TIFF, *SCANNERS])
        raise ValueError(f"{path}: a slide is read from {readable}, found '{suffix}'; convert it first")
    return suffix


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn what decoders raise into an error that names the file and the remedy; a full disk is not its."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the slide is not there; fetch and prepare it with `make data`")
    try:
        yield
    except Exception as error:  # of a damaged file decoders raise what they like
        if getattr(error, "errno", None) in REFUSED:
            raise
        remedy = "Delete it and run `make data` again"
        raise ValueError(f"{path}: the slide is truncated or damaged ({error}). {remedy}") from error


def on_white(
    slide: openslide.OpenSlide, corner: tuple[int, int], level: int, size: tuple[int, int]
) -> np.ndarray:
    """Read a rectangle of an opened slide, uint8 (h, w, 3); what lies outside is white."""
    region = slide.read_region(corner, level, size)
    white = Image.new("RGB", region.size, "white")
    white.paste(region, mask=region.getchannel("A"))
    return np.asarray(white)
