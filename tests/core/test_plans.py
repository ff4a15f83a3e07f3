"""The four nouns: fields, files, frames, equality and what they print."""

from __future__ import annotations

import dataclasses
import datetime
import json
from html.parser import HTMLParser
from pathlib import Path

import ml_dtypes
import numpy as np
import polars as pl
import pytest
from refusals import refused

import kofn
from kofn.core.plan_io import SCHEMA
from kofn.core.plans import Allocation, Assignment, Blend, Plan, Selection

IDS = {
    "none": None,
    "text": np.array(["a", "bb", "ü<&>", "d"]),
    "numbers": np.array([10, 20, 30, 40]),
    "objects": np.array(["a", 7, "c", 8], dtype=object),
}


def selection(**fields) -> Selection:
    base = {
        "n": 4,
        "indices": np.array([2, 0]),
        "gains": np.array([3.0, 1.5]),
        "value": 4.5,
        "bound": 5.0,
        "status": "approximate",
        "used": {"k": 2, "costs": 7},
        "budget": {"k": 2, "costs": 9},
        "method": "by_hand",
        "objective": "modular",
        "info": {"seconds": 0.25},
        "traits": frozenset({"sandwich", "greedy"}),
    }
    return Selection(**{**base, **fields})


def assignment(**fields) -> Assignment:
    base = {
        "n": 4,
        "indptr": np.array([0, 2, 3, 3, 4]),
        "bins": np.array([1, 0, 2, 2], np.int32),
        "weights": np.array([0.25, 0.75, 1.0, 1.0], np.float32),
        "k": 3,
        "capacity": np.array([1, 2, 3]),
        "u": np.zeros(4),
        "v": np.array([0.0, 1.0, 0.5]),
        "centers": np.ones((3, 2), np.float32),
        "value": 2.0,
        "sense": "min",
    }
    return Assignment(**{**base, **fields})


def allocation(**fields) -> Allocation:
    base = {
        "n": 4,
        "amounts": np.array([1, 0, 3, 2]),
        "values": np.array([1.0, 2.0, 0.5, np.nan]),
        "price": 0.5,
        "prices": {"budget": 0.5},
        "marginal_up": np.array([0.1, np.nan, 0.2, 0.3]),
        "bounds": np.array([[0, 4]] * 4),
        "value": float("nan"),
        "used": {"budget": 6},
        "budget": {"budget": 6.5},
    }
    return Allocation(**{**base, **fields})


def blend(**fields) -> Blend:
    base = {
        "n": 4,
        "result": {
            "w": np.array([[1.5, -0.0]], ml_dtypes.bfloat16),
            "b": np.array([1, 2], ml_dtypes.float8_e4m3fn),
            "steps": np.array(3),
            "half": np.array([0.5], np.float16),
            "empty": np.zeros((0, 2)),
        },
        "form": "affine",
        "weights": np.array([0.5, 0.5, 0.25, -0.25]),
        "spread": np.array([1.0, 2.0, 3.0, 4.0]),
        "transforms": {"layer": np.array([1, 0])},
        "selection": selection(ids=np.array(["p", "q", "r", "s"])),
        "statistic": {"sum": np.array([1.0]), "weight": 2.0},
        "options": {"normalize": True, "nothing": None, "pair": (1, 2.5), "list": [1, "two"], "inf": float("inf")},
    }
    return Blend(**{**base, **fields})


