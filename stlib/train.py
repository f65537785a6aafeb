"""The one loop: every model, every protocol.

A fold is trained on its training sections. Where a validation patient is held back (`strict`), a first
training chooses the epoch of the lowest validation error, and a second one, on all training patients, stops
there. Predictions are returned; nothing is scored here. Where several processes train together, each runs
this loop, see `stlib.ranks`.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from stlib import ranks
from stlib.checkpoint import load_checkpoint, read_about, save_checkpoint
from stlib.feed import Feed
from stlib.fingerprint import text_hash
from stlib.models import Method, build, trainable
from stlib.predictions import Predictions, obs_of
from stlib.splits import Fold
from stlib.task import Task, config_of, feed_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def train_fold(task: Task) -> tuple[Predictions, pd.DataFrame, Method]:
    """Train one fold, or resume it, and predict its test sections.

    Returns
    -------
    Predictions
        Of the known and the test sections; the known rows are marked.
    pandas.DataFrame
        History: stage, epoch, loss, validation error (MSE, NaN without a validation patient), seconds. Empty
        for a model without training.
    Method
        The model, in evaluation mode.
    """
    feed = feed_of(task)
    model, history, fabric = learn(task, feed)
    return _predictions(model, feed, task.fold, fabric), history, model


def learn(task: Task, feed: Feed) -> "tuple[Method, pd.DataFrame, Fabric | ranks.Alone]":
    """Train the model of a fold, or resume it, in one training or two; nothing is predicted.

    Returns
    -------
    Method
        The model.
    pandas.DataFrame
        History, see `train_fold`.
    Fabric, or ranks.Alone for a model that is not trained
        Where and how precisely it computes.
    """
    params, fold = task.params, task.fold
    config = config_of(params, task.model, task.protocol)

    def new_model() -> Method:
        torch.manual_seed(_seed(task, "build", 0))
        return build(task.model, config, feed.shape)

    trained = trainable(new_model())  # what is not computes with numpy, in one process
    fabric = _fabric(params.training.precision) if trained else ranks.Alone()
    if fabric.world_size > config.batches_per_step:
        raise ValueError(
            f"model '{task.model}' in {fabric.world_size} processes needs at least as many batches for each "
            f"step, which are dealt to them; found batches_per_step {config.batches_per_step}. Set it (and a "
            "smaller batch_size, if a step shall see as many locations as before) under `overrides` in "
            f"params/{params.base}.yaml, or launch fewer"
        )

    history: list[dict[str, Any]] = []
    epochs = config.epochs
    with ranks.watched(fabric):
        if fold.validation and trained:
            history = fit(
                new_model(),
                feed,
                fold.train,
                epochs,
                task,
                "choose",
                fabric,
                validate=lambda model: validation_error(model, feed, fold, fabric),
            )
            epochs = min(history, key=lambda row: row["validation"])["epoch"] + 1
        model = new_model()
        history = history + fit(model, feed, fold.train + fold.validation, epochs, task, "final", fabric)
    return model, pd.DataFrame(history), fabric


def _fabric(precision: str) -> "Fabric":
    from stlib.devices import fabric  # takes seconds

    return fabric(torch.cuda.is_available(), precision)


def fit(
    model: Method,
    feed: Feed,
    names: tuple[str, ...],
    epochs: int,
    task: Task,
    stage: str,
    fabric: "Fabric",
    validate: Callable[[Method], float] | None = None,
) -> list[dict[str, Any]]:
    """Train a model on the named sections, from its last checkpoint if there is one.

    The learning rate follows the model's own schedule over `epochs`: where an epoch was chosen, the final
    training runs the whole schedule in that many epochs. Each epoch draws from its own seed, so
    an interrupted training goes on exactly as if nothing had happened. Return one row an epoch.
    """
    if not trainable(model):
        model.prepare(feed.whole(names))
        return []
    optimiser = model.optimiser()
    rates = [group["lr"] for group in optimiser.param_groups]
    path, about, history = task.checkpoint(stage), task.about(stage), []
    if path.exists() and about.items() <= (saved := read_about(path)).items():
        model.to(fabric.device)  # so that the optimiser's state arrives where its parameters are
        load_checkpoint(path, model, optimiser, task.model)
        history = saved["history"]
    else:
        model.prepare(feed.whole(names))
    ranks.check_agreed(len(history), path, fabric)
    module, optimiser = fabric.setup(model.to(memory_format=torch.channels_last), optimiser)
    patience = task.params.training.patience if validate else None
    bar = tqdm(
        range(len(history), epochs),
        initial=len(history),
        total=epochs,
        unit="epoch",
        mininterval=2,
        desc=f"{task.model} {task.fold.name} {stage}",
    )
    for epoch in bar:
        if _stalled(history, patience):
            break
        start = time.perf_counter()
        seed = _seed(task, stage, epoch)
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * model.rate(epoch / epochs)
        dealt = ranks.deal(feed.training(names, generator), model.config.batches_per_step, seed, fabric)
        loss = _epoch(module, model, dealt, optimiser, fabric)
        error = float("nan")
        if validate:
            error = fabric.broadcast(validate(model) if fabric.is_global_zero else None)
        history.append(
            {
                "stage": stage,
                "epoch": epoch,
                "loss": loss,
                "validation": error,
                "seconds": round(time.perf_counter() - start, 2),
            }
        )
        done = epoch + 1 == epochs or _stalled(history, patience)
        if fabric.is_global_zero:
            said = about | {"history": history, "panel": feed.panel}
            save_checkpoint(path, model, None if done else optimiser, said)
        bar.set_postfix(loss=f"{loss:.3f}", validation=f"{error:.3f}")
    return history


def _epoch(module: Any, model: Method, dealt: Iterator, optimiser: Any, fabric: "Fabric") -> float:
    """Take the steps of an epoch, over batches as `stlib.ranks.deal` yields them; return the mean loss."""
    model.train()
    losses, weights, statistics = [], [], ranks.Statistics(model, fabric)
    for batch, weight, last in dealt:
        batch = batch.to(fabric.device)
        with fabric.no_backward_sync(module, enabled=not last):
            loss = model.loss(batch, module(batch))
            fabric.backward(weight * loss)
        losses.append(loss.detach())
        weights.append(weight)
        if last:
            optimiser.step()
            optimiser.zero_grad()
            statistics.merge(counts=weight > 0)
    return ranks.mean(losses, weights, fabric)


def _stalled(history: list[dict[str, Any]], patience: int | None) -> bool:
    """Return whether the best validation error is more than `patience` epochs old."""
    if patience is None or not history:
        return False
    best = min(range(len(history)), key=lambda index: history[index]["validation"])
    return len(history) - 1 - best >= patience


@torch.no_grad()
def predict(
    model: Method, feed: Feed, names: tuple[str, ...], known: tuple[str, ...], fabric: "Fabric | ranks.Alone"
) -> dict[str, np.ndarray]:
    """Predict whole sections; only the known ones have labels in what the model is given.

    Return section -> prediction (N, G) float32, rows in the section's order.
    """
    model.eval().to(fabric.device)
    precision = fabric.autocast if trainable(model) else nullcontext  # a control computes in float32
    order = list(feed.order)
    out = {name: np.full((len(feed.sections[name]), len(feed.panel)), np.nan, np.float32) for name in names}
    for batch in feed.whole(names, known=known, labelled=False):
        with precision():
            values = model.predict(batch.to(fabric.device)).float().cpu().numpy()
        section, row = batch.section.cpu().numpy(), batch.row.cpu().numpy()
        for index in np.unique(section):
            out[order[index]][row[section == index]] = values[section == index]
    for name, values in out.items():
        if np.isnan(values).any():
            raise ValueError(
                f"model predicted NaN for {int(np.isnan(values).any(1).sum())} of {len(values)} spots of "
                f"section '{name}'; it diverged or read a hidden label"
            )
    return out


def validation_error(model: Method, feed: Feed, fold: Fold, fabric: "Fabric") -> float:
    """Return the mean squared error on the validation patient; in 3d one of its sections is known."""
    names = fold.validation
    patient = feed.sections[names[0]].patient
    known = (feed.params.known.get(patient, names[0]),) if feed.protocol == "3d" else ()
    predicted = predict(model, feed, names, known, fabric)
    errors = [(predicted[name] - feed.truth(name)) ** 2 for name in names if name not in known]
    return float(np.concatenate(errors).mean())


def _predictions(model: Method, feed: Feed, fold: Fold, fabric: "Fabric | ranks.Alone") -> Predictions:
    names = (*fold.known, *fold.test)
    predicted = predict(model, feed, names, fold.known, fabric)
    return Predictions(
        prediction=np.concatenate([predicted[name] for name in names]),
        truth=np.concatenate([feed.truth(name) for name in names]),
        genes=np.array(feed.panel),
        obs=pd.concat(
            [obs_of(feed.sections[name], fold.name, name in fold.known) for name in names],
            ignore_index=True,
        ),
    )


def _seed(task: Task, stage: str, epoch: int) -> int:
    """Return a seed of its own for each fold, stage and epoch of a run."""
    return int(text_hash(task.seed, task.fold.name, stage, epoch)[:15], 16)
