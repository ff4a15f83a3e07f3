"""What `kofn allocate model/` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kofn.cli.printing import first_of

if TYPE_CHECKING:
    from kofn.allocation.checkpoints._plan import CheckpointPlan
    from kofn.cli.allocate_model_arguments import ModelArguments

# Measured on one core: bytes of weights a second and core, of bfloat16.
_BYTES_A_SECOND = 120e6
# A gain over uniform that is not worth a mixture of widths.
_LITTLE = 0.05
# A difference of two sums of errors that is the rounding of them.
_ROUNDING = 1e-9
_WHAT = {
    "none": "the weights' own (no statistics)",
    "scale": "the weights' own, by one number a tensor",
    "diagonal": "the outputs', by the mean squares of the inputs",
    "gram": "the outputs', by the mean products of the inputs",
    "curvature": "the weights', by their curvature",
}


def answer(plan: CheckpointPlan, arguments: ModelArguments) -> dict[str, Any]:
    """The answer for machines."""
    return {
        "kind": plan.kind,
        "asked": plan.asked,
        "mean": plan.mean,
        "mean_with_scales": plan.mean_with_scales,
        "counts_scales": plan.counts_scales,
        "statistic": plan.statistic,
        "criterion": plan.criterion,
        "error": plan.error,
        "uniform": plan.uniform,
        "price": plan.price,
        "next_error": plan.next_error,
        "other_error": plan.other_error,
        "tensors": {tensor.name: tensor.level for tensor in plan.tensors},
        "kept": plan.kept,
        "digest": plan.digest,
        "output": arguments.output,
        "applied": arguments.applied,
        "report": arguments.report,
    }


def render(plan: CheckpointPlan, arguments: ModelArguments) -> str:
    """The answer for people."""
    of_bits = plan.kind == "bits"
    lines = [f"{len(plan.tensors)} tensors of {plan.weights:,} weights take part", *_levels(plan)]
    if of_bits:
        counted = "scales included" if plan.counts_scales else f"{plan.mean_with_scales:.3f} with scales"
        mean = plan.mean_with_scales if plan.counts_scales else plan.mean
        lines.append(f"mean {mean:.3f} bits a weight, {counted}; {plan.asked:g} asked")
    else:
        lines.append(f"{plan.mean:.2%} of the weights are left out; {plan.asked:.2%} asked")
    lines += _errors(plan)
    if plan.kept:
        lines.append(
            f"as they are: {len(plan.kept)} more, {first_of(list(plan.kept), 3)} (--fix 'NAME={8 if of_bits else 50}' "
            "brings one in)"
        )
    for path, noun in ((arguments.output, arguments.format or "plan"), (arguments.applied, "model")):
        if path:
            lines.append(f"{noun:6} -> {path}")
    if arguments.report:
        lines.append(f"report -> {arguments.report}")
    return "\n".join(lines)


def _levels(plan: CheckpointPlan) -> list[str]:
    """How many tensors are at which level."""
    tensors = Counter(tensor.level for tensor in plan.tensors)
    weights: Counter[int] = Counter()
    for tensor in plan.tensors:
        weights[tensor.level] += tensor.size
    unit = "bits" if plan.kind == "bits" else "% left"
    lines = [f"{unit:>6}  tensors  share of weights"]
    for level in sorted(tensors):
        lines.append(f"{level:6}  {tensors[level]:7}  {weights[level] / plan.weights:15.1%}")
    return lines


def _errors(plan: CheckpointPlan) -> list[str]:
    """The error beside that of a uniform level, and what one more step saves."""
    of_bits = plan.kind == "bits"
    errors = _WHAT.get(plan.statistic, "by statistics of several kinds")
    each = "relative to each tensor's size" if plan.criterion == "relative" else "squared"
    lines = [f"errors are {errors}, {each}"]
    uniform = f"{plan.asked:g} bits" if of_bits else f"{plan.asked:.0%}"
    if of_bits and plan.asked not in plan.levels:
        uniform = f"the width below or above {uniform}, a share of each tensor"
    saved = 1 - plan.error / plan.uniform if plan.uniform > 0 else 0.0
    more = f"this is {-saved:.1%} more" if saved < -_ROUNDING else "nothing is saved"
    gain = f"{saved:.1%} is saved" if saved > _ROUNDING else more
    lines.append(f"predicted error {plan.error:.4g}; all at {uniform}: {plan.uniform:.4g}, so {gain}")
    if saved < _LITTLE:
        lines.append("a mixture is worth little here: one level for all is nearly as good, and simpler to serve")
    if plan.statistic != "scale":
        lines.append(
            "such errors do not say how much each layer matters: kofn.nn.noise_sensitivity measures it (--statistics), "
            "or compare what --apply writes with one level for all (--tie '*')"
        )
    if plan.next_error is not None and plan.error > 0:
        step = "one more tenth of a bit" if of_bits else "leaving out one hundredth less"
        less = 1 - plan.next_error / plan.error
        lines.append(f"{step} saves {less:.1%} of the error" if less > 0 else f"no other plan fits into {step}")
    if plan.other_error is not None and plan.error > 0:
        other = "affine" if plan.symmetric else "symmetric"
        lines.append(f"{other} numbers at these widths: {plan.other_error / plan.error:.3g} times the error")
    return lines


def render_beforehand(file: str, arguments: ModelArguments) -> tuple[dict[str, Any], Callable[[], str]]:
    """What the call would do, from the headers of the files."""
    from kofn.allocation.checkpoints._weights import chosen, open_model
    from kofn.engines.threads import cores

    asked = arguments.asked
    checkpoint = open_model(file)
    weights = chosen(checkpoint, asked.get("group_size", 128), list(asked.get("only", ())), asked.get("fix", {}))
    nbytes = sum(weight.tensor.nbytes for weight in weights)
    facts = {
        "tensors": len(weights),
        "weights": sum(weight.size for weight in weights),
        "bytes": nbytes,
        "seconds": sum(2 * weight.size for weight in weights) / _BYTES_A_SECOND / cores(arguments.n_threads),
        "exact": "optimal for the measured errors",
    }
    text = (
        f"would measure {facts['tensors']} tensors of {facts['weights']:,} weights ({nbytes / 1e6:,.0f} MB) in about "
        f"{facts['seconds']:.1f} s; {facts['exact']}"
    )
    return facts, lambda: text
