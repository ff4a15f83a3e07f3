"""The survey's pipeline: pair, ratio, sample, label and loss are settings of one mixer, each of its own.

Named methods of the survey are one word each. On scanned digits every setting is held against what it must leave alone
and against identities: label masses sum to one, and a cut image's label is the share of its pixels, counted one by
one. Boxes are held against the rule of CutMix's authors, and against timm and torchvision where they are installed.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.data import Labelled, digits
from claims.harness.learners import Network
from claims.harness.runs import derive
from kofn.combination import mix_pairs, mixup_loss

ROUNDING, ERRORS = 1e-12, 4.0
BOXES, SIDE, RATIO = 20_000, 32, 0.6

# The stage of the pipeline, and what a setting of it may change: the stages after it.
STAGES = ("pairs", "ratio", "inputs", "labels", "loss")
NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "cross-class pairs": ("pairs", {"pairs": "cross_class"}),
    "pairs by chances": ("pairs", {"pairs": np.full((10, 10), 0.01)}),
    "uniform ratios": ("ratio", {"ratio": ("uniform", 0.6, 1.0)}),
    "one ratio": ("ratio", {"ratio": 0.7}),
    "CutMix": ("inputs", {"inputs": "cut"}),
    "resampling": ("inputs", {"inputs": "resample"}),
    "label-only mixup": ("inputs", {"inputs": "first"}),
    "label of the larger": ("labels", {"labels": "larger"}),
    "label of the first": ("labels", {"labels": "first"}),
    "weighted loss": ("loss", {"class_weights": np.arange(1.0, 11.0)}),
}
# These two decide the ratio themselves: the share of pixels, and a draw.
OWN_RATIO = ("CutMix", "resampling")


@claim(
    paper=308,
    says="Pair, ratio, sample, label and loss are stages of one mixer: each named method is one word, a stage leaves "
    "those before it alone, label masses sum to one, and a cut image's label is its exact share of pixels",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Each setting on digits; broken: labels do not follow how the rows were mixed, they are the first row's."""
    draws = derive(seed, 5 if scale == "small" else 20)
    rows = digits()
    images = rows.X.reshape(-1, 1, 8, 8)
    labels: dict[str, Any] = {"labels": "first"} if broken else {}
    apart = [_apart(images, rows.y, word) for word in draws]
    masses = max(_mass_error(images, rows.y, word, labels) for word in draws)
    area = max(_area_error(images, rows.y, word, labels) for word in draws)
    inside = max(_loss_error(rows, word, labels) for word in draws)
    others = {"timm": _timm, "torchvision": _torchvision}
    peers = {"CutMix's authors": _authors(seed)} | {name: run(seed) for name, run in others.items() if _installed(name)}
    criteria = {
        "each named method is one word": all(len(words) == 1 for _, words in NAMED.values()),
        "a stage leaves those before it alone": all(all(one.values()) for one in apart),
        "masses sum to one": masses < ROUNDING,
        "a cut label is its share of pixels": area < ROUNDING,
        "the loss is the mean of both labels', on inputs and hidden features": inside < 1e-9,
        "boxes have the peers' law": all(abs(score) < ERRORS for score in peers.values()),
    }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured={
            "named methods": {name: stage for name, (stage, _) in NAMED.items()},
            "largest error of a label's sum": masses,
            "largest gap between a cut label and its share of pixels": area,
            "largest relative gap of the loss": inside,
            "kept share less the peer's, in standard errors": {name: round(score, 2) for name, score in peers.items()},
        },
        expected="sums to 1e-12; shares of pixels to 1e-12; the loss to 1e-9; mean kept share of 20,000 boxes within "
        "four standard errors of each peer's",
        baseline="pixels counted by hand; the box of CutMix's authors, and those of timm and torchvision where they "
        "are installed",
        kind="measured",
    )


def _apart(images: Any, y: Any, seed: int) -> dict[str, bool]:
    """Whether each setting leaves alone what the stages before its own have made."""
    plain = mix_pairs(images, y, seed=seed)
    out = {}
    for name, (stage, words) in NAMED.items():
        mixed = mix_pairs(images, y, seed=seed, **words)
        before = STAGES[: STAGES.index(stage)]
        same = {
            "pairs": np.array_equal(mixed.first, plain.first) and np.array_equal(mixed.second, plain.second),
            "ratio": name in OWN_RATIO or np.array_equal(mixed.ratios, plain.ratios),
            "inputs": np.array_equal(mixed.X, plain.X),
            "labels": np.array_equal(mixed.labels, plain.labels),
        }
        moved = {"loss": mixed.weights, "labels": mixed.labels, "inputs": mixed.X}
        theirs = {"loss": plain.weights, "labels": plain.labels, "inputs": plain.X}
        changes = not np.array_equal(moved.get(stage, mixed.X), theirs.get(stage, plain.X))
        out[name] = changes and all(same[part] for part in before)
    return out


