"""Flaws of released code and what each does to a score, in a few lines of our own: on counts, no image.

Each function takes a `Cohort` and whether to have the flaw, and returns what is predicted for every hidden
section: section -> (N, G). One expression decides between the two; all else is shared. No released code is
copied: what it does is said again, as the specification of the methods found it, file by file (`FLAWS`).
Three flaws make a score too good, four make a method worse than it need be, per gene.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from stlib import metrics
from stlib.cohort import Cohort
from stlib.expression import log_proportion, sum_over
from stlib.graph import grid_parents, knn_graph, nearest, symmetric
from stlib.propagation import propagate

Predicted = dict[str, np.ndarray]

WIDTH, NOISE, STEPS, RATE = 256, 0.3, 200, 0.5  # of the linear model that is trained fold after fold
EPOCHS, SWING = 50, 0.2  # checkpoints to choose from, and how far each strays from the mean label
WITHIN, ACROSS, BATCH, STRANGERS, ITERATIONS = 4, 12, 128, 10, 20  # as released (ASIGN, 3D)
NEIGHBOURS, PROJECTED = 20, 256


def known_mean(cohort: Cohort) -> Predicted:
    """Predict the mean label of the patient's known section: the same for each of its spots."""
    return {
        name: np.tile(cohort.labels[cohort.known(name)].mean(0), (len(cohort.labels[name]), 1))
        for name in _hidden(cohort)
    }


def nearest_mean(cohort: Cohort) -> Predicted:
    """Predict the mean label of the 20 known spots nearest in the array, sections laid middle on middle."""
    predicted = {}
    for name in _hidden(cohort):
        known = cohort.known(name)
        near, _ = nearest(cohort.place[known], cohort.place[name], NEIGHBOURS)
        predicted[name] = cohort.labels[known][near].mean(1)
    return predicted


# ---- what makes a score too good ----------------------------------------


def carried_weights(cohort: Cohort, flawed: bool) -> Predicted:
    """Train a linear model fold after fold; with the flaw, on the weights that the fold before left.

    Its input says whose spot it is (as stain may) and nothing of what the spot expresses: a random vector of
    the patient, under noise. So no honest model is better than the mean label of the training patients. With
    the flaw one model serves all folds.
    """
    rng = np.random.default_rng(0)
    patient = {name: rng.normal(size=WIDTH) for name in cohort.sections}
    inputs = {
        name: (patient[one.patient] + rng.normal(0, NOISE, (len(one), WIDTH))) / np.sqrt(WIDTH)
        for name, one in cohort.section.items()
    }
    weights, predicted = np.zeros((WIDTH, len(cohort.panel))), {}
    for fold in cohort.folds:
        if not flawed:
            weights = np.zeros_like(weights)
        train = cohort.training(fold)
        x, y = cohort.stack(inputs, train), cohort.stack(cohort.labels, train)
        mean = y.mean(0)
        square, product = x.T @ x / len(x), x.T @ (y - mean) / len(x)
        for _ in range(STEPS):  # gradient descent on the squared error
            weights = weights - RATE * (square @ weights - product)
        predicted |= {name: mean + inputs[name] @ weights for name in cohort.hidden(fold)}
    return predicted


def chosen_checkpoint(cohort: Cohort, flawed: bool) -> Predicted:
    """Keep the best of 50 checkpoints that learned nothing; with the flaw, the best on the test fold.

    Each checkpoint is the mean training label plus a random wave over each section, the same for all genes:
    it correlates with them by chance alone. The right choice looks at the other patients, who know nothing.
    """
    rng = np.random.default_rng(0)
    waves = {}  # section -> (N, EPOCHS)
    for name, place in cohort.place.items():
        angle, phase = rng.uniform(0, 2 * np.pi, (2, EPOCHS))
        length = rng.uniform(10, 40, EPOCHS)  # in pitches
        waves[name] = np.cos(place @ (2 * np.pi / length * [np.cos(angle), np.sin(angle)]) + phase)
    fit = {name: _fit(found, cohort.labels[name]) for name, found in waves.items()}
    predicted = {}
    for fold in cohort.folds:
        hidden, train = cohort.hidden(fold), cohort.training(fold)
        best = np.mean([fit[name] for name in (hidden if flawed else train)], 0).argmax()
        mean = cohort.stack(cohort.labels, train).mean(0)
        predicted |= {name: mean + SWING * waves[name][:, [best]] for name in hidden}
    return predicted


