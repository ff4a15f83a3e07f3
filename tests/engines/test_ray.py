"""A real Ray cluster of two nodes: the same picks as here, also where a worker or a node dies in the middle."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import run as run_command
from ray_pools import Broken, Lethal, LethalMean, Slow, max_of, numbers
from refusals import refused

import kofn
from claims import discover
from claims.harness.running import Job, rows_of
from kofn.combination._sweep import on_engine
from kofn.combination._sweep.files import SweepOptions
from kofn.combination._sweep.merge import merge
from kofn.core.checks import FailureError, InputError
from kofn.core.pools import ArrayPool
from kofn.engines import ray as engine_of_ray
from kofn.engines.base import Engine
from kofn.engines.local import Local
from kofn.engines.ray import Ray
from kofn.federated import federated_mixture
from kofn.io.tensor_writer import write_arrays
from kofn.selection import near_duplicates_by_cells, two_round_farthest_first, two_round_greedy
from kofn.selection.pools import _near_duplicates_by_cells as near
from kofn.selection.pools import _rounds as rounds

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'kofn[ray]'")
pytestmark = pytest.mark.ray

X = numbers()
ASKED: dict[str, Any] = {"k": 7, "seed": 1, "part_rows": 250, "n_reference": 800}


def _started() -> Any:
    """Where the machine is busy a node may take longer than the 30 s that Ray waits for it: then all is begun anew."""
    from ray.cluster_utils import Cluster

    size = {"object_store_memory": 120 << 20}
    for last in (False, False, True):
        made = Cluster()
        try:
            made.add_node(num_cpus=0, **size)
            made.nodes = [made.add_node(num_cpus=1, **size) for _ in range(2)]
        except Exception:
            made.shutdown()
            if last:
                raise
        else:
            return made
    return None


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without cores and two nodes with one each."""
    made = _started()
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.fixture(autouse=True)
def _small_fragments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_FRAGMENT_ROWS", 500)


def test_picks_are_those_of_this_machine(cluster: Any) -> None:
    engine = Ray()
    assert isinstance(engine, Engine)
    assert kofn.select(X, k=7, seed=1, engine=engine).method == "two_round_greedy"
    plan = two_round_greedy(X, engine=engine, **ASKED)
    assert plan.equals(two_round_greedy(X, engine=Local(1), **ASKED))
    assert plan.info["engine"]["tasks"] >= 12
    assert plan.info["engine"]["workers"] == 2
    cores = two_round_farthest_first(X, k=7, part_rows=250, engine=engine)
    assert cores.equals(two_round_farthest_first(X, k=7, part_rows=250))
    engine.close()
    assert ray.is_initialized(), "what the user started goes on"


def test_runs_clients_and_claims_are_those_of_this_machine(cluster: Any) -> None:
    words: dict[str, Any] = {
        "k": [2, 4],
        "methods": ["lazy_greedy", "random_sample", lambda X, k: range(k)],
        "seeds": 2,
    }
    here, there = (kofn.compare("select", X[:200], engine=engine, **words) for engine in (None, "ray"))
    assert here.drop("seconds").equals(there.drop("seconds"))
    grouped = [
        kofn.assign(X, k=4, method="fastclara", seed=0, part_rows=700, engine=engine) for engine in (None, "ray")
    ]
    assert grouped[0].equals(grouped[1])
    assert grouped[1].info["engine"]["tasks"] == 25
    sized = [kofn.assign(X[:400], k=4, capacity=110, seed=0, engine=engine) for engine in (None, "ray")]
    assert sized[0].equals(sized[1])
    assert (sized[1].method, sized[1].info["engine"]["name"]) == ("constrained_kmeans", "ray")
    around = [
        kofn.assign(X[:400], k=4, capacity=110, method="constrained_kmedoids", seed=0, engine=engine)
        for engine in (None, "ray")
    ]
    assert around[0].equals(around[1])
    assert around[1].info["engine"]["tasks"] >= 4
    near = [kofn.select(X, k=4, method="sparse_greedy", n_neighbors=9, engine=engine) for engine in (None, "ray")]
    assert near[0].equals(near[1])
    assert near[1].info["engine"]["name"] == "ray"
    clients = {"groups": np.repeat(["a", "b", "c"], [100, 150, 50]), "k": 3, "seed": 1, "max_iter": 4}
    assert federated_mixture(X[:300], engine="ray", **clients).equals(federated_mixture(X[:300], **clients))
    job = Job(discover()[1003], None, 0, "small", False)._replace(record={"outcome": "not-run"})
    (told,) = rows_of([job], "ray", None)
    assert (told["paper"], told["recorded"]) == (1003, "not-run")


