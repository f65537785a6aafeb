"""What a dense network is fed (UNIT ``window``): random windows to train on, or a whole slide in tiles."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from stlib import windows
from stlib.batch import Batch, subset
from stlib.footprints import Box
from stlib.params import Params
from stlib.paths import slide_file
from stlib.reading import ahead
from stlib.sections import whose
from stlib.tiles import Tiles, of_section
from stlib.transfer import View

if TYPE_CHECKING:
    from stlib.models import Config


class DenseFeed:
    """Cut the slides of some sections for a dense network.

    Parameters
    ----------
    params
        The dataset, of a transfer the one at home.
    views
        How each section is seen, by name.
    config
        The model's settings; a batch holds windows.
    """

    def __init__(self, params: Params, views: Mapping[str, View], config: "Config"):
        self.params, self.views, self.config = params, views, config

    def halvings(self, name: str) -> int:
        """Return how often the slide of a section is halved.

        Raises
        ------
        ValueError
            If it would have to be enlarged.
        """
        halvings = self.config.halvings + self.views[name].halved
        if halvings < 0:
            raise ValueError(
                f"{name}: no image is enlarged, so a slide is halved 0 times or more until its pixels are as "
                f"wide as at home; found {halvings} times. Raise `halvings` in the overrides of "
                f"{self.params.name}, now {self.config.halvings}"
            )
        return halvings

    def fields(self, name: str) -> dict[str, Tensor]:
        """Return what a batch says of each location of a section, see `stlib.windows.location_fields`."""
        return windows.location_fields(self.views[name].section, self.halvings(name), self.config.permuted)

    def tiles(self, name: str) -> Tiles:
        """Return the slide of a section, and what its locations cover."""
        path, section = slide_file(*whose(self.params, name)), self.views[name].section
        return of_section(path, section, self.halvings(name), self.config.permuted)

    def training(self, batch: Batch, names: tuple[str, ...], generator: torch.Generator) -> Iterator[Batch]:
        """Yield batches of windows that hold each location once, turned and mirrored at random.

        `batch` holds all locations of the named sections, one section after the other.
        """
        places, before, side = [], 0, self.config.window_px
        for name in names:
            tiles = self.tiles(name)
            places += [(tiles, window, before) for window in windows.cover(tiles.prints, side, generator)]
            before += len(tiles.prints)
        order = [places[index] for index in torch.randperm(len(places), generator=generator).tolist()]
        images = ahead(_read, [(tiles.path, tiles.halvings, window.box(side)) for tiles, window, _ in order])
        seen = zip(order, images, strict=True)
        while block := list(islice(seen, self.config.batch_size)):
            rows, parts = [], []
            for (tiles, window, before), image in block:
                pool = windows.window_pool(tiles.size_px, tiles.prints, window, side)
                view = int(torch.randint(8, (), generator=generator))
                parts.append(windows.turned(windows.as_pixels(image), pool, view % 4, view > 3))
                rows.append(torch.from_numpy(window.rows + before))
            found = subset(batch, torch.cat(rows))
            found.window, found.pool = windows.joined(parts)
            yield found


def _read(places: Sequence[tuple[Path, int, Box]]) -> Iterator[np.ndarray]:
    """Yield windows of several slides, see `stlib.windows.read`."""
    for path, halvings, box in places:
        yield from windows.read(path, halvings, [box])