def _fit(waves: np.ndarray, labels: np.ndarray) -> list[float]:
    """Return the mean correlation of each wave (N, EPOCHS) with the genes (N, G)."""
    return [
        metrics.mean_defined(metrics.pcc_per_gene(np.broadcast_to(wave[:, None], labels.shape), labels))
        for wave in waves.T
    ]


def coarse_labels(cohort: Cohort, flawed: bool) -> Predicted:
    """Predict each spot by the label of its region; with the flaw, regions of hidden sections are seen.

    A region's label is made of the summed counts of its spots, the tested one among them. A network that is
    trained on it, and whose levels share their last layer, can at best return it: that is what is scored.
    Without hidden labels, what is left is the known section, by place.
    """
    return regions(cohort) if flawed else nearest_mean(cohort)


def regions(cohort: Cohort, itself: bool = True) -> Predicted:
    """Predict each spot by the summed counts of its region; `itself`: its own are among them."""
    predicted, side = {}, cohort.params.levels["region"].px
    for name in _hidden(cohort):
        counts = cohort.counts[name]
        parents, cells = grid_parents(cohort.section[name].position, side)
        summed = sum_over(parents, counts, len(cells))[parents]
        predicted[name] = log_proportion(summed if itself else summed - counts)
    return predicted


# ---- what makes a method worse than it need be ----------------------------------------


def random_edges(cohort: Cohort, flawed: bool, draw: int = 0) -> Predicted:
    """Carry known labels over a graph; with the flaw, one drawn anew within each random test batch.

    With the flaw batches are of 128, and each known spot has 10 random neighbours; `draw` is the seed of
    both.
    """
    return propagated(cohort, BATCH, STRANGERS, draw) if flawed else propagated(cohort, None, 0, draw)


