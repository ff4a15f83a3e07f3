"""Differentiable adaptive merging (DAM): column-wise merging coefficients learnt without labels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.plans import Blend
from kofn.core.runtime import Control
from kofn.core.torch_module import module
from kofn.core.words import Progress
from kofn.io.torch_arrays import from_torch
from kofn.nn._models import ask, chosen_names, quiet, run_with, unpacked


@module(form_of=None, paper=257, aliases=("DAM",))
def adaptive_merge(
    models: Sequence[torch.nn.Module],
    batches: Sequence[Iterable[Any]],
    *,
    weights: Any = None,
    epochs: int = 3,
    rate: float = 1e-2,
    temperature: float = 2.0,
    similarity: float = 1e-2,
    l1: float = 1e-6,
    l2: float = 1e-5,
    decay: float = 1e-2,
    modules: Any = None,
    logits: Callable[[Any, Any], Tensor] | None = None,
    time_limit: float | None = None,
    progress: Progress = None,
) -> Blend:
    """Differentiable adaptive merging (DAM): learn column-wise merging coefficients without labels.

    A merged linear layer is sum_i W_i diag(c_i): a coefficient for each input feature of each model (and one for each
    model's bias). They start at the weights and follow the gradient of

        sum_i KL(model i | merged) on model i's rows, both softened by the temperature, times its square
        + similarity x the cosines of the coefficients of pairs of models, the mean of the pairs, summed over layers
        + l1 x their absolute sums + l2 x their norms

    by AdamW, the rate falling linearly to zero. All other tensors are weighted means.

    Args:
        models: m modules of one architecture, mostly fine-tuned from one start; they are left as they are.
        batches: m collections of unlabelled batches, one from each model's domain; they are iterated in every epoch,
            and a step takes one batch of each. A batch is a tensor with one row an item, or a mapping of tensors
            that the models take as keywords; labels are ignored.
        weights: (m,) relative weights of the start, uniform by default.
        epochs: passes over the batches (of the longest collection; shorter ones are repeated).
        rate, decay: learning rate and weight decay of AdamW.
        temperature, similarity, l1, l2: see above; the defaults are the authors'.
        modules: pattern, or several, of the `torch.nn.Linear` and `torch.nn.Embedding` to learn coefficients for (an
            embedding has one for each of its dimensions); by default all that are linear.
        logits: `logits(model, inputs) -> (rows, ..., classes)`; by default `model(inputs)`, or the `.logits` of what
            `model(**inputs)` gives.
        time_limit: seconds; the coefficients learnt by then are returned, as after Ctrl-C.
        progress: True shows how far the work is; a callable is told each step.

    Returns:
        Blend of form "none": `result` maps the names of the state dict to arrays (a state dict by
        `kofn.io.torch_arrays.to_torch`), `transforms` the names of the learnt tensors to their coefficients (m, width),
        biases (m, 1); `spread` (m,) is the L2 distance of each model to the blend. `info`: "trace", the divergence of
        each step before it, (steps, m) in nats at temperature 1; "steps"; "rows", the number of rows passed through a
        source model and the merged model, forward and backward.

    Raises:
        InputError: models that differ, no module to learn for, not one collection of batches for each model.

    Time: a step is a forward pass of each model and a forward and a backward pass of the merged one, for m batches.
    Memory: m models, one more with its gradient, and the activations of m batches.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> models = [torch.nn.Linear(4, 3) for _ in range(2)]
    >>> blend = adaptive_merge(models, [[torch.randn(16, 4)] for _ in models], epochs=20)
    >>> blend.transforms["weight"].shape, bool(blend.info["trace"][-1].sum() < blend.info["trace"][0].sum())
    ((2, 4), True)

    References:
        Gauthier-Caron et al. 2024, Merging in a Bottle: Differentiable Adaptive Merging (DAM) and the Path from
        Averaging to Automation (arXiv 2410.08371), and the authors' code.
    """
    models = list(models)
    refuse_different(models)
    m = len(models)
    if len(batches) != m:
        raise InputError(f"batches has {len(batches)} collections for {m} models; give one a model")
    shares = checks.weights(np.ones(m) if weights is None else weights).astype(np.float64)
    checks.same_length(m, "models", "weights", len(shares))
    shares = shares / shares.sum()
    for name, value in (("similarity", similarity), ("l1", l1), ("l2", l2), ("decay", decay)):
        checks.number(value, name)
    for name, value in (("temperature", temperature), ("rate", rate)):
        if checks.number(value, name) == 0:
            raise InputError(f"{name}={value!r}: give a number > 0")
    run = ask if logits is None else logits
    layers = _Columns(models, shares, modules)
    rows_of = [list(rows) for rows in batches]
    if not all(rows_of):
        raise InputError(
            f"batches of model {[bool(rows) for rows in rows_of].index(False)} are empty; give it some rows"
        )
    length = max(map(len, rows_of))
    steps = checks.count(epochs, "epochs") * length

    learner = torch.optim.AdamW(layers.learnt, lr=rate, weight_decay=decay)
    falling = torch.optim.lr_scheduler.LambdaLR(learner, lambda step: 1 - step / steps)
    trace: list[list[float]] = []
    shown = 0
    with (
        quiet(*models),
        Control(time_limit=time_limit, progress=progress, total=steps, title="learning to merge") as control,
    ):
        for step in range(steps):
            if step and control.stopped():
                break
            merged = layers.merged()
            losses, heard = [], []
            for model, rows in zip(models, rows_of, strict=True):
                inputs = unpacked(rows[step % len(rows)], layers.device)[0]
                with torch.no_grad():
                    wanted = run(model, inputs).float()
                ahead = run_with(models[0], run, merged, inputs).float()
                shown += len(wanted)
                losses.append(_divergence(ahead, wanted, temperature) * temperature**2)
                heard.append(float(_divergence(ahead.detach(), wanted, 1.0)))
            loss = torch.stack(losses).sum() + layers.penalty(similarity, l1, l2)
            learner.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(layers.learnt, 1.0)
            learner.step()
            falling.step()
            trace.append(heard)
            control.step(step + 1)
    result, squares = layers.result()
    return Blend(
        n=m,
        value=float("nan"),
        sense="min",
        status="heuristic" if len(trace) == steps else "stopped",
        result=result,
        form="none",
        weights=shares,
        transforms={name: table.detach().cpu().numpy() for name, table in layers.tables.items()},
        spread=np.sqrt(squares),
        method="adaptive_merge",
        info={"trace": np.array(trace), "steps": len(trace), "rows": shown},
    )


class _Columns:
    """The coefficients of every learnt tensor, and the merged tensors."""

    def __init__(self, models: Sequence[torch.nn.Module], shares: Any, patterns: Any) -> None:
        self.models, self.shares = models, shares
        self.members = [dict(model.named_parameters()) for model in models]
        self.device = next(iter(self.members[0].values())).device
        kinds = torch.nn.Linear if patterns is None else (torch.nn.Linear, torch.nn.Embedding)
        known = {name: part for name, part in models[0].named_modules() if isinstance(part, kinds)}
        owned = {id(value) for name in chosen_names(known, patterns) for value in known[name].parameters()}
        start = torch.as_tensor(shares, dtype=torch.float32, device=self.device)
        self.tables = {
            name: start[:, None].repeat(1, value.shape[1] if value.ndim == 2 else 1).requires_grad_()
            for name, value in self.members[0].items()
            if id(value) in owned
        }
        if not self.tables:
            raise InputError("the models have no torch.nn.Linear to learn coefficients for")
        self.learnt = list(self.tables.values())
        self.fixed = {name: self._mean(name) for name in self.members[0] if name not in self.tables}

    def merged(self) -> dict[str, Tensor]:
        """The merged model's parameters; gradients flow into the coefficients."""
        return {**self.fixed, **{name: self._sum(name) for name in self.tables}}

    def penalty(self, similarity: float, l1: float, l2: float) -> Tensor:
        """Penalty on similar and on large coefficients."""
        total = torch.zeros((), device=self.device)
        for name, table in self.tables.items():
            # As in the authors' code the coefficients of biases are left alone.
            if self.members[0][name].ndim == 2:
                alike = [functional.cosine_similarity(a, b, dim=0) for a, b in itertools.combinations(table, 2)]
                if alike:
                    total = total + similarity * torch.stack(alike).mean()
                total = total + l1 * table.abs().sum() + l2 * table.norm(dim=1).sum()
        return total

    @torch.no_grad()
    def result(self) -> tuple[dict[str, Any], Any]:
        """The blend under all names of the state dict, and the squared distance of each model to it."""
        by_value = {id(self.members[0][name]): value for name, value in self.merged().items()}
        states = [model.state_dict(keep_vars=True) for model in self.models]
        out: dict[str, Any] = {}
        squares = np.zeros(len(states))
        for name, first in states[0].items():
            blend = by_value.get(id(first))
            if blend is None:  # a buffer
                blend = self._mean_of([state[name] for state in states], name)
            out[name] = np.array(from_torch(blend))
            for i, state in enumerate(states):
                squares[i] += float((state[name].double() - blend.double()).square().sum())
        return out, squares

    def _sum(self, name: str) -> Tensor:
        table = self.tables[name]
        parts = [scale * member[name].detach().float() for scale, member in zip(table, self.members, strict=True)]
        return torch.stack(parts).sum(dim=0).to(self.members[0][name].dtype)

    def _mean(self, name: str) -> Tensor:
        return self._mean_of([member[name] for member in self.members], name)

    def _mean_of(self, values: Sequence[Tensor], name: str) -> Tensor:
        first = values[0].detach()
        if all(torch.equal(first, value) for value in values[1:]):
            return first
        if not first.is_floating_point():
            raise InputError(f"{name!r} is {first.dtype} and differs between the models; make it the same in all")
        mean = sum(share * value.detach().double() for share, value in zip(self.shares, values, strict=True))
        assert isinstance(mean, Tensor)
        return mean.to(first.dtype)


def _divergence(ahead: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Mean over rows and positions of KL(wanted | ahead), in nats."""
    ahead, wanted = ((part / temperature).log_softmax(dim=-1).reshape(-1, part.shape[-1]) for part in (ahead, wanted))
    return functional.kl_div(ahead, wanted, reduction="batchmean", log_target=True)


def refuse_different(models: Sequence[torch.nn.Module]) -> None:
    if not models or not all(isinstance(model, torch.nn.Module) for model in models):
        raise InputError("models: give torch modules, one or more")
    first: Mapping[str, Tensor] = models[0].state_dict()
    for i, model in enumerate(models[1:], 1):
        state = model.state_dict()
        odd = sorted(set(first) ^ set(state))
        if odd:
            raise InputError(f"model {i} and model 0 do not both have {odd[0]!r}; merge one architecture")
        for name, value in first.items():
            if (value.shape, value.dtype, value.device) != (state[name].shape, state[name].dtype, state[name].device):
                raise InputError(
                    f"model {i}: {name!r} is {tuple(state[name].shape)} {state[name].dtype} on "
                    f"{state[name].device}, in model 0 {tuple(value.shape)} {value.dtype} on {value.device}"
                )
