"""Recurrent policies from five silos of data, each from its own start, merged after their hidden states are matched.

Two kinds of data: an expert's outputs on four small tasks of memory (a running mean, a delayed copy, a change over two
steps, the largest so far), of which each silo has its own shares; and scanned digits read row by row, where silos have
unlike shares of the classes. Elman networks imitate the data of their silo; the merged network is judged on all tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.data import digits
from claims.harness.learners import one_hot
from claims.harness.paired import difference
from claims.harness.runs import derive
from kofn.combination import ot_fusion, permute, weight_matching, weighted_mean

SILOS, HIDDEN, STEPS, BATCH, RATE = 5, 24, 400, 64, 5e-3
TASKS, LENGTH, ROWS = 4, 10, 600
SKEW = 1.0

Floats = NDArray[np.float32]
State = dict[str, Floats]
# Inputs (rows, steps, d) and wanted outputs (rows, steps, o).
Data = tuple[Floats, Floats]


@claim(
    paper=192,
    says="Recurrent policies of unlike silos and starts, averaged after one permutation of each one's hidden states is "
    "matched on both sides of the recurrent weight, imitate better than averaged as they are, in pairs and for five, "
    "and than matched by incoming weights alone; a permuted policy is recovered",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Merged policies on data of all silos; broken: hidden states keep the order that training left."""
    runs = 10 if scale == "small" else 30
    measured: dict[str, Any] = {}
    criteria: dict[str, bool] = {}
    for kind in ("tasks", "digits"):
        rows = _trials(kind, derive(seed, runs), broken)
        losses = {arm: np.array([row[arm] for row in rows]) for arm in rows[0]}
        gaps = {
            f"{count}: {other}": difference(losses[f"{count}: {other}"], losses[f"{count}: matched"])
            for count in ("pair", "five")
            for other in ("plain", "incoming")
        }
        measured[kind] = {
            "loss": {arm: round(float(values.mean()), 4) for arm, values in losses.items() if arm != "copy"},
            **{f"{name} less matched": gap.figures() for name, gap in gaps.items()},
            "largest change of a recovered copy's outputs": float(losses["copy"].max()),
        }
        criteria |= {f"{kind}, {name} loses more": gap.above(0) for name, gap in gaps.items()}
        criteria[f"{kind}, a copy is recovered"] = float(losses["copy"].max()) < 1e-6
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="lower 95% limits over seeds of the others' squared loss on all silos' data less that of matched "
        "policies above 0; a permuted policy's outputs to 1e-6",
        baseline="the plain average, and the average after transport by incoming weights, which does not see the "
        "recurrent weight; the silos' own policies beside",
        kind="reduced",
    )


def _trials(kind: str, seeds: Sequence[int], broken: bool) -> list[dict[str, float]]:
    made = [(_tasks if kind == "tasks" else _digits)(np.random.default_rng(seed)) for seed in seeds]
    states = _trained([silo for silos, _ in made for silo in silos], seeds[0])
    out = []
    for place, (seed, (_, test)) in enumerate(zip(seeds, made, strict=True)):
        policies = states[SILOS * place : SILOS * (place + 1)]
        row = {"member": float(np.mean([_loss(policy, test) for policy in policies]))}
        for name, pool in (("pair", policies[:2]), ("five", policies)):
            plain = dict(weighted_mean(pool).result)
            matched = plain if broken else dict(weight_matching(pool).result)
            row[f"{name}: plain"] = _loss(plain, test)
            row[f"{name}: incoming"] = _loss(dict(ot_fusion(pool).result), test)
            row[f"{name}: matched"] = _loss(matched, test)
        order = np.random.default_rng(seed).permutation(HIDDEN)
        copy = weight_matching([policies[0], permute(policies[0], {"rnn.l0": order})])
        row["copy"] = float(np.abs(_outputs(dict(copy.result), test[0]) - _outputs(policies[0], test[0])).max())
        out.append(row)
    return out


def _tasks(rng: np.random.Generator) -> tuple[list[Data], Data]:
    """What an expert does on four tasks: each silo's data, and data of all tasks alike."""
    return [_of_tasks(rng, rng.dirichlet(np.full(TASKS, SKEW))) for _ in range(SILOS)], _of_tasks(rng, np.full(4, 0.25))