ORDER = Blend(n=4, result=np.array([3, 1, 0, 2]), form="order", spread=np.zeros(2), info={"points": np.arange(4.0)})
MAKERS = {"selection": selection, "assignment": assignment, "allocation": allocation, "blend": blend}
PLANS = {
    **{f"{name}, ids {kind}": make(ids=ids) for name, make in MAKERS.items() for kind, ids in IDS.items()},
    "selection with weights": selection(weights=np.array([2.0, 1.0]), probabilities=np.full(4, 0.5)),
    "selection of nothing": selection(indices=np.empty(0, np.int64), gains=np.empty(0)),
    "assignment from labels": Assignment.from_labels([1, -1, 0, 1], 2, medoids=np.array([2, 0]), order=np.arange(3)),
    "blend of one array": blend(result=np.array([1.0, 2.0], ml_dtypes.float8_e5m2), selection=None, statistic=None),
    "blend by tensor": blend(weights={"w": np.array([1.0]), "b": np.array([0.5])}),
    "order": ORDER,
    "infinite value": allocation(value=float("-inf")),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_comes_back_from_its_file(plan, tmp_path: Path) -> None:
    path = plan.save(tmp_path / "plan.npz")
    back = Plan.load(str(path))
    assert type(back) is type(plan)
    assert back.equals(plan)
    assert plan.equals(back)
    assert repr(back) == repr(plan)
    for item in dataclasses.fields(plan):
        before, after = getattr(plan, item.name), getattr(back, item.name)
        if isinstance(before, np.ndarray):
            assert not after.flags.writeable
            assert item.name == "ids" or after.dtype == before.dtype
    assert [file.name for file in tmp_path.iterdir()] == ["plan.npz"]


def test_small_floats_keep_their_bits(tmp_path: Path) -> None:
    bits = np.arange(256, dtype=np.uint8)
    names = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
    result = {name: bits.view(getattr(ml_dtypes, name)) for name in names}
    result["bfloat16"] = np.arange(65536, dtype=np.uint16).view(ml_dtypes.bfloat16)
    back = Plan.load(blend(result=result).save(tmp_path / "p.npz"))
    for name, array in result.items():
        assert back.result[name].dtype == array.dtype
        assert back.result[name].tobytes() == array.tobytes()


def test_saving_replaces_whole(tmp_path: Path) -> None:
    path = selection().save(tmp_path / "plan.npz")
    selection(value=9.0).save(path)
    assert Plan.load(path).value == 9.0


def test_a_real_plan_and_its_report_of_itself(tmp_path: Path) -> None:
    plan = kofn.select([[0.0], [1.0], [5.0]], k=2, ids=[7, 8, 9], metric="sqeuclidean")
    back = Plan.load(plan.save(tmp_path / "p.npz"))
    assert back.equals(plan)
    assert back.info["version"] == kofn.__version__
    assert back.options["metric"] == "sqeuclidean"
    assert back.traits == plan.traits
    assert back.gap == plan.gap


def _file(tmp_path: Path, header: dict | bytes) -> Path:
    path = tmp_path / "bad.npz"
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    with open(path, "wb") as sink:
        np.savez(sink, header=np.frombuffer(text, np.uint8))
    return path


class TestBadFiles:
    def test_missing(self, tmp_path):
        refused(lambda: Plan.load(tmp_path / "none.npz"), "no such file")

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"some text\n" * 9, b"\x93NUMPY\x01\x00"])
    def test_no_plan(self, tmp_path, content):
        path = tmp_path / "x.npz"
        path.write_bytes(content)
        refused(lambda: Plan.load(path), "is not a kofn plan")

    def test_cut_short(self, tmp_path):
        path = selection().save(tmp_path / "x.npz")
        whole = path.read_bytes()
        for size in (10, len(whole) // 2, len(whole) - 10):
            path.write_bytes(whole[:size])
            refused(lambda: Plan.load(path), "is not a kofn plan")

    def test_other_arrays(self, tmp_path):
        path = tmp_path / "x.npz"
        np.savez(path, a=np.arange(3))
        refused(lambda: Plan.load(path), "is not a kofn plan")
        np.save(tmp_path / "x.npy", np.arange(3))
        refused(lambda: Plan.load(tmp_path / "x.npy"), "is not a kofn plan")

    def test_pickles_are_not_opened(self, tmp_path):
        path = tmp_path / "x.npz"
        np.savez(path, header=np.array([{"a": 1}], dtype=object))
        refused(lambda: Plan.load(path), "is not a kofn plan")

    def test_no_header_of_ours(self, tmp_path):
        refused(lambda: Plan.load(_file(tmp_path, b"{")), "is not a kofn plan")
        refused(lambda: Plan.load(_file(tmp_path, {"schema": 1, "kind": "Thing", "fields": {}})), "is not a kofn plan")
        refused(lambda: Plan.load(_file(tmp_path, {"schema": 1})), "is not a kofn plan")

    def test_schema_too_new(self, tmp_path):
        header = {"schema": SCHEMA + 1, "kind": "Selection", "fields": {"shape of tomorrow": {"$new": 1}}}
        refused(
            lambda: Plan.load(_file(tmp_path, header)),
            f"has schema {SCHEMA + 1}, this kofn reads up to {SCHEMA}; upgrade kofn",
        )

    def test_kind_of_a_newer_schema(self, tmp_path):
        header = {"schema": SCHEMA + 1, "kind": "Schedule", "fields": {}}
        refused(lambda: Plan.load(_file(tmp_path, header)), "upgrade kofn")


def _rewritten(path: Path, change) -> Path:
    """The same file with another header."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(arrays["header"].tobytes())
    change(header)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **arrays)
    return path


def test_files_of_schema_1_still_load(tmp_path: Path) -> None:
    plan = selection(objective="k_center", guarantee=0.5, additive=False, short=3)

    def as_it_was(header):
        header["schema"] = 1
        fields = header["fields"]
        moved = {name: fields.pop(name) for name in ("objective", "guarantee", "additive", "short")}
        fields["info"]["$map"] += [[name, value] for name, value in {**moved, "at_most_k": True}.items()]

    back = Plan.load(_rewritten(plan.save(tmp_path / "old.npz"), as_it_was))
    assert back.equals(plan)
    assert back.info == plan.info

    def without_objective(header):
        header["schema"] = 1
        for name in ("objective", "guarantee", "additive", "short"):
            header["fields"].pop(name)
        header["fields"]["info"]["$map"].append(["objective", None])

    assert Plan.load(_rewritten(selection().save(tmp_path / "none.npz"), without_objective)).objective == ""


class TestSequences:
    """Plans are looped over, and index what their items came in."""

    X = np.arange(12.0).reshape(4, 3)

    def test_selection(self):
        plan = selection(ids=IDS["text"])
        assert list(plan) == [2, 0]
        assert all(type(row) is int for row in plan)
        assert (len(plan), plan[0], plan[-1], 2 in plan, 1 in plan) == (2, 2, 0, True, False)
        assert plan[:1].tolist() == [2]
        assert plan.picked_ids.tolist() == ["ü<&>", "a"]
        assert selection().picked_ids.tolist() == [2, 0]
        assert np.asarray(plan).tolist() == [2, 0]
        assert np.array(plan, float).dtype == float
        with pytest.raises(IndexError):
            plan[2]

    def test_rows_of_arrays_tensors_and_frames(self):
        torch = pytest.importorskip("torch")
        pandas = pytest.importorskip("pandas")
        plan, want = selection(), self.X[[2, 0]].tolist()
        assert self.X[plan].tolist() == want
        assert torch.from_numpy(self.X)[plan].tolist() == want
        assert pandas.DataFrame(self.X).iloc[plan].to_numpy().tolist() == want
        assert pl.DataFrame(self.X)[plan].to_numpy().tolist() == want
        assert self.X[selection(indices=np.empty(0, np.int64), gains=np.empty(0))].shape == (0, 3)

    def test_assignment_and_allocation(self):
        plan = assignment()
        assert list(plan) == plan.labels.tolist()
        assert (len(plan), plan[0]) == (4, 0)
        assert self.X[np.asarray(plan) == 2].tolist() == self.X[[1, 3]].tolist()
        assert list(allocation()) == [1, 0, 3, 2]
        assert np.asarray(allocation()).sum() == 6


class TestTorch:
    """What came in as tensors goes out as tensors."""

    def test_state_dicts_and_modules(self):
        torch = pytest.importorskip("torch")
        models = [torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)) for _ in range(3)]
        want = torch.stack([model.state_dict()["0.weight"] for model in models]).mean(dim=0)
        for members in ([model.state_dict() for model in models], models):
            plan = kofn.combine(members)
            assert torch.allclose(plan.result["0.weight"], want)
        assert models[0].load_state_dict(plan.result).missing_keys == []
        assert plan.result["1.num_batches_tracked"].dtype == torch.int64

    def test_bfloat16(self, tmp_path):
        torch = pytest.importorskip("torch")
        members = [{"w": torch.full((2, 2), value, dtype=torch.bfloat16)} for value in (1.0, 2.0)]
        plan = kofn.combine(members)
        assert plan.result["w"].dtype == torch.bfloat16
        assert plan.result["w"].tolist() == [[1.5, 1.5], [1.5, 1.5]]
        back = Plan.load(plan.save(tmp_path / "p.npz"))
        assert back.equals(plan)
        assert back.result["w"].dtype == torch.bfloat16
        assert not back.equals(dataclasses.replace(plan, result={"w": plan.result["w"] * 2}))
        rows = torch.randn(10, 2, dtype=torch.bfloat16)
        assert list(kofn.select(rows, k=3)) == list(kofn.select(rows.float(), k=3))

    def test_arrays(self):
        torch = pytest.importorskip("torch")
        plan = kofn.combine([torch.ones(3), torch.zeros(3)])
        assert plan.result.tolist() == [0.5, 0.5, 0.5]
        assert "2 members into array (3,)" in repr(plan)
        plan.result[0] = 7.0
        assert isinstance(kofn.combine([torch.ones(3), np.zeros(3, np.float32)]).result, np.ndarray)
        assert isinstance(kofn.combine([np.ones(3), np.zeros(3)]).result, np.ndarray)


class TestSelection:
    def test_mask_and_complement(self):
        plan = selection()
        assert plan.mask.tolist() == [True, False, True, False]
        assert plan.complement.tolist() == [1, 3]
        assert len(plan) == 2
        padded = selection(indices=np.array([2, -1]))
        assert padded.mask.tolist() == [False, False, True, False]

    def test_prefix(self):
        plan = selection(weights=np.array([2.0, 1.0]))
        part = plan.prefix(1)
        assert part.indices.tolist() == [2]
        assert part.gains.tolist() == [3.0]
        assert part.weights.tolist() == [2.0]
        assert part.value == 3.0
        assert part.bound is None
        assert part.status == "heuristic"
        assert plan.prefix(2) is plan
        assert len(plan.prefix(0)) == 0
        assert plan.prefix(0).value == 0.0
        assert np.isnan(selection(additive=False).prefix(1).value)
        for t in (-1, 3):
            refused(lambda t=t: plan.prefix(t), f"t={t}: the plan has 2 picks")

    def test_prefix_of_a_greedy_plan_is_the_plan_for_less(self):
        X = np.random.default_rng(0).normal(size=(30, 2))
        whole = kofn.select(X, k=8)
        for t in range(1, 8):
            part = kofn.select(X, k=t)
            assert whole.prefix(t).indices.tolist() == part.indices.tolist()
            assert whole.prefix(t).value == pytest.approx(part.value, rel=1e-12)


class TestAssignment:
    def test_labels_take_the_heaviest_bin_then_the_lowest(self):
        plan = assignment(
            indptr=np.array([0, 2, 4, 4, 5]),
            bins=np.array([1, 0, 2, 1, 2], np.int32),
            weights=np.array([0.25, 0.75, 0.5, 0.5, 1.0], np.float32),
        )
        assert plan.labels.tolist() == [0, 1, -1, 2]
        assert plan.labels.dtype == np.int32

    def test_margins(self):
        plan = assignment()
        assert plan.row_margin.tolist() == [1.0, 1.0, 0.0, 1.0]
        assert plan.col_margin.tolist() == [0.75, 0.25, 2.0]
        empty = Assignment.from_labels([-1, -1], 3)
        assert empty.row_margin.tolist() == [0.0, 0.0]
        assert empty.col_margin.tolist() == [0.0, 0.0, 0.0]
        assert empty.row_margin.dtype == empty.col_margin.dtype == np.float64

    def test_from_labels(self):
        plan = Assignment.from_labels(np.array([1, -1, 0, 1]), 2)
        assert plan.labels.tolist() == [1, -1, 0, 1]
        assert plan.indptr.tolist() == [0, 1, 1, 2, 3]

    def test_from_pairs(self):
        plan = Assignment.from_pairs([2, 0, 2, 0], [1, 2, 0, 1], [0.5, 1.0, 0.25, 3.0], n=4, k=3, value=1.0)
        assert plan.indptr.tolist() == [0, 2, 2, 4, 4]
        assert plan.bins.tolist() == [2, 1, 1, 0]
        assert plan.weights.tolist() == [1.0, 3.0, 0.5, 0.25]
        assert (plan.bins.dtype, plan.weights.dtype, plan.value) == (np.int32, np.float64, 1.0)
        assert Assignment.from_pairs([1], [0], n=2, k=1).equals(Assignment.from_labels([-1, 0], 1))
        assert Assignment.from_pairs([], [], n=2, k=1).labels.tolist() == [-1, -1]


def test_shares_sum_to_one() -> None:
    assert allocation().shares.tolist() == [1 / 6, 0.0, 0.5, 2 / 6]
    assert allocation(amounts=np.zeros(4)).shares.tolist() == [0.0] * 4


class TestPlan:
    def test_gap(self):
        assert selection(value=4.0, bound=5.0).gap == pytest.approx(0.2)
        assert selection(value=5.0, bound=4.0, sense="min").gap == pytest.approx(0.2)
        assert selection(value=0.0, bound=0.0).gap == 0.0
        assert selection(bound=None).gap is None
        assert selection(value=float("nan")).gap is None

    @pytest.mark.parametrize(("field", "value"), [("status", "perfect"), ("sense", "most")])
    def test_words_are_checked(self, field, value):
        with pytest.raises(ValueError, match=f"{field}='{value}'"):
            selection(**{field: value})

    @pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
    def test_is_frozen_through_and_through(self, make):
        plan = make()
        with pytest.raises(dataclasses.FrozenInstanceError):
            plan.value = 1.0
        with pytest.raises((AttributeError, TypeError)):
            plan.something_new = 1
        for item in dataclasses.fields(plan):
            value = getattr(plan, item.name)
            if isinstance(value, np.ndarray) and value.size:
                with pytest.raises(ValueError, match="read-only"):
                    value[(0,) * value.ndim] = 0

    def test_the_caller_s_own_array_stays_writable(self):
        gains = np.array([3.0, 1.5])
        selection(gains=gains)
        gains[0] = 7.0

    def test_equals(self):
        plan = selection()
        assert plan.equals(selection())
        assert plan.equals(selection(info={"seconds": 99.0}))
        assert not plan.equals(assignment())
        changes = {
            "indices": np.array([0, 2]),
            "gains": np.array([3.0, 1.5], np.float32),
            "value": 4.6,
            "bound": None,
            "ids": IDS["text"],
            "used": {"k": 2},
            "options": {"a": 1},
            "traits": frozenset(),
            "status": "heuristic",
            "weights": np.ones(2),
        }
        for name, value in changes.items():
            assert not plan.equals(dataclasses.replace(plan, **{name: value})), name
            assert not dataclasses.replace(plan, **{name: value}).equals(plan), name

    def test_equals_to_a_tolerance(self):
        plan = selection()
        near = dataclasses.replace(plan, value=4.5 * (1 + 1e-9), gains=plan.gains * (1 + 1e-9))
        assert not plan.equals(near)
        assert plan.equals(near, rtol=1e-8)
        assert selection(value=float("nan")).equals(selection(value=float("nan")))
        assert not blend().equals(blend(statistic={"sum": np.array([1.0 + 1e-9]), "weight": 2.0}))
        assert blend().equals(blend(statistic={"sum": np.array([1.0 + 1e-9]), "weight": 2.0}), rtol=1e-8)
        assert not blend().equals(blend(selection=selection()))

    def test_keys(self):
        assert selection(ids=IDS["numbers"]).keys(np.array([2, 0])).tolist() == [30, 10]
        assert selection().keys(np.array([2, 0])).tolist() == [2, 0]


class TestFrames:
    def test_selection(self):
        frame = selection(
            ids=IDS["text"], weights=np.array([2.0, 1.0]), probabilities=np.array([0.1, 0.2, 0.3, 0.4])
        ).to_frame()
        assert frame.to_dict(as_series=False) == {
            "rank": [1, 2],
            "id": ["ü<&>", "a"],
            "index": [2, 0],
            "gain": [3.0, 1.5],
            "weight": [2.0, 1.0],
            "probability": [0.3, 0.1],
        }
        assert selection().to_frame()["id"].to_list() == [2, 0]

    def test_assignment(self):
        frame = assignment(ids=IDS["numbers"]).to_frame()
        assert frame["id"].to_list() == [10, 10, 20, 40]
        assert frame["bin"].to_list() == [1, 0, 2, 2]
        assert frame["weight"].to_list() == [0.25, 0.75, 1.0, 1.0]

    def test_allocation(self):
        frame = allocation(ids=IDS["text"]).to_frame()
        assert frame.columns == ["id", "index", "amount", "value", "marginal_up", "at_bound"]
        assert frame["amount"].to_list() == [1, 0, 3, 2]
        assert frame["at_bound"].to_list() == ["", "least", "", ""]

    def test_blend(self):
        assert blend().to_frame().columns == ["member", "weight", "spread"]
        assert blend(spread=None, weights=None).to_frame()["member"].to_list() == [0, 1, 2, 3]
        frame = dataclasses.replace(ORDER, ids=IDS["text"]).to_frame()
        assert frame["id"].to_list() == ["d", "bb", "a", "ü<&>"]
        assert frame["points"].to_list() == [3.0, 1.0, 0.0, 2.0]

    def test_keys_of_several_kinds_become_text(self):
        assert selection(ids=IDS["objects"]).to_frame()["id"].to_list() == ["c", "a"]
        assert allocation(ids=IDS["objects"]).to_frame()["id"].to_list() == ["a", "7", "c", "8"]
        days = np.array([datetime.date(2026, 1, day) for day in range(1, 5)], dtype=object)
        assert allocation(ids=days).to_frame()["id"].dtype == pl.Date

    @pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
    def test_every_plan_has_one(self, plan):
        assert isinstance(plan.to_frame(), pl.DataFrame)


class _Tags(HTMLParser):
    """The names of the elements in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.names.add(tag)


class TestText:
    @pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
    def test_is_one_short_line(self, plan):
        text = repr(plan)
        assert text.startswith(type(plan).__name__ + "(")
        assert "\n" not in text
        assert len(text) < 300

    def test_says_what_matters(self):
        text = repr(selection())
        for part in ("2 of 4", "by_hand", "approximate", "4.5 (max)", "bound=5, gap 10.00%", "used costs=7 of 9"):
            assert part in text, part
        assert "2 items to 3 bins" not in repr(assignment())
        assert "4 items to 3 bins, 1 unplaced" in repr(assignment())
        assert "4 amounts, price 0.5" in repr(allocation())
        assert "4 members into 5 tensors" in repr(blend())
        assert "4 ranked by 2 judges" in repr(ORDER)
        assert "value" not in repr(selection(value=float("nan"), bound=None))

    def test_html_is_escaped(self):
        plan = selection(method="<script>alert(1)</script>", used={"cost <b>": 1, "k": 2}, budget={"cost <b>": 3})
        html = plan._repr_html_()
        assert "<script" not in html
        assert "&lt;script&gt;" in html
        assert "cost &lt;b&gt;" in html
        assert "<b>Selection</b>" in html
        ids = np.array(["<img src=x onerror=alert(1)>", "b", "c", "d"])
        seen = _Tags()
        seen.feed(selection(ids=ids)._repr_html_())
        assert "img" not in seen.names
        assert "svg" in seen.names

    @pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
    def test_html_of_every_plan(self, plan):
        html = plan._repr_html_()
        assert html.count("<table") == 1
        assert "nan" not in html.lower().replace("nan-", "")
        assert len(html.encode()) < 20_000
