"""Greedy posterior approximation: members whose kernels together are nearest to the posterior over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Unpack

import numpy as np

from kofn.combination.ensembles._divergences import LEAST_EXPONENT, divergence_of, least_divergence
from kofn.combination.ensembles._plan import distances, facts_of
from kofn.combination.ensembles._task import Task, name_of, read_rows, read_task
from kofn.core import checks
from kofn.core.arrays import Array, Floats
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Blend, Selection
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.core.words import Limits

# How many slopes the bound is read from.
_STEPS = 50
# Predictions of all members that are compared at once.
_BLOCK = 1 << 18


@method(
    "combine",
    draws=Draw(kinds={"members": "predictions"}, plain={"k": 1}),
    cost="O(m^2 n c) for the distances, O(k m^2) for the search; 8 m n + 24 m^2 bytes",
    exact="each addition is the best one; the bound holds of every k members",
    paper=284,
    aliases=("deep ensemble", "posterior approximation", "ensemble diversity", "kernel density", "f-divergence"),
)
def greedy_posterior(
    members: Sequence[Any],
    *,
    y: Any,
    k: int,
    divergence: Literal["reverse_kl", "kl", "hellinger", "jensen_shannon", "total_variation"] = "reverse_kl",
    loss: Literal["log_loss", "rmse"] | None = None,
    classes: Sequence[Any] | None = None,
    bandwidth: float | None = None,
    temperature: float = 1.0,
    noise: float | None = None,
    unlabeled: Sequence[Any] | None = None,
    **limits: Unpack[Limits],
) -> Blend:
    """Choose k of m candidate models as a mixture of kernels that is near to the posterior over all candidates.

    The candidates (trained networks, snapshots of one, samples of its weights) are a finite set of functions, whose
    posterior is by the likelihood of the answers. Each chosen member stands for a bump of a Gaussian kernel around its
    predictions; the mixture of the bumps is to have the least f-divergence to the posterior. So members are likely, and
    are unlike those chosen before. The predictions must be of rows that the models were not trained on.

    Args:
        members: m arrays of predictions for the same n rows, as `ensemble_selection` takes them; none may be missing.
        y: (n,) the answer of each row: its class, or a number.
        k: how many members are chosen.
        divergence: of the mixture q and the posterior p: "reverse_kl", sum of q log(q / p), keeps off unlikely members;
            "kl", sum of p log(p / q), covers all likely ones; "hellinger" (squared), "jensen_shannon" and
            "total_variation" are between the two.
        loss: whose sum is the negative log-likelihood: "log_loss" of classes, "rmse" of numbers with Gaussian noise. By
            default log_loss where the answers are classes and the predictions probabilities.
        classes: the classes in the order of the columns; by default sorted.
        bandwidth: the kernel's, in units of the predictions: the root mean square over rows of the distance between two
            members. By default the median distance of a member to its (m / k)-th nearest.
        temperature: by what the log-likelihood is divided; 1 is the posterior itself, n that of the mean loss, under
            which members may differ by their predictions more than by their loss.
        noise: the standard deviation of numbers around the truth; by default the least root mean square error.
        unlabeled: m arrays of predictions for other rows, whose answers are not known: distances are between these.

    Returns:
        Blend of form "simplex". `result` is the mean of the chosen members' predictions, of the members' shape;
        `weights` (m,) are 1 / k or 0; `selection` has the members in the order chosen, with what each brings: the
        divergence of the mixture of the others, less the divergence. `value` is the divergence; `bound` is what no k
        members get below. `spread` (m,) is the root mean square of each member's distance from the blend.
        `info["posterior"]` (m,) are the candidates' probabilities, `info["bandwidth"]` and `info["noise"]` what was
        used, `info["rows_compared"]` of how many rows the distances are, `info["blend_loss"]` the blend's loss on these
        rows, `info["single"]` (m,) that of each member alone.

    Raises:
        InputError: what `ensemble_selection` refuses; k above m; a missing prediction; bandwidth, temperature or noise
            that are not above 0; noise where the loss is of classes; another number of arrays in `unlabeled`.

    Cost: all pairs of members are compared once; a round then looks at every member.

    Exact: greedy. With the share of a member fixed to 1 / k, the divergence's negative is submodular in the set of
    members for every f, so that later additions bring less; `bound` is of the convex problem of all shares up to 1 / k.
    Kernels and posteriors below exp(-300) count as exp(-300). Ties go to the lowest number.

    References:
        Tiulpin & Blaschko 2022, Greedy Bayesian posterior approximation with deep ensembles (TMLR).

    Examples:
        >>> from kofn.combination import greedy_posterior
        >>> members = [[0.9, 0.8, 0.3], [0.9, 0.8, 0.31], [0.7, 0.9, 0.1], [0.1, 0.1, 0.9]]
        >>> plan = greedy_posterior(members, y=[1, 1, 0], k=2, bandwidth=0.05)
        >>> plan.selection.indices.tolist(), plan.result.round(2).tolist(), plan.info["posterior"].round(2).tolist()
        ([0, 2], [0.8, 0.85, 0.2], [0.32, 0.32, 0.36, 0.0])
    """
    heat = _positive(temperature, "temperature")
    task = read_task(members, y, loss, None, classes)
    _refuse_missing(task.known, task.m, "members")
    if task.loss not in ("log_loss", "rmse"):
        raise InputError(f"loss={task.loss!r} is of no likelihood; give loss='log_loss' or 'rmse'")
    if noise is not None and task.loss != "rmse":
        raise InputError(f"noise={checks.shown(noise)} is of numbers, this is loss={task.loss!r}; leave noise out")
    size = checks.count(k)
    compared = _compared_by(task, unlabeled)
    with Control(title="greedy_posterior", total=size, **limits) as control:
        squares, unit, rows = _squared_distances(compared, control)
        wide = _usual_bandwidth(squares, size) / unit if bandwidth is None else _positive(bandwidth, "bandwidth")
        kernels = kernels_of(squares, unit * wide)
        alone = np.array([float(task.mean(task.row_losses(task.single(member)))) for member in range(task.m)])
        scale = _noise_of(task, alone, noise)
        posterior = posterior_of(task.n * alone / (heat * (1.0 if scale is None else 2 * (scale * task.unit) ** 2)))
        picks = _grown(divergence, posterior, kernels, size, control)
        stopped = control.stopped()
    return _plan_of(
        task,
        picks,
        stopped=stopped,
        divergence=divergence,
        posterior=posterior,
        kernels=kernels,
        info={
            "divergence": divergence,
            "posterior": posterior,
            "bandwidth": wide,
            "noise": scale,
            "rows_compared": rows,
            "single": np.array([task.loss_of(float(part)) for part in alone]),
        },
    )


def _positive(value: Any, name: str) -> float:
    given = float(checks.number(value, name))
    if not 0 < given < math.inf:
        raise InputError(f"{name}={checks.shown(value)} is not above 0; give a number above 0")
    return given


def _refuse_missing(known: Any, m: int, name: str) -> None:
    if known is None:
        return
    member, row = np.argwhere(~known)[0].tolist()
    raise InputError(
        f"{name}: {name_of(member)} of {m} has no prediction (NaN) of row {row}; leave the member, or such rows, out"
    )


def _compared_by(task: Task, unlabeled: Sequence[Any] | None) -> list[Array]:
    """The predictions between which distances are."""
    if unlabeled is None:
        return task.predictions
    if isinstance(unlabeled, str) or not hasattr(unlabeled, "__len__"):
        raise InputError(f"unlabeled={checks.shown(unlabeled)}; give one array of predictions for each member")
    if len(unlabeled) != task.m:
        raise InputError(f"unlabeled has {len(unlabeled)} arrays, members has {task.m}; give one for each member")
    if not checks.as_array(unlabeled[0], "unlabeled").size:
        raise InputError("unlabeled has no rows; give predictions of one row or more, or leave it out")
    arrays, known, _ = read_rows(unlabeled, task.classes.tolist() if task.votes and task.classes is not None else None)
    _refuse_missing(known, task.m, "unlabeled")
    return arrays


def _squared_distances(predictions: Sequence[Array], control: Control) -> tuple[Floats, float, int]:
    """(m, m) the mean over rows of the squared distance between two members' predictions, of copies exactly zero; the
    unit that they are multiplied by, in which no square leaves the range of floats; and how many rows were compared,
    which are the first ones where the time was up before the last."""
    from scipy.spatial.distance import pdist, squareform

    largest = max(max(-float(prediction.min()), float(prediction.max())) for prediction in predictions)
    unit = math.ldexp(1.0, int(np.clip(-math.frexp(largest)[1], -1000, 1000)))
    # In blocks of rows, so that no second copy of all predictions is made.
    n, columns = predictions[0].shape
    rows = max(1, _BLOCK // (columns * len(predictions)))
    summed = np.zeros(len(predictions) * (len(predictions) - 1) // 2)
    low = 0
    while low < n and not (low and control.stopped()):
        block = np.stack([prediction[low : low + rows].reshape(-1) for prediction in predictions]).astype(np.float64)
        block *= unit
        summed += pdist(block, "sqeuclidean")
        low = min(low + rows, n)
    return squareform(summed) / low, unit, low


def _usual_bandwidth(squares: Floats, k: int) -> float:
    """The median distance to the (m / k)-th nearest, so that k kernels reach about all; of copies the least one."""
    m = len(squares)
    nearest = np.sort(squares, axis=1)[:, min(m - 1, math.ceil(m / k))]
    middle = math.sqrt(float(np.median(nearest)))
    if middle > 0:
        return middle
    apart = squares[squares > 0]
    return math.sqrt(float(apart.min())) if len(apart) else 1.0


def kernels_of(squares: Floats, bandwidth: float) -> Floats:
    """(m, m) a row for each member: the mass of its Gaussian kernel on every member, of sum one."""
    masses = np.exp(np.maximum(-0.5 * squares / bandwidth / bandwidth, LEAST_EXPONENT))
    return masses / masses.sum(axis=1, keepdims=True)


def _noise_of(task: Task, alone: Floats, noise: float | None) -> float | None:
    """The standard deviation of numbers around the truth, by default that around the best member."""
    if task.loss != "rmse":
        return None
    if noise is not None:
        return _positive(noise, "noise")
    erring = alone[alone > 0]
    return task.loss_of(float(erring.min())) if len(erring) else 1.0


def posterior_of(energies: Floats) -> Floats:
    """(m,) the probability of each candidate by its negative log-likelihood."""
    masses = np.exp(np.maximum(energies.min() - energies, LEAST_EXPONENT))
    return masses / masses.sum()


def _grown(divergence: str, posterior: Floats, kernels: Floats, k: int, control: Control) -> list[int]:
    """The members in the order chosen, each with the share 1 / k."""
    mixture, still = np.zeros(len(kernels)), list(range(len(kernels)))
    picks: list[int] = []
    while len(picks) < k:
        values = divergence_of(divergence, posterior, mixture + kernels[still] / k)
        best = still.pop(int(np.argmin(values)))
        picks.append(best)
        mixture = mixture + kernels[best] / k
        control.step(len(picks))
        if control.stopped():
            break
    return picks


def _plan_of(
    task: Task,
    picks: list[int],
    *,
    stopped: bool,
    divergence: str,
    posterior: Floats,
    kernels: Floats,
    info: dict[str, Any],
) -> Blend:
    def distance_of(some: list[int]) -> float:
        return float(divergence_of(divergence, posterior, kernels[some].sum(axis=0) / len(some)))

    value = max(0.0, distance_of(picks))
    weights = np.zeros(task.m)
    weights[picks] = 1 / len(picks)
    blend = task.blended(weights)
    without = [distance_of([other for other in picks if other != pick]) - value for pick in picks if len(picks) > 1]
    bound = least_divergence(divergence, posterior, kernels, picks, _STEPS)
    facts = facts_of(task)
    return Blend(
        n=task.m,
        value=value,
        sense="min",
        bound=min(bound, value),
        status="stopped" if stopped else "heuristic",
        result=task.like_the_members(blend),
        form="simplex",
        weights=weights,
        spread=distances(task, blend),
        selection=Selection(
            n=task.m,
            indices=np.array(picks),
            gains=np.array(without or [0.0]),
            weights=weights[picks],
            value=value,
        ),
        objective="f_divergence",
        info={
            **{name: fact for name, fact in facts.items() if name != "loss"},
            "loss_of": facts["loss"],
            "blend_loss": task.loss_of(float(task.mean(task.row_losses(weights)))),
            "sum_of": "predictions",
            **info,
        },
    )
