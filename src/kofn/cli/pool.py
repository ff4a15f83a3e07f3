"""The main job: read a pool, pick, write the picks, explain them."""

from __future__ import annotations

import math
import re
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kofn.cli import options as shared_options
from kofn.core import checks, dispatch, plans, vocabulary
from kofn.core.checks import InputError
from kofn.core.plans import Selection
from kofn.io.atomic import write_table
from kofn.io.formats import SparseNpz
from kofn.io.tables import Table
from kofn.io.vectors import PoolVectors, embed_texts, pool_vectors, text_vectors
from kofn.verbs import select

_QUOTA = re.compile(r"^(?P<column>[^=]+)=(?P<group>.*):(?P<low>\d*)(?P<dash>-?)(?P<high>\d*)$")
ARRAYS = (".npy", ".npz")


def parse_quotas(texts: tuple[str, ...]) -> tuple[str | None, dict[str, tuple[int | None, int | None]]]:
    """The one grouping column and {group: (least, most)} of `--quota COL=GROUP:A-B` options."""
    column: str | None = None
    quotas: dict[str, tuple[int | None, int | None]] = {}
    for text in texts:
        match = _QUOTA.match(text)
        if match is None or not (match["low"] or match["high"]):
            raise InputError(
                f"--quota {text!r}: write COL=GROUP:A-B, for example lang=de:10-50, lang=de:10- or lang=de:-50"
            )
        if column not in (None, match["column"]):
            raise InputError(
                f"--quota names two columns, {column!r} and {match['column']!r}; quotas hold over one column, "
                "so join the two into one first"
            )
        if match["group"] in quotas:
            raise InputError(f"--quota names the group {match['group']!r} twice; write both ends at once, A-B")
        column = match["column"]
        low = int(match["low"]) if match["low"] else None
        high = int(match["high"]) if match["high"] else (None if match["dash"] else low)
        quotas[match["group"]] = (low, high)
    return column, quotas


def read_ids(text: str, id_column: str | None, flag: str) -> list[str]:
    """Ids from `a,b,c`, from a file with one a line, from a saved plan, or from an earlier output."""
    path = Path(text)
    if not path.is_file():
        if path.suffix.lower() in (".txt", ".csv", ".tsv", ".parquet", ".jsonl", ".npz", ".kofn"):
            raise InputError(f"{flag} {text}: no such file")
        return [part.strip() for part in text.split(",") if part.strip()]
    if path.suffix.lower() in (".npz", ".kofn"):
        plan = plans.Plan.load(path)
        if not isinstance(plan, Selection):
            raise InputError(f"{flag} {text} holds a {type(plan).__name__}; give a Selection")
        return [str(key) for key in plan.keys(plan.indices).tolist()]
    if path.suffix.lower() in (".csv", ".tsv", ".parquet", ".jsonl"):
        picked = Table.open(path)
        name = id_column or "row"
        if name not in picked.columns:
            why = (
                "has no such column" if id_column else "has no row column, so say which column holds the ids with --id"
            )
            raise InputError(f"{flag} {text} {why}: {name!r}")
        return [str(key) for key in picked.ids(name).tolist()]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{flag} {text} is not UTF-8 text; give one id a line") from None
    return [line.strip() for line in lines if line.strip()]


def check_output(output: str, file: str) -> None:
    """Refuse, before any work is done, a place where no table can be written."""
    if Path(output).resolve() == Path(file).resolve():
        raise InputError(f"-o {output} is the input itself; give another name")
    if Path(output).suffix.lower() not in (".csv", ".tsv", ".parquet", ".jsonl"):
        raise InputError(f"-o {output}: give a name that ends in .csv, .tsv, .parquet or .jsonl")
    if not Path(output).resolve().parent.is_dir():
        raise InputError(f"-o {output}: there is no folder {Path(output).resolve().parent}")


def read_vectors(table: Table, values: Mapping[str, Any]) -> PoolVectors:
    """The vectors that `--text`, `--columns` or `--vectors` ask for, or the only vectors of the file.

    A sparse matrix on disk is returned as it is: it can only be a precomputed similarity.
    """
    if isinstance(table, SparseNpz):
        if values["metric"] != "precomputed":
            raise InputError(f"{table.path} holds a sparse matrix; if it is a similarity, say --metric precomputed")
        return PoolVectors(table.matrix(), "the similarity as it is")
    columns = [name.strip() for name in values["columns"].split(",")] if values["columns"] else None
    return pool_vectors(
        table, text=values["text"], vectors=values["vectors"], columns=columns, embedder=values["embedder"]
    )


