"""Balanced averaging: a network and its fine-tune, averaged in weight space, where what they learnt to trust shifts.

Rows are noisy scanned digits with twenty patches beside the pixels, each of one of ten colours. In the first data ten
patches go with the digit, in the second the other ten; in shifted rows any patch goes with it once in six times. A
network learns the first data and is fine-tuned on few rows of the second; the average (WiSE-FT) is judged on shifted
rows, and those of fine-tunes made less sure of themselves: by smoothed labels, by mixup, or by temperatures of heads.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.data import Labelled, digits, halves
from claims.harness.learners import Network, one_hot
from claims.harness.networks import State, logits
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.combination import balanced_mean, balancing_temperatures, mix_pairs, weighted_mean

PATCHES, COLOURS, NOISE = 10, 10, 2.0
# So few rows to fine-tune on that the fine-tune is surer than it is right.
FEW = 200
FOLLOWS, FOLLOWS_SHIFTED = 0.5, 1 / 6
SHARES = (0.3, 0.5, 0.7)
SMOOTHED, ALPHA, SHARPER = 0.2, 1.0, 5.0
BALANCED = ("smoothed labels", "mixup", "temperatures")

Singles = NDArray[np.float32]


@claim(
    paper=218,
    says="On shifted rows the average of a network and its fine-tune beats both and is right where both are wrong; a "
    "fine-tune that is too sure of itself spoils it, and made less sure, by smoothed labels, mixup or temperatures, it "
    "is better than WiSE-FT",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Averages in weight space of balanced and other fine-tunes; broken: nothing is balanced."""
    runs = 12 if scale == "small" else 40
    rows = spread(functools.partial(_trial, broken=broken), derive(seed, runs))
    accuracy = {arm: np.array([row["shifted"][arm] for row in rows]) for arm in rows[0]["shifted"]}
    wise = accuracy["WiSE-FT"]
    corrected = float(np.mean([row["both wrong, average right"] for row in rows]))
    over = {arm: difference(wise, accuracy[arm]) for arm in ("first network", "fine-tune", "sharper, WiSE-FT")}
    gains = {arm: difference(accuracy[arm], wise) for arm in BALANCED}
    best = {arm: difference(accuracy[arm], accuracy["WiSE-FT, best share"]) for arm in BALANCED}
    restored = difference(accuracy["sharper, temperatures"], accuracy["sharper, WiSE-FT"])
    criteria = {
        "the average beats the first network": over["first network"].above(0),
        "the average beats the fine-tune": over["fine-tune"].above(0),
        "right where both are wrong, on one row in a hundred": corrected > 0.01,
        "a fine-tune of sharper logits spoils the average": over["sharper, WiSE-FT"].above(0),
        "temperatures restore it": restored.above(0),
        **{f"{arm} beat WiSE-FT": gap.above(0) for arm, gap in gains.items()},
        **{f"{arm} beat WiSE-FT of the best share": gap.above(0) for arm, gap in best.items()},
    }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured={
            "accuracy on shifted rows": {arm: round(float(values.mean()), 4) for arm, values in accuracy.items()},
            "accuracy on rows like the second data": {
                arm: round(float(np.mean([row["same"][arm] for row in rows])), 4) for arm in accuracy
            },
            "both wrong, average right": round(corrected, 4),
            "WiSE-FT less": {arm: gap.figures() for arm, gap in over.items()},
            "less WiSE-FT": {arm: gap.figures() for arm, gap in gains.items()},
            "less WiSE-FT of the best share": {arm: gap.figures() for arm, gap in best.items()},
            "sharper, temperatures less WiSE-FT": restored.figures(),
            "temperatures": np.round(np.mean([row["temperatures"] for row in rows], axis=0), 3).tolist(),
        },
        expected="lower 95% limits of paired differences in accuracy on shifted rows above 0; one row in a hundred "
        "that both get wrong is right in the average",
        baseline="WiSE-FT, the plain average with the share of 0.3, 0.5 and 0.7 that is best on held-out rows of both "
        "data, as in every arm; and with the share that is best on the shifted rows themselves",
        kind="reduced",
    )


