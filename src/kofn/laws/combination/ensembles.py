"""Predictions blended row by row, and their losses by definition."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.core.arrays import Floats
from kofn.laws.case import Case, broken
from kofn.laws.inputs import Draw, Drawer, laid_out, seeded
from kofn.laws.words import Recount, agree

_EPS = 2.0**-52
_FACTOR = 2.0**10


def _rows(member: Any) -> Floats:
    array = np.asarray(member, np.float64)
    return array[:, None] if array.ndim == 1 else array


def mean_of_those_known(case: Case, weights: Floats) -> Floats:
    """(n, c) row by row, the weighted mean of the members with a prediction; the plain one where none has a weight."""
    members = [_rows(member) for member in case.words["members"]]
    out = np.empty(members[0].shape)
    for row in range(len(out)):
        known = [i for i, member in enumerate(members) if not np.isnan(member[row]).any()]
        heard = [i for i in known if weights[i] > 0]
        parts = [(weights[i], members[i][row]) for i in heard] or [(1.0, members[i][row]) for i in known]
        total = math.fsum(weight for weight, _ in parts)
        out[row] = [math.fsum(weight * float(part[c]) for weight, part in parts) / total for c in range(len(out[0]))]
    return out


def _filled(case: Case) -> list[Floats]:
    """The members' predictions, the mean of the others where one is missing."""
    members = np.array([_rows(member) for member in case.words["members"]])
    mean = np.array(
        [[np.mean([known for known in cell if known == known]) for cell in row.T] for row in np.moveaxis(members, 1, 0)]
    )
    return [np.where(np.isnan(member), mean, member) for member in members]


def _stacked(case: Case) -> Floats:
    """(n, c) row by row, the sum of the members' predictions under the weights of the row's group and the column."""
    plan, members = case.plan, _filled(case)
    groups = case.words.get("groups", ["all"] * len(members[0]))
    out = np.empty(members[0].shape)
    for row, group in enumerate(np.asarray(groups).tolist()):
        for column in range(len(out[0])):
            weights = plan.weights
            if isinstance(weights, Mapping):
                own = str(group) if str(group) in weights else f"{group}, column {column}"
                weights = weights[own]
            out[row, column] = math.fsum(
                weight * float(member[row, column]) for weight, member in zip(weights, members, strict=True)
            )
    return out


def _loss(case: Case, blend: Floats, kind: str) -> float:
    y = np.asarray(case.words["y"])
    classes, losses = case.plan.info["classes"], []
    levels = np.atleast_1d(np.asarray(case.options.get("quantiles", 0.5), np.float64))
    for row, answer in zip(blend.tolist(), y.tolist(), strict=True):
        if classes is None:
            off = [float(answer) - value for value in row]
            if kind == "rmse":
                losses.append(off[0] ** 2)
            elif kind == "mae":
                losses.append(abs(off[0]))
            else:
                losses += [max(level * gap, (level - 1) * gap) for level, gap in zip(levels, off, strict=True)]
            continue
        chances = [1 - row[0], row[0]] if len(row) == 1 else row
        truth = classes.index(answer)
        if kind == "log_loss":
            losses.append(-math.log(max(chances[truth], _EPS)))
        elif kind == "accuracy":
            losses.append(float((row[0] > 0.5) == truth if len(row) == 1 else chances.index(max(chances)) == truth))
        elif len(row) == 1:
            losses.append((row[0] - truth) ** 2)
        else:
            losses.append(math.fsum((chance - (c == truth)) ** 2 for c, chance in enumerate(chances)))
    weights = np.asarray(case.options.get("row_weights", np.ones(len(y))), np.float64)
    width = len(losses) // len(y)
    weights = np.repeat(weights, width)
    mean = math.fsum((weights * losses).tolist()) / math.fsum(weights.tolist())
    return math.sqrt(mean) if kind == "rmse" else mean


