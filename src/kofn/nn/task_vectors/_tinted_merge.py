"""Model tinting: merging coefficients and one layer a task, learnt from unlabelled rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

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
from kofn.nn.task_vectors._adaptive_merge import refuse_different

Labels = Literal["filtered", "individual", "entropy"]


@module(form_of=None, paper=296, aliases=("Model Tinting", "tint layer", "AdaMerging", "task-specific layer"))
def tinted_merge(
    models: Sequence[torch.nn.Module],
    base: torch.nn.Module,
    batches: Sequence[Iterable[Any]],
    *,
    tint: Any,
    loss: Labels = "filtered",
    learn_tint: bool = True,
    scale: float = 0.3,
    epochs: int = 100,
    rate: float = 1e-2,
    logits: Callable[[Any, Any], Tensor] | None = None,
    time_limit: float | None = None,
    progress: Progress = None,
) -> Blend:
    """Model tinting: merge fine-tunes by coefficients that are learnt together with one layer for each task.

    A merged tensor is the base's plus sum_i c_i (model i's less the base's), with a coefficient in [0, 1] for each
    model and tensor. The tensors of one layer are not merged: each task has its own, its tint, which starts as its
    model's. Coefficients and tints follow the gradient of a loss on unlabelled rows, by Adam, a step a task in turn.

    Args:
        models: m modules of one architecture, fine-tuned from the base; they are left as they are.
        base: the module that they started from.
        batches: m collections of unlabelled batches, one from each model's task: a step takes the next batch of one
            collection. A batch is a tensor with one row an item, or a mapping of tensors that the models take as
            keywords; labels are ignored.
        tint: pattern, or several, of the tensors that each task has for itself, such as those of the head ("4.*").
        loss: cross-entropy against what the task's own model says of each row ("individual"), only of rows where the
            merged one agrees or is less sure ("filtered"); or the entropy of the merged one's answers ("entropy"),
            which with learn_tint=False is AdaMerging.
        learn_tint: False keeps every task's layer as its model has it.
        scale: the coefficients to begin with.
        epochs: steps of each task.
        rate: of Adam.
        logits: `logits(model, inputs) -> (rows, classes)`; by default `model(inputs)`, or the `.logits` of what
            `model(**inputs)` gives.
        time_limit: seconds; what was learnt by then is returned, as after Ctrl-C.
        progress: True shows how far the work is; a callable is told each step.

    Returns:
        Blend of form "none": `result` maps the names of the state dict to the merged arrays, those of the tint to the
        models' mean. `transforms["tints"][i]` are the arrays of task i: with them in place of the result's the model
        is the one for task i. `transforms["coefficients"]` {tensor: (m,)}; `spread` (m,) the L2 distance of each model
        to the result. `info`: "trace" (epochs, m) losses before each step, "rows" of each loss, "share" of the result's
        numbers that a tint adds for each task.

    Raises:
        InputError: models or a base that differ, not one collection for each model, a tint that matches nothing or
            everything, a scale outside 0..1.

    Time: a step is a forward pass of one model and a forward and a backward pass of the merged one. Memory: all models,
    one more with its gradient, and the activations of a batch.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> net = lambda: torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    >>> base, models = net(), [net() for _ in range(2)]
    >>> blend = tinted_merge(models, base, [[torch.randn(64, 4)] for _ in models], tint="2.*", loss="individual")
    >>> blend.transforms["tints"][0]["2.weight"].shape, bool((blend.info["trace"][-1] < blend.info["trace"][0]).all())
    ((3, 5), True)

    References:
        Jung, Lee, Han & Hong 2024, Tint your models task-wise for improved multi-task model merging (arXiv 2412.19098),
        and the authors' code. Yang et al. 2024, AdaMerging (ICLR).
    """
    models = list(models)
    refuse_different([base, *models])
    m = len(models)
    if not m:
        raise InputError("models are empty; give one or more")
    if len(batches) != m:
        raise InputError(f"batches has {len(batches)} collections for {m} models; give one a model")
    checks.choice(loss, "loss", ("filtered", "individual", "entropy"))
    checks.flag(learn_tint, "learn_tint")
    if checks.number(rate, "rate") == 0:
        raise InputError(f"rate={rate!r}: give a number > 0")
    rows_of = [list(rows) for rows in batches]
    if not all(rows_of):
        raise InputError(
            f"batches of model {[bool(rows) for rows in rows_of].index(False)} are empty; give it some rows"
        )
    merged = _Merged(models, base, tint, checks.fraction(scale, "scale"))
    run = ask if logits is None else logits
    steps = checks.count(epochs, "epochs")
    learner = torch.optim.Adam([*merged.tables.values(), *(merged.tints() if learn_tint else [])], lr=rate)
    trace: list[list[float]] = []
    counts: list[list[int]] = []
    with (
        quiet(base, *models),
        Control(time_limit=time_limit, progress=progress, total=steps, title="learning to tint") as control,
    ):
        for step in range(steps):
            if step and control.stopped():
                break
            heard, kept = [], []
            for task, (model, rows) in enumerate(zip(models, rows_of, strict=True)):
                inputs = unpacked(rows[step % len(rows)], merged.device)[0]
                with torch.no_grad():
                    own = run(model, inputs).float()
                ahead = run_with(base, run, merged.state(task), inputs).float()
                value, used = _loss(ahead, own, loss)
                learner.zero_grad()
                value.backward()
                learner.step()
                heard.append(float(value.detach()))
                kept.append(used)
            trace.append(heard)
            counts.append(kept)
            control.step(step + 1)
    result, tints, squares = merged.result()
    size = sum(array.size for array in result.values())
    return Blend(
        n=m,
        value=float("nan"),
        sense="min",
        status="heuristic" if len(trace) == steps else "stopped",
        result=result,
        form="none",
        transforms={"coefficients": merged.coefficients(), "tints": tints},
        spread=np.sqrt(squares),
        method="tinted_merge",
        info={
            "trace": np.array(trace),
            "rows": np.array(counts),
            "share": sum(array.size for array in tints[0].values()) / size,
        },
    )


def _loss(ahead: Tensor, own: Tensor, loss: str) -> tuple[Tensor, int]:
    """The loss of a batch, and of how many rows."""
    if loss == "entropy":
        return -(ahead.softmax(dim=1) * ahead.log_softmax(dim=1)).sum(dim=1).mean(), len(ahead)
    own_labels = own.argmax(dim=1)
    kept = torch.ones_like(own_labels, dtype=torch.bool)
    if loss == "filtered":
        with torch.no_grad():
            surer = ahead.softmax(dim=1).amax(dim=1) > own.softmax(dim=1).amax(dim=1)
            kept = (ahead.argmax(dim=1) == own_labels) | ~surer
    # A sum over no rows is 0 with a gradient of 0.
    used = int(kept.sum())
    return functional.cross_entropy(ahead[kept], own_labels[kept], reduction="sum") / max(used, 1), used


class _Merged:
    """Coefficients of all tensors that are merged, and each task's own tensors."""

    def __init__(self, models: Sequence[torch.nn.Module], base: torch.nn.Module, tint: Any, scale: float) -> None:
        self.models, self.base = models, dict(base.named_parameters())
        self.states = [base.state_dict(keep_vars=True), *(model.state_dict(keep_vars=True) for model in models)]
        self.device = next(iter(self.base.values())).device
        members = [dict(model.named_parameters()) for model in models]
        tinted = chosen_names(self.base, tint)
        if len(tinted) == len(self.base):
            raise InputError("tint names every tensor of the models, so that nothing is merged; name those of a layer")
        self.own = [{name: member[name].detach().clone().requires_grad_() for name in tinted} for member in members]
        self.vectors = {
            name: torch.stack([member[name].detach() - start.detach() for member in members])
            for name, start in self.base.items()
            if name not in tinted
        }
        self.tables = {
            name: torch.full((len(models),), scale, device=self.device).requires_grad_() for name in self.vectors
        }

    def tints(self) -> list[Tensor]:
        """What each task has for itself, to be learnt."""
        return [value for own in self.own for value in own.values()]

    def state(self, task: int) -> dict[str, Tensor]:
        """The parameters for a task; gradients flow into the coefficients and its own tensors."""
        return {**self._merged(), **self.own[task]}

    def _merged(self) -> dict[str, Tensor]:
        return {
            name: self.base[name].detach() + torch.tensordot(self.tables[name].clamp(0, 1), vectors, dims=1)
            for name, vectors in self.vectors.items()
        }

    def coefficients(self) -> dict[str, Any]:
        """(m,) coefficients by tensor."""
        return {name: table.detach().clamp(0, 1).cpu().numpy().copy() for name, table in self.tables.items()}

    @torch.no_grad()
    def result(self) -> tuple[dict[str, Any], list[dict[str, Any]], Any]:
        """The merged arrays under all names of the state dict, each task's own, and squared distances to the models."""
        by_value = {id(self.base[name]): value for name, value in self._merged().items()}
        out: dict[str, Any] = {}
        squares = np.zeros(len(self.models))
        for name, first in self.states[0].items():
            values = [state[name].detach() for state in self.states[1:]]
            blend = by_value.get(id(first))
            if blend is None:  # a tint, or a buffer
                blend = torch.stack(values).double().mean(dim=0).to(first.dtype)
            out[name] = np.array(from_torch(blend))
            squares += [float((value.double() - blend.double()).square().sum()) for value in values]
        return out, [{name: np.array(from_torch(value)) for name, value in own.items()} for own in self.own], squares