def _trial(seed: int, *, broken: bool) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    whole = digits()
    train, rest = halves(whole, 0.6, seed % 2**32)
    valid, test = halves(rest, 0.4, seed % 2**32)
    few = train.take(rng.permutation(len(train))[:FEW])
    first, second = _rows(train, rng, (FOLLOWS, None)), _rows(few, rng, (None, FOLLOWS))
    held = [_rows(valid, rng, trusted) for trusted in ((FOLLOWS, None), (None, FOLLOWS))]
    same = _rows(test, rng, (None, FOLLOWS))
    shifted = _rows(test, rng, (FOLLOWS_SHIFTED, FOLLOWS_SHIFTED))

    learner = Network(steps=300).fit(first.X, first.y, COLOURS, seed % 2**31)
    start = _state(learner)
    sharp = functools.partial(_finetuned, learner, seed=seed)
    plain = sharp(second.X, one_hot(second.y, COLOURS))
    smoothed = (1 - SMOOTHED) * one_hot(second.y, COLOURS) + np.float32(SMOOTHED / COLOURS)
    mixed = mix_pairs(second.X, second.y, ratio=("beta", ALPHA), classes=COLOURS, draws=300 * 128, seed=seed)
    tunes = {
        "WiSE-FT": plain,
        "smoothed labels": sharp(second.X, smoothed),
        "mixup": sharp(mixed.X, mixed.labels.astype(np.float32)),
    }
    if broken:
        tunes = dict.fromkeys(tunes, plain)
    sharper = {name: array * np.float32(SHARPER if name.startswith("2.") else 1) for name, array in plain.items()}

    def temperatures(state: State) -> Any:
        if broken:
            return [1.0, 1.0]
        own = zip((start, state), held, strict=True)
        return [float(balancing_temperatures([logits(net, rows.X)], y=rows.y)[0]) for net, rows in own]

    def mean(state: State, share: float) -> Mapping[str, Any]:
        return dict(weighted_mean([start, state], weights=[1 - share, share]).result)

    def balanced(state: State, share: float) -> Mapping[str, Any]:
        weights = [1 - share, share]
        return dict(balanced_mean([start, state], weights=weights, temperatures=temperatures(state), head="2.*").result)

    ways = {name: [mean(state, share) for share in SHARES] for name, state in tunes.items()}
    ways["temperatures"] = [balanced(plain, share) for share in SHARES]
    ways["sharper, WiSE-FT"] = [mean(sharper, share) for share in SHARES]
    ways["sharper, temperatures"] = [balanced(sharper, share) for share in SHARES]
    # The share is chosen alike for all: by the mean accuracy on held-out rows of both data.
    chosen = {
        name: max(states, key=lambda s: sum(_accuracy(s, rows) for rows in held)) for name, states in ways.items()
    }
    chosen["WiSE-FT, best share"] = max(ways["WiSE-FT"], key=lambda state: _accuracy(state, shifted))
    nets = {"first network": start, "fine-tune": plain, **chosen}
    right = {name: logits(nets[name], shifted.X).argmax(axis=1) == shifted.y for name in nets}
    return {
        "shifted": {name: float(hits.mean()) for name, hits in right.items()},
        "same": {name: _accuracy(state, same) for name, state in nets.items()},
        "both wrong, average right": float((~right["first network"] & ~right["fine-tune"] & right["WiSE-FT"]).mean()),
        "temperatures": temperatures(plain),
    }


def _rows(rows: Labelled, rng: np.random.Generator, trusted: tuple[float | None, float | None]) -> Labelled:
    """Noisy digits and two blocks of patches; a block that is not trusted has colours at random."""
    n = len(rows)
    parts = [rows.X + NOISE * rows.X.std() * rng.normal(size=rows.X.shape)]
    for share in trusted:
        colours = rng.integers(0, COLOURS, (n, PATCHES))
        if share is not None:
            colours = np.where(rng.random((n, PATCHES)) < share, rows.y[:, None], colours)
        parts.append(np.eye(COLOURS)[colours].reshape(n, -1))
    return Labelled(np.hstack(parts).astype(np.float32), rows.y, rows.classes)


def _finetuned(learner: Network, X: Singles, targets: Singles, *, seed: int) -> State:
    own = Network(steps=300, weights=[w.copy() for w in learner.weights], biases=[b.copy() for b in learner.biases])
    return _state(own.train(X.astype(np.float32), targets, 300, np.random.default_rng(seed)))


def _state(network: Network) -> State:
    layers = zip(network.weights, network.biases, strict=True)
    return {
        f"{2 * i}.{part}": array
        for i, (weight, bias) in enumerate(layers)
        for part, array in (("weight", np.ascontiguousarray(weight.T)), ("bias", bias.copy()))
    }


def _accuracy(state: Mapping[str, Any], rows: Labelled) -> float:
    return float((logits(state, rows.X).argmax(axis=1) == rows.y).mean())