def _in_other_units(case: Case) -> None:
    """Numbers and answers times a power of two, which rounds nothing, have the same weights, and losses in that unit.

    These include the losses on folds: which rows are judged together must not depend on the unit.
    """
    scaled: dict[str, Any] = {
        "members": [_FACTOR * np.asarray(member, np.float64) for member in case.words["members"]],
        "y": _FACTOR * np.asarray(case.words["y"], np.float64),
    }
    plan = case.again(seed=int(case.plan.seed or 0), **scaled)

    def facts(plan: Any, factor: float) -> Any:
        """The weights, and every loss divided by the factor."""
        parts = plan.weights if isinstance(plan.weights, Mapping) else {"": plan.weights}
        held_out = plan.info["held_out"] or {}
        losses = {name: held_out.get(name, 0.0) / factor for name in ("blend", "best_single", "plain_mean")}
        tried = {name: loss / factor for name, loss in plan.info.get("tried", {}).items()}
        return {name: part.tolist() for name, part in parts.items()}, plan.value / factor, losses, tried

    was, now = facts(case.plan, 1.0), facts(plan, _FACTOR)
    if was != now:
        raise broken(case, "units", f"times {_FACTOR:g} {was} became {now}")


def _recounted(case: Case) -> None:
    """The loss of the result, that it is no worse than its bound says, and the picks."""
    plan = case.plan
    blend = _rows(plan.result)
    size = float(np.nanmax(np.abs(np.array([_rows(member) for member in case.words["members"]])), initial=1.0))
    agree(case, "value", plan.value, _loss(case, blend, plan.objective), size)
    if plan.bound is not None:
        for member in range(plan.n):
            alone = _loss(case, mean_of_those_known(case, np.eye(1, plan.n, member)[0]), plan.objective)
            if alone < plan.bound - 1e-9 * max(1.0, size):
                raise broken(case, "recount", f"member {member} has {alone!r}, below the bound {plan.bound!r}")
    if plan.info["classes"] is None:
        _in_other_units(case)
    if plan.selection is None:
        return
    picked = np.flatnonzero(np.asarray(plan.weights) > 0)
    if sorted(plan.selection.indices.tolist()) != picked.tolist():
        raise broken(case, "recount", f"the picks are {plan.selection.indices}, the weights {plan.weights}")
    if len(picked) > case.words.get("k", plan.n):
        raise broken(case, "recount", f"{len(picked)} members have a weight, k={case.words['k']}")


def _summand(divergence: str, p: float, q: float) -> float:
    """The part of one function in the divergence between its posterior p and its share q of the mixture."""
    if divergence == "reverse_kl":
        return q * math.log(q / p)
    if divergence == "kl":
        return p * math.log(p / q)
    if divergence == "hellinger":
        return (math.sqrt(p) - math.sqrt(q)) ** 2 / 2
    if divergence == "jensen_shannon":
        return (p * math.log(2 * p / (p + q)) + q * math.log(2 * q / (p + q))) / 2
    return abs(p - q) / 2


def _approximated(case: Case) -> None:
    """The posterior by the members' losses, the divergence of the picks' mixture, its bound and the picks."""
    plan, options, info = case.plan, case.options, case.plan.info
    n, kind, divergence = len(case.words["y"]), info["loss_of"], info["divergence"]
    members = [_rows(member) for member in case.words["members"]]
    losses = [_loss(case, member, kind) for member in members]
    for member, loss in enumerate(losses):
        agree(case, f"loss of member {member}", float(info["single"][member]), loss, max(map(abs, losses)))
    if kind == "rmse":
        least = min((loss for loss in losses if loss > 0), default=1.0)
        noise = options.get("noise") or least
        losses = [0.5 * (loss / noise) ** 2 for loss in losses]
    energies = [n * loss / options.get("temperature", 1.0) for loss in losses]
    masses = [math.exp(max(min(energies) - energy, -300.0)) for energy in energies]
    posterior = [mass / math.fsum(masses) for mass in masses]
    if np.abs(np.array(posterior) - info["posterior"]).max() > 1e-6:
        raise broken(case, "recount", f"the posterior is {info['posterior']}, recounted {posterior}")
    # A mixture is judged by the posterior that the plan tells: energies of hundreds lose digits of it.
    given_posterior = info["posterior"].tolist()
    compared = [np.ravel(_rows(member)) for member in options.get("unlabeled") or members]
    rows = len(_rows((options.get("unlabeled") or members)[0]))
    kernels = []
    for values in compared:
        bumps = [
            math.exp(max(-math.fsum(((values - other) / info["bandwidth"]) ** 2) / rows / 2, -300.0))
            for other in compared
        ]
        kernels.append([bump / math.fsum(bumps) for bump in bumps])

    def distance(picks: list[int]) -> float:
        shares = [math.fsum(kernels[pick][i] for pick in picks) / len(picks) for i in range(plan.n)]
        return math.fsum(_summand(divergence, p, q) for p, q in zip(given_posterior, shares, strict=True))

    picked = np.flatnonzero(np.asarray(plan.weights) > 0).tolist()
    if sorted(plan.selection.indices.tolist()) != picked or len(picked) > case.words["k"]:
        raise broken(case, "recount", f"the picks are {plan.selection.indices}, the weights {plan.weights}")
    agree(case, "value", plan.value, distance(picked), 1.0)
    if plan.status != "stopped" and math.comb(plan.n, len(picked)) < 300:
        least = min(distance(list(some)) for some in itertools.combinations(range(plan.n), len(picked)))
        if least < plan.bound - 1e-9 * max(1.0, abs(least)):
            raise broken(case, "recount", f"{len(picked)} members have {least!r}, below the bound {plan.bound!r}")