def with_queries(table: Table, file: str, values: Mapping[str, Any]) -> tuple[PoolVectors, NDArray[Any]]:
    """The pool's vectors and those of a file of queries, made together: texts weighted and projected alike."""
    name = values["text"]
    if name is None:
        if values["columns"]:
            raise InputError(f"--queries {file} goes with --text or --vectors; for --columns give @queries.npy")
        asked = Table.open(file)
        return read_vectors(table, values), read_vectors(asked, {**values, "metric": "euclidean"}).X
    texts = table.texts(name)
    if Path(file).suffix.lower() in (".txt", ".text", ""):
        wanted = pl.Series(read_ids(file, None, "--queries") if Path(file).is_file() else [], dtype=pl.String)
        if not len(wanted):
            raise InputError(f"--queries {file}: no such file, or no text in it; write one query a line")
    else:
        wanted = Table.open(file).texts(name)
    every = pl.concat([texts.cast(pl.String), wanted.cast(pl.String)])
    if values["embedder"] is not None:
        X, how = embed_texts(every, values["embedder"]), f"column {name!r} through the model {values['embedder']!r}"
    else:
        X = text_vectors(every)
        how = f"TF-IDF of column {name!r} and the queries, reduced to {X.shape[1]} dimensions"
    return PoolVectors(X[: len(texts)], how), X[len(texts) :]


def read_scores(table: Table, values: Mapping[str, Any]) -> Any:
    """A table of scores: the columns that are named, else the one column of vectors, else every numeric column."""
    if table.path.suffix.lower() == ".npy":
        # Scores may hold -inf (a bin to avoid), which vectors may not; what else is wrong, `checks.scores` says.
        return np.load(table.path)
    if values["vectors"]:
        return table.vectors(values["vectors"])
    if values["columns"]:
        return np.stack([table.numbers(name.strip()) for name in values["columns"].split(",")], axis=1)
    kinds = {name: table.dtype(name) for name in table.columns if name != values["id_column"]}
    matrices = [name for name, kind in kinds.items() if kind == "vector"]
    if len(matrices) == 1:
        return table.vectors(matrices[0])
    names = [name for name, kind in kinds.items() if kind == "number"]
    if not names:
        raise InputError(f"{table.path.name} has no numeric columns to take as scores; name them with --columns")
    return np.stack([table.numbers(name) for name in names], axis=1)


def seen_in_report(table: Table, values: Mapping[str, Any], rows: NDArray[np.int64] | None = None) -> dict[str, Any]:
    """What people see of each row in a report: its text and its picture, where the command names them."""
    seen: dict[str, Any] = {}
    if values["text"]:
        seen["text"] = table.texts(values["text"]).to_numpy()
    if values["images"]:
        seen["images"] = _images(table, values["images"])
    return seen if rows is None else {name: column[rows] for name, column in seen.items()}


def _images(table: Table, name: str) -> NDArray[Any]:
    if table.path.suffix.lower() != ".npz":
        raise InputError("--images names an array of an .npz file, one image a row, shape (n, height, width)")
    table.require(name)
    with np.load(table.path) as archive:
        images: NDArray[Any] = archive[name]
    if images.ndim not in (3, 4) or len(images) != table.n:
        raise InputError(f"--images {name} has shape {images.shape}; give (n, height, width) with n={table.n}")
    return images


def read_ballots(table: Table, columns: str | None, id_column: str | None) -> tuple[list[str], NDArray[Any]]:
    """The judges' names and their scores (judges, rows), NaN where a cell is empty: every numeric column, or those
    named."""
    if table.path.suffix.lower() == ".npy":
        scores = np.load(table.path)
        return [str(place) for place in range(scores.shape[-1])], scores.T
    frame = table.take(np.arange(table.n))
    if id_column:
        table.column(id_column)
    if columns:
        judges = [name.strip() for name in columns.split(",")]
        for name in judges:
            table.column(name)
    else:
        judges = [name for name, kind in frame.schema.items() if kind.is_numeric() and name != id_column]
    if not judges:
        raise InputError(f"{table.path} has no numeric columns to take as judges' scores; name them with --columns")
    return judges, frame.select(pl.col(judges).cast(pl.Float64)).to_numpy().T


