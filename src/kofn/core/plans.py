"""The four nouns: what `select`, `assign`, `allocate` and `combine` return.

A plan is frozen, its arrays are read-only, and it is honest about itself: what it cost, how good it is provably (a
bound and a status), what a unit of budget is worth, and what ran to make it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from kofn.core import drawing
from kofn.core.arrays import Array, Floats, csr
from kofn.core.checks import BrokenPlanError, InputError, is_number, shown

if TYPE_CHECKING:
    import polars

STATUSES = ("optimal", "local", "approximate", "heuristic", "stopped")
# Points so far below the largest are what is left of sums of floats.
_NOISE = 1e-13


def _frozen(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.view()
        value.flags.writeable = False
    return value


@dataclass(frozen=True, slots=True, eq=False, kw_only=True, repr=False)
class Plan:
    """What every plan says of itself.

    `value` is always the objective (NaN where a method has none), `bound` encloses the optimum from the other side, and
    `status` is "optimal", "local", "approximate" (a proven ratio), "heuristic" (no promise) or "stopped" (cut short).
    `objective` names the function that `value` is, by which the laws recount it ("" where there is none); `guarantee`
    is the share of the optimum that is proven; `additive` says that `value` is the sum of the gains or values.
    `info` is for people: nothing in kofn decides by it.
    """

    n: int
    value: float = float("nan")
    sense: str = "max"
    bound: float | None = None
    status: str = "heuristic"
    objective: str = ""
    guarantee: float | None = None
    additive: bool = True
    ids: Array | None = None
    used: dict[str, Any] = field(default_factory=dict)
    budget: dict[str, Any] = field(default_factory=dict)
    prices: dict[str, Any] = field(default_factory=dict)
    method: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    seed: str | None = None
    info: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    traits: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status={self.status!r}: one of {STATUSES}")
        if self.sense not in ("max", "min"):
            raise ValueError(f"sense={self.sense!r}: 'max' or 'min'")
        for item in dataclasses.fields(self):
            object.__setattr__(self, item.name, _frozen(getattr(self, item.name)))

    @property
    def gap(self) -> float | None:
        """Relative distance between value and bound: |bound - value| / max(|bound|, |value|), None without a bound."""
        if self.bound is None or not np.isfinite(self.value):
            return None
        scale = max(abs(self.bound), abs(self.value))
        return 0.0 if scale == 0 else abs(self.bound - self.value) / scale

    def verify(self, problem: Any) -> Self:
        """Hold this plan against the problem, every constraint exactly; returns itself.

        Raises:
            BrokenPlanError: The plan breaks a constraint of its problem; the message names each.
        """
        if not hasattr(problem, "audit"):
            raise InputError(f"problem={shown(problem)}: give a problem of kofn.core.problems")
        breaches = problem.audit(self)
        if breaches:
            raise BrokenPlanError(f"{self.method or type(self).__name__} broke its problem: " + "; ".join(breaches))
        return self

    def equals(self, other: Plan, rtol: float = 0.0) -> bool:
        """Same kind, same answer: all fields but the measured `info` agree (floats to `rtol`)."""
        if type(self) is not type(other):
            return False
        return all(
            _same(getattr(self, item.name), getattr(other, item.name), rtol)
            for item in dataclasses.fields(self)
            if item.name != "info"
        )

    def save(self, path: str | Path) -> Path:
        """Write the plan to one file (.npz with a JSON header); the file is complete or absent."""
        from kofn.core import plan_io  # only who saves waits for the formats

        return plan_io.write(self, path, _kinds())

    @staticmethod
    def load(path: str | Path) -> Any:
        """Read a plan that `save` wrote, whatever its kind."""
        from kofn.core import plan_io

        return plan_io.read(path, _kinds())

    def to_frame(self) -> polars.DataFrame:
        """The answer as a polars frame, one row for each chosen item, pair, amount or member."""
        import polars

        def column(values: Any) -> Any:
            if not isinstance(values, np.ndarray) or values.dtype != object:
                return values
            try:
                return polars.Series(values.tolist())
            except TypeError:  # keys of several kinds share no column type but text
                return [str(key) for key in values.tolist()]

        return polars.DataFrame({name: column(values) for name, values in self._columns().items()})

    def report(self, path: str | Path, **context: Any) -> Path:
        """Write a self-contained HTML report; `context` takes X, text, images, groups and so on (`kofn.report`)."""
        return Path(drawing.drawing().write_report(self, path, **context))

    def plot(self, ax: Any = None) -> Any:
        """Draw the plan with matplotlib (`kofn[plot]`) on `ax`, by default on a new figure; returns the axes."""
        return drawing.drawing().plot(self, ax)

    def keys(self, index: Array) -> Array:
        """The user's ids of these positions, or the positions themselves where no ids were given."""
        return index if self.ids is None else self.ids[index]

    def _columns(self) -> dict[str, Any]:
        raise NotImplementedError

    def headline(self) -> str:
        """The answer in a few words: how many of how many."""
        raise NotImplementedError

    def facts(self) -> list[tuple[str, str]]:
        """What the repr says beyond the headline, as names and values."""
        facts = [("method", self.method), ("status", self.status)]
        if np.isfinite(self.value):
            facts.append(("value", f"{self.value:.6g} ({self.sense})"))
        if self.bound is not None:
            facts.append(("bound", f"{self.bound:.6g}" + (f", gap {self.gap:.2%}" if self.gap is not None else "")))
        for name, spent in self.used.items():
            limit = self.budget.get(name)
            facts.append((f"used {name}", _short(spent) + (f" of {_short(limit)}" if limit is not None else "")))
        if "seconds" in self.info:
            facts.append(("seconds", f"{self.info['seconds']:.3g}"))
        return facts

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={fact}" for name, fact in self.facts())
        lines = [f"warning: {text}" for text in self.info.get("warnings", ())]
        return "\n".join([f"{type(self).__name__}({self.headline()}, {facts})", *lines])

    def _repr_html_(self) -> str:
        return drawing.drawing().notebook(self)


