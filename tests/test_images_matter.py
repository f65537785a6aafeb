"""What a method learned comes from the images: with those of other places its gain is gone."""

from dataclasses import replace

import numpy as np
import pytest

from stlib import devices, train
from stlib.feed import Feed
from stlib.metrics import pcc_per_gene
from stlib.models import method, names
from stlib.sections import load_sections
from stlib.splits import folds
from stlib.task import Task
from stlib.train import train_fold

LEARNED = [name for name in names() if method(name).Config().epochs]


CASES = [("toy", "2d", name) for name in LEARNED] + [("toy_hd", "hd", "magnet")]


@pytest.mark.parametrize(("dataset", "protocol", "name"), CASES)
def test_images_of_other_places_remove_the_gain(request, tmp_path, dataset, protocol, name):
    """A model beats the training mean from its spots' images, not from those of others in the section."""
    params = request.getfixturevalue(dataset)
    fold = folds(params, protocol)[0]
    true, _, model = train_fold(Task(params, fold, name, protocol, 0, tmp_path, "recipe"))
    mean, _, _ = train_fold(Task(params, fold, "mean", protocol, 0, tmp_path, "recipe"))

    feed = Feed(
        params, load_sections(params, fold.test), true.genes.tolist(), replace(model.config, permuted=True),
        unit=model.UNIT, needs=model.needs(model.config), protocol=protocol, hidden=fold.test,
    )  # fmt: skip
    mixed = train.predict(model, feed, fold.test, (), devices.fabric(False, "32-true"))
    mixed = np.concatenate([mixed[section] for section in fold.test])

    def error(prediction):
        return ((prediction - true.truth) ** 2).mean()

    assert error(true.prediction) < error(mean.prediction) < error(mixed) + 0.01
    assert np.nanmean(pcc_per_gene(true.prediction, true.truth)) > 0.2
    assert abs(np.nanmean(pcc_per_gene(mixed, true.truth))) < 0.08


def test_the_variant_without_images_is_trained_and_predicted_so(toy, tmp_path):
    """In training as in prediction each spot has the image of another one: a ridge learns nothing of them."""
    fold, found = folds(toy, "2d")[0], {}
    for name in ("ridge", "ridge@permuted"):
        one, _, _ = train_fold(Task(toy, fold, name, "2d", 0, tmp_path, "recipe"))
        found[name] = np.nanmean(pcc_per_gene(one.prediction, one.truth))
    assert found["ridge"] > 0.3 and abs(found["ridge@permuted"]) < 0.1