def _of_tasks(rng: np.random.Generator, shares: Any) -> Data:
    which = rng.choice(TASKS, ROWS, p=shares)
    signal = rng.normal(size=(ROWS, LENGTH))
    late = np.concatenate([np.zeros((ROWS, 2)), signal[:, :-2]], axis=1)
    means = np.cumsum(signal, axis=1) / np.arange(1, LENGTH + 1)
    answers = np.stack([means, late, signal - late, np.maximum.accumulate(signal, axis=1)])
    X = np.concatenate([signal[:, :, None], np.repeat(np.eye(TASKS)[which][:, None], LENGTH, axis=1)], axis=2)
    return X.astype(np.float32), answers[which, np.arange(ROWS)][:, :, None].astype(np.float32)


def _digits(rng: np.random.Generator) -> tuple[list[Data], Data]:
    """Digits row by row, wanted after the last row: silos with their own shares of the classes, and held-out rows."""
    whole = digits()
    order = rng.permutation(len(whole))
    train, test = whole.take(order[:1200]), whole.take(order[1200:])
    silos = []
    for _ in range(SILOS):
        shares = rng.dirichlet(np.full(10, SKEW))[train.y]
        rows = rng.choice(len(train), ROWS, p=shares / shares.sum())
        silos.append(_sequences(train.X[rows], train.y[rows]))
    return silos, _sequences(test.X, test.y)


def _sequences(X: Floats, y: Any) -> Data:
    return X.reshape(-1, 8, 8), one_hot(y, 10)[:, None, :]


def _trained(silos: Sequence[Data], seed: int) -> list[State]:
    """An Elman network for each silo, from starts of their own, all trained side by side by Adam."""
    import torch

    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(seed % 2**63)
    X, Y = (torch.from_numpy(np.stack([silo[part] for silo in silos])) for part in (0, 1))
    m, rows, _, d = X.shape
    shapes = {
        "rnn.weight_ih_l0": (HIDDEN, d),
        "rnn.weight_hh_l0": (HIDDEN, HIDDEN),
        "rnn.bias_ih_l0": (HIDDEN,),
        "rnn.bias_hh_l0": (HIDDEN,),
        "head.weight": (Y.shape[3], HIDDEN),
        "head.bias": (Y.shape[3],),
    }
    reach = HIDDEN**-0.5
    tensors = {
        name: ((2 * torch.rand(m, *shape, generator=draw) - 1) * reach).requires_grad_()
        for name, shape in shapes.items()
    }
    learner = torch.optim.Adam(tensors.values(), lr=RATE)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(learner, STEPS)
    each = torch.arange(m)[:, None]
    for _ in range(STEPS):
        batch = torch.randint(rows, (m, BATCH), generator=draw)
        seen, wanted = X[each, batch], Y[each, batch]
        ahead = seen @ tensors["rnn.weight_ih_l0"].mT[:, None]
        bias = (tensors["rnn.bias_ih_l0"] + tensors["rnn.bias_hh_l0"])[:, None]
        state, states = torch.zeros(m, BATCH, HIDDEN), []
        for t in range(seen.shape[2]):
            state = torch.tanh(ahead[:, :, t] + state @ tensors["rnn.weight_hh_l0"].mT + bias)
            states.append(state)
        kept = torch.stack(states[-wanted.shape[2] :], dim=2)
        outputs = kept @ tensors["head.weight"].mT[:, None] + tensors["head.bias"][:, None, None]
        # The sum over networks: none shares a tensor with another.
        loss = (outputs - wanted).square().mean(dim=(1, 2, 3)).sum()
        learner.zero_grad()
        loss.backward()
        learner.step()
        falling.step()
    return [{name: tensor[i].detach().numpy().copy() for name, tensor in tensors.items()} for i in range(m)]


def _outputs(state: State, X: Floats) -> Floats:
    hidden, out = np.zeros((len(X), HIDDEN), np.float32), []
    for t in range(X.shape[1]):
        ahead = X[:, t] @ state["rnn.weight_ih_l0"].T + state["rnn.bias_ih_l0"] + state["rnn.bias_hh_l0"]
        hidden = np.tanh(ahead + hidden @ state["rnn.weight_hh_l0"].T)
        out.append(hidden @ state["head.weight"].T + state["head.bias"])
    return np.stack(out, axis=1)


def _loss(state: State, data: Data) -> float:
    X, wanted = data
    return float(np.square(_outputs(state, X)[:, -wanted.shape[1] :] - wanted).mean())