class SelectJob:
    """One `kofn select`: everything that was asked, the pool that was read, the plan and what was written."""

    def __init__(self, file: str, values: dict[str, Any], command: list[str]) -> None:
        self.values = values
        self.command = "kofn " + shlex.join(command)
        self.table = Table.open(file)
        self.output = values["output"]
        if self.output is not None:
            check_output(self.output, file)
        self.method = values["method"]
        self.options = shared_options.method_options("select", self.method, values["extra"], values)
        self.X: NDArray[Any] | None = None
        self.matrix: NDArray[Any] | None = None
        self.notes: list[str] = []
        self.dropped = 0
        self.rows = np.arange(self.table.n)
        self.began = time.perf_counter()
        self._read()

    def _read(self) -> None:
        """The pool and its qualifiers, each from the columns that it needs and no others."""
        values, table = self.values, self.table
        self.arguments: dict[str, Any] = shared_options.settings(values)
        self.metric = values["metric"] or ("cosine" if values["text"] else "euclidean")
        vocabulary.metric(self.metric, "--metric")
        by_score = values["score_column"]
        self.scores = checks.vector(table.numbers(by_score), "--score") if by_score else None
        if values["by_scores"] and values["by_rankings"]:
            raise InputError("--scores and --rankings both say what the columns are; give one of them")
        if values["by_scores"]:
            self.matrix = read_scores(table, values)
        elif values["by_rankings"]:
            self.matrix = read_ballots(table, values["columns"], values["id_column"])[1]
        elif not by_score or any(values[name] for name in ("text", "vectors", "columns")):
            self.X, how = self._read_vectors()
            self.notes.append(f"compared by {how}")
        self.ids = checks.ids(table.ids(values["id_column"]), "--id") if values["id_column"] else None
        self.quota_column, quotas = parse_quotas(values["quotas"])
        grouped = values["group_column"]
        if grouped and self.quota_column not in (None, grouped):
            raise InputError(f"--group names {grouped!r}, --quota names {self.quota_column!r}; give one column")
        self.quota_column = self.quota_column or grouped
        self.groups = None if self.quota_column is None else table.labels(self.quota_column)
        self.y = table.labels(values["label_column"]) if values["label_column"] else None
        if quotas:
            self.arguments |= {"quotas": quotas}
        if (values["budget"] is None) != (values["cost_column"] is None):
            raise InputError("--budget and --cost belong together: what may be spent, and the column of costs")
        self.costs = checks.costs(table.numbers(values["cost_column"]), "--cost") if values["cost_column"] else None
        weights = values["weight_column"]
        self.weights = checks.weights(table.numbers(weights), "--weight") if weights else None
        for word in ("k", "budget", "objective", "per_item", "capacity"):
            if values[word] is not None:
                self.arguments[word] = values[word]
        if self.arguments.get("budget", 0.5) == int(self.arguments.get("budget", 0.5)):
            self.arguments["budget"] = int(self.arguments["budget"])
        for word in ("include", "exclude", "start"):
            if values[word]:
                self.arguments[word] = self._positions(word)
        if values["dedupe"] is not None:
            self._dedupe(values["dedupe"])

    def _read_vectors(self) -> PoolVectors:
        """The pool's vectors; a file of queries goes the same way, so that the two can be compared."""
        queries = self.options.get("queries")
        if not isinstance(queries, str):
            return read_vectors(self.table, self.values)
        pool, asked = with_queries(self.table, queries, self.values)
        self.options["queries"] = asked
        return pool

    def _positions(self, word: str) -> NDArray[np.int64]:
        """Row numbers of the ids that a flag names."""
        keys = self.ids if self.ids is not None else np.arange(self.table.n)
        named = read_ids(self.values[word], self.values["id_column"], f"--{word}")
        return checks.positions(np.array(named, dtype=str), f"--{word}", self.table.n, keys.astype(str))

    def _dedupe(self, threshold: float) -> None:
        """Drop near-duplicates from the pool; what must be picked is never the one dropped."""
        from kofn.selection.training_data._near_duplicates import near_duplicates

        if self.X is None:
            raise InputError("--dedupe compares rows: give --text, --vectors or --columns")
        kept_first = [self.arguments[word] for word in ("start", "include") if word in self.arguments]
        forced = np.unique(np.concatenate(kept_first)) if kept_first else np.empty(0, np.int64)
        order = np.concatenate([forced, np.setdiff1d(np.arange(len(self.X)), forced)])
        keep, _ = near_duplicates(self.X[order] if len(forced) else self.X, threshold=threshold)
        mask = np.empty(len(self.X), bool)
        mask[order] = keep
        mask[forced] = True
        self.dropped = int((~mask).sum())
        self.rows = np.flatnonzero(mask)
        place = np.cumsum(mask) - 1
        self.X = self.X[self.rows]
        for name in ("groups", "y", "costs", "weights", "scores"):
            array = getattr(self, name)
            setattr(self, name, None if array is None else array[self.rows])
        for word in ("include", "exclude", "start"):
            if word in self.arguments:
                named = self.arguments[word]
                self.arguments[word] = place[named[mask[named]]]
        self.notes.append(
            f"dropped {self.dropped:,} near-duplicates at cosine >= {threshold:g}, {len(self.rows):,} rows left"
        )

    def call(self) -> dict[str, Any]:
        """The arguments of `kofn.select`."""
        call = dict(self.arguments)
        if self.matrix is not None:
            call |= {"scores": self.matrix} if self.values["by_scores"] else {"rankings": self.matrix}
        if self.X is not None and not (self.scores is not None and self._by_score()):
            call["similarity" if self.metric == "precomputed" else "X"] = self.X
            entry = dispatch.methods_of("select").get(self.method)
            if self.metric != "precomputed" and (entry is None or "metric" in entry.accepted):
                call["metric"] = self.metric
        for name in ("groups", "y", "costs", "weights", "scores"):
            if getattr(self, name) is not None:
                call[name] = getattr(self, name)
        if (self.ids is not None or self.dropped) and not self.values["by_scores"]:
            call["ids"] = self.keys
            for word in ("include", "exclude", "start"):
                if word in call:
                    call[word] = self.keys[call[word]]
        return call

    @property
    def keys(self) -> NDArray[Any]:
        """What the user calls each row of the pool: its id, or its row number in the file."""
        return self.rows if self.ids is None else self.ids[self.rows]

    def picked_keys(self) -> list[Any]:
        """What the user calls each pick: a row's id, or of a table's entry `row:column`."""
        if self.matrix is None or not self.values["by_scores"]:
            keys: list[Any] = self.keys[self.plan.indices].tolist()
            return keys
        row, column = np.unravel_index(self.plan.indices, self.matrix.shape)
        return [f"{key}:{place}" for key, place in zip(self.keys[row].tolist(), column.tolist(), strict=True)]

    def _by_score(self) -> bool:
        """True where the method ranks by scores alone, so that vectors serve only --dedupe and the report."""
        entry = dispatch.methods_of("select").get(self.method)
        return entry is None or "X" not in entry.accepted

    def run(self) -> None:
        """Pick, then write what was asked for: the picks, the plan, the report."""
        call = self.call()
        self.plan: Selection = select(method=self.method, options=self.options, **call)
        self.picked = self.plan.indices if self.values["by_scores"] else self.rows[self.plan.indices]
        if self.output:
            write_table(self._frame(), self.output)
        if self.values["report"]:
            self._report()
        if self.values["plan_path"]:
            self.plan.save(self.values["plan_path"])
        self.seconds = time.perf_counter() - self.began

    def _frame(self) -> pl.DataFrame:
        """The picks in the order picked: every original column, then rank and gain."""
        if self.matrix is not None and self.values["by_scores"]:
            return self._entries(self.matrix)
        frame = self.table.take(self.picked)
        if self.table.path.suffix.lower() in ARRAYS:
            # The vectors stay where they are, `row` finds them; only what is one value a row is repeated.
            frame = frame.select(name for name, kind in frame.schema.items() if not kind.is_nested())
        added = {"rank": np.arange(1, len(self.picked) + 1), "gain": np.asarray(self.plan.gains)}
        for name, column in added.items():
            free = name if name not in frame.columns else f"kofn_{name}"
            if free != name:
                self.notes.append(f"the file has a column {name!r} of its own, so ours is {free!r}")
            frame = frame.with_columns(
                pl.Series(free, column).fill_nan(None) if name == "gain" else pl.Series(free, column)
            )
        return frame

    def _entries(self, matrix: NDArray[Any]) -> pl.DataFrame:
        """The picks of a table: one row an entry, with its row's id, its column and its score."""
        row, column = np.unravel_index(self.picked, matrix.shape)
        keys = np.arange(self.table.n) if self.ids is None else self.ids
        return pl.DataFrame(
            {
                "row": keys[row],
                "column": column,
                "score": matrix[row, column],
                "rank": np.arange(1, len(row) + 1),
                "gain": np.asarray(self.plan.gains),
            }
        )

    def _report(self) -> None:
        context: dict[str, Any] = {
            "X": self.X if self.metric != "precomputed" else None,
            "metric": self.metric if self.metric != "precomputed" else "euclidean",
            "groups": None if self.groups is None else {self.quota_column: self.groups},
            "quotas": {self.quota_column: self.arguments["quotas"]} if "quotas" in self.arguments else None,
            "weights": self.weights,
            "scores": self.scores,
            "command": self.command,
        }
        context |= seen_in_report(self.table, self.values, self.rows)
        self.plan.report(self.values["report"], **context)

    def as_json(self) -> dict[str, Any]:
        """The answer for machines."""
        plan = self.plan
        return {
            "method": plan.method,
            "objective": plan.objective or None,
            "pool": self.table.n,
            "dropped": self.dropped,
            "picked": len(plan),
            "value": _number(plan.value),
            "sense": plan.sense,
            "bound": _number(plan.bound),
            "gap": _number(plan.gap),
            "status": plan.status,
            "used": {name: _number(value) for name, value in plan.used.items()},
            "budget": {name: _number(value) for name, value in plan.budget.items()},
            "seconds": self.seconds,
            "oracle_calls": plan.info["oracle_calls"],
            "seed": plan.seed,
            "output": self.output,
            "report": self.values["report"],
            "picks": self.picked_keys(),
            "gains": [_number(gain) for gain in plan.gains],
        }

    def summary(self) -> str:
        """The answer for people."""
        plan = self.plan
        lines = list(self.notes)
        pool = f"{plan.n:,} entries" if self.values["by_scores"] else f"{self.table.n:,} rows"
        lines.insert(0, f"picked {len(plan):,} of {pool} with {plan.method} in {self.seconds:.2f} s")
        if again := plan.info.get("duplicate_rows"):
            lines.append(f"{again:,} rows repeat an earlier row exactly")
        objective = (plan.objective or "value").replace("_", " ")
        low = plan.info.get("distance_bound")
        if low is not None:
            lines.append(
                f"summed {self.metric} distance to the nearest pick {plan.info['distance']:.6g}: "
                f"no such picks can get below {low:.6g}"
            )
        elif plan.bound is not None and plan.status != "optimal" and plan.sense == "max":
            share = plan.value / plan.bound
            lines.append(f"{objective} {plan.value:.6g}: at least {_floor(share):.1%} of what any such picks can reach")
        elif plan.bound is not None and plan.status != "optimal":
            lines.append(f"{objective} {plan.value:.6g}: no such picks can get below {plan.bound:.6g}")
        elif np.isfinite(plan.value):
            lines.append(f"{objective} {plan.value:.6g}, {plan.status}")
        if "costs" in plan.used:
            lines.append(f"cost {plan.used['costs']:,} of at most {plan.budget['costs']:,}")
        for group, ends in self.arguments.get("quotas", {}).items():
            asked = "-".join("" if end is None else f"{end}" for end in ends)
            lines.append(f"quota {group}: {plan.used.get(f'quota {group}', 0)} picked, {asked} asked")
        if "sources" in plan.info:
            shift = plan.info["shift"]
            told = [f"{name} ({shift[name]:.3g})" if name in shift else name for name in plan.info["sources"]]
            left = [f"{name} ({shift[name]:.3g})" for name in shift if name not in plan.info["sources"]]
            lines.append(f"sources by shift: {', '.join(told)}" + (f"; left out: {', '.join(left)}" if left else ""))
        if plan.status == "stopped":
            lines.append("stopped before the end: what was valid by then is kept")
        if self.output:
            lines.append(f"picks  -> {self.output}")
        else:
            shown = ", ".join(str(key) for key in self.picked_keys()[:10])
            lines.append(f"first picks: {shown}{' ...' if len(plan) > 10 else ''}  (-o FILE writes them all)")
        if self.values["report"]:
            lines.append(f"report -> {self.values['report']}")
        return "\n".join(lines)


def _floor(share: float) -> float:
    """Rounded down to a tenth of a percent: what is promised must hold."""
    return math.floor(share * 1000) / 1000


def _number(value: Any) -> Any:
    """A JSON number; NaN and infinity, which JSON lacks, as null."""
    if value is None:
        return None
    plain = value.item() if hasattr(value, "item") else value
    return None if isinstance(plain, float) and not np.isfinite(plain) else plain
