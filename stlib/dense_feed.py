"""What a dense network is fed (UNIT ``window``): random windows to train on, or a whole slide in tiles."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stlib import windows
from stlib.batch import Batch, subset
from stlib.params import Params
from stlib.paths import slide_file
from stlib.sections import whose
from stlib.tiles import Tiles
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
        section, halvings = self.views[name].section, self.halvings(name)
        size = windows.halved_size(section.size_px, halvings)
        prints = windows.section_footprints(section, halvings, self.config.permuted)
        return Tiles(slide_file(*whose(self.params, name)), size, prints, halvings)

    def training(self, batch: Batch, names: tuple[str, ...], generator: torch.Generator) -> Iterator[Batch]:
        """Yield batches of windows that hold each location once, turned and mirrored at random.

        Parameters
        ----------
        batch
            All locations of the named sections, one section after the other.
        names, generator
            See `stlib.feed.Feed.training`.
        """
        places, before = [], 0
        for name in names:
            tiles = self.tiles(name)
            cover = windows.cover(tiles.prints, self.config.window_px, generator)
            places += [(tiles, window, before) for window in cover]
            before += len(tiles.prints)
        for block in torch.randperm(len(places), generator=generator).split(self.config.batch_size):
            rows, parts = [], []
            for tiles, window, before in (places[index] for index in block.tolist()):
                part = windows.cut(
                    tiles.path, tiles.size_px, tiles.prints, window, self.config.window_px, tiles.halvings
                )
                view = int(torch.randint(8, (), generator=generator))
                parts.append(windows.turned(*part, view % 4, view > 3))
                rows.append(torch.from_numpy(window.rows + before))
            found = subset(batch, torch.cat(rows))
            found.window, found.pool = windows.joined(parts)
            yield found
