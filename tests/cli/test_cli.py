"""The command line on real files: what it writes, and what it says of what it cannot use."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from pages import Reader

from kofn._index import entries
from kofn.cli import COMMANDS, app, main
from kofn.core import registry

Run = Callable[..., "subprocess.CompletedProcess[str]"]
WORDS = ["red", "green", "blue", "fast", "slow", "car", "bus", "train", "sun", "moon"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_pool(n: int = 60, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "key": [f"r{i:03}" for i in range(n)],
            "body": [" ".join(rng.choice(WORDS, 6)) + f" w{i % 7}" for i in range(n)],
            "lang": rng.choice(["de", "en", "fr"], n, p=[0.2, 0.5, 0.3]).tolist(),
            "tokens": rng.integers(5, 40, n),
            "age": rng.normal(40, 10, n),
            "score": rng.random(n),
            "emb": rng.normal(size=(n, 5)).astype(np.float32).tolist(),
        }
    )


def write(frame: pl.DataFrame, path: Path) -> Path:
    flat = frame.drop("emb") if path.suffix in (".csv", ".tsv") else frame
    if path.suffix == ".csv":
        flat.write_csv(path)
    elif path.suffix == ".tsv":
        flat.write_csv(path, separator="\t")
    elif path.suffix == ".parquet":
        flat.write_parquet(path, row_group_size=16)
    else:
        flat.write_ndjson(path)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """The command line in this process: exit code, stdout, stderr."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return int(stop.value.code or 0), said.out, said.err


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 2) -> str:
    """The one line that a bad call gets."""
    got, out, err = run(capsys, *arguments)
    assert got == code, (out, err)
    assert err.startswith("kofn: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    assert out == ""
    return err


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_select_keeps_all_columns_and_ids_in_the_order_picked(
    folder: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    pool = write(make_pool(), folder / f"pool{suffix}")
    out = folder / f"picks{suffix}"
    code, text, err = run(capsys, "select", pool, "--text", "body", "-k", 8, "--id", "key", "-o", out)
    assert (code, err) == (0, ""), err
    assert "picked 8 of 60" in text
    read: Any = {".csv": pl.read_csv, ".parquet": pl.read_parquet, ".jsonl": pl.read_ndjson}
    picks = pl.read_csv(out, separator="\t") if suffix == ".tsv" else read[suffix](out)
    whole = make_pool()
    names = whole.columns if suffix in (".parquet", ".jsonl") else whole.drop("emb").columns
    assert picks.columns == [*names, "rank", "gain"]
    assert picks["rank"].to_list() == list(range(1, 9))
    assert picks["gain"].is_sorted(descending=True)
    assert whole.filter(pl.col("key").is_in(picks["key"].to_list()))["tokens"].sum() == picks["tokens"].sum()


@pytest.mark.parametrize(
    "how", [("--vectors", "emb"), ("--columns", "age,lang,tokens"), ("--text", "body"), ("--score", "score")]
)
def test_every_way_to_compare_rows(folder: Path, capsys: pytest.CaptureFixture[str], how: tuple[str, str]) -> None:
    pool = write(make_pool(), folder / "pool.parquet")
    code, text, err = run(capsys, "select", pool, *how, "-k", 5, "--json")
    assert code == 0, err
    answer = json.loads(text)
    assert len(set(answer["picks"])) == answer["picked"] == 5


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_npy_and_npz_answer_like_the_library(folder: Path, capsys: pytest.CaptureFixture[str], kind: type) -> None:
    import kofn

    X = np.random.default_rng(1).normal(size=(50, 4)).astype(kind)
    np.save("pool.npy", X)
    np.savez("pool.npz", X=X, label=np.arange(50))
    want = kofn.select(X, k=6).indices.tolist()
    for file in ("pool.npy", "pool.npz"):
        named = ["--vectors", "X"] if file.endswith("npz") else []
        code, text, err = run(capsys, "select", file, "-k", 6, "--json", *named)
        assert code == 0, err
        assert json.loads(text)["picks"] == want
    assert run(capsys, "select", "pool.npy", "-k", 6, "-o", "picks.csv")[0] == 0
    assert pl.read_csv("picks.csv")["row"].to_list() == want


def test_constraints_hold_together(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = make_pool()
    pool = write(frame, folder / "pool.csv")
    (folder / "no.txt").write_text("r001\nr002\n")
    asked = ["--budget", 200, "--cost", "tokens", "--quota", "lang=de:2-3", "--quota", "lang=fr:-4"]
    asked += ["--include", "r005,r006", "--exclude", "no.txt", "-o", "picks.csv", "--json"]
    code, text, err = run(capsys, "select", pool, "--text", "body", "--id", "key", *asked)
    assert code == 0, err
    picks = pl.read_csv("picks.csv")
    assert picks["tokens"].sum() <= 200
    assert 2 <= (picks["lang"] == "de").sum() <= 3
    assert (picks["lang"] == "fr").sum() <= 4
    assert picks["key"].to_list()[:2] == ["r005", "r006"]
    assert not {"r001", "r002"} & set(picks["key"].to_list())
    answer = json.loads(text)
    assert answer["used"]["costs"] == picks["tokens"].sum()
    assert answer["picks"] == picks["key"].to_list()


def test_going_on_from_earlier_picks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write(make_pool(), folder / "pool.parquet")
    shared = ["select", pool, "--vectors", "emb", "--id", "key"]
    assert run(capsys, *shared, "-k", 4, "-o", "old.csv", "--plan", "old.npz")[0] == 0
    code, whole, _ = run(capsys, *shared, "-k", 9, "--json")
    assert code == 0
    for old in ("old.csv", "old.npz"):
        code, text, err = run(capsys, *shared, "-k", 9, "--start", old, "--json")
        assert code == 0, err
        assert json.loads(text)["picks"] == json.loads(whole)["picks"]


def test_dedupe_says_how_many_and_never_drops_what_is_included(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    X = np.random.default_rng(0).normal(size=(30, 6))
    np.save("pool.npy", np.concatenate([X, X * 2, X[:5]]))
    code, text, err = run(capsys, "select", "pool.npy", "-k", 30, "--dedupe", 0.999, "--include", "64", "--json")
    assert code == 0, err
    answer = json.loads(text)
    assert answer["dropped"] == 35
    assert answer["picks"][0] == 64
    assert len({pick % 30 for pick in answer["picks"]}) == 30


def test_columns_named_like_ours_are_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(make_pool().with_columns(rank=pl.lit("own")), folder / "pool.csv")
    code, text, err = run(capsys, "select", "pool.csv", "--columns", "age", "-k", 3, "-o", "picks.csv")
    assert code == 0, err
    picks = pl.read_csv("picks.csv")
    assert picks["rank"].to_list() == ["own"] * 3
    assert picks["kofn_rank"].to_list() == [1, 2, 3]
    assert "kofn_rank" in text


def test_dry_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("pool.npy", np.random.default_rng(0).normal(size=(700, 4)).astype(np.float32))
    code, text, err = run(capsys, "select", "pool.npy", "-k", 5, "-o", "picks.csv", "--dry-run")
    assert code == 0, err
    for word in ("seconds", "bytes", "exact"):
        assert word in text
    assert not Path("picks.csv").exists()


def test_precomputed_similarity(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    S = np.random.default_rng(0).random((20, 20))
    np.save("sim.npy", S)
    code, text, err = run(capsys, "select", "sim.npy", "-k", 1, "--metric", "precomputed", "--json")
    assert code == 0, err
    assert json.loads(text)["picks"] == [int(S.sum(axis=0).argmax())]


def test_assign_groups_and_routes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(20, 2)), rng.normal(size=(20, 2)) + 9])
    np.save("points.npy", X)
    code, text, err = run(capsys, "assign", "points.npy", "--k", 2, "-o", "groups.csv", "--seed", 0)
    assert code == 0, err
    groups = pl.read_csv("groups.csv")
    assert groups["medoid"].sum() == 2
    assert groups["group"][:20].n_unique() == groups["group"][20:].n_unique() == 1
    scores = rng.random((12, 3))
    scores[0, 0] = -np.inf
    np.save("scores.npy", scores)
    call = ["assign", "scores.npy", "--scores", "--capacity", 4]
    code, text, err = run(capsys, *call, "--overflow", "reroute", "-o", "routes.csv", "--json")
    assert code == 0, err
    assert pl.read_csv("routes.csv")["bin"].value_counts()["count"].max() <= 4
    assert json.loads(text)["unplaced"] == 0
    assert "bin" in refused(capsys, "assign", "scores.npy", "--scores", "--capacity", 3)


def test_allocate_spends_the_budget(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("curves.csv").write_text("layer,params,l2,l4,l8\nemb,1000,9,3,1\nmlp,4000,30,4,0.5\nout,500,20,15,1\n")
    shared = ["allocate", "curves.csv", "--id", "layer", "--size", "params", "--levels", "2,4,8"]
    code, text, err = run(capsys, *shared, "--mean-budget", 4, "-o", "bits.csv", "--json")
    assert code == 0, err
    answer = json.loads(text)
    assert answer["status"] == "optimal"
    assert answer["used"] <= answer["budget"] == 22_000
    assert pl.read_csv("bits.csv")["id"].to_list() == ["emb", "mlp", "out"]
    assert "raise it by" in refused(capsys, *shared, "--mean-budget", 1)


def test_combine_checkpoints_and_rankings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import load_file, save_file

    for place, name in enumerate("ab"):
        Path(name).mkdir()
        save_file({"w": np.full((3, 2), place, np.float32)}, f"{name}/model.safetensors")
    code, text, err = run(capsys, "combine", "a", "b", "--weights", "3,1", "-o", "merged")
    assert code == 0, err
    assert load_file("merged/model.safetensors")["w"].tolist() == [[0.25, 0.25]] * 3
    Path("board.csv").write_text("model,x,y\na,3,\nb,2,9\nc,1,5\n")
    code, text, err = run(capsys, "combine", "board.csv", "--id", "model", "-o", "ranking.csv", "--json")
    assert code == 0, err
    assert json.loads(text)["ranking"][-1] == "c"
    assert pl.read_csv("ranking.csv")["id"].to_list() == json.loads(text)["ranking"]


@pytest.mark.parametrize("verb", list(registry.VERBS))
def test_help_of_every_method_names_its_options(verb: str) -> None:
    for name, entry in entries(verb).items():
        text = CliRunner().invoke(app, [verb, "--method", name, "--help"], terminal_width=200).output
        assert entry.summary[:60] in " ".join(text.split())
        for option in entry.options:
            assert "--" + option.replace("_", "-") in text


def test_options_of_a_method_as_flags_and_as_pairs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(make_pool(), folder / "pool.csv")
    shared = ["select", "pool.csv", "--score", "score", "-k", 10, "--method", "ccs", "--seed", 3, "--json"]
    _, flags, _ = run(capsys, *shared, "--n-strata", 4)
    _, pairs, _ = run(capsys, *shared, "-O", "n_strata=4")
    assert json.loads(flags)["picks"] == json.loads(pairs)["picks"]
    assert "n_strata" in refused(capsys, "select", "pool.csv", "--score", "score", "-k", 3, "-O", "n_strata=4")


def test_help_loads_nothing_heavy(kofn: Run) -> None:
    heavy = ["numpy", "scipy", "sklearn", "numba", "polars", "altair", "torch", "rich.progress"]
    before = f"import atexit; atexit.register(lambda: print([m for m in {heavy} if m in sys.modules]))"
    done = kofn("--help", before=before)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "[]"
    for command in COMMANDS:
        assert command in done.stdout
    code = f"import sys, kofn; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_methods_lists_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = run(capsys, "methods", "assign", "--given", "scores,capacity", "--json")
    assert code == 0
    names = [row["name"] for row in json.loads(text)]
    assert "capped_routing" in names
    assert "fasterpam" not in names
    assert "did you mean 'scores'" in refused(capsys, "methods", "--given", "score_s")
    assert "did you mean 'select'" in refused(capsys, "selct")


BAD_FLAGS: list[tuple[list[object], str]] = [
    (["-k", 0, "--columns", "age"], "at least 1"),
    (["-k", 61, "--columns", "age"], "only 60"),
    (["--columns", "age"], "k (how many)"),
    (["-k", 3, "--columns", "aeg"], "did you mean 'age'"),
    (["-k", 3, "--text", "bodi"], "did you mean 'body'"),
    (["-k", 3], "--text"),
    (["-k", 3, "--columns", "age", "--text", "body"], "one of"),
    (["-k", 3, "--columns", "age", "--budget", 10], "--cost"),
    (["--columns", "age", "--budget", 4, "--cost", "tokens"], "cheapest"),
    (["--columns", "age", "--budget", 4, "--cost", "lang"], "not a number"),
    (["-k", 3, "--columns", "age", "--quota", "lang=de:9-"], "k=3"),
    (["-k", 30, "--columns", "age", "--quota", "lang=de:40-"], "lower it by"),
    (["-k", 3, "--columns", "age", "--quota", "lang=xx:1-"], "no item has that group"),
    (["-k", 3, "--columns", "age", "--quota", "lang:de"], "COL=GROUP:A-B"),
    (["-k", 3, "--columns", "age", "--quota", "lang=de:5-2"], "swap"),
    (["-k", 3, "--columns", "age", "--quota", "lang=de:1-", "--quota", "tokens=9:1-"], "two columns"),
    (["-k", 3, "--columns", "age", "--include", "nobody", "--id", "key"], "nobody"),
    (["-k", 3, "--columns", "age", "--include", "r001", "--exclude", "r001", "--id", "key"], "exclude"),
    (["-k", 3, "--columns", "age", "--id", "lang"], "must differ"),
    (["-k", 3, "--columns", "age", "--metric", "cosin"], "did you mean 'cosine'"),
    (["-k", 3, "--columns", "age", "--method", "lazy_gredy"], "did you mean 'lazy_greedy'"),
    (["-k", 3, "--columns", "age", "--method", "ccs"], "needs scores"),
    (["-k", 3, "--columns", "age", "--objective", "facility"], "did you mean 'facility_location'"),
    (["-k", 3, "--columns", "age", "-o", "picks.xls"], "ends in"),
    (["-k", 3, "--columns", "age", "-o", "pool.csv"], "input itself"),
    (["-k", 3, "--columns", "age", "-o", "no/where.csv"], "no folder"),
    (["-k", 3, "--columns", "age", "--max-memory", "lots"], "600MB"),
    (["-k", 3, "--columns", "age", "--time-limit", -1], "positive"),
    (["-k", 3, "--columns", "age", "--threads", 0], "at least 1"),
    (["-k", 3, "--columns", "age", "--dedupe", 7], "between"),
    (["-k", 3, "--columns", "age", "--embedder", "m"], "text"),
    (["-k", 3, "--columns", "age", "--seed", -1], "seed"),
    (["-k", "three", "--columns", "age"], "three"),
    (["-k", 3, "--columns", "age", "--wat"], "--wat"),
]


@pytest.mark.parametrize(("flags", "says"), BAD_FLAGS, ids=[" ".join(map(str, flags)) for flags, _ in BAD_FLAGS])
def test_what_a_bad_flag_gets(folder: Path, capsys: pytest.CaptureFixture[str], flags: list[object], says: str) -> None:
    pool = write(make_pool(), folder / "pool.csv")
    before = pool.read_bytes()
    assert says in refused(capsys, "select", "pool.csv", *flags)
    assert pool.read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["pool.csv"]


def _spoil(folder: Path, what: str) -> tuple[str, list[object], str]:
    """A broken file, the flags to read it with, and what must be said."""
    frame = make_pool()
    if what == "empty":
        (folder / "f.csv").write_text("")
        return "f.csv", ["--columns", "age"], "empty"
    if what == "no rows":
        (folder / "f.csv").write_text("age,key\n")
        return "f.csv", ["--columns", "age"], "no rows"
    if what == "nan":
        X = np.ones((9, 3))
        X[4, 2] = np.nan
        np.save(folder / "f.npy", X)
        return "f.npy", [], "row 4, column 2 is NaN"
    if what == "infinite":
        X = np.ones((9, 3), np.float32)
        X[7, 0] = np.inf
        np.savez(folder / "f.npz", X=X)
        return "f.npz", ["--vectors", "X"], "row 7, column 0 is infinite"
    if what == "not utf-8":
        (folder / "f.csv").write_bytes(b"key,body\n1,caf\xe9\n")
        return "f.csv", ["--text", "body"], "UTF-8"
    if what == "truncated parquet":
        data = write(frame, folder / "whole.parquet").read_bytes()
        (folder / "f.parquet").write_bytes(data[: len(data) // 2])
        return "f.parquet", ["--text", "body"], "f.parquet"
    if what == "ragged jsonl":
        (folder / "f.jsonl").write_text('{"a": 1}\n{"a": 2}\n{"a": \n')
        return "f.jsonl", ["--columns", "a"], "line 3"
    if what == "ragged vectors":
        pl.DataFrame({"v": [[1.0, 2.0], [1.0]]}).write_parquet(folder / "f.parquet")
        return "f.parquet", ["--vectors", "v"], "row 1"
    if what == "not square":
        np.save(folder / "f.npy", np.ones((4, 3)))
        return "f.npy", ["--metric", "precomputed"], "square"
    if what == "similarity not finite":
        np.save(folder / "f.npy", np.array([[1.0, np.inf], [0.0, 1.0]]))
        return "f.npy", ["--metric", "precomputed"], "row 0, column 1 is infinite"
    if what == "negative similarity":
        np.save(folder / "f.npy", np.array([[1.0, -2.0], [0.0, 1.0]]))
        return "f.npy", ["--metric", "precomputed"], "row 0, column 1"
    write(frame.with_columns(tokens=pl.when(pl.col("key") == "r003").then(-5).otherwise(9)), folder / "f.csv")
    return "f.csv", ["--columns", "age", "--budget", 50, "--cost", "tokens"], "row 3 is -5"


SPOILT = ["empty", "no rows", "nan", "infinite", "not utf-8", "truncated parquet", "ragged jsonl", "ragged vectors"]
SPOILT += ["not square", "similarity not finite", "negative similarity", "negative cost"]


@pytest.mark.parametrize("what", SPOILT)
def test_what_a_bad_file_gets(folder: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    file, flags, says = _spoil(folder, what)
    count = [] if "--budget" in flags else ["-k", 1]
    assert says in refused(capsys, "select", file, *count, *flags)


@pytest.mark.parametrize("k", [1, 3])
def test_pools_that_are_small_or_all_alike(folder: Path, capsys: pytest.CaptureFixture[str], k: int) -> None:
    np.save("one.npy", np.ones((1, 4)))
    assert run(capsys, "select", "one.npy", "-k", 1)[0] == 0
    np.save("same.npy", np.ones((3, 4)))
    code, text, err = run(capsys, "select", "same.npy", "-k", k, "--json")
    assert code == 0, err
    assert sorted(json.loads(text)["picks"]) == list(range(k))


def test_k_may_be_the_whole_pool(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(make_pool(), folder / "pool.csv")
    code, text, err = run(capsys, "select", "pool.csv", "--columns", "age,lang", "-k", 60, "--json")
    assert code == 0, err
    assert sorted(json.loads(text)["picks"]) == list(range(60))


def test_warmup_compiles_every_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, err = run(capsys, "warmup")
    assert (code, err) == (0, "")
    assert "ready" in text


def test_zero_costs_are_free(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(make_pool().with_columns(tokens=pl.lit(0)), folder / "pool.csv")
    code, text, err = run(capsys, "select", "pool.csv", "--columns", "age", "--budget", 1, "--cost", "tokens", "--json")
    assert code == 0, err
    assert json.loads(text)["picked"] == 60


def test_a_kill_in_the_middle_leaves_the_old_output_whole(kofn: Run, tmp_path: Path) -> None:
    write(make_pool(), tmp_path / "pool.csv")
    (tmp_path / "picks.csv").write_text("old\n")
    # The last step of writing is the rename: die there, with the new file complete beside the old one.
    die = "import os, signal; os.replace = os.rename = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)"
    done = kofn("select", "pool.csv", "--columns", "age", "-k", 3, "-o", "picks.csv", before=die)
    assert done.returncode == -9
    assert (tmp_path / "picks.csv").read_text() == "old\n"


def test_a_full_disk_leaves_the_old_output_whole(kofn: Run, tmp_path: Path) -> None:
    write(make_pool(), tmp_path / "pool.csv")
    (tmp_path / "picks.csv").write_text("old\n")
    full = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64)); sys.dont_write_bytecode = True"
    )
    done = kofn("select", "pool.csv", "--columns", "age", "-k", 30, "-o", "picks.csv", before=full)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("kofn: ")
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "picks.csv").read_text() == "old\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["picks.csv", "pool.csv"]


def test_a_shard_that_is_missing_or_cut(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import save_file

    for name in "ab":
        Path(name).mkdir()
        save_file({"w": np.zeros((64, 8), np.float32)}, f"{name}/model-00001-of-00001.safetensors")
        index = {"metadata": {}, "weight_map": {"w": "model-00001-of-00001.safetensors"}}
        Path(f"{name}/model.safetensors.index.json").write_text(json.dumps(index))
    shard = Path("b/model-00001-of-00001.safetensors")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    code, _, err = run(capsys, "combine", "a", "b", "-o", "m")
    assert code in (1, 2)
    assert "model-00001-of-00001.safetensors" in err
    shard.unlink()
    code, _, err = run(capsys, "combine", "a", "b", "-o", "m")
    assert code in (1, 2)
    assert "model-00001-of-00001.safetensors" in err
    assert not Path("m").exists()


def test_a_sparse_similarity_on_disk(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from scipy import sparse

    rng = np.random.default_rng(0)
    dense = np.where(rng.random((40, 40)) < 0.2, rng.random((40, 40)), 0.0)
    np.save("dense.npy", dense)
    sparse.save_npz("sparse.npz", sparse.csr_array(dense))
    picks = []
    for file in ("dense.npy", "sparse.npz"):
        code, text, err = run(capsys, "select", file, "-k", 5, "--metric", "precomputed", "-o", "picks.csv", "--json")
        assert code == 0, err
        picks.append(json.loads(text)["picks"])
        assert pl.read_csv("picks.csv")["row"].to_list() == picks[-1]
    assert picks[0] == picks[1]
    assert "precomputed" in refused(capsys, "select", "sparse.npz", "-k", 5)
    sparse.save_npz("wide.npz", sparse.csr_array(dense[:20]))
    assert "square" in refused(capsys, "select", "wide.npz", "-k", 5, "--metric", "precomputed")


def test_entries_of_a_table_are_picked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    scores = np.array([[1.0, 9.0, 2.0], [8.0, -np.inf, 3.0]])
    np.save(tmp_path / "scores.npy", scores)
    out = tmp_path / "entries.csv"
    code, text, _ = run(
        capsys, "select", tmp_path / "scores.npy", "--scores", "-m", "topk_mask", "-k", 3, "-o", out, "--json"
    )
    assert code == 0
    assert json.loads(text)["picks"] == ["0:1", "1:0", "1:2"]
    frame = pl.read_csv(out)
    assert frame.columns == ["row", "column", "score", "rank", "gain"]
    assert [scores[row, column] for row, column in zip(frame["row"], frame["column"], strict=True)] == [9.0, 8.0, 3.0]
    code, text, _ = run(capsys, "select", tmp_path / "scores.npy", "--scores", "-m", "topk_mask", "--per-item", 1)
    assert "picked 2 of 6 entries" in text


def test_a_committee_is_picked_from_judges_columns(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = tmp_path / "judges.csv"
    table.write_text("name,group,j1,j2\na,x,3,2\nb,y,1,\nc,x,2,3\nd,y,0,1\n")
    code, text, _ = run(
        capsys, "select", table, "--rankings", "--id", "name", "-k", 2, "--quota", "group=y:1-", "--json"
    )
    assert code == 0
    said = json.loads(text)
    assert said["method"] == "multiwinner"
    assert len({"b", "d"} & set(said["picks"])) == 1
    both = refused(capsys, "select", table, "--rankings", "--scores", "-k", 2)
    assert "give one of them" in both


def test_groups_of_bounded_size_and_linked_pairs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(60, 2))
    table, together, apart = tmp_path / "t.csv", tmp_path / "together.csv", tmp_path / "apart.csv"
    pl.DataFrame({"id": [f"r{row}" for row in range(60)], "a": X[:, 0], "b": X[:, 1]}).write_csv(table)
    together.write_text("x,y\nr0,r1\nr1,r2\n")
    apart.write_text("x,y\nr0,r3\n")
    call = ["assign", table, "--columns", "a,b", "--id", "id", "--k", 4, "--seed", 0]
    out = tmp_path / "groups.csv"
    code, text, _ = run(
        capsys, *call, "--capacity", 17, "--min-size", 12, "--must-link", together, "--cannot-link", apart, "-o", out
    )
    assert code == 0
    assert text.startswith("constrained_kmeans")
    group = pl.read_csv(out)["group"].to_numpy()
    sizes = np.bincount(group, minlength=4)
    assert sizes.max() <= 17
    assert sizes.min() >= 12
    assert group[0] == group[1] == group[2] != group[3]
    apart.write_text("x,y\nr2,r0\n")
    said = refused(capsys, *call, "--must-link", together, "--cannot-link", apart)
    assert "must_link joins them" in said
    together.write_text("x,y\nr0,nobody\n")
    assert "names 'nobody' at row 0" in refused(capsys, *call, "--must-link", together)
    together.write_text("x\nr0\n")
    assert "has one column" in refused(capsys, *call, "--must-link", together)


def test_the_number_of_groups_is_found(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = np.repeat([[0, 0], [9, 0], [0, 9]], 30, axis=0) + rng.normal(size=(90, 2))
    np.save(tmp_path / "points.npy", X)
    code, text, _ = run(capsys, "assign", tmp_path / "points.npy", "--k", "auto", "--seed", 0)
    assert code == 0
    assert text.startswith("dynmsc: 90 items in 3 bins")
    assert "average medoid silhouette by k: 2 (" in text
    assert "give a whole number or auto" in refused(capsys, "assign", tmp_path / "points.npy", "--k", "many")
    other = refused(capsys, "assign", tmp_path / "points.npy", "--k", "auto", "--method", "pam")
    assert "method='dynmsc' finds k" in other


def test_a_report_of_groups_shows_ids_texts_and_columns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = make_pool()
    write(pool, folder / "pool.csv")
    call = ["assign", "pool.csv", "--text", "body", "--id", "key", "--k", 3, "--seed", 0]
    code, text, err = run(capsys, *call, "--capacity", 25, "--min-size", 12, "-o", "g.csv", "--report", "g.html")
    assert code == 0, err
    # Texts are compared by cosine, which has no means: the groups stand around rows.
    assert text.startswith("constrained_kmedoids")
    assert text.endswith("groups -> g.csv\nreport -> g.html\n")
    seen = Reader((folder / "g.html").read_text(encoding="utf-8")).text
    groups = pl.read_csv("g.csv")
    for row in np.flatnonzero(groups["medoid"].to_numpy()).tolist():
        assert pool["body"][row] in seen
        assert f"{pool['key'][row]} {pool['body'][row]} lang {pool['lang'][row]} tokens" in seen
    assert "at least 12 and at most 25, as asked" in seen
    assert "cosine distance" in seen
    assert "kofn" in seen
    code, text, err = run(capsys, *call[:4], "--k", "auto", "--seed", 0, "--report", "auto.html", "--json")
    assert code == 0, err
    assert json.loads(text)["report"] == "auto.html"
    assert f"Why {json.loads(text)['bins']} groups" in (folder / "auto.html").read_text(encoding="utf-8")


def test_a_report_of_groups_shows_images_and_distances(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (30, 4, 5)).astype(np.uint8)
    np.savez("pool.npz", X=rng.normal(size=(30, 3)), images=images)
    call = ["assign", "pool.npz", "--vectors", "X", "--k", 3, "--seed", 0, "--report", "g.html"]
    code, _, err = run(capsys, *call, "--images", "images")
    assert code == 0, err
    assert len(Reader((folder / "g.html").read_text(encoding="utf-8")).named("img")) > 9
    assert "shape (30, 3); give (n, height, width)" in refused(capsys, *call, "--images", "X")
    X = rng.normal(size=(30, 3))
    np.save("far.npy", np.abs(X[:, None] - X).sum(axis=2))
    code, _, err = run(capsys, "assign", "far.npy", "--metric", "precomputed", "--k", 3, "--report", "d.html")
    assert code == 0, err
    assert "Classical scaling" in (folder / "d.html").read_text(encoding="utf-8")


def test_a_report_of_routes_shows_loads_and_texts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    pl.DataFrame(
        {"key": [f"t{i}" for i in range(20)], "word": [f"word {i}" for i in range(20)]}
        | {f"e{j}": rng.random(20) for j in range(3)}
    ).write_csv("scores.csv")
    call = ["assign", "scores.csv", "--scores", "--columns", "e0,e1,e2", "--id", "key", "--text", "word"]
    code, _, err = run(capsys, *call, "--capacity", 7, "--overflow", "reroute", "--report", "r.html")
    assert code == 0, err
    seen = Reader((folder / "r.html").read_text(encoding="utf-8")).text
    assert "wanted it first" in seen
    assert "Who gave up most" in seen
    assert "word " in seen


def test_assign_refuses_bad_outputs_before_it_works(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("points.npy", np.eye(4))
    call = ["assign", "points.npy", "--k", 2, "-o"]
    assert "is the input itself" in refused(capsys, *call, "points.npy")
    assert "give a name that ends in" in refused(capsys, *call, "groups.txt")
    assert "there is no folder" in refused(capsys, *call, "none/groups.csv")


def _square(**changed: float) -> Any:
    """Distances of six points on a line, some entries changed: r1c3=9 sets row 1, column 3."""
    points = np.arange(6.0)
    table = np.abs(points[:, None] - points)
    for place, value in changed.items():
        row, column = place[1:].split("c")
        table[int(row), int(column)] = value
    return table


GROUPED = ["--k", 3, "--seed", 0]
BAD_INPUT: dict[str, tuple[Any, list[object], str]] = {
    "asymmetric": (
        _square(r1c3=7.0),
        ["--metric", "precomputed", *GROUPED],
        "distances is not symmetric: (1, 3) is 7 and (3, 1) is 2",
    ),
    "negative": (
        _square(r2c4=-1.0, r4c2=-1.0),
        ["--metric", "precomputed", *GROUPED],
        "distances at row 2, column 4 is -1; give values >= 0",
    ),
    "few points": (
        np.repeat(np.eye(2), 5, axis=0),
        GROUPED,
        "k=3 groups of 10 items, 2 of them distinct; ask for k <= 2",
    ),
    "few distances": (
        np.repeat(np.repeat(1 - np.eye(2), 5, axis=0), 5, axis=1),
        ["--metric", "precomputed", *GROUPED],
        "k=3 groups of 10 items, 2 of them distinct; ask for k <= 2",
    ),
    "small groups": (
        np.arange(20.0).reshape(10, 2),
        ["--capacity", 3, *GROUPED],
        "10 items need a group each, capacity holds 9 in k=3 groups: 1 too few; raise it to 4 a group, or raise k",
    ),
    "small bins": (
        np.arange(20.0).reshape(10, 2),
        ["--scores", "--capacity", 3],
        "10 items in 1 bins each need 10 slots, capacity holds 6: 4 too few; raise it to 5 a bin",
    ),
    "large groups": (
        np.arange(20.0).reshape(10, 2),
        ["--min-size", 4, *GROUPED],
        "min_size=4 in each of k=3 groups needs 12 items, there are 10: 2 too few; lower min_size to 3, or lower k",
    ),
    "an empty group": (
        np.arange(20.0).reshape(10, 2),
        ["--must-link", "all.csv", *GROUPED],
        "leave no way into 3 groups of 1 to 10 items",
    ),
    "a cycle": (
        np.arange(20.0).reshape(10, 2),
        ["--must-link", "all.csv", "--cannot-link", "apart.csv", *GROUPED],
        "cannot_link keeps rows 0 and 3 apart, must_link joins them (0-1-2-3): drop one of these pairs",
    ),
    "nowhere to go": (
        np.where(np.arange(10)[:, None] == 4, -np.inf, np.ones((10, 2))),
        ["--scores", "--capacity", 9],
        "scores at row 4 list 0 bins (the others are -inf)",
    ),
    "nowhere to balance": (
        np.where(np.arange(10)[:, None] == 4, -np.inf, np.ones((10, 2))),
        ["--scores", "--method", "balanced_assignment"],
        "scores at row 4 are all -inf (1 such rows)",
    ),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_assign_says_in_one_line_what_is_wrong(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    data, arguments, says = BAD_INPUT[name]
    np.save("pool.npy", data)
    Path("all.csv").write_text("x,y\n" + "".join(f"{row},{row + 1}\n" for row in range(9)))
    Path("apart.csv").write_text("x,y\n0,3\n")
    assert says in refused(capsys, "assign", "pool.npy", *arguments, "-o", "groups.csv", "--report", "groups.html")
    assert not Path("groups.csv").exists()
    assert not Path("groups.html").exists()


def test_parts_of_a_graph_without_labels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = [0.0, 1.0, 2.0, 90.0, 91.0, 92.0]
    pl.DataFrame({"at": place, "class": ["a", "-1", "-1", "-1", "-1", "-1"]}).write_csv("pool.csv")
    call = ["assign", "pool.csv", "--columns", "at", "--label", "class", "-m", "laplacian_shot", "--n-neighbors", 2]
    code, text, err = run(capsys, *call, "--report", "r.html")
    assert code == 0, err
    assert "3 rows lie in parts of the neighbour graph without a label: the prototypes alone placed them" in text
    assert "unreached" in (folder / "r.html").read_text(encoding="utf-8")
    said = refused(capsys, *call, "--unreached", "error")
    assert "the graph of 2 neighbours falls into 2 parts, and 3 rows (row 3 is one) lie in parts without" in said
