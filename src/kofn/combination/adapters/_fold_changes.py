"""What adapters change in the tensors of a base: which tensors, by what, and into how many rows."""

from __future__ import annotations

import fnmatch
import functools
import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np

from kofn.combination._sweep.files import patterns
from kofn.combination._sweep.tied_layouts import Tie
from kofn.combination.adapters._fold_layouts import Transposed, expert_changes, fused_changes, other_names
from kofn.combination.adapters._fold_rows import Change, LowRank, Replace, Scale, Shift, Trained
from kofn.combination.adapters._fold_tables import Folding, array_of, may_resize, refuse_tied, resize, tied_heads
from kofn.core.arrays import Array, Floats
from kofn.core.checks import InputError, nearest
from kofn.io.adapter_families import DORA, FOLDED, module_names
from kofn.io.adapters import Adapter
from kofn.io.low_rank import Pair
from kofn.io.module_names import ModuleNames, unwrapped
from kofn.io.tensors import Checkpoint

_SHOWN = 6


def folding_of(
    base: Mapping[str, Any],
    adapters: Sequence[Adapter],
    weights: Sequence[float],
    left_out: frozenset[str] = frozenset(),
    tie: Tie | None = None,
    joint: Container[int] = (),
    config: Mapping[str, Any] | None = None,
) -> Folding:
    """What adapters, each by its weight, change in the tensors of a base.

    Args:
        base: its tensors.
        adapters, weights: (m,) what is folded, and by how much.
        left_out: modules and tensors of adapters that are not.
        tie: embedding and head of a base that ties them.
        joint: the adapters that trained both as one, under the embedding's name.
        config: the base's configuration.

    Raises:
        InputError: modules that the base lacks (all of an adapter at once) or that correspond to two of its tensors,
            shapes that do not fit, an adapter that cannot be folded.
    """
    out = Folding()
    names = ModuleNames(dict.fromkeys(stem for name in base if (stem := name.rpartition(".")[0])))
    transposed = Transposed(base, config or {})
    trained: dict[str, list[tuple[Adapter, Trained]]] = {}
    for i, (adapter, weight) in enumerate(zip(adapters, weights, strict=True)):
        gathered = _OneAdapter(base, names, adapter, float(weight), left_out, tie, transposed)
        gathered.gather()
        if i in joint:
            gathered.follow()
        gathered.echo()
        for name, changes in gathered.changes.items():
            out.changes.setdefault(name, []).extend(changes)
        for name, part in gathered.trained.items():
            trained.setdefault(name, []).append((adapter, part))
        out.added |= gathered.added
        out.tall |= gathered.tall
        out.modules.append(gathered.modules)
    _add_trained(out, base, trained)
    resize(out, base, trained)
    if tie is not None and tie.scale != 1 and any(i not in joint for i in range(len(adapters))):
        out.changes.setdefault(tie.head, []).append(Scale(tie.scale))
    return out


def left_out_of(
    adapters: Sequence[Adapter], only: str | Sequence[str] | None, skip: str | Sequence[str] | None
) -> frozenset[str]:
    """The modules, and the tensors trained in full, that are left out; a pattern that matches none is refused."""
    names = [name for each in adapters for name in (*each.pairs, *each.full, *each.rows, *each.differences)]
    known = {name: (name, unwrapped(name)) for name in names}

    def matched(word: str, pattern: str) -> set[str]:
        matches = {name for name, both in known.items() if any(fnmatch.fnmatchcase(each, pattern) for each in both)}
        if not matches:
            plain = [unwrapped(name) for name in known]
            raise InputError(
                f"{word}={pattern!r} matches no module{nearest(pattern, plain)}; names are such as {plain[0]!r}"
            )
        return matches

    kept = set().union(*(matched("only", pattern) for pattern in patterns(only, "only") or ()))
    out = set(known) - kept if only else set()
    out |= set().union(*(matched("skip", pattern) for pattern in patterns(skip, "skip") or ()))
    if len(out) == len(known):
        raise InputError("only and skip leave no module to fold; give patterns that leave some")
    return frozenset(out)


