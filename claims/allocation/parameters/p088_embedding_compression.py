"""Embedding tables at a half, a tenth and a fiftieth of the bytes: hashed, composed of two, and of mixed widths.

Clicks that are drawn from a factorisation model over 12,000 ids whose frequencies fall as one over their rank; each id
has a factor of its own, frequent or not. Every table is trained in the same model with the better of two rates.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from claims import Evidence, claim
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

IDS, FIELDS, DIM, STEPS, BATCH, ROWS = 12_000, 3, 64, 200, 256, 20_000
PARTS = (1 / 2, 1 / 10, 1 / 50)
KINDS = ("hash", "quotient_remainder", "mixed")
RATES = (0.01, 0.03)


@claim(
    paper=88,
    says="Compressed embedding tables keep their bytes, predict worse the fewer bytes there are, and at a tenth and "
    "less those that give frequent ids more numbers predict better than hashed ones",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Paired on the same clicks; broken: widths go by drawn counts, not by frequencies."""
    runs = 5 if scale == "small" else 12
    rows = spread(functools.partial(_trial, broken=broken), derive(seed, runs))
    auc = {key: np.array([row[key][0] for row in rows]) for key in rows[0]}
    criteria = {"bytes are kept": all(row[key][1] <= row[key][2] for row in rows for key in row)}
    measured: dict[str, Any] = {"AUC": {key: round(float(values.mean()), 4) for key, values in auc.items()}}
    for kind in KINDS:
        fall = difference(auc[f"{kind} {PARTS[0]:.2f}"], auc[f"{kind} {PARTS[-1]:.2f}"])
        criteria[f"{kind}: worse at a fiftieth than at a half"] = fall.above(0.0)
        measured[f"{kind}, AUC at a half - at a fiftieth"] = fall.figures()
    for part in PARTS[1:]:
        lead = difference(auc[f"mixed {part:.2f}"], auc[f"hash {part:.2f}"])
        criteria[f"{part:.2f} of the bytes: mixed widths above hashing"] = lead.above(0.0)
        measured[f"{part:.2f} of the bytes, AUC, mixed - hash"] = lead.figures()
        other = difference(auc[f"mixed {part:.2f}"], auc[f"quotient_remainder {part:.2f}"])
        measured[f"{part:.2f} of the bytes, AUC, mixed - quotient and remainder"] = other.figures()
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="bytes within the budget; lower 95% limits of paired differences above 0: AUC at a half of the bytes "
        "less that at a fiftieth, for each kind; AUC of mixed widths less that of hashing at a tenth and a fiftieth",
        baseline="hashing and tables of quotients and remainders of as many bytes, each with the better of two rates",
        kind="simulated",
    )


def _clicks(seed: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    chance = 1 / np.arange(1, IDS + 1)
    names = rng.permutation(IDS)
    ids = names[rng.choice(IDS, (ROWS, FIELDS), p=chance / chance.sum())]
    factor, bias = rng.normal(size=(IDS, 4)), rng.normal(size=IDS)
    sums = factor[ids].sum(axis=1)
    pairs = (np.square(sums).sum(axis=1) - np.square(factor[ids]).sum(axis=(1, 2))) / 2
    logits = 0.7 * bias[ids].sum(axis=1) + 0.5 * pairs
    return ids, (rng.random(ROWS) < 1 / (1 + np.exp(-logits))).astype(np.float32), rng


def _trial(seed: int, *, broken: bool) -> dict[str, tuple[float, int, float]]:
    import torch

    from kofn.nn import CompressedEmbedding

    torch.set_num_threads(1)
    ids, clicks, rng = _clicks(seed)
    cut, end = int(0.7 * ROWS), int(0.85 * ROWS)
    counts = np.bincount(ids[:cut].ravel(), minlength=IDS)
    if broken:
        counts = rng.permutation(counts)
    x, y = torch.from_numpy(ids), torch.from_numpy(clicks)
    out = {}
    for part in PARTS:
        budget = part * IDS * DIM * 4
        for kind in KINDS:
            tried = []
            for rate in RATES:
                torch.manual_seed(seed % 2**31)
                table = CompressedEmbedding(IDS, DIM, budget, kind=kind, counts=counts if kind == "mixed" else None)
                head = torch.nn.Linear(DIM, 1)
                _train(table, head, x[:cut], y[:cut], rate, seed)
                with torch.no_grad():
                    scores = _logits(table, head, x).numpy()
                tried.append((_auc(scores[cut:end], clicks[cut:end]), _auc(scores[end:], clicks[end:])))
            out[f"{kind} {part:.2f}"] = (max(tried)[1], table.stored_bytes, budget)
    return out


def _logits(table: Any, head: Any, ids: Any) -> Any:
    """A factorisation machine: the sum of all pairs' products, and a linear term."""
    rows = table(ids)
    sums = rows.sum(dim=1)
    pairs = (sums.square() - rows.square().sum(dim=1)).sum(dim=1) / 2
    return pairs + head(sums)[:, 0]


def _train(table: Any, head: Any, x: Any, y: Any, rate: float, seed: int) -> None:
    import torch

    rng = np.random.default_rng(seed)
    optimizer = torch.optim.Adam([*table.parameters(), *head.parameters()], lr=rate, fused=True)
    for _ in range(STEPS):
        picks = torch.from_numpy(rng.integers(0, len(x), BATCH))
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(_logits(table, head, x[picks]), y[picks])
        loss.backward()
        optimizer.step()


def _auc(scores: Any, clicks: Any) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(clicks, scores))
