"""Diagonal Fisher information of a model's weights, for `fisher_merging`.

`kofn.io.tensor_writer.write_arrays(path, fisher)` stores what it returns as safetensors; `fisher_merging` then takes
the paths: `fisher_merging(members, fisher=paths)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kofn.core import checks
from kofn.core.arrays import Singles
from kofn.core.checks import InputError
from kofn.core.torch_module import module
from kofn.nn._models import Logits, ask, chosen_names, map_inputs, quiet, run_with, unpacked

LABELS = ("expected", "sampled", "given")
_IGNORED = -100  # ignore_index of torch's cross-entropy


@module(form_of=None, paper=234, aliases=("Fisher information", "empirical Fisher"))
def diagonal_fisher(
    model: torch.nn.Module,
    batches: Iterable[Any],
    *,
    labels: str = "expected",
    samples: int = 1,
    logits: Logits | None = None,
    only: Any = None,
    chunk: int | None = 32,
    seed: int | None = None,
) -> dict[str, Singles]:
    """Diagonal Fisher information of a classifier's weights: the precision of each parameter.

    The mean over rows of the squared gradient of log p(label | row). `labels` decides between the true and the
    empirical Fisher information.

    Args:
        model: a module; it runs in evaluation mode and is left as it was.
        batches: of inputs, as tensors with one row an item, as tuples (inputs, labels), or as mappings of tensors that
            the model takes as keywords (whose "labels" are taken out). A few hundred rows are enough.
        labels: "expected" sums over all classes, weighted by the model's probabilities: exact, no labels needed, one
            gradient per class. "sampled" draws labels from the model's probabilities: unbiased, for many classes (a
            vocabulary) or positions. "given" uses the batches' labels: the empirical Fisher information.
        samples: draws for each row ("sampled").
        logits: `logits(model, inputs) -> (rows, ..., classes)`; by default `model(inputs)`, or the `.logits` of what
            `model(**inputs)` gives.
        only: pattern, or several, of the names of the parameters; the others' entries are zero.
        chunk: rows whose gradients are computed together. None takes one row at a time without `torch.func.vmap`, for
            models that it cannot trace.
        seed: for the sampled labels.

    Returns:
        Name -> float32 array for every floating tensor of the model's state dict, shapes alike; zero for buffers, which
        have no gradient (`fisher_merging` takes the weighted mean of those). Gradients of tied weights are
        summed over all their uses, and listed under each of their names.

    Raises:
        InputError: no rows, labels that are missing or no class, "expected" for a label at every position.

    With logits (rows, positions, classes), such as a language model's, a row's label is one class for each position,
    and its log-probability the sum over positions; -100 leaves a position out, and labels stand where their logits are.

    Time: a gradient for each row (and class, or distinct draw; or draw, with positions); memory `chunk` gradients.

    >>> import torch
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> with torch.no_grad():
    ...     _ = model.weight.zero_()
    >>> diagonal_fisher(model, [torch.tensor([[1.0, 0.0], [3.0, 2.0]])])["weight"]
    array([[1.25, 0.5 ],
           [1.25, 0.5 ]], dtype=float32)

    References:
        Matena & Raffel 2022, Merging models with Fisher-weighted averaging (NeurIPS): "expected" is theirs, and
        "sampled" for many classes.
    """
    checks.choice(labels, "labels", LABELS)
    draws = checks.count(samples, "samples") if labels == "sampled" else 1
    chunk = None if chunk is None else checks.count(chunk, "chunk")
    run = ask if logits is None else logits
    known = dict(model.named_parameters())
    weights = {name: known[name] for name in chosen_names(known, only)}
    device = next(iter(weights.values())).device
    generator = torch.Generator(device=device).manual_seed(checks.entropy(seed) % 2**63)
    sums = {name: torch.zeros(value.shape, dtype=torch.float64, device=device) for name, value in weights.items()}

    def log_probability(values: Mapping[str, Tensor], inputs: Any, label: Tensor) -> Tensor:
        """log p(label) of a single row."""
        ahead = run_with(model, run, values, map_inputs(inputs, lambda part: part.unsqueeze(0)))[0]
        flat = ahead.float().reshape(-1, ahead.shape[-1])
        return -functional.cross_entropy(flat, label.reshape(-1), reduction="sum", ignore_index=_IGNORED)

    slope = torch.func.grad(log_probability)
    free = {name: value.detach() for name, value in weights.items()}
    rows = 0
    with quiet(model), torch.no_grad():
        for batch in batches:
            inputs, given = unpacked(batch, device)
            ahead = run(model, inputs).float()
            rows += len(ahead)
            for label, weight in _labels(ahead, given, labels, draws, generator):
                for part in _parts(len(ahead), chunk):
                    seen = map_inputs(inputs, _rows_of(part))
                    if chunk is None:
                        alone = map_inputs(seen, lambda value: value[0])
                        slopes = {name: g[None] for name, g in slope(free, alone, label[part][0]).items()}
                    else:
                        slopes = torch.func.vmap(slope, in_dims=(None, 0, 0))(free, seen, label[part])
                    for name, gradients in slopes.items():
                        squares = gradients.double().square()
                        sums[name] += torch.tensordot(weight[part].double(), squares, dims=1)
    if not rows:
        raise InputError("batches are empty; the Fisher information is a mean over rows")
    means = {id(weights[name]): (total / rows).float().cpu().numpy() for name, total in sums.items()}
    return {
        name: means.get(id(value), np.zeros(tuple(value.shape), np.float32))
        for name, value in model.state_dict(keep_vars=True).items()
        if value.is_floating_point()
    }


def _labels(
    ahead: Tensor, given: Tensor | None, kind: str, draws: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Labels for all rows, and the weight of each row's squared gradient."""
    rows, classes = len(ahead), ahead.shape[-1]
    if kind == "expected":
        if ahead.ndim != 2:
            raise InputError(
                f"labels='expected' with logits {tuple(ahead.shape)}: all labels of all positions are too many; "
                "take labels='sampled'"
            )
        chances = ahead.softmax(dim=1)
        for label in range(classes):
            yield torch.full((rows,), label, device=ahead.device), chances[:, label]
        return
    if given is not None and (given.shape != ahead.shape[:-1] or given.is_floating_point()):
        raise InputError(
            f"labels are {tuple(given.shape)} of {given.dtype} for logits {tuple(ahead.shape)}; "
            f"give whole numbers {tuple(ahead.shape[:-1])}"
        )
    if kind == "sampled":
        chances = ahead.reshape(-1, classes).softmax(dim=1)
        every = (torch.multinomial(chances, 1, generator=generator).reshape(ahead.shape[:-1]) for _ in range(draws))
        if given is not None:
            every = (drawn.masked_fill(given == _IGNORED, _IGNORED) for drawn in every)
        if ahead.ndim == 2 and rows:
            yield from _counted(torch.stack(list(every), dim=1))
            return
        for drawn in every:
            yield drawn, torch.full((rows,), 1 / draws, device=ahead.device)
        return
    if given is None:
        raise InputError("labels='given': the batches hold none; give tuples (inputs, labels)")
    wrong = (given != _IGNORED) & ((given < 0) | (given >= classes))
    if wrong.any():
        raise InputError(f"label {int(given[wrong][0])} is not one of the {classes} classes")
    yield given.long(), torch.ones(rows, device=ahead.device)


def _counted(drawn: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Each row's (rows, draws) labels without repetition, and their shares: equal labels have equal gradients."""
    ordered = drawn.sort(dim=1).values
    slots = torch.zeros_like(ordered)
    slots[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).cumsum(dim=1)
    distinct = int(slots.max()) + 1
    # Rows with fewer labels than others repeat one of theirs, with a share of nothing.
    labels = ordered[:, :1].repeat(1, distinct).scatter_(1, slots, ordered)
    counts = torch.zeros_like(labels).scatter_add_(1, slots, torch.ones_like(ordered))
    for slot in range(distinct):
        yield labels[:, slot], counts[:, slot] / drawn.shape[1]


def _rows_of(part: slice) -> Callable[[Tensor], Tensor]:
    return lambda value: value[part]


def _parts(rows: int, chunk: int | None) -> Iterator[slice]:
    step = chunk or 1
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))