class _OneAdapter:
    """What one adapter changes, gathered with everything that does not fit."""

    def __init__(
        self,
        base: Mapping[str, Any],
        names: ModuleNames,
        adapter: Adapter,
        weight: float,
        left_out: frozenset[str],
        tie: Tie | None,
        transposed: Transposed,
    ) -> None:
        self.base, self.names, self.adapter, self.weight = base, names, adapter, weight
        self.left_out, self.tie, self.transposed = left_out, tie, transposed
        self.setting = bool(adapter.config.get("fan_in_fan_out"))
        self.changes: dict[str, list[Change]] = {}
        self.trained: dict[str, Trained] = {}
        self.added: dict[str, Array] = {}
        self.tall: set[str] = set()
        self.modules: frozenset[str] = frozenset()
        self.lacking: list[str] = []
        self.unlike: list[str] = []
        self.away, self.before = "", ""  # a prefix to take from the adapter's names, and one to put before them

    def gather(self) -> None:
        """Find the tensors of all that the adapter has, and refuse what does not fit, all at once."""
        adapter = self.adapter
        if adapter.config.get("layer_replication"):
            raise InputError(
                f"{adapter.label}: layer_replication stacks layers of the base; merge it with PEFT, or stack the "
                "layers first (a mergekit recipe of slices) and take layer_replication out"
            )
        reasons = [why for why in adapter.nonlinear() if why not in FOLDED]
        if reasons:
            raise InputError(f"{adapter.label}: {reasons[0]}; it cannot be folded")
        if self.weight != 1 and any(pair.magnitude is not None for pair in adapter.pairs.values()):
            raise InputError(f"weight={self.weight:g}: a DoRA adapter is folded whole, at weight 1, or not at all")
        pairs = {module: pair for module, pair in adapter.pairs.items() if module not in self.left_out}
        stems = [unwrapped(f"{module}.weight").removesuffix(".weight") for module in pairs]
        self._find_wrapper(stems or [name.rpartition(".")[0] for name in adapter.differences])
        self._take_full()
        experts = {module: pair for module, pair in pairs.items() if pair.kind == "experts"}
        for module, pair in pairs.items():
            if module not in experts:
                self._take(module, pair)
        if experts:
            by_name, faults = expert_changes(self.base, self._stem, experts, adapter.config, self.weight)
            self.unlike += faults
            for name, changes in by_name.items():
                self.changes.setdefault(name, []).extend(changes)
                if len(self.base[name].shape) == 3:
                    self.tall.add(name)
        self._take_differences()
        self.modules = frozenset(pairs)
        self._refuse()

    def follow(self) -> None:
        """Change the head, where it is a tensor, as the embedding: they were trained as one."""
        if self.tie is None or self.tie.head not in self.base:
            return
        embedding, head = self.tie.embedding, self.tie.head
        if embedding in self.changes:
            self.changes[head] = self.changes[embedding]
        if embedding in self.trained:
            self.trained[head] = self.trained[embedding]

    def echo(self) -> None:
        """Change what has a second name in an untied model, such as the bias of a head, under both."""
        for name, source in self.tie.copies.items() if self.tie is not None else ():
            if name not in self.base:
                continue
            if source in self.changes and name not in self.changes:
                self.changes[name] = self.changes[source]
            if source in self.trained and name not in self.trained:
                self.trained[name] = self.trained[source]

    def _find_wrapper(self, modules: Sequence[str]) -> None:
        if modules and not any(self.names.find(module) for module in modules):
            self.away, self.before = self.names.wrapper(modules) or ("", "")

    def _stem(self, module: str) -> str | None:
        """The base's name of a module."""
        own = unwrapped(f"{module}.weight").removesuffix(".weight")
        return self.names.find(self.before + own.removeprefix(self.away))

    def _tensor(self, module: str, leaf: str) -> str | None:
        """The base's name of a tensor of a module, None if there is none."""
        own = f"{module}.{leaf}"
        known = next((name for name in (own, unwrapped(own)) if name in self.base), None)
        if known is not None or (stem := self._stem(module)) is None:
            return known
        return f"{stem}.{leaf}" if f"{stem}.{leaf}" in self.base else None

    def _take(self, module: str, pair: Pair) -> None:
        label = self.adapter.label
        table = pair.kind == "embedding" and not pair.on_inputs
        if pair.magnitude is not None and (table or pair.bias is not None):
            raise InputError(f"{label}: DoRA on {module!r} ({pair.kind}) cannot be folded; merge it where trained")
        if pair.magnitude is None and DORA in self.adapter.family.nonlinear(self.adapter.saved):
            raise InputError(f"{label} is a DoRA adapter without the magnitudes of {module!r}; save the adapter again")
        name = self._tensor(module, "weight")
        if name is None:
            self._take_apart(module, pair)
            return
        if name in self.changes:
            raise InputError(
                f"{label}: module {module!r} is the second that corresponds to {name!r} of the base; leave one out "
                "with skip"
            )
        shape = self._shape(name)
        turned = self._is_turned(name, pair, shape)
        if turned is None:
            wanted = (*pair.into, pair.out) if pair.kind == "embedding" else (pair.out, *pair.into)
            self.unlike.append(f"{name!r} is {shape}, the adapter's {wanted}")
            return
        self._check_magnitude(module, pair, shape)
        self.changes[name] = [_low_rank(pair, self.weight, turned)]
        if pair.bias is not None:
            self._take_bias(module, pair.bias, self.weight * pair.scale)

    def _is_turned(self, name: str, pair: Pair, shape: tuple[int, ...]) -> bool | None:
        if pair.kind != "linear" or shape != (pair.out, pair.out) or pair.into != (pair.out,):
            return is_turned(pair, shape, self.setting)
        return self.transposed.decide(name, self.setting, self._others_turned, self.adapter.label)

    @functools.cached_property
    def _others_turned(self) -> list[bool]:
        """Whether each layer that is not square gets the transpose of its update."""
        out = []
        for module, pair in self.adapter.pairs.items():
            if pair.kind != "linear" or module in self.left_out or pair.into == (pair.out,):
                continue
            name = self._tensor(module, "weight")
            turned = None if name is None else is_turned(pair, self._shape(name), self.setting)
            out += [] if turned is None else [turned]
        return out

    def _check_magnitude(self, module: str, pair: Pair, shape: tuple[int, ...]) -> None:
        extent = (shape[1] if len(shape) > 2 else math.prod(pair.into)) if pair.on_inputs else pair.out
        if pair.magnitude is not None and pair.magnitude.size != extent:
            raise InputError(
                f"{self.adapter.label}: DoRA on {module!r} has {pair.magnitude.size} magnitudes for {extent} "
                f"{'inputs' if pair.on_inputs else 'rows'}; save the adapter again"
            )

    def _shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor of the base, with the rows that this adapter gives it."""
        shape, part = tuple(self.base[name].shape), self.trained.get(name)
        if part is None or not shape:
            return shape
        return (part.height if part.rows is None else max(part.height, shape[0]), *shape[1:])

    def _take_bias(self, module: str, bias: Array, scale: float) -> None:
        name = self._tensor(module, "bias")
        if name is None:
            self.lacking.append(unwrapped(f"{module}.bias"))
        elif tuple(self.base[name].shape) != bias.shape:
            self.unlike.append(f"{name!r} is {tuple(self.base[name].shape)}, the adapter's {bias.shape}")
        else:
            self.changes.setdefault(name, []).append(Shift(bias, scale))

    def _take_differences(self) -> None:
        """What is added to tensors as it is."""
        for own, array in self.adapter.differences.items():
            if own in self.left_out:
                continue
            module, _, leaf = own.rpartition(".")
            name = self._tensor(module, leaf)
            if name is None:
                self.lacking.append(unwrapped(own))
            elif (shape := self._shape(name)) != array.shape:
                self.unlike.append(f"{name!r} is {shape}, the adapter's {array.shape}")
            else:
                self.changes.setdefault(name, []).append(Shift(array, self.weight))

    def _take_apart(self, module: str, pair: Pair) -> None:
        """A module whose layer the base keeps in several, or together with others."""
        by_name = fused_changes(self.base, self.names, module, pair, self.weight)
        if not by_name:
            self.lacking.append(unwrapped(f"{module}.weight"))
        for name, change in by_name.items():
            self.changes.setdefault(name, []).append(change)

    def _take_full(self) -> None:
        """Tensors and rows that were trained in full."""
        whole = {name: array for name, array in self.adapter.full.items() if name not in self.left_out}
        for name in tied_heads(self.base, whole):
            del whole[name]
        for name, array in whole.items():
            module, _, leaf = name.rpartition(".")
            known = self._tensor(module, leaf) if module else next((n for n in (name,) if n in self.base), None)
            if known is None:
                self._add(name, array)
            elif (shape := tuple(self.base[known].shape)) != array.shape and not may_resize(known, shape, array.shape):
                self.unlike.append(f"{known!r} is {shape}, the adapter's {array.shape}")
            elif not (self._has_factors(name) and _is_copy(array, self.base[known])):
                self.trained[known] = Trained(array, self.weight)
        for name, (rows, array) in self.adapter.rows.items():
            if name in self.left_out:
                continue
            known = self._tensor(*name.rsplit(".", 1))
            if known is None:
                self.lacking.append(unwrapped(name))
                continue
            shape, part = self._shape(known), Trained(array, self.weight, rows)
            fresh = set(range(shape[0], part.height)) - set(rows.tolist())
            if len(shape) != 2 or shape[1:] != array.shape[1:] or fresh:
                more = f" without values for the new row {min(fresh)}" if fresh else ""
                rows_of = f"{array.shape} of rows up to {part.height - 1}{more}"
                self.unlike.append(f"{known!r} is {shape}, the adapter's {rows_of}")
            else:
                self.trained[known] = part

    def _has_factors(self, name: str) -> bool:
        """Whether a tensor is that of a module with factors, beside which PEFT saves the base's own."""
        stem = name.rpartition(".")[0]
        return any(unwrapped(f"{module}.weight") == unwrapped(f"{stem}.weight") for module in self.adapter.pairs)

    def _add(self, name: str, array: Array) -> None:
        """A tensor that the base lacks: a head that the adapter lists, or that belongs to no checkpoint."""
        own = unwrapped(name)
        listed = module_names(self.adapter.config, "modules_to_save")
        head = any(own.rpartition(".")[0].split(".")[-1] == word.split(".")[-1] for word in listed)
        if self.weight != 1 or (isinstance(self.base, Checkpoint) and not head):
            self.lacking.append(own)
        else:
            self.added[own] = array

    def _refuse(self) -> None:
        lacking = [*self.lacking, *self.added]
        if self.tie is None:
            refuse_tied(self.base, self.adapter, [*self.trained_apart(), *lacking])
        faults = [f"it lacks {name!r}" for name in self.lacking] + self.unlike
        if not faults:
            return
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        remedy = other_names(self.base, self.lacking) or (
            "give the base it was trained on, or leave modules out with skip"
        )
        raise InputError(f"base does not fit {self.adapter.label}: {'; '.join(faults[:_SHOWN])}{more}; {remedy}")

    def trained_apart(self) -> list[str]:
        """The tensors trained in full whose rows are not single ones."""
        return [name for name, part in self.trained.items() if part.rows is None]


