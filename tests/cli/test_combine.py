"""`kofn combine` on real files: checkpoints and rankings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from adapter_files import base_and_adapters
from command_line import refused, run

from kofn import combine
from kofn.core.checks import InputError
from kofn.core.plans import Plan
from kofn.io.tensor_writer import write_arrays


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
    assert code == 2
    assert "model-00001-of-00001.safetensors" in err
    shard.unlink()
    code, _, err = run(capsys, "combine", "a", "b", "-o", "m")
    assert code == 2
    assert "model-00001-of-00001.safetensors" in err
    assert not Path("m").exists()


def test_a_judge_with_a_cell_that_is_no_number_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("board.csv").write_text("model,x,y,notes\na,3,n/a,good\nb,2,9,bad\nc,1,5,ugly\n")
    assert "column 'y' at row 0 is 'n/a'" in refused(capsys, "combine", "board.csv", "--id", "model")
    said = refused(capsys, "combine", "board.csv", "--id", "model", "--columns", "x,notes")
    assert "column 'notes' holds text and no scores; leave it out of --columns" in said
    code, text, err = run(capsys, "combine", "board.csv", "--id", "model", "--columns", "x", "--json")
    assert code == 0, err
    assert json.loads(text)["ranking"] == ["a", "b", "c"]


def test_an_output_named_as_a_file_of_another_kind_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base_and_adapters()
    for ending in ("pt", "bin", "ckpt", "pth", "csv", "json", "gguf", "ONNX"):
        for call in (("base", "base"), ("base", "one"), ("one", "two")):
            text = refused(capsys, "combine", *call, "-o", f"x.{ending}")
            assert f"-o x.{ending}: checkpoints are safetensors; name a .safetensors file or a folder" in text
        assert not Path(f"x.{ending}").exists()
    assert run(capsys, "combine", "base", "base", "-o", "merged-v1.2")[0] == 0


def test_pickles_are_refused_with_the_call_that_converts_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("old").mkdir()
    for path in ("w.pt", "old/pytorch_model.bin"):
        Path(path).write_bytes(b"PK")
    for member, name, converted in (
        ("w.pt", "w.pt", "w.safetensors"),
        ("old", "pytorch_model.bin", "model.safetensors"),
    ):
        text = refused(capsys, "combine", member, "w.pt", "-o", "x")
        assert "is a pickle, which is not read; convert it: safetensors.torch.save_file(" in text
        assert f"torch.load({name!r}, map_location='cpu', weights_only=True), {converted!r})" in text
        assert "model.state_dict()" in text


def test_an_output_that_is_there_is_replaced_only_by_force(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import load_file, save_file

    for place, name in enumerate("ab"):
        Path(name).mkdir()
        save_file({"w": np.full(2, place, np.float32)}, f"{name}/model.safetensors")
    for out, file in (("m", "m/model.safetensors"), ("m.safetensors", "m.safetensors")):
        assert run(capsys, "combine", "a", "b", "-o", out)[0] == 0
        before = Path(file).read_bytes()
        assert "is there already" in refused(capsys, "combine", "a", "b", "--weights", "1,3", "-o", out)
        assert Path(file).read_bytes() == before
        assert run(capsys, "combine", "a", "b", "--weights", "1,3", "-o", out, "--force")[0] == 0
        assert load_file(file)["w"].tolist() == [0.75, 0.75]
    Path("empty").mkdir()
    assert run(capsys, "combine", "a", "b", "-o", "empty")[0] == 0
    assert load_file("empty/model.safetensors")["w"].tolist() == [0.5, 0.5]
    code, _, err = run(capsys, "combine", "a", "b", "--dtype", "float16", "-o", "half")
    assert code == 0, err
    assert load_file("half/model.safetensors")["w"].dtype == np.float16
    assert "dtype='float17'" in refused(capsys, "combine", "a", "b", "--dtype", "float17", "-o", "x")


def test_quantised_checkpoints_are_blended_as_what_they_stand_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import ml_dtypes

    from kofn.io.tensor_writer import write_arrays
    from kofn.io.tensors import Checkpoint

    row = np.array([[448.0, -448, 112, 3]]).astype(ml_dtypes.float8_e4m3fn)
    for name, scale in (("a", 1 / 448), ("b", 5 / 448)):
        Path(name).mkdir()
        arrays = {"w.weight": row[:, :: 1 if name == "a" else -1], "w.weight_scale": np.array([scale], np.float32)}
        write_arrays(f"{name}/model.safetensors", arrays)
        Path(f"{name}/config.json").write_text(json.dumps({"quantization_config": {"quant_method": "fp8"}}))
    exact = (row.astype(float) + 5 * row[:, ::-1].astype(float)) / 448 / 2
    code, text, err = run(capsys, "combine", "a", "b", "--dry-run")
    assert code == 0, err
    assert "1 tensor, blended as what they stand for and quantised again" in text
    code, text, err = run(capsys, "combine", "a", "b", "-o", "m")
    assert code == 0, err
    assert "1 tensor quantised again, which added at most " in text
    written = Checkpoint.open("m")
    result = written["w.weight"].array().astype(float) * float(written["w.weight_scale"].array()[0])
    assert (np.abs(result - exact) <= np.abs(exact) * 2**-4 * (1 + 1e-6)).all()
    assert json.loads(Path("m/config.json").read_text()) == {"quantization_config": {"quant_method": "fp8"}}
    code, text, err = run(capsys, "combine", "a", "b", "--dtype", "bfloat16", "-o", "wide", "--json")
    assert code == 0, err
    assert "requantised" not in json.loads(text)
    assert set(Checkpoint.open("wide")) == {"w.weight"}
    assert Checkpoint.open("wide")["w.weight"].array().tobytes() == exact.astype(ml_dtypes.bfloat16).tobytes()
    assert json.loads(Path("wide/config.json").read_text()) == {}
    code, text, err = run(capsys, "combine", "a", "--dtype", "float32", "-o", "plain")
    assert code == 0, err
    np.testing.assert_allclose(Checkpoint.open("plain")["w.weight"].array(), row.astype(float) / 448, rtol=1e-6)
    code, text, err = run(capsys, "combine", "a", "b", "-o", "again", "--report", "report.html")
    assert code == 0, err


def test_grown_vocabularies_are_matched_by_token(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import load_file, save_file

    for name, tokens in (("base", "ab"), ("one", "abx"), ("two", "abyx")):
        Path(name).mkdir()
        rows = np.array([[ord(token), len(tokens)] for token in tokens], np.float32)
        save_file({"embed_tokens.weight": rows}, f"{name}/model.safetensors")
        added = [{"id": i, "content": token} for i, token in enumerate(tokens) if i > 1]
        Path(f"{name}/tokenizer.json").write_text(
            json.dumps({"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": added})
        )
        Path(f"{name}/config.json").write_text(json.dumps({"vocab_size": len(tokens)}))
    assert "vocabulary='union'" in refused(capsys, "combine", "one", "two", "-o", "m")
    code, text, err = run(capsys, "combine", "one", "two", "--vocabulary", "union", "-o", "m")
    assert code == 0, err
    assert "vocabulary: 4 tokens in 4 rows, 1 of them added; members lacked 1, 0" in text
    assert load_file("m/model.safetensors")["embed_tokens.weight"].tolist() == [
        [ord("a"), 3.5],
        [ord("b"), 3.5],
        [ord("x"), 3.5],
        [ord("y"), 4],
    ]
    assert json.loads(Path("m/config.json").read_text()) == {"vocab_size": 4}
    assert [entry["content"] for entry in json.loads(Path("m/tokenizer.json").read_text())["added_tokens"]] == [
        "x",
        "y",
    ]
    arguments = ("one", "two", "--base", "base", "--vocabulary", "base")
    code, text, err = run(capsys, "combine", *arguments, "-o", "based", "--json")
    assert code == 0, err
    assert json.loads(text)["vocabulary"]["left_out"] == 2
    assert load_file("based/model.safetensors")["embed_tokens.weight"].tolist() == [[ord("a"), 3.5], [ord("b"), 3.5]]
    code, text, err = run(capsys, "combine", *arguments, "--dry-run")
    assert code == 0, err
    assert "(2, 2)  task_arithmetic, by token" in text
    assert "vocabulary='all': choose one of" in refused(
        capsys, "combine", "one", "two", "--vocabulary", "all", "-o", "x"
    )


def _sentence_model(name: str, value: float, pooling: str = "{}") -> None:
    """A model as sentence-transformers saves it, with a pooling and a dense module."""
    from safetensors.numpy import save_file

    for module in ("", "1_Pooling", "2_Dense"):
        (Path(name) / module).mkdir()
        (Path(name) / module / "config.json").write_text(pooling if module else "{}")
    for file in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        (Path(name) / file).write_text(f'["{file}"]')
    for module in (".", "2_Dense"):
        save_file({"w": np.full(2, value, np.float32)}, f"{name}/{module}/model.safetensors")


def test_the_modules_of_sentence_transformers_are_copied(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import load_file

    _sentence_model("a", 1)
    _sentence_model("b", 3)
    _sentence_model("c", 3, pooling='{"mean": 1}')
    dense = (
        "2_Dense has weights of its own, which are not blended: blend those folders of the members apart (kofn combine"
    )
    code, _, err = run(capsys, "combine", "a", "b", "-o", "m")
    assert code == 0, err
    assert dense in err
    assert "1_Pooling" not in err
    names = {"modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"}
    for name in (*names, "1_Pooling/config.json", "2_Dense/config.json"):
        assert (Path("m") / name).read_bytes() == (Path("a") / name).read_bytes()
    code, _, err = run(capsys, "combine", "a/2_Dense", "b/2_Dense", "-o", "m/2_Dense")
    assert code == 0, err
    code, _, err = run(capsys, "combine", "a", "c", "-o", "m", "--force")
    assert code == 0, err
    assert "member 1 (c)'s 1_Pooling/config.json differs from the one copied (a/1_Pooling/config.json)" in err
    # What only the old output held is kept, in folders too.
    assert load_file("m/2_Dense/model.safetensors")["w"].tolist() == [2, 2]
    assert {path.name for path in Path().iterdir()} == {"a", "b", "c", "m"}
    code, _, err = run(capsys, "combine", "a", "b", "-o", "m.safetensors")
    assert (code, err) == (0, "")


def test_an_interrupted_blend_says_how_to_go_on(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kofn.io.tensor_writer import CheckpointWriter

    _sentence_model("a", 1)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointWriter, "write", interrupt)
        code, _, err = run(capsys, "combine", "a", "a", "-o", "m")
        assert code == 130
        assert "kofn: interrupted; no output was written; run the same command again to go on" in err
    code, _, err = run(capsys, "combine", "a", "a", "-o", "m")
    assert code == 0, err
    assert {path.name for path in Path().iterdir()} == {"a", "m"}


def test_reports_name_adapters_and_judges(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base_and_adapters()
    code, _, err = run(capsys, "combine", "one", "two", "-o", "sum", "--report", "r.html")
    assert code == 0, err
    page = Path("r.html").read_text(encoding="utf-8")
    assert "2 adapters into one" in page
    assert "What each adapter counts for" in page
    assert "Run with measure" not in page
    assert "member 0" not in page
    assert ">one<" in page
    assert ">two<" in page
    Path("board.csv").write_text("model,speed,taste,year\na,3,1,1\nb,2,9,2\nc,1,5,3\n")
    call = ("combine", "board.csv", "--id", "model", "--columns", "speed,taste", "-o", "ranking.csv")
    code, _, err = run(capsys, *call, "--report", "r.html", "--plan", "p.npz")
    assert code == 0, err
    page = Path("r.html").read_text(encoding="utf-8")
    assert "The judges: speed, taste." in page
    assert "judge 0" not in page
    assert Plan.load(Path("p.npz")).info["judges"] == ["speed", "taste"]


def test_the_share_of_slerp_is_its_weights(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = refused(capsys, "combine", "a", "b", "--method", "slerp", "--t", ".3", "-o", "m")
    assert "No such option '--t'; did you mean '--weights'?" in text


def test_dare_of_mergekit_is_dare_with_a_consensus(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method, ours in (("dare_ties", "'dare' with consensus='ties'?"), ("dare_linear", "'dare'?")):
        text = refused(capsys, "combine", "a", "b", "--base", "c", "--method", method, "-o", "m")
        assert f"method={method!r}: no such combine method; did you mean {ours}" in text
    Path("pool.csv").write_text("x,y\n1,2\n3,4\n")
    text = refused(capsys, "select", "pool.csv", "-k", "1", "--columns", "x,y", "--method", "dare_ties")
    assert "method='dare_ties': no such select method" in text
    assert "consensus" not in text


def test_what_dare_drops_is_what_density_leaves(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ("combine", "a", "b", "--base", "c", "--method", "dare", "-o", "m")
    for flag in ("--drop-rate", "--drop_rate"):
        text = refused(capsys, *call, flag, ".9")
        assert "No such option '--drop-rate'; did you mean '--density' (1 - drop_rate)?" in text
    with pytest.raises(InputError, match=r"did you mean 'density' \(1 - drop_rate\)"):
        combine([np.ones(2), np.ones(2)], base=np.zeros(2), method="dare", drop_rate=0.9)


def test_a_ranking_without_names_says_which_column_has_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "t.csv").write_text("kind,model,A,B\nx,m1,1,2\nx,m2,3,4\ny,m3,2,1\n")
    line = "they are told by their row numbers; --id model names them"
    assert line in run(capsys, "combine", "t.csv")[1]
    assert line not in run(capsys, "combine", "t.csv", "--id", "model")[1]


def test_a_ranking_says_counts_intervals_and_which_columns_may_fall(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("lb.csv").write_text("model,mmlu,gsm8k,ppl\na,70.1,60,5.1\nb,71.2,,4.9\nc,68,85.2,5.5\nd,69,50,\ne,69,50,\n")
    code, text, err = run(capsys, "combine", "lb.csv", "--id", "model", "--report", "r.html")
    assert code == 0, err
    assert "b  0.5 points, ranks 1 to 5, 2 of 3 scores" in text
    assert "where lower is: --lower ppl" in text
    assert "ranks 1 to 5, 2 of 3 scores" in Path("r.html").read_text()
    code, text, err = run(capsys, "combine", "lb.csv", "--id", "model", "--lower", "ppl", "-o", "ranking.csv")
    assert code == 0, err
    assert "--lower" not in text
    frame = pl.read_csv("ranking.csv")
    assert frame["id"].to_list() == ["b", "a", "c", "d", "e"]
    assert frame["rank"].to_list() == [1, 2, 3, 4, 4]
    assert frame.columns == ["rank", "id", "index", "points", "rated", "rank_low", "rank_high"]
    code, text, err = run(capsys, "combine", "lb.csv", "--id", "model", "--lower", "ppl", "--json")
    standing = json.loads(text)["standings"][0]
    assert (standing["id"], standing["rank"], standing["rated"]) == ("b", 1, 2)
    assert "has no column 'pl'; did you mean 'ppl'" in refused(capsys, "combine", "lb.csv", "--lower", "pl")
    assert "no such column" in refused(capsys, "combine", "lb.csv", "--columns", "mmlu,gsm8k", "--lower", "ppl")
    first = (
        "select",
        "lb.csv",
        "--rankings",
        "--id",
        "model",
        "-k",
        2,
        "--json",
        "-m",
        "multiwinner",
        "--lower",
        "ppl",
    )
    assert json.loads(run(capsys, *first)[1])["picks"] == ["a", "b"]


def test_what_a_method_needs_is_asked_for_by_its_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = [str(tmp_path / f"{name}.safetensors") for name in "ab"]
    for member in members:
        write_arrays(member, {"w": np.ones((2, 2), np.float32)})
    code, _, err = run(capsys, "combine", *members, "--method", "ties", "-o", str(tmp_path / "o"))
    assert code == 2
    assert "method='ties' needs base: give --base DIR" in err
    assert "none" not in err


def test_a_dry_run_refuses_units_that_alignment_does_not_find(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = [str(tmp_path / f"{name}.safetensors") for name in "ab"]
    for member in members:
        write_arrays(member, {"block.skip.weight": np.ones((2, 2), np.float32)})
    for more in ((), ("--dry-run",)):
        code, _, err = run(capsys, "combine", *members, "-m", "weight_matching", "-o", str(tmp_path / "o"), *more)
        assert code == 2
        assert "tensor 'block.skip.weight' tells of branches" in err
        assert "--architecture '{" in err


@pytest.mark.parametrize(("config", "warned"), [({"vocab_size": 9}, True), ({"hidden_size": 4}, False)])
def test_a_tokenizer_is_missed_by_models_of_text_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: dict[str, int], warned: bool
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        write_arrays(tmp_path / name / "model.safetensors", {"embed.weight": np.ones((9, 4), np.float32)})
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    _, _, err = run(capsys, "combine", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "o"))
    assert ("no member has a tokenizer" in err) is warned


@pytest.mark.parametrize(
    "words",
    [
        ("--weights", "1,2,3"),
        ("--weights", "1,-1"),
        ("--base", "base.safetensors", "-m", "ties", "--density", 1.5),
        ("--base", "base.safetensors", "-m", "ties", "--density", "[1,2]"),
        ("--base", "base.safetensors", "-m", "weighted_mean"),
        ("-m", "geometric_median", "--weights", "0,0"),
        ("-m", "slerp", "--t", 2),
        ("-m", "weight_matching", "--weights", "1,2,3"),
        ("-m", "ties"),
        ("-o", "there.safetensors"),
        ("-o", "no.bin"),
        ("-o", "a.safetensors"),
    ],
)
def test_a_dry_run_refuses_what_the_blend_refuses(
    words: tuple[object, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("a", "b", "base", "there")):
        write_arrays(
            f"{name}.safetensors", {f"{layer}.weight": np.full((2, 2), number, np.float32) for layer in ("fc1", "fc2")}
        )
    call = ("combine", "a.safetensors", "b.safetensors", *(() if "-o" in words else ("-o", "o.safetensors")), *words)
    assert refused(capsys, *call, "--dry-run") == refused(capsys, *call)
    assert not Path("o.safetensors").exists()


def test_a_dry_run_refuses_a_part_of_a_recipe_that_decides_on_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        write_arrays(f"{name}.safetensors", {"w": np.ones(2, np.float32)})
    Path("r.toml").write_text(
        'members = ["a.safetensors", "b.safetensors"]\nmethod = "weighted_mean"\n[[tensors]]\nmatch = "v*"\n'
        'method = "slerp"\n'
    )
    call = ("combine", "r.toml", "-o", "o.safetensors")
    assert "decides on no tensor" in refused(capsys, *call, "--dry-run")
    assert refused(capsys, *call, "--dry-run") == refused(capsys, *call)


def test_counters_that_differ_are_refused_with_a_flag_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.numpy import save_file

    monkeypatch.chdir(tmp_path)
    for name, count in (("ck_a", 8), ("ck_b", 9)):
        Path(name).mkdir()
        tensors = {"w": np.ones(3, np.float32), "bn.num_batches_tracked": np.array(count), "steps": np.array([count])}
        save_file(tensors, f"{name}/model.safetensors")
    said = refused(capsys, "combine", "ck_a", "ck_b", "-o", "out")
    assert "between member 0 (ck_a) (8) and member 1 (ck_b) (9)" in said
    assert "copy one member's by --skip 'steps'" in said
    assert run(capsys, "combine", "ck_a", "ck_b", "-o", "out", "--skip", "steps")[0] == 0
    assert run(capsys, "combine", "ck_a", "ck_b", "-o", "more", "--skip", "steps", "--weights", "70%, 30%")[0] == 0
    text = run(capsys, "combine", "ck_a", "ck_b", "-o", "last", "--skip", "steps", "--weights", "7,3", "--json")[1]
    assert json.loads(text)["weights"] == [0.7, 0.3]
    mixed = refused(capsys, "combine", "ck_a", "ck_b", "-o", "no", "--weights", "70%,.3")
    assert "give all weights in percent or none, for example 70%,30% or .7,.3" in mixed
    assert "give numbers with commas between" in refused(capsys, "combine", "ck_a", "ck_b", "--weights", "x%,1%")
