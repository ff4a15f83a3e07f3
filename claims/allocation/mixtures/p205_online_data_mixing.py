"""Online data mixing: how soon a model of characters is as good on all groups of texts as with a fixed mixture.

Five groups of real texts (verses, functions, three tables written as text) of unequal size and entropy. The fixed
mixtures are equal shares, shares in proportion to size and to its root, and every mixture that doubles one group's
share; the best of all of them is chosen on seeds that are not judged, and so are the bandit's two options, from as many
settings. EXP3 itself is held to its regret on drawn arms.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.mixed_texts import CharacterModel, groups, split, trained
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.allocation import OnlineDataMixing

Floats = NDArray[np.float64]
Figures = dict[str, Any]

STEPS, EVERY, HELD_OUT = 1200, 40, 200
# The bandit's settings: as many as there are fixed mixtures.
SETTINGS = list(itertools.product((None, 0.5, 0.9, 0.98), (None, 0.3)))
ARMS, ROUNDS = 5, (400, 1200, 3600)
Choose = Callable[[int, CharacterModel], int]


@claim(
    paper=205,
    says="A model trained on groups drawn by online data mixing reaches the final loss of the best fixed mixture in "
    "fewer steps, and so it does those of equal and of proportional shares; EXP3's regret grows as the root of the "
    "rounds",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Paired runs on fresh draws of batches; broken: every loss is reported as 1, so that no group stands out."""
    tuning, runs = (1, 10) if scale == "small" else (4, 30)
    sizes = np.array([len(text) for text in groups().values()], np.float64)
    fixed = _fixed(sizes)
    tuned = spread(functools.partial(_tuned, fixed=fixed, broken=broken), derive(seed, tuning, stream=1))
    by_mixture = np.mean([row["fixed"] for row in tuned], axis=0)
    setting = SETTINGS[int(np.mean([row["bandit"] for row in tuned], axis=0).argmin())]
    best = fixed[int(by_mixture.argmin())]
    rivals = {"equal": fixed[0], "proportional": fixed[1], "best fixed": best}
    trials = spread(
        functools.partial(_trial, rivals=rivals, setting=setting, broken=broken), derive(seed, runs, stream=2)
    )
    measured: Figures = {
        "groups": dict(zip(groups(), sizes.astype(int).tolist(), strict=True)),
        "chosen": {"smoothing": str(setting[0]), "rate": str(setting[1])},
        "best fixed shares": best.round(3).tolist(),
        "shares at the end, mean": np.mean([trial["shares"] for trial in trials], axis=0).round(3).tolist(),
        "mean loss at the end": {
            way: round(float(np.mean([trial["loss"][way] for trial in trials])), 4) for way in ("bandit", *rivals)
        },
    }
    criteria = {"every share at least the floor": all(trial["floored"] for trial in trials)}
    for rival in rivals:
        saved = difference([trial["saved"][rival] for trial in trials], np.zeros(runs))
        lower = difference([trial["loss"][rival] for trial in trials], [trial["loss"]["bandit"] for trial in trials])
        measured[f"share of steps saved to the final loss of {rival}"] = saved.figures()
        measured[f"loss of {rival} - of the bandit"] = lower.figures()
        criteria[f"fewer steps than {rival}"] = saved.above(0.0)
        criteria[f"lower loss than {rival}"] = lower.above(0.0)
    regrets = np.array(spread(functools.partial(_regret, broken=broken), derive(seed, 12, stream=3)))
    slope = float(np.polyfit(np.log(ROUNDS), np.log(regrets.mean(axis=0)), 1)[0])
    measured["regret of EXP3"] = {
        "rounds": list(ROUNDS),
        "mean": regrets.mean(axis=0).round(1).tolist(),
        "log-log slope": round(slope, 3),
    }
    criteria["regret grows as the root"] = slope < 0.65
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="lower 95% limits of paired differences above 0 for steps saved and for the loss at the end, "
        "against each of three fixed mixtures; a log-log slope of the regret below 0.65; shares at or above the floor",
        baseline="equal shares, shares in proportion to size, and the best of 8 fixed mixtures, chosen on another "
        "seed, as the bandit's options are from as many",
        kind="reduced",
    )