def _blended(case: Case) -> bool:
    """The result is the mean of the predictions under the weights, in the members' box; copies give the copy."""
    plan = case.plan
    for weights in plan.weights.values() if isinstance(plan.weights, Mapping) else [plan.weights]:
        if (weights < 0).any() or abs(math.fsum(weights.tolist()) - 1) > 1e-9:
            raise broken(case, "blend", f"form simplex, weights {weights}")
    filled = plan.info["sum_of"] == "filled predictions"
    got, want = _rows(plan.result), _stacked(case) if filled else mean_of_those_known(case, plan.weights)
    known = [np.where(np.isnan(_rows(member)), 0.0, _rows(member)) for member in case.words["members"]]
    size = np.abs(np.array(known)).max(axis=0)
    if (np.abs(got - want) > 1e-12 * size).any():
        raise broken(case, "blend", f"the result is {got}, the weighted mean {want}")
    first = case.words["members"][0]
    if not np.isnan(_rows(first)).any():
        again = case.again(members=[first] * plan.n)
        copies = _rows(again.result)
        # Of copies a search may choose a linear model, which is none of their means.
        if again.form == "simplex" and (np.abs(copies - _rows(first)) > 1e-12 * np.abs(_rows(first))).any():
            raise broken(case, "blend", f"copies of {first} give {copies}")
    return plan.n > 1