def test_near_duplicates_and_texts_in_parts_are_those_of_this_machine(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near, "_FRAGMENT_ROWS", 500)
    here, there = (near_duplicates_by_cells(X, 0.9, cells=6, probes=3, engine=engine) for engine in (Local(1), Ray()))
    assert (~here.keep).sum() > 0
    for part in range(3):
        np.testing.assert_array_equal(here[part], there[part])
    assert here.recall == there.recall
    words = np.array(["red", "blue", "car", "bus", "sun", "sea"])
    texts = [" ".join(row) for row in words[np.random.default_rng(0).integers(0, 6, (1200, 4))].tolist()]
    for part in range(2):
        pl.DataFrame({"body": texts[part * 600 : part * 600 + 600]}).write_csv(tmp_path / f"{part}.csv")
    pool = kofn.Pool.open(str(tmp_path / "*.csv"), text="body", work=tmp_path / "work")
    plans = [two_round_greedy(pool, metric="cosine", engine=engine, **ASKED) for engine in (Local(1), Ray())]
    assert plans[0].equals(plans[1])


def test_checkpoints_are_blended_on_the_workers(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(on_engine, "_SHARE", 1)
    monkeypatch.chdir(tmp_path)
    for part, name in enumerate("ab"):
        Path(name).mkdir()
        rng = np.random.default_rng(part)
        write_arrays(f"{name}/model.safetensors", {f"{i}.w": rng.normal(size=(30, 9)) for i in range(5)})
    kofn.combine(["a", "b"], method="slerp", out="here")
    typed = ("combine", "a", "b", "-m", "slerp", "--engine", "ray", "--address", "auto", "-o", "there")
    assert run_command(capsys, *typed)[0] == 0
    assert Path("here/model.safetensors").read_bytes() == Path("there/model.safetensors").read_bytes()
    pool, rule = SweepOptions().open(["a", "b"]), LethalMean("3.w", tmp_path)
    plan = merge(pool, rule.bind(pool), SweepOptions(out="there", engine="ray"), weights=None, form="none")
    assert (tmp_path / "died").exists()
    assert (plan.info["engine"]["tasks"], plan.info["resumed"]) == (5, 0)
    kofn.combine(["a", "b"], out="here")
    assert Path("here/model.safetensors").read_bytes() == Path("there/model.safetensors").read_bytes()


def test_pools_of_files_are_read_on_the_workers(cluster: Any, tmp_path: Path) -> None:
    for part in range(3):
        rows = pl.DataFrame({"x": X[part * 1000 : part * 1000 + 1000], "y": np.arange(1000)})
        rows.write_parquet(tmp_path / f"{part}.parquet", row_group_size=400, data_page_size=2_000)
    for how in ({"vectors": "x"}, {"columns": ["y"]}):
        pool = kofn.Pool.open(tmp_path, **how)
        plan = two_round_greedy(pool, engine="ray", **ASKED)
        assert plan.info["engine"]["name"] == "ray"
        assert plan.equals(two_round_greedy(pool, engine=Local(1), **ASKED))
    ways: tuple[Callable[[], Any], ...] = (
        lambda: two_round_greedy(pool, engine="ray", **ASKED),
        lambda: two_round_farthest_first(pool, engine="ray", k=7),
        lambda: near_duplicates_by_cells(pool, engine="ray"),
    )
    written = (tmp_path / "1.parquet").read_bytes()
    (tmp_path / "1.parquet").write_bytes(written[: len(written) // 2])
    for run in ways:
        with pytest.raises(InputError, match=r"1\.parquet has changed from [\d,]+ to [\d,]+ bytes"):
            run()
    (tmp_path / "1.parquet").unlink()
    for run in ways:
        refused(run, "1.parquet")


def test_a_worker_that_dies_is_replaced(cluster: Any, tmp_path: Path) -> None:
    plan = two_round_greedy(Lethal(X, 1500, tmp_path), engine="ray", **ASKED)
    assert (tmp_path / "died").exists()
    assert plan.equals(two_round_greedy(ArrayPool(X), **ASKED))
    (tmp_path / "died").unlink()
    cores = two_round_farthest_first(Lethal(X, 1500, tmp_path), k=7, part_rows=250, engine="ray")
    assert (tmp_path / "died").exists()
    assert cores.equals(two_round_farthest_first(ArrayPool(X), k=7, part_rows=250))


def test_a_caller_that_was_killed_goes_on_where_it_was(cluster: Any, tmp_path: Path) -> None:
    words = {**ASKED, "work": tmp_path / "work"}
    code = (
        "import ray, sys\n"
        "from pathlib import Path\n"
        "ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')\n"
        "from ray_pools import Slow, numbers\n"
        "from kofn.selection import two_round_greedy\n"
        "from kofn.selection.pools import _rounds\n"
        "_rounds._FRAGMENT_ROWS = 500\n"
        "pool = Slow(numbers(), 0.5, Path(sys.argv[2]))\n"
        "asked = dict(k=7, seed=1, part_rows=250, n_reference=800, engine='ray', work=Path(sys.argv[3]))\n"
        "two_round_greedy(pool, **asked)"
    )
    typed = [sys.executable, "-c", code, cluster.address, str(tmp_path), str(words["work"])]
    caller = subprocess.Popen(typed, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    while caller.poll() is None and len(list(tmp_path.glob("work/*/round1-*.npz"))) < 2:
        time.sleep(0.02)
    caller.kill()
    assert caller.wait() == -9, "it was killed in the middle"
    again = two_round_greedy(ArrayPool(X), engine="ray", **words)
    assert again.info["reused"] >= 2
    whole = two_round_greedy(ArrayPool(X), **ASKED)
    np.testing.assert_array_equal(again.indices, whole.indices)
    np.testing.assert_array_equal(again.gains, whole.gains)


def test_a_node_that_dies_is_done_without(cluster: Any, tmp_path: Path) -> None:
    node = cluster.nodes[-1]

    def kill() -> None:
        while len(list(tmp_path.glob("begun-*"))) < 4:
            time.sleep(0.02)
        cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    plan = two_round_greedy(Slow(X, 0.5, tmp_path), engine="ray", **ASKED)
    killer.join()
    cluster.nodes[-1] = cluster.add_node(num_cpus=1, object_store_memory=120 << 20)
    assert plan.equals(two_round_greedy(ArrayPool(X), **ASKED))


def test_more_than_the_object_store_is_spilled(cluster: Any) -> None:
    engine = Ray()
    handles = [engine.share(np.full(24 << 20, item, np.uint8)) for item in range(14)]
    largest = [next(engine.map(max_of, [0], shared=(handle,))) for handle in handles]
    assert largest == list(range(14))


def test_an_error_of_the_input_is_final_and_in_its_own_words(cluster: Any) -> None:
    refused(lambda: two_round_greedy(Broken(X), engine="ray", **ASKED), "x.parquet, row 500: not a number")


def test_time_that_is_up_leaves_a_valid_plan(cluster: Any, tmp_path: Path) -> None:
    plan = two_round_greedy(Slow(X, 0.5, tmp_path), engine="ray", time_limit=1.0, **ASKED)
    assert plan.status == "stopped"
    assert len(set(plan.indices.tolist())) == 7


def test_other_versions_on_a_node_are_refused(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    own = engine_of_ray._versions()
    monkeypatch.setattr(engine_of_ray, "_versions", lambda: {**own, "numba": "0.1"})
    refused(lambda: two_round_greedy(X, engine="ray", **ASKED), f"has numba {own['numba']}, this machine 0.1")


def test_a_node_without_kofn_is_named(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "kofn").mkdir()
    (tmp_path / "kofn" / "__init__.py").write_text("raise ImportError('none here')")
    bare = Ray(runtime_env={"env_vars": {"PYTHONPATH": str(tmp_path)}})
    refused(lambda: two_round_greedy(X, engine=bare, **ASKED), "none here; install kofn on all nodes")


def test_what_listens_and_is_no_ray_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_words: time.sleep(5))
    monkeypatch.setattr(engine_of_ray, "_PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        refused(lambda: Ray(f"127.0.0.1:{silent.getsockname()[1]}"), "does not answer as Ray does within 0.1 s")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("ray://127.0.0.1:1", "does not answer"),
        ("127.0.0.1:1", "does not answer"),
        ("127.0.0.1", "give ray://HOST:PORT or HOST:PORT"),
        ("ray://host:0", "give ray://HOST:PORT or HOST:PORT"),
    ],
)
def test_an_address_that_does_not_answer_is_refused(address: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    refused(lambda: Ray(address), says)


def test_a_ray_that_cannot_be_started_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(address: str, **_words: Any) -> None:
        raise ConnectionError("none runs") if address == "auto" else RuntimeError("the node timed out\nand more")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fail)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(FailureError, match=r"no Ray could be started here \(the node timed out\)"):
        Ray()
    refused(lambda: Ray("auto"), "no Ray runs on this machine")
