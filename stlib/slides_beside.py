"""The one full-resolution slide of a folder, among previews and tables."""

from pathlib import Path

from stlib.images import DECODERS, SCANNERS, TIFF

SUFFIXES = (*DECODERS, *TIFF, *SCANNERS)
PREVIEWS = ("hires", "lowres", "cytassist", "detected", "aligned", "thumbnail", "downscaled")  # in names


def the_slide(folder: Path, stem: str = "") -> Path:
    """Return the only image of a folder that may be a full-resolution slide.

    Parameters
    ----------
    folder
        Where it lies; folders below are not searched.
    stem
        What its name begins with, where a folder holds the slides of several sections: the name without its
        suffix, or what stands before the first dot.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If there are several.
    """
    found = [
        path
        for path in sorted(folder.glob("*"))
        if path.suffix.lower() in SUFFIXES
        and not any(word in path.name.lower() for word in PREVIEWS)
        and (not stem or stem in (path.stem, path.name.split(".")[0]))
    ]
    what = f"{folder}/{stem or '*'}"
    if not found:
        raise FileNotFoundError(
            f"{what}: the full-resolution slide stands there, as {', '.join(SUFFIXES)}; found none. Copy the "
            "image that was given to Space Ranger, not one of its previews"
        )
    if len(found) > 1:
        raise ValueError(
            f"{what}: a section has one slide, found {[path.name for path in found]}. Keep one, or name it "
            "under source.options.slides in the params file"
        )
    return found[0]