class _Listed(Sequence[Any]):
    """A plan as the sequence of what it answers, to loop over and to index arrays, tensors and frames with."""

    __slots__ = ()

    @property
    def _answer(self) -> Array:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._answer)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._answer.tolist())

    def __getitem__(self, position: Any) -> Any:
        value = self._answer[position]
        return value.item() if np.ndim(value) == 0 else value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self._answer, dtype) if copy else np.asarray(self._answer, dtype)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True, repr=False)
class Selection(Plan, _Listed):
    """Which k of n: `indices` in the order picked and the `gains` they brought.

    `short` counts the picks that are missing from k because a stream has not brought enough items yet.
    """

    indices: Array
    gains: Array
    short: int = 0
    weights: Array | None = None
    probabilities: Array | None = None

    @property
    def _answer(self) -> Array:
        return self.indices

    @property
    def picked_ids(self) -> Array:
        """The picks' own ids in the order picked, or their row numbers where no ids were given."""
        return self.keys(self.indices)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(n,) True where picked."""
        mask = np.zeros(self.n, bool)
        mask[self.indices[self.indices >= 0]] = True
        return mask

    @property
    def complement(self) -> NDArray[np.int64]:
        """Positions that were not picked, ascending."""
        return np.flatnonzero(~self.mask)

    def take(self, data: Any, *, ids: str | None = None) -> Any:
        """The picked rows of what the pool came from, in the order picked, as the same kind.

        A pandas or polars frame or series, a LazyFrame (which stays lazy), an Arrow table, a `datasets.Dataset`, a dict
        of columns, an array, memory map, sparse matrix, a tensor (dtype and device kept), a list, a torch Dataset (as a
        `Subset`), or the path of a file (as a polars frame).

        Args:
            data: one row an item, as many as the pool has (of a LazyFrame that is not looked at). Where the plan has
                ids, and a frame's index or one of its columns holds exactly those, rows are found by them, in whatever
                order.
            ids: a column of a frame that holds the ids: rows are then found by these, wherever they stand. Ids that a
                LazyFrame turns out not to have are left out.

        Raises:
            InputError: another number of rows, a kind without rows, or an id that no row has.

        Examples:
            >>> import kofn
            >>> plan = kofn.select([[0.0], [0.1], [5.0]], k=2)
            >>> plan.take(["a", "b", "c"])
            ['b', 'c']
        """
        from kofn.io import taking  # only who takes waits for it

        if ids is not None:
            if self.ids is None:
                raise InputError(f"ids={shown(ids)}: the plan has no ids; give them to the verb, or take by row number")
            return taking.taken_by_id(data, ids, self.picked_ids)
        length = taking.length_of(data)
        if length is not None and length != self.n:
            raise InputError(
                f"data has {length:,} rows, and the plan is of {self.n:,}; give the same rows, or find them by their "
                "ids, as in take(data, ids='id')"
            )
        rows = np.asarray(self.indices)
        if self.ids is not None and taking.holds_ids(data):
            rows = taking.found_by_ids(data, self.ids, rows)
        return taking.taken(data, rows)

    def export(self, path: str | Path, data: Any, *, to: str, ids: str | None = None, label: str | None = None) -> Path:
        """Write the picked rows, in the order picked, as a file that a labelling tool imports.

        Args:
            path: a name that ends in .json.
            data: the table that the pool came from (`take`).
            to: "label-studio" (tasks: each row's columns, rank and gain under `data`) or "argilla" (records for
                `dataset.records.from_json`: texts are fields, other columns metadata, known labels suggestions).
            ids: a column of ids; rows are found by these where the plan has them.
            label: the column of labels.

        Columns of vectors are left out; for Argilla, whose metadata has none, lists of numbers too.

        Raises:
            InputError: another tool, a column of bytes, or what `take` refuses.
        """
        from kofn.io import label_tools, taking

        rows = taking.as_polars(self.take(data, ids=ids if self.ids is not None else None))
        numbers = self.indices.tolist() if ids is None else None
        return label_tools.write_for(to, path, self.ranked(rows), key=ids, label=label, numbers=numbers)

    def ranked(self, rows: Any) -> Any:
        """A polars frame of the picks with their `rank` and `gain` beside the columns that it has."""
        import polars

        added = {"rank": np.arange(1, len(self.indices) + 1), "gain": np.asarray(self.gains)}
        names = {name: f"kofn_{name}" if name in rows.columns else name for name in added}
        return rows.with_columns(polars.Series(names[name], values) for name, values in added.items())

    def prefix(self, t: int) -> Selection:
        """The first t picks. Greedy picks are nested, so this is the plan for the smaller budget, up to its status."""
        if not is_number(t) or int(t) != t:
            raise InputError(f"t={shown(t)}: give a whole number of picks")
        if not 0 <= t <= len(self.indices):
            raise InputError(f"t={t}: the plan has {len(self.indices)} picks")
        if t == len(self.indices):
            return self
        gains = self.gains[:t]
        value = float(np.sum(gains)) if self.additive else float("nan")
        return dataclasses.replace(
            self,
            indices=self.indices[:t],
            gains=gains,
            value=value,
            bound=None,
            status="heuristic",
            used={},
            weights=None if self.weights is None else self.weights[:t],
        )

    def _columns(self) -> dict[str, Any]:
        index = self.indices
        out = {"rank": np.arange(1, len(index) + 1), "id": self.keys(index), "index": index, "gain": self.gains}
        if self.weights is not None:
            out["weight"] = self.weights
        if self.probabilities is not None:
            out["probability"] = self.probabilities[index]
        return out

    def headline(self) -> str:
        return f"{len(self.indices)} of {self.n}"

    def facts(self) -> list[tuple[str, str]]:
        facts = super(Selection, self).facts()
        picks_in_time = self.info.get("found_in_time", len(self.indices))
        if picks_in_time < len(self.indices):
            others = self.info.get("filled_by", "at random")
            facts.insert(2, ("found in time", f"{picks_in_time} of {len(self.indices)} picks, the others {others}"))
        return facts


@dataclass(frozen=True, slots=True, eq=False, kw_only=True, repr=False)
class Assignment(Plan, _Listed):
    """Who goes where, as sparse rows: item i goes to `bins[indptr[i]:indptr[i+1]]` with those `weights`."""

    indptr: Array
    bins: Array
    weights: Array
    k: int
    capacity: Array | None = None
    # Every plan of a method that has them does: `| Any` lets type checkers accept their use without a check for None.
    centers: Array | Any = None
    medoids: Array | Any = None
    u: Array | None = None
    v: Array | None = None
    order: Array | None = None

    @classmethod
    def from_labels(cls, labels: Any, k: int, **fields: Any) -> Self:
        """The plan that sends item i to bin `labels[i]` whole; -1 sends it nowhere."""
        labels = np.asarray(labels)
        placed = labels >= 0
        indptr = np.concatenate([[0], np.cumsum(placed)]).astype(np.int64)
        bins = labels[placed].astype(np.int32)
        return cls(n=len(labels), indptr=indptr, bins=bins, weights=np.ones(len(bins), np.float32), k=k, **fields)

    @classmethod
    def around(cls, labels: Any, medoids: Any, *, value: float, status: str, **fields: Any) -> Self:
        """The plan of groups around medoids; what is optimal is its own bound."""
        k = len(medoids)
        bound = value if status == "optimal" else None
        shared = {"medoids": medoids, "value": value, "status": status, "bound": bound}
        return cls.from_labels(labels, k, **shared, used={"k": k}, budget={"k": k}, **fields)

    @classmethod
    def from_pairs(cls, rows: Any, bins: Any, weights: Any = None, *, n: int, k: int, **fields: Any) -> Self:
        """The plan that sends item `rows[i]` to bin `bins[i]` with `weights[i]` (default 1 each, float32).

        Rows may come in any order; the bins of one item keep theirs.
        """
        rows, bins = np.asarray(rows, np.int64), np.asarray(bins)
        weights = np.ones(len(rows), np.float32) if weights is None else np.asarray(weights)
        if (np.diff(rows) < 0).any():
            order = np.argsort(rows, kind="stable")
            rows, bins, weights = rows[order], bins[order], weights[order]
        indptr, bins = csr(rows, bins, n)
        return cls(n=n, indptr=indptr, bins=bins, weights=weights, k=k, **fields)

    @property
    def _answer(self) -> Array:
        return self.labels

    @property
    def labels(self) -> NDArray[np.int32]:
        """(n,) the bin that holds most of each item, ties to the lowest bin, -1 for none."""
        out = np.full(self.n, -1, np.int32)
        placed = np.flatnonzero(np.diff(self.indptr))
        if len(placed):
            starts = self.indptr[placed]
            most = np.repeat(np.maximum.reduceat(self.weights, starts), np.diff(np.append(starts, len(self.bins))))
            out[placed] = np.minimum.reduceat(np.where(self.weights == most, self.bins, self.k), starts)
        return out

    @property
    def row_margin(self) -> NDArray[np.float64]:
        """(n,) how much of each item was placed."""
        rows = np.repeat(np.arange(self.n), np.diff(self.indptr))
        return np.bincount(rows, self.weights, self.n).astype(np.float64)

    @property
    def col_margin(self) -> NDArray[np.float64]:
        """(k,) how much each bin holds."""
        return np.bincount(self.bins, self.weights, self.k).astype(np.float64)

    def _columns(self) -> dict[str, Any]:
        rows = np.repeat(np.arange(self.n), np.diff(self.indptr))
        return {"id": self.keys(rows), "index": rows, "bin": self.bins, "weight": self.weights}

    def facts(self) -> list[tuple[str, str]]:
        facts = super(Assignment, self).facts()
        if self.objective == "entropic_transport" and self.info.get("reg"):
            # The value of such a plan is no cost of transport.
            parts = f"{self.info['transport']:.6g} + reg {self.info['reg']:.3g} x entropy {self.info['entropy']:.6g}"
            facts.insert(3, ("of which transport", parts))
        return facts

    def headline(self) -> str:
        return f"{self.n} items to {self.k} bins, {int((np.diff(self.indptr) == 0).sum())} unplaced"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True, repr=False)
class Allocation(Plan, _Listed):
    """How much for each: `amounts` under a shared budget, the `values` they bring and the `price` of more budget."""

    amounts: Array
    values: Array
    price: float | None = None
    marginal_up: Array | None = None
    marginal_down: Array | None = None
    bounds: Array | None = None

    @property
    def _answer(self) -> Array:
        return self.amounts

    @property
    def shares(self) -> NDArray[np.float64]:
        """Amounts over their total."""
        total = float(np.sum(self.amounts))
        return np.asarray(self.amounts, np.float64) / total if total else np.zeros(np.shape(self.amounts))

    @property
    def at_bounds(self) -> NDArray[np.int8]:
        """(n,) -1 where an item is at the least it may have, 1 at the most, 0 between; 2 where it has no choice."""
        out = np.zeros(self.n, np.int8)
        if self.bounds is not None:
            least, most = (self.amounts == self.bounds[:, side] for side in (0, 1))
            out[least], out[most], out[least & most] = -1, 1, 2
        return out

    def _columns(self) -> dict[str, Any]:
        out = {
            "id": self.keys(np.arange(self.n)),
            "index": np.arange(self.n),
            "amount": self.amounts,
            "value": self.values,
        }
        for name in ("marginal_up", "marginal_down"):
            if getattr(self, name) is not None:
                out[name] = getattr(self, name)
        if self.bounds is not None:
            # In the order of `at_bounds`: between, least, most, both.
            out["at_bound"] = np.array(["", "most", "both", "least"])[self.at_bounds]
        return out

    def headline(self) -> str:
        price = "" if self.price is None else f", price {self.price:.4g}"
        return f"{self.n} amounts{price}"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True, repr=False)
class Blend(Plan):
    """How many become one: the `result`, the `weights` of the members and how far each stands from it (`spread`)."""

    result: Any
    form: str
    weights: Any = None
    transforms: dict[str, Any] | None = None
    spread: Array | None = None
    selection: Selection | None = None
    statistic: Any = None

    def of_the_kind_of(self, members: Any) -> Self:
        """This blend with torch tensors as its result where the members hold tensors, on the first member's device."""
        from kofn.io import torch_arrays

        first: list[Any] = [next(iter(m.values()), None) if isinstance(m, Mapping) else m for m in members]
        in_memory = isinstance(self.result, np.ndarray | dict)
        if self.form == "order" or not in_memory or not all(torch_arrays.is_torch(value) for value in first):
            return self
        return dataclasses.replace(self, result=torch_arrays.to_torch(self.result, device=first[0].device))

    @property
    def of_votes(self) -> bool:
        """Whether it ranks by votes between two, whose judges are the outcomes of pairs and have no names."""
        return self.form == "order" and "votes" in self.info and not self.info.get("judges")

    def ranks(self) -> Array:
        """(n,) of a ranking, the rank of each alternative, best 1; those of equal points share a rank.

        So do those that were never compared, which are last.
        """
        index = np.asarray(self.result)
        ranks = np.empty(len(index), np.int64)
        points = self.info.get("points")
        if points is None:
            ranks[index] = np.arange(1, len(index) + 1)
            lost = list(self.info.get("never_compared", ()))
            ranks[lost] = len(index) - len(lost) + 1
            return ranks
        # Sums of fractions differ in their last bits.
        worth = np.nan_to_num(np.asarray(points, np.float64)[index].round(12), nan=-np.inf)
        fresh = np.append(True, worth[1:] != worth[:-1])
        ranks[index] = np.maximum.accumulate(np.where(fresh, np.arange(1, len(index) + 1), 1))
        return ranks

    def points(self) -> Floats | None:
        """(n,) the points of a ranking's alternatives, 0 where they are rounding noise beside the largest."""
        if "points" not in self.info:
            return None
        points = np.asarray(self.info["points"], np.float64)
        largest = np.nanmax(np.abs(points), initial=0.0)
        return np.where(np.abs(points) <= _NOISE * largest, 0.0, points)

    def _columns(self) -> dict[str, Any]:
        """One row for each member; for a ranking, one row for each alternative, best first."""
        if self.form == "order":
            index = np.asarray(self.result)
            out = {"rank": self.ranks()[index], "id": self.keys(index), "index": index}
            for name in ("points", "rated", "rank_low", "rank_high", "best_rank", "worst_rank"):
                if name in self.info and not (name == "rated" and self.of_votes):
                    out[name] = np.asarray(self.points() if name == "points" else self.info[name])[index]
            return out
        count = self.n if self.spread is None else len(self.spread)
        out = {"member": self.keys(np.arange(count))}
        if isinstance(self.weights, np.ndarray):
            out["weight"] = self.weights
        if self.spread is not None:
            out["spread"] = self.spread
        return out

    def headline(self) -> str:
        if self.form == "order":
            never = len(self.info.get("never_compared", ()))
            count = f"{self.n - never} of {self.n}" if never else str(self.n)
            if self.of_votes:
                return f"{count} ranked by {self.info['votes']:,.10g} votes"
            return f"{count} ranked by {0 if self.spread is None else len(self.spread)} judges"
        if isinstance(self.result, Mapping):
            return f"{self.n} members into {len(self.result)} tensors"
        shape = self.result.shape if hasattr(self.result, "shape") else np.shape(self.result)
        return f"{self.n} members into array {tuple(shape)}"


