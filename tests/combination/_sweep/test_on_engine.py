"""Checkpoints blended by tasks: the bytes of threads, for every rule and interruption; what cannot be is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from refusals import refused

import kofn
from kofn.combination import merge_recipe, slerp
from kofn.combination._sweep import blockwise, on_engine
from kofn.combination._sweep.files import SweepOptions
from kofn.combination._sweep.members import Pool
from kofn.combination.rules import merge_rules
from kofn.core.checks import FailureError, InputError
from kofn.engines.base import Work
from kofn.engines.local import Local
from kofn.io.tensor_parts import PartWriter, Places
from kofn.io.tensor_writer import write_arrays
from kofn.io.tensors import Checkpoint
from kofn.laws.engines import Shuffled

BFLOAT16, FLOAT8 = np.dtype(ml_dtypes.bfloat16), np.dtype(ml_dtypes.float8_e4m3fn)
DTYPES: tuple[Any, ...] = (np.float32, BFLOAT16, np.float32, np.float64, np.float16)


class Sent(Shuffled):
    """Tasks go through pickles, as to other processes, are done in any order, each twice; the work may be cut short."""

    def __init__(self, seed: int = 0, results: int | None = None) -> None:
        super().__init__(seed)
        self.results = results

    def map(
        self, work: Work, items: Iterable[Any], *, shared: Sequence[Any] = (), stopped: Callable[[], bool] | None = None
    ) -> Iterator[Any]:
        sent, given = pickle.loads(pickle.dumps((list(items), tuple(shared))))
        for number, result in enumerate(super().map(work, sent, shared=given, stopped=stopped)):
            if number == self.results:
                return
            yield pickle.loads(pickle.dumps(result))


@pytest.fixture(autouse=True)
def _small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_engine, "_SHARE", 400)
    monkeypatch.setattr(blockwise, "_TASK", 300)
    monkeypatch.setattr(blockwise, "_BLOCK", 256)


@pytest.fixture
def members(tmp_path: Path) -> list[Path]:
    """Three models of several dtypes, in two shards."""
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for i, path in enumerate(paths):
        rng = np.random.default_rng(i)
        arrays = {f"layers.{j}.w": rng.normal(size=(20, 10 + j)).astype(kind) for j, kind in enumerate(DTYPES)}
        path.mkdir()
        write_arrays(path / "model.safetensors", {**arrays, "steps": np.array([7])})
    return paths


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same(first: Any, second: Any) -> bool:
    """Whether two blends have the same figures to the last bit; their tensors are compared as files."""
    figures = [(plan.value, plan.bound, plan.spread.tolist(), plan.form, plan.status) for plan in (first, second)]
    return repr(figures[0]) == repr(figures[1])


def call_of(name: str, members: list[Path]) -> Callable[..., kofn.core.plans.Blend]:
    """A call of a rule's method that takes two members or fewer."""
    rule: Any = merge_rules()[name]
    words: dict[str, Any] = {"base": members[2]} if rule.needs_base else {}
    if name == "dare":
        words["seed"] = 5
    if name == "fisher_merging":
        words |= {
            "fisher": [
                {key: value.array() ** 2 for key, value in Checkpoint.open(path).items()} for path in members[:2]
            ],
            "balance": True,
        }
    return lambda **more: rule.method(members[: rule.n_members or 2], **words, **more)


@pytest.mark.parametrize("name", [name for name in merge_rules() if not name.startswith("mergekit")])
def test_every_rule_has_the_bytes_of_threads(name: str, members: list[Path], tmp_path: Path) -> None:
    call = call_of(name, members)
    here = call(out=tmp_path / "here", measure=True)
    there = call(out=tmp_path / "there", measure=True, engine=Sent(3))
    assert same(there, here)
    assert bytes_of(tmp_path / "here") == bytes_of(tmp_path / "there")
    assert there.info["engine"]["tasks"] >= 3
    for key, row in here.info["measures"].items():
        for figure, value in row.items():
            np.testing.assert_array_equal(there.info["measures"][key][figure], value)


def test_processes_and_recipes_have_them_too(members: list[Path], tmp_path: Path) -> None:
    parts = [{"match": "layers.[01].*", "method": "ties"}, {"match": "layers.2.*", "method": "copy"}]
    recipe = {"members": members, "base": members[2], "method": "weighted_mean", "tensors": parts}
    merge_recipe(recipe, out=tmp_path / "here", skip_nonfinite=True)
    plan = merge_recipe(recipe, out=tmp_path / "there", skip_nonfinite=True, engine=Local(2, processes=True))
    assert bytes_of(tmp_path / "here") == bytes_of(tmp_path / "there")
    assert plan.info["nonfinite"] == [0, 0, 0]
    assert plan.info["engine"]["workers"] == 2