def _mass_error(images: Any, y: Any, seed: int, labels: dict[str, Any]) -> float:
    settings = [{}, *(words for _, words in NAMED.values())]
    mixes = [mix_pairs(images, y, seed=seed, **(labels | words)) for words in settings]
    return max(float(np.abs(mixed.labels.sum(axis=1) - 1).max()) for mixed in mixes)


def _area_error(images: Any, y: Any, seed: int, labels: dict[str, Any]) -> float:
    """Of cut digits: the label's mass on the first row's class less the share of pixels that came from that row."""
    mixed = mix_pairs(images, y, inputs="cut", pairs="cross_class", seed=seed, **labels)
    owner = mixed.mix(np.broadcast_to(np.arange(len(y))[:, None, None, None], (len(y), 1, 8, 8)))
    kept = (owner == mixed.first[:, None, None, None]).mean(axis=(1, 2, 3))
    return float(np.abs(mixed.labels[np.arange(len(y)), y[mixed.first]] - kept).max())


def _loss_error(rows: Labelled, seed: int, labels: dict[str, Any]) -> float:
    """Of the loss on mixed inputs and on mixed hidden features, against the two labels' losses by their shares."""
    network = Network(steps=50).fit(rows.X, rows.y, rows.classes, seed % 2**31)
    hidden = np.maximum(rows.X @ network.weights[0] + network.biases[0], 0)
    runs: list[tuple[Any, Callable[[Any], Any]]] = [
        (rows.X, network.logits),
        (hidden, lambda X: X @ network.weights[1] + network.biases[1]),
    ]
    worst = 0.0
    for X, logits_of in runs:
        mixed = mix_pairs(X, rows.y, pairs="cross_class", seed=seed, **labels)
        logits = np.asarray(logits_of(mixed.X), np.float64)
        each = np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)) + logits.max(axis=1)
        index = np.arange(len(logits))
        first, second = (each - logits[index, rows.y[part]] for part in (mixed.first, mixed.second))
        expected = float((mixed.ratios * first + (1 - mixed.ratios) * second).mean())
        worst = max(worst, abs(mixup_loss(logits, mixed.labels) - expected) / expected)
    return worst


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _ours(seed: int) -> NDArray[np.float64]:
    """The shares that cut images keep."""
    images = np.zeros((2, SIDE, SIDE), np.float32)
    shares = mix_pairs(images, [0, 1], ratio=RATIO, inputs="cut", draws=BOXES, seed=seed).ratios
    return np.asarray(shares)


def _standard_errors(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    return float((ours.mean() - theirs.mean()) / np.sqrt(ours.var() / len(ours) + theirs.var() / len(theirs)))


def _authors(seed: int) -> float:
    """A box with the image's proportions about any pixel, cut off at the borders."""
    rng = np.random.default_rng([seed, 1])
    side = int(SIDE * np.sqrt(1 - RATIO))
    edges = []
    for _ in range(2):
        centre = rng.integers(SIDE, size=BOXES)
        edges.append(np.clip(centre + side // 2, 0, SIDE) - np.clip(centre - side // 2, 0, SIDE))
    return _standard_errors(_ours(seed), 1 - edges[0] * edges[1] / SIDE**2)


def _timm(seed: int) -> float:
    cutmix_bbox_and_lam = importlib.import_module("timm.data.mixup").cutmix_bbox_and_lam
    state = np.random.get_state()  # noqa: NPY002, timm draws from the global generator
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        theirs = np.array([cutmix_bbox_and_lam((SIDE, SIDE), RATIO)[1] for _ in range(BOXES)])
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return _standard_errors(_ours(seed), theirs)


def _torchvision(seed: int) -> float:
    import torch

    # Its ratios are drawn anew for each batch; ours are given the same law.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        images, cut = (
            torch.zeros(2, 1, SIDE, SIDE),
            importlib.import_module("torchvision.transforms.v2").CutMix(num_classes=2),
        )
        theirs = [float(cut(images, torch.arange(2))[1][0, 0]) for _ in range(2000)]
    blank = np.zeros((2, SIDE, SIDE), np.float32)
    ours = mix_pairs(blank, [0, 1], inputs="cut", draws=BOXES, seed=seed)
    return _standard_errors(np.asarray(ours.ratios), np.array(theirs))