def _fixed(sizes: Floats) -> list[Floats]:
    """Equal, proportional to size and to its root, and equal shares with one group doubled."""
    doubled = [1 + np.eye(len(sizes))[group] for group in range(len(sizes))]
    return [mixture / mixture.sum() for mixture in (np.ones(len(sizes)), sizes, np.sqrt(sizes), *doubled)]


def _run(seed: int, make: Callable[[np.random.Generator], tuple[Choose, Callable[[int, float], Any]]]) -> Floats:
    """The mean held-out loss over groups, along the training; every way sees the same held-out positions."""
    rng = np.random.default_rng(seed)
    texts = list(groups().values())
    parts = [split(text, rng, HELD_OUT) for text in texts]
    choose, learned = make(rng)
    path = trained(
        texts,
        [part[0] for part in parts],
        choose,
        steps=STEPS,
        rng=rng,
        learned=learned,
        judge=lambda model: float(np.mean([model.loss(t, p[1]) for t, p in zip(texts, parts, strict=True)])),
        every=EVERY,
    )
    return np.array(path)


def _fixed_way(shares: Floats) -> Callable[[np.random.Generator], Any]:
    reached = np.cumsum(shares)
    return lambda rng: (
        lambda _step, _model: int(np.searchsorted(reached, rng.random() * reached[-1], side="right")),
        lambda _group, _loss: None,
    )


def _bandit_way(mixing: OnlineDataMixing, broken: bool) -> Callable[[np.random.Generator], Any]:
    return lambda _rng: (
        lambda _step, _model: mixing.ask(),
        lambda _group, loss: mixing.tell(1.0 if broken else loss),
    )


def _mixing(seed: int, setting: tuple[float | None, float | None]) -> OnlineDataMixing:
    # Losses of a softmax over some 50 characters start at 4 nats.
    return OnlineDataMixing(len(groups()), smoothing=setting[0], rate=setting[1], scale=4.0, seed=seed)


def _tuned(seed: int, *, fixed: list[Floats], broken: bool) -> Figures:
    return {
        "fixed": [_run(seed, _fixed_way(shares))[-1] for shares in fixed],
        "bandit": [_run(seed, _bandit_way(_mixing(seed, setting), broken))[-1] for setting in SETTINGS],
    }


def _trial(seed: int, *, rivals: dict[str, Floats], setting: Any, broken: bool) -> Figures:
    mixing = _mixing(seed, setting)
    ours = _run(seed, _bandit_way(mixing, broken))
    paths = {rival: _run(seed, _fixed_way(shares)) for rival, shares in rivals.items()}
    # The mean of the last steps, since a single batch moves the loss.
    end = {rival: float(path[-3:].mean()) for rival, path in paths.items()}
    smooth = np.convolve(ours, np.ones(3) / 3, "valid")
    saved = {}
    for rival, loss in end.items():
        there = np.flatnonzero(smooth <= loss)
        # Never there is counted as no step saved and as many lost again.
        reached = (int(there[0]) + 3) * EVERY if len(there) else 2 * STEPS
        saved[rival] = 1 - reached / STEPS
    return {
        "saved": saved,
        "loss": {"bandit": float(ours[-3:].mean()), **end},
        "shares": mixing.shares.tolist(),
        "floored": bool(mixing.shares.min() >= mixing.floor * (1 - 1e-9)),
    }


def _regret(seed: int, *, broken: bool) -> list[float]:
    """What EXP3 misses of the best of five arms, whose rewards are drawn, after several numbers of rounds."""
    rng = np.random.default_rng(seed)
    chances = np.array([0.5, 0.5, 0.5, 0.5, 0.7])
    mixing = OnlineDataMixing(ARMS, smoothing=None, seed=seed)
    missed, out = 0.0, []
    for step in range(1, ROUNDS[-1] + 1):
        arm = mixing.ask()
        reward = float(rng.random() < chances[arm])
        missed += chances.max() - chances[arm]
        mixing.tell(1.0 if broken else reward)
        if step in ROUNDS:
            out.append(missed)
    return out
