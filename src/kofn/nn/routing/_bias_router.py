"""Load balancing by a bias, without an auxiliary loss."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kofn.core.checks import choice, number
from kofn.core.torch_module import module
from kofn.nn.routing._examples import drawn_scores, pass_through
from kofn.nn.routing._routes import Routes
from kofn.nn.routing._scores import GATES, affinities, first_of_rows, refuse, routes_where
from kofn.nn.routing._topk_router import TopKRouter


def _example(form: Any, numpy_form: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    settings = {"per_item": int(rng.integers(1, 5)), "gamma": 0.05}
    router, numpy_router = pass_through(form(4, 4, **settings)).double(), numpy_form(4, **settings)
    for _ in range(10):
        scores = drawn_scores(rng, listed=True)
        routes, plan = router(torch.as_tensor(scores).double()), numpy_router.update(scores)
    return (routes, router.bias), (plan, numpy_router.bias)


@module(form_of="BiasRouter", paper=295, aliases=("auxiliary-loss-free load balancing",), example=_example)
class BiasRouter(TopKRouter):
    """Auxiliary-loss-free load balancing: the torch form of `kofn.assignment.BiasRouter`.

    A bias of each expert is added to its affinity when experts are chosen, never in the gates; in training each batch
    moves the biases by `gamma`, up where the load was below the mean, down where above it.

    Args:
        width, bins, per_item: as in `TopKRouter`.
        gamma: the step of the biases, in units of the affinity.
        affinity: "sigmoid" (DeepSeek-V3) or "softmax".
        gates: as in `token_choice`.

    References:
        Wang, Gao, Zhao, Sun & Dai 2024, Auxiliary-Loss-Free Load Balancing (arXiv 2408.15664), algorithm 1.
    """

    bias: Tensor

    def __init__(
        self,
        width: int,
        bins: int,
        per_item: int = 2,
        *,
        gamma: float = 0.001,
        affinity: str = "sigmoid",
        gates: str = "share",
    ) -> None:
        choice(affinity, "affinity", ("sigmoid", "softmax"))
        super().__init__(width, bins, per_item, affinity=affinity, gates=choice(gates, "gates", GATES))
        self.gamma = float(number(gamma, "gamma"))
        self.register_buffer("bias", torch.zeros(bins, dtype=torch.float64))
        self.route = functools.partial(self._route, per_item, affinity, gates)

    def _route(self, per_item: int, affinity: str, gates: str, scores: Tensor) -> Routes:
        refuse(scores, affinity, gates)
        routes = routes_where(
            scores, first_of_rows(affinities(scores, affinity) + self.bias, per_item), affinity, gates
        )
        if self.training:
            loads = routes.loads.to(self.bias.dtype)
            self.bias += self.gamma * torch.sign(loads.mean() - loads)
        return routes
