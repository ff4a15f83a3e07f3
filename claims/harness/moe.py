"""A mixture of experts small enough to train in a second, with every step in view and any route put into it.

One layer of experts between an embedding and a head, in NumPy, its gradients written out (a test holds them against
differences). What decides who goes where is handed in: a function from the router's scores (tokens, experts) to an
`Assignment`, so that the same model is trained or run under any method of the library or any baseline. Only the pattern
of the plan is used; the gates are worked out here, since they must be differentiable.

    model = Experts(inputs=64, outputs=10, affinity="softmax", gates="share", seed=0)
    losses = model.train(X, Y, lambda scores: kofn.assign(scores=scores, per_item=2, method="token_choice"), steps=300)
    model.accuracy(X_test, y_test, route)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.plans import Assignment

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Route = Callable[[Floats], Assignment]
Gradients = dict[str, NDArray[np.floating]]


def affinities(scores: Floats, kind: str) -> Floats:
    """(tokens, experts) what the router feels: "softmax" over the experts, "sigmoid", or "none": the scores."""
    if kind == "none":
        return scores
    if kind == "sigmoid":
        felt: Floats = np.asarray(1 / (1 + np.exp(-scores)), scores.dtype)
        return felt
    grown = np.exp(scores - scores.max(axis=1, keepdims=True))
    out: Floats = grown / grown.sum(axis=1, keepdims=True)
    return out


def mask_of(plan: Assignment) -> Mask:
    """(tokens, experts) True where the plan sends a token."""
    mask = np.zeros((plan.n, plan.k), bool)
    mask[np.repeat(np.arange(plan.n), np.diff(plan.indptr)), plan.bins] = True
    return mask


def plan_of(mask: Mask) -> Assignment:
    """The plan that sends tokens where the mask is True, for baselines that the library has no method for."""
    counts, bins = mask.sum(axis=1), np.nonzero(mask)[1]
    return Assignment(
        n=len(mask),
        indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        bins=bins.astype(np.int32),
        weights=np.ones(len(bins), np.float32),
        k=mask.shape[1],
    )


def first_come(scores: Floats, *, capacity: int, per_item: int, order: Ints | None = None) -> Assignment:
    """Token choice whose full experts refuse whoever comes later in the batch (or in `order`), as Switch and GShard do.

    Second choices are seated after all first ones, third ones after those, as in GShard.
    """
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, :per_item]
    mask = np.zeros(scores.shape, bool)
    room = np.full(scores.shape[1], capacity)
    rows = np.arange(len(scores)) if order is None else order
    for choice in ranked.T:
        for j in range(scores.shape[1]):
            asking = rows[choice[rows] == j][: room[j]]
            mask[asking, j] = True
            room[j] -= len(asking)
    return plan_of(mask)


@dataclass
class Experts:
    """relu(X E) = h; h + sum over the token's experts of gate x (relu(h A) B); a linear head.

    Args:
        inputs, outputs: columns of X and of the targets.
        experts, width, hidden: how many, of the embedding, inside each expert.
        affinity: "softmax" over the experts, "sigmoid", or "none", of the router's scores.
        gates: "raw" affinity, its "share" among the token's experts, or "sigmoid" of the score (BASE layers).
        loss: "cross_entropy" against one-hot rows, or "squared" error.
        balance: weight of the usual auxiliary loss, experts x sum over experts of load share x mean affinity share.
    """

    inputs: int
    outputs: int
    experts: int = 8
    width: int = 32
    hidden: int = 16
    affinity: str = "softmax"
    gates: str = "share"
    loss: str = "cross_entropy"
    balance: float = 0.0
    seed: int = 0
    weights: dict[str, Floats] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 0])
        shapes: dict[str, tuple[int, ...]] = {
            "embed": (self.inputs + 1, self.width),
            "router": (self.width, self.experts),
            "in": (self.experts, self.width + 1, self.hidden),
            "out": (self.experts, self.hidden + 1, self.width),
            "head": (self.width + 1, self.outputs),
        }
        sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
        # One vector of all weights, so that a step of Adam is a handful of operations.
        self._flat: Floats = np.zeros(sum(sizes.values()), np.float32)
        ends = dict(zip(sizes, np.cumsum(list(sizes.values())).tolist(), strict=True))
        self.weights = {n: self._flat[ends[n] - sizes[n] : ends[n]].reshape(shapes[n]) for n in shapes}
        for name, weight in self.weights.items():
            # The last row of each block is its bias, which starts from zero; a router has none.
            body = weight if name == "router" else weight[..., :-1, :]
            gain = 2.0 if name in ("embed", "in") else 1.0
            body[...] = rng.normal(size=body.shape) * np.sqrt(gain / body.shape[-2])

    def scores(self, X: Floats) -> Floats:
        """(rows, experts) what the router says, before any affinity."""
        out: Floats = _embed(X, self.weights["embed"]) @ self.weights["router"]
        return out

    def outputs_of(self, X: Floats, route: Route) -> Floats:
        """(rows, outputs) under the route."""
        out: Floats = self._forward(X, route)[0]
        return out

    def accuracy(self, X: Floats, y: Ints, route: Route) -> float:
        """Share of the rows whose class is found."""
        return float((self.outputs_of(X, route).argmax(axis=1) == y).mean())

    def gates_of(self, scores: Floats, mask: Mask) -> Floats:
        """(rows, experts) gates, zero where no token is sent."""
        kind = "sigmoid" if self.gates == "sigmoid" else self.affinity
        raw = np.where(mask, affinities(scores, kind), 0).astype(scores.dtype)
        if self.gates != "share":
            return raw
        out: Floats = raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-20)
        return out

    def value(self, X: Floats, Y: Floats, route: Route) -> float:
        """The mean loss, without the auxiliary one."""
        return _loss(self.outputs_of(X, route), Y, self.loss)[0]

    def train(
        self,
        X: Floats,
        Y: Floats,
        route: Route,
        *,
        steps: int,
        batch: int = 256,
        rate: float = 3e-3,
        after: Callable[[int, Assignment, float], bool | None] | None = None,
    ) -> list[float]:
        """Adam on batches of rows drawn by the model's seed; returns the loss of each batch.

        `after(step, plan, loss)` sees each batch's plan and may end the training by True.
        """
        rng = np.random.default_rng([self.seed, 1])
        moments = np.zeros((2, len(self._flat)), np.float32)
        losses = []
        for step in range(1, steps + 1):
            rows = rng.integers(0, len(X), batch)
            loss, slopes, plan = self.gradients(X[rows], Y[rows], route)
            flat = np.concatenate([slopes[name].ravel() for name in self.weights])
            moments[0] += 0.1 * (flat - moments[0])
            moments[1] += 0.01 * (flat * flat - moments[1])
            scale = rate * np.sqrt(1 - 0.99**step) / (1 - 0.9**step)
            self._flat -= (scale * moments[0] / (np.sqrt(moments[1]) + 1e-8)).astype(self._flat.dtype)
            losses.append(loss)
            if after is not None and after(step, plan, loss):
                break
        return losses

    def gradients(self, X: Floats, Y: Floats, route: Route) -> tuple[float, Gradients, Assignment]:
        """The mean loss (without the auxiliary one), the gradient of all that is trained on, and the plan."""
        w = self.weights
        predicted, (plan, scores, mask, gates, h, mixed, inner, outer, rows) = self._forward(X, route)
        loss, back = _loss(predicted, Y, self.loss)
        slopes: Gradients = {name: np.zeros_like(weight) for name, weight in w.items()}
        slopes["head"][:-1], slopes["head"][-1] = mixed.T @ back, back.sum(axis=0)
        d_mixed = back @ w["head"][:-1].T
        d_gates = np.zeros_like(gates)
        d_h = d_mixed.copy()
        for j, held in enumerate(rows):
            if not len(held):
                continue
            d_gates[held, j] = (outer[j] * d_mixed[held]).sum(axis=1)
            d_outer = d_mixed[held] * gates[held, j][:, None]
            slopes["out"][j, :-1], slopes["out"][j, -1] = inner[j].T @ d_outer, d_outer.sum(axis=0)
            d_inner = (d_outer @ w["out"][j, :-1].T) * (inner[j] > 0)
            slopes["in"][j, :-1], slopes["in"][j, -1] = h[held].T @ d_inner, d_inner.sum(axis=0)
            d_h[held] += d_inner @ w["in"][j, :-1].T
        d_scores = self._through_gates(scores, mask, gates, d_gates) + self._through_balance(scores, mask)
        slopes["router"][:] = h.T @ d_scores
        d_h += d_scores @ w["router"].T
        d_h *= h > 0
        slopes["embed"][:-1], slopes["embed"][-1] = X.T @ d_h, d_h.sum(axis=0)
        return loss, slopes, plan

    def _forward(self, X: Floats, route: Route) -> tuple[Floats, Any]:
        w = self.weights
        h = _embed(X, w["embed"])
        scores = h @ w["router"]
        plan = route(scores)
        mask = mask_of(plan)
        gates = self.gates_of(scores, mask)
        mixed = h.copy()
        rows, inner, outer = [], [], []
        for j in range(self.experts):
            held = np.flatnonzero(mask[:, j])
            inside = np.maximum(h[held] @ w["in"][j, :-1] + w["in"][j, -1], 0)
            outside = inside @ w["out"][j, :-1] + w["out"][j, -1]
            mixed[held] += gates[held, j][:, None] * outside
            rows.append(held)
            inner.append(inside)
            outer.append(outside)
        predicted = mixed @ w["head"][:-1] + w["head"][-1]
        return predicted, (plan, scores, mask, gates, h, mixed, inner, outer, rows)

    def _through_gates(self, scores: Floats, mask: Mask, gates: Floats, d_gates: Floats) -> Floats:
        """The gradient of the scores from that of the gates."""
        if self.gates == "sigmoid":
            return d_gates * gates * (1 - gates)
        felt = affinities(scores, self.affinity)
        d_felt = d_gates
        if self.gates == "share":
            total = np.maximum(np.where(mask, felt, 0).sum(axis=1, keepdims=True), 1e-20)
            d_felt = np.where(mask, (d_gates - (gates * d_gates).sum(axis=1, keepdims=True)) / total, 0)
        return _through_affinity(felt, d_felt.astype(scores.dtype), self.affinity)

    def _through_balance(self, scores: Floats, mask: Mask) -> Floats:
        return balance_slope(scores, mask, self.affinity, self.balance)


def balance_slope(scores: Floats, mask: Mask, affinity: str, weight: float) -> Floats:
    """The gradient of the scores from weight x experts x sum over experts of load share x mean affinity share."""
    if not weight:
        return np.zeros_like(scores)
    felt = affinities(scores, affinity)
    total = felt.sum(axis=1, keepdims=True)
    share = (mask.sum(axis=0) / max(mask.sum(), 1)).astype(scores.dtype)
    d_share = np.broadcast_to(weight * len(share) * share / len(scores), scores.shape)
    d_felt = (d_share - (felt / total * d_share).sum(axis=1, keepdims=True)) / total
    return _through_affinity(felt, d_felt.astype(scores.dtype), affinity)


def _embed(X: Floats, weight: Floats) -> Floats:
    out: Floats = np.maximum(X @ weight[:-1] + weight[-1], 0)
    return out


def _through_affinity(felt: Floats, d_felt: Floats, kind: str) -> Floats:
    if kind == "none":
        return d_felt
    if kind == "sigmoid":
        return d_felt * felt * (1 - felt)
    out: Floats = felt * (d_felt - (felt * d_felt).sum(axis=1, keepdims=True))
    return out


def _loss(predicted: Floats, Y: Floats, kind: str) -> tuple[float, Floats]:
    """The mean loss of a batch, and its gradient."""
    if kind == "squared":
        gap = predicted - Y
        return float((gap * gap).sum(axis=1).mean()), 2 * gap / np.float32(len(Y))
    felt = affinities(predicted, "softmax")
    loss = -float(np.log(np.maximum((felt * Y).sum(axis=1), 1e-12)).mean())
    return loss, (felt - Y) / np.float32(len(Y))