def propagated(cohort: Cohort, batch: int | None, strangers: int, draw: int) -> Predicted:
    """Carry known labels over a patient's graph: 4 nearest in the section, 12 in others, and strangers.

    Parameters
    ----------
    batch
        Spots of a batch, drawn at random; only they can be neighbours. None: the whole patient at once.
    strangers
        Random neighbours of each known spot.
    """
    rng, predicted = np.random.default_rng(draw), {}
    for names in cohort.sections.values():
        labels, place = (cohort.stack(values, names) for values in (cohort.labels, cohort.place))
        section = np.repeat(np.arange(len(names)), [len(cohort.labels[name]) for name in names])
        known = section == [name == cohort.known(name) for name in names].index(True)
        value, every = np.empty_like(labels), np.arange(len(labels))
        batches = np.array_split(rng.permutation(every), -(-len(every) // batch)) if batch else [every]
        for rows in batches:
            edges = _edges(place[rows], section[rows], known[rows], strangers, rng)
            given = (torch.from_numpy(found[rows]) for found in (labels, known))
            value[rows] = propagate(*given, edges, torch.ones(edges.shape[1]), ITERATIONS).numpy()
        own = {name: value[section == number] for number, name in enumerate(names)}
        predicted |= {name: found for name, found in own.items() if name != cohort.known(name)}
    return predicted


def _edges(
    place: np.ndarray, section: np.ndarray, known: np.ndarray, strangers: int, rng: np.random.Generator
) -> torch.Tensor:
    """Join n spots to their neighbours in the section and in others, known ones to strangers: (2, E)."""
    parts = [knn_graph(place, WITHIN, section)[0]]
    for one in np.unique(section):
        here, there = np.flatnonzero(section == one), np.flatnonzero(section != one)
        near, _ = nearest(place[there], place[here], ACROSS)
        parts.append(np.stack([there[near].ravel(), np.repeat(here, near.shape[1])]))
    knows = np.repeat(np.flatnonzero(known), strangers)
    parts.append(np.stack([rng.integers(0, len(place), len(knows)), knows]))
    edges = np.concatenate(parts, 1)
    edges = edges[:, edges[0] != edges[1]]
    return torch.from_numpy(symmetric(edges, np.ones(edges.shape[1]))[0])


def one_key(cohort: Cohort, flawed: bool) -> Predicted:
    """Let each spot attend to the 20 known spots around by its looks; with the flaw, to one key, their mean.

    With one key for each spot its softmax is 1 whatever the query.
    """
    predicted = {}
    for name in _hidden(cohort):
        known = cohort.known(name)
        around, _ = nearest(cohort.place[known], cohort.place[name], NEIGHBOURS)
        keys, values = cohort.looks[known][around], cohort.labels[known][around]
        if flawed:
            keys, values = (found.mean(1, keepdims=True) for found in (keys, values))
        predicted[name] = attend(cohort.looks[name], keys, values)
    return predicted


def attend(queries: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return softmax(q k' / sqrt(D)) v for each query.

    `queries` (N, D), `keys` (N, K, D) and `values` (N, K, G) give (N, G).

    Examples
    --------
    >>> key, value = np.ones((2, 1, 2)), np.full((2, 1, 1), 7.0)
    >>> attend(np.array([[0.0, 1.0], [-5.0, 3.0]]), key, value)
    array([[7.],
           [7.]])
    """
    scores = queries[:, None] @ keys.swapaxes(1, 2) / np.sqrt(queries.shape[1])  # (N, 1, K)
    weights = np.exp(scores - scores.max(2, keepdims=True))
    return (weights / weights.sum(2, keepdims=True) @ values)[:, 0]


def mixed_nodes(cohort: Cohort, flawed: bool) -> Predicted:
    """Hand the true labels through three layers and average a spot's tokens; with the flaw, a view's tokens.

    With the flaw (layers, nodes, genes) is read as (nodes, layers, genes), see `tokens`.
    """
    rng, predicted = np.random.default_rng(0), {}
    for name in _hidden(cohort):
        order = rng.permutation(len(cohort.labels[name]))
        layers = np.stack([cohort.labels[name][order]] * 3)
        predicted[name] = tokens(layers, flawed).mean(1)[np.argsort(order)]
    return predicted


def tokens(layers: np.ndarray, flawed: bool) -> np.ndarray:
    """Return the tokens of each node (N, L, D) of layers' outputs (L, N, D); with the flaw, by reshaping.

    Examples
    --------
    >>> tokens(np.array([[[0], [1], [2]]] * 3), flawed=True)[..., 0]
    array([[0, 1, 2],
           [0, 1, 2],
           [0, 1, 2]])
    """
    count, nodes, width = layers.shape
    return layers.reshape(nodes, count, width) if flawed else layers.transpose(1, 0, 2)


def section_projections(cohort: Cohort, flawed: bool) -> Predicted:
    """Predict the mean label of the 20 known spots that look most alike, after a random projection.

    With the flaw each section has a projection of its own; else all share one.
    """
    rng, width = np.random.default_rng(0), next(iter(cohort.looks.values())).shape[1]
    shared = rng.normal(size=(width, PROJECTED))
    own = {name: rng.normal(size=shared.shape) if flawed else shared for name in cohort.section}
    seen = {name: looks @ own[name] for name, looks in cohort.looks.items()}
    predicted = {}
    for name in _hidden(cohort):
        known = cohort.known(name)
        alike = np.argsort(-cosines(seen[name], seen[known]), 1, kind="stable")[:, :NEIGHBOURS]
        predicted[name] = cohort.labels[known][alike].mean(1)
    return predicted


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine between each row of (N, D) and each of (K, D): (N, K)."""
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


def _hidden(cohort: Cohort) -> list[str]:
    return [name for fold in cohort.folds for name in cohort.hidden(fold)]


@dataclass(frozen=True)
class Flaw:
    """What is wrong, where it was found, and what it means for a score."""

    title: str  # what the code does
    where: str  # whose released code, and which file
    meaning: str  # how to read a number that was made so
    show: Callable[[Cohort, bool], Predicted]  # (cohort, flawed) -> what is predicted


FLAWS = (
    Flaw(
        "weights carried over folds",
        "ASIGN, main.py; main_3d.py of 2024",
        "from the second fold on, test patients were trained on",
        carried_weights,
    ),
    Flaw(
        "checkpoint chosen on the test fold",
        "EGN, EGGN, SGN, TRIPLEX",
        "the best of many is above zero even if none has learned anything",
        chosen_checkpoint,
    ),
    Flaw(
        "labels through coarser levels",
        "ASIGN, main_3d.py with dataloader_3d.py",
        "a region's label holds the label that is to be predicted",
        coarse_labels,
    ),
    Flaw(
        "random batches and edges at test",
        "ASIGN, graph_construction.py, main_3d.py",
        "a spot is predicted by whom it is drawn with; place is lost",
        random_edges,
    ),
    Flaw(
        "softmax over one key",
        "ASIGN and MagNet, model*.py",
        "the query, a spot's own image, decides nothing",
        one_key,
    ),
    Flaw(
        "reshape that mixes nodes",
        "ASIGN and MagNet, model*.py",
        "a spot is predicted from other spots, even where its own answer is at hand",
        mixed_nodes,
    ),
    Flaw(
        "a random projection per section",
        "ASIGN, 4_feature_extraction.py; MagNet alike",
        "a cosine across sections says nothing",
        section_projections,
    ),
)