def _draw_predictions(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Answers, and members that are more or less right about them: classes, numbers or quantiles, some missing."""
    words: dict[str, Any] = given  # type: ignore[assignment]
    rng, m = seeded(draw), len(words["members"])
    n = draw(st.integers(1, 14))
    kind = draw(st.sampled_from(("two classes", "classes", "numbers", "quantiles")))
    coarse = draw(st.booleans())
    if kind in ("two classes", "classes"):
        count = 2 if kind == "two classes" else draw(st.integers(2, 4))
        words["y"] = np.concatenate([np.arange(count), rng.integers(0, count, n)])
        n = len(words["y"])
        chances = rng.dirichlet(np.ones(count), (m, n))
        members = np.round(4 * chances) / 4 if coarse and count == 2 else chances
        members = members[:, :, 1] if kind == "two classes" else members
        options["loss"] = draw(st.sampled_from(("log_loss", "brier", "accuracy")))
        if draw(st.booleans()):
            words["y"] = np.array([f"class {answer}" for answer in words["y"]])
    else:
        scale = draw(st.sampled_from((1.0, 1e-3, 1e6)))
        y = scale * (rng.integers(-3, 4, n).astype(np.float64) if coarse else rng.normal(size=n))
        words["y"], off = y, rng.integers(-2, 3, (m, n)) if coarse else rng.normal(size=(m, n))
        members = y + scale * off
        if kind == "quantiles":
            options["quantiles"] = [0.1, 0.5, 0.75]
            members = members[:, :, None] + scale * np.array([-1.0, 0.0, 0.5])
        else:
            options["loss"] = draw(st.sampled_from(("rmse", "mae")))
    if draw(st.integers(0, 2)) == 0 and m > 1:
        gone = rng.random((m, n)) < 0.3
        gone[rng.integers(0, m, n), np.arange(n)] = False
        silent = gone.all(axis=1)
        gone[silent] = False
        members[gone] = np.nan
    words["members"] = [laid_out(draw, member) for member in members]
    options["folds"] = draw(st.sampled_from((0, 2, 5)))
    draw_row_words(draw, rng, len(words["y"]), options)


def draw_row_words(draw: Draw, rng: np.random.Generator, n: int, options: dict[str, Any]) -> None:
    """In some calls how much rows count, some of them nothing, and blocks that stay together."""
    if draw(st.integers(0, 3)) == 0:
        weights = rng.integers(0, 3, n) * draw(st.sampled_from((1.0, 0.3)))
        weights[rng.integers(n)] = 1.0
        options["row_weights"] = weights
    if n > 1 and draw(st.integers(0, 3)) == 0:
        options["blocks"] = np.append(["first", "last"], np.array([f"block {code}" for code in rng.integers(0, 4, n)]))[
            :n
        ]


def _draw_search(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """How many additions of how many members, of predictions of their own."""
    words: dict[str, Any] = given  # type: ignore[assignment]
    _draw_predictions(draw, given, options)
    if draw(st.booleans()):
        words["k"] = draw(st.integers(1, len(words["members"])))
    options["rounds"] = draw(st.integers(1, 12))
    options["sorted_start"] = draw(st.booleans())
    options["bags"] = draw(st.sampled_from((1, 1, 3)))


def _draw_posterior(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """How many members are chosen, by which divergence from which posterior, of predictions without gaps."""
    words: dict[str, Any] = given  # type: ignore[assignment]
    _draw_predictions(draw, given, options)
    for name in ("folds", "row_weights", "blocks", "quantiles"):
        options.pop(name, None)
    members = [np.nan_to_num(_rows(member)[:, :1], nan=0.5) for member in words["members"]]
    if options.pop("loss", "rmse") in ("log_loss", "brier", "accuracy"):
        # Of classes there may be several columns, which have no gaps where each sums to one.
        gaps = any(np.isnan(_rows(member)).any() for member in words["members"])
        chances = [np.full(_rows(member).shape, 1 / np.shape(_rows(member))[1]) for member in words["members"]]
        members = chances if gaps else [_rows(member) for member in words["members"]]
        options["loss"] = "log_loss"
    else:
        options["loss"] = "rmse"
        options["noise"] = draw(st.sampled_from((None, 0.5 * float(np.abs(words["y"]).max()) or 1.0)))
    flat = members[0].shape[1] == 1
    words["members"] = [laid_out(draw, member[:, 0] if flat else member) for member in members]
    words["k"] = draw(st.integers(1, len(members)))
    options["divergence"] = draw(
        st.sampled_from(("reverse_kl", "kl", "hellinger", "jensen_shannon", "total_variation"))
    )
    options["temperature"] = draw(st.sampled_from((1.0, 10.0, 0.5)))
    size = max(float(np.abs(member).max()) for member in members) or 1.0
    options["bandwidth"] = draw(st.sampled_from((None, 0.1 * size, size)))
    if draw(st.booleans()):
        options["unlabeled"] = [size * seeded(draw).normal(size=(3, 2)) for _ in members]


def _draw_stacker(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """What is fitted, over which groups, of predictions of their own."""
    words: dict[str, Any] = given  # type: ignore[assignment]
    _draw_predictions(draw, given, options)
    if options.get("loss") == "accuracy":
        options["loss"] = "log_loss"
    options["by_column"] = "quantiles" in options and draw(st.booleans())
    if draw(st.booleans()):
        words["groups"] = [f"item {code}" for code in seeded(draw).integers(0, 3, len(words["y"]))]
    varied = options["by_column"] or len(set(words.get("groups", ()))) > 1
    finals = [None, "simplex", "simplex", *(["varying"] * 3 if varied else [])]
    finals += {"rmse": ["ridge"], "log_loss": ["logistic"]}.get(options.get("loss", ""), [])
    options["final"] = draw(st.sampled_from(finals))
    if options["final"] is not None and draw(st.integers(0, 3)) == 0:
        options["penalty"] = draw(st.sampled_from((0.0, 0.3)))


_LOSSES = ("log_loss", "brier", "accuracy", "rmse", "mae", "pinball")
RECOUNTS: dict[str, Recount] = {**dict.fromkeys(_LOSSES, _recounted), "f_divergence": _approximated}
BLENDS: dict[str, Callable[[Case], bool]] = {"predictions": _blended, "filled predictions": _blended}
OPTIONS: dict[str, Drawer] = {"rounds": _draw_search, "final": _draw_stacker, "divergence": _draw_posterior}