def test_opposite_tensors_are_counted_by_tasks_and_after_a_resumption(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first = {f"layers.{i}": rng.normal(size=(20, 20)) for i in range(6)}
    second = {name: -2 * array if name < "layers.3" else array + 1 for name, array in first.items()}
    paths = [tmp_path / f"{place}.safetensors" for place in range(2)]
    for path, arrays in zip(paths, (first, second), strict=True):
        write_arrays(path, arrays)
    here = slerp(paths).info["warnings"]
    assert here[0].startswith("3 tensors are opposite in the two members")
    assert slerp(paths, out=tmp_path / "out", engine=Sent(2)).info["warnings"] == here
    with pytest.raises(KeyboardInterrupt):
        slerp(paths, out=tmp_path / "again", engine=Sent(results=3))
    again = slerp(paths, out=tmp_path / "again", engine=Sent())
    assert again.info["resumed"] == 3
    assert again.info["warnings"] == here


def test_entries_that_are_not_finite_are_counted(members: list[Path], tmp_path: Path) -> None:
    for path, count in zip(members, (0, 3, 5), strict=True):
        arrays = {name: tensor.array() for name, tensor in Checkpoint.open(path).items()}
        arrays["layers.0.w"].flat[:count] = np.nan
        write_arrays(path / "model.safetensors", arrays)
    here, there = (
        kofn.combine(members[:2], out=tmp_path / "out", options={"skip_nonfinite": True}, engine=engine)
        for engine in (None, Sent())
    )
    assert here.info["nonfinite"] == there.info["nonfinite"] == [0, 3]


def test_quantised_members_are_quantised_by_tasks(tmp_path: Path) -> None:
    for i, name in enumerate("ab"):
        rng = np.random.default_rng(i)
        arrays: dict[str, Any] = {"norm": np.ones(3, np.float32)}
        for layer in range(3):
            weight = rng.normal(size=(30, 20))
            scale = np.abs(weight).max(axis=1, keepdims=True).astype(np.float32) / 448
            arrays |= {f"{layer}.weight": (weight / scale).astype(FLOAT8), f"{layer}.weight_scale": scale}
        (tmp_path / name).mkdir()
        write_arrays(tmp_path / name / "model.safetensors", arrays)
    plans = [
        kofn.combine(
            [tmp_path / "a", tmp_path / "b"],
            out=tmp_path / f"out{i}",
            max_memory=10**6 if i else None,
            engine=engine,
        )
        for i, engine in enumerate((None, Sent()))
    ]
    assert bytes_of(tmp_path / "out0") == bytes_of(tmp_path / "out1")
    assert plans[0].info["requantised"] == plans[1].info["requantised"]
    assert len(plans[0].info["requantised"]) == 3


@pytest.mark.parametrize("then", [None, Sent(1)])
def test_what_was_cut_short_goes_on_wherever_it_runs(then: Any, members: list[Path], tmp_path: Path) -> None:
    whole = kofn.combine(members[:2], method="slerp", out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        kofn.combine(members[:2], method="slerp", out=tmp_path / "out", engine=Sent(results=2))
    assert not (tmp_path / "out").exists()
    plan = kofn.combine(members[:2], method="slerp", out=tmp_path / "out", engine=then)
    assert 0 < plan.info["resumed"] < 6
    assert same(plan, whole)
    assert bytes_of(tmp_path / "whole") == bytes_of(tmp_path / "out")


def test_where_a_tensor_is_cut_depends_on_itself_alone(members: list[Path]) -> None:
    pool = SweepOptions().open(members)
    sweep = blockwise.Sweep(pool, dict.fromkeys(pool.first, merge_rules()["weighted_mean"]().bind(pool)))

    def pieces(names: list[str]) -> list[list[tuple[int, int]]]:
        cut = [[(span.start, span.stop) for span in task if span.name == names[-1]] for task in sweep._tasks(names)]
        return [piece for piece in cut if piece]

    names = list(pool.first)
    alone = {name: pieces([name]) for name in names}
    assert max(map(len, alone.values())) == 1, "a task is filled, and none is of a piece"
    assert all(pieces(names[: i + 1]) == alone[name] for i, name in enumerate(names))
    sweep.block = 100
    alone = {name: pieces([name]) for name in names}
    assert max(map(len, alone.values())) >= 1
    assert all(pieces(names[: i + 1]) == alone[name] for i, name in enumerate(names))


def test_blocks_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(blockwise, "_THREADED", 0)
    weight = np.ones((40, 50))
    arrays = {"fc.weight": weight.astype(FLOAT8), "fc.weight_scale": np.ones((40, 1), np.float32)}
    (tmp_path / "a").mkdir()
    write_arrays(tmp_path / "a" / "model.safetensors", arrays)
    pool: Pool = SweepOptions().open([tmp_path / "a", tmp_path / "a"])
    plans = [blockwise._plan_blocks(threads, 70_000, pool, 0) for threads in (1, 2, 4)]
    assert len({block for _threads, block in plans}) == 1
    assert plans[0][0] == 1
    assert plans[2][0] > 1


def places_of(path: Path) -> Any:
    (shard,) = Checkpoint.open(path).layout.shards
    return {spec.name: (shard.file_name, 0, spec) for spec in shard.tensors}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda a, _t: kofn.combine([{"w": np.ones(3)}] * 2, out=a / "o", engine="ray"),
            "these are in memory; give paths",
        ),
        (lambda a, _t: kofn.combine([a, a], engine=Sent()), "engine='shuffled': tasks write the blend; give out"),
        (lambda a, _t: kofn.combine([a, a], out=a / "o", engine="spork"), "choose one of local, ray"),
        (
            lambda a, t: PartWriter(Places(t / "none", places_of(a))).write("layers.0.w", 0, np.ones(200, np.float32)),
            "give an out, and members, in a folder that every node shares",
        ),
    ],
)
def test_what_tasks_cannot_see_is_refused(
    call: Callable[[Path, Path], Any], says: str, members: list[Path], tmp_path: Path
) -> None:
    refused(lambda: call(members[0], tmp_path), says)


def test_members_that_differ_on_a_node_are_refused(members: list[Path]) -> None:
    sent = pickle.dumps(Checkpoint.open(members[0]))
    assert (
        pickle.loads(sent)["layers.1.w"].read(3, 9).tolist()
        == Checkpoint.open(members[0])["layers.1.w"].read(3, 9).tolist()
    )
    path = members[0] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(FailureError, match=r"model\.safetensors has [\d,]+ bytes on node .*, and [\d,]+ where it was"):
        pickle.loads(sent)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        pickle.loads(sent)