def _kinds() -> dict[str, type[Plan]]:
    return {noun.__name__: noun for noun in (Selection, Assignment, Allocation, Blend)}


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{len(value)} entries"
    if np.ndim(value):
        return f"{np.size(value)} values"
    return f"{value:,}" if isinstance(value, int | np.integer) else f"{float(value):.6g}"


def _same(a: Any, b: Any, rtol: float) -> bool:
    if isinstance(a, Plan):
        return isinstance(b, Plan) and a.equals(b, rtol)
    if hasattr(a, "detach") and hasattr(b, "detach"):  # torch tensors
        return bool(a.shape == b.shape and a.dtype == b.dtype and (a == b).all())
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and list(a) == list(b) and all(_same(a[key], b[key], rtol) for key in a)
    if isinstance(a, list | tuple):
        return (
            isinstance(b, list | tuple)
            and len(a) == len(b)
            and all(_same(x, y, rtol) for x, y in zip(a, b, strict=True))
        )
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        if a is None or b is None:
            return False
        a, b = np.asarray(a), np.asarray(b)
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        if a.dtype.kind == "f" and rtol:
            return bool(np.allclose(a, b, rtol=rtol, atol=0, equal_nan=True))
        if a.dtype == object:  # the bytes of objects are their addresses
            return bool(a.tolist() == b.tolist())
        return a.tobytes() == b.tobytes() if a.dtype.kind not in "US" else bool((a == b).all())
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (a != a and b != b) or abs(a - b) <= rtol * max(abs(a), abs(b))
    return bool(a == b)