def _add_trained(out: Folding, base: Mapping[str, Any], trained: Mapping[str, list[tuple[Adapter, Trained]]]) -> None:
    """Put what was trained in full before what is added to it."""
    for name, parts in trained.items():
        replace = Replace(tuple(part for _, part in parts), base[name].shape[0] if base[name].shape else 1)
        out.changes.setdefault(name, []).insert(0, replace)
        total = sum(part.weight for _, part in parts)
        if len(parts) > 1 and not math.isclose(total, 1.0) and not out.notes:
            labels = " and ".join(adapter.label for adapter, _ in parts)
            out.notes.append(
                f"{labels} trained {name!r} in full: it gets the sum of what each changed in the base's; the mean is "
                "that of weights that sum to one (--mean)"
            )


def _is_copy(array: Array, value: Any) -> bool:
    """Whether an adapter's tensor is the base's own, as PEFT saves that of an embedding beside its factors."""
    own = array_of(value)
    return array.shape == own.shape and np.array_equal(array.astype(own.dtype), own)


def is_turned(pair: Pair, shape: tuple[int, ...], fan_in_fan_out: bool) -> bool | None:
    """Whether the weight of this shape gets the transpose of the update; None where neither fits."""
    ways = {True: (*pair.into, pair.out), False: (pair.out, *pair.into)}
    turned = pair.kind == "embedding" or (fan_in_fan_out and pair.kind == "linear")
    if shape == ways[turned]:
        return turned
    # A model may have both kinds of layer under one setting, which decides only where the shape is ambiguous.
    if pair.kind == "linear" and shape == ways[not turned]:
        return not turned
    # Factors of LoHa and LoKr flatten the kernel; a linear layer may be saved as a convolution of width 1.
    flat = len(shape) == 2 or len(pair.into) == 1
    if pair.kind in ("linear", "conv") and flat and shape[:1] == (pair.out,):
        return False if math.prod(shape[1:]) == math.prod(pair.into) else None
    return None


def _low_rank(pair: Pair, weight: float, turned: bool) -> LowRank:
    """The pair as rows and columns of the base's own orientation."""

    def factors() -> tuple[Floats, Floats]:
        left, right = weight * pair.scale * pair.columns().astype(np.float64), pair.rows().astype(np.float64)
        return (right.T, left.T) if turned else (left, right)

    magnitude = None if pair.magnitude is None else pair.magnitude.astype(np.float64).reshape(-1)
    return LowRank(factors, magnitude, int(turned != pair.on_inputs))
