"""Ensemble selection: kofn against the plain NumPy loop, and against AutoGluon's own `EnsembleSelection`.

The algorithm is the same: each round rates the mean of what was added with every member, and adds the best. `numpy`
keeps the running sum and rates candidates one by one; `autogluon` is the class of `autogluon.core` with its log loss,
where that is installed (`pip install --no-deps autogluon.core autogluon.common autogluon.features`: it asks for an
older pandas). Contenders run in turn, each in a process of its own; "apart" is the largest difference of their weights
from kofn's.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from statistics import median
from typing import Any

import numpy as np

from benchmarks import in_fresh_process

WHO = ("kofn", "numpy", "autogluon")


def predictions(n: int, m: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Probabilities of two classes by m models that are right to different degrees, with errors that they share."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    shared = (2 * y - 1) + 1.5 * rng.normal(size=n)
    logits = (shared * rng.uniform(0.2, 1) + rng.normal(size=n) * rng.uniform(0.5, 2) for _ in range(m))
    return [1 / (1 + np.exp(-part)) for part in logits], y


def plain(members: list[np.ndarray], y: np.ndarray, k: int, rounds: int, rate: Any) -> list[int]:
    """The additions, every candidate rated in every round."""
    total = np.zeros(len(y))
    added: list[int] = []
    for _ in range(rounds):
        used = sorted(set(added))
        candidates = range(len(members)) if len(used) < k else used
        losses = [(rate(y, (total + members[j]) / (len(added) + 1)), j) for j in candidates]
        chosen = min(losses)[1]
        added.append(chosen)
        total += members[chosen]
    return added


def _log_loss(y: np.ndarray, chance: np.ndarray) -> float:
    return -float(np.log(np.where(y == 1, chance, 1 - chance)).mean())


def work(who: str, n: int, m: int, k: int, rounds: int, seed: int) -> dict[str, Any]:
    """One timed run, in a fresh process, after a small one that loads what is needed."""
    members, y = predictions(n, m, seed)

    def weigh(rows: slice) -> np.ndarray:
        part, answers = [member[rows] for member in members], y[rows]
        if who == "kofn":
            from kofn.combination import ensemble_selection

            return np.asarray(ensemble_selection(part, y=answers, k=k, rounds=rounds, folds=0).weights)
        if who == "autogluon":
            ensembles = importlib.import_module("autogluon.core.models.greedy_ensemble.ensemble_selection")
            metric = importlib.import_module("autogluon.core.metrics").log_loss
            chosen = ensembles.EnsembleSelection(rounds, "binary", metric).fit(part, answers)
            return np.asarray(chosen.weights_)
        added = plain(part, answers, k, rounds, _log_loss)
        return np.bincount(added, minlength=len(members)) / len(added)

    weigh(slice(0, 200))
    began, processor = time.perf_counter(), time.process_time()
    weights = weigh(slice(None))
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    blend = np.tensordot(weights, np.array(members), axes=1)
    return {"seconds": seconds, "cpu": processor, "loss": _log_loss(y, blend), "weights": weights.tolist()}


def run(*, quick: bool = False, rounds: int = 3) -> dict[str, Any]:
    """20 of 200 models on 100,000 predictions."""
    n, m, k = (2_000, 20, 20) if quick else (100_000, 200, 20)
    turns = 1 if quick else rounds
    print(
        f"ensemble selection, {k} of {m} models on {n:,} predictions, 20 additions, log loss: median of {turns} rounds"
    )
    print(f"{'who':<10} {'cpu s':>8} {'seconds':>8} {'x kofn':>7} {'models':>7} {'log loss':>9} {'apart':>8}")
    present = [who for who in WHO if who != "autogluon" or importlib.util.find_spec("autogluon")]
    rows: dict[str, list[dict[str, Any]]] = {who: [] for who in present}
    for turn in range(turns):
        for who in present:
            arguments = {"who": who, "n": n, "m": m, "k": k, "rounds": 20, "seed": turn}
            rows[who].append(in_fresh_process("benchmarks.ensembles", arguments))
    figures: dict[str, Any] = {}
    for who in present:
        row = {name: median(each[name] for each in rows[who]) for name in ("cpu", "seconds", "loss")}
        row["picked"] = median(int(np.count_nonzero(each["weights"])) for each in rows[who])
        pairs = zip(rows[who], rows["kofn"], strict=True)
        row["apart"] = max(float(np.abs(np.subtract(one["weights"], own["weights"])).max()) for one, own in pairs)
        figures[who] = row
        ratio = row["cpu"] / figures["kofn"]["cpu"]
        print(
            f"{who:<10} {row['cpu']:8.2f} {row['seconds']:8.2f} {ratio:7.1f} {row['picked']:7.0f} {row['loss']:9.5f} "
            f"{row['apart']:8.1g}"
        )
    if "autogluon" not in present:
        print("autogluon.core is not installed")
    return figures
