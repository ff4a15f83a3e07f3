"""`kofn combine` of adapters: added to each other, and folded into models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import adapter_files
import numpy as np
import pytest
from adapter_files import base_and_adapters
from command_line import refused, run


def test_an_adapter_is_folded_into_its_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import load_file

    base_and_adapters()
    code, text, err = run(capsys, "combine", "base", "one", "-o", "merged")
    assert code == 0, err
    assert "1 adapter folded into base: 1 tensors -> merged" in text
    np.testing.assert_array_equal(load_file("merged/model.safetensors")["fc.weight"], np.eye(2) + 2)
    assert Path("merged/config.json").exists()
    code, text, err = run(capsys, "combine", "one", "--base", "base", "-o", "same", "--json")
    assert code == 0, err
    assert json.loads(text)["method"] == "fold_adapters"
    np.testing.assert_array_equal(load_file("same/model.safetensors")["fc.weight"], np.eye(2) + 2)
    code, _, err = run(capsys, "combine", "base", "one", "two", "--weights", "1,-.5", "-o", "both")
    assert code == 0, err
    np.testing.assert_array_equal(load_file("both/model.safetensors")["fc.weight"], np.eye(2) + 2 - 3)
    assert "is an adapter: fold each adapter" in refused(capsys, "combine", "base", "merged", "one", "-o", "x")
    for option, file in (("--report", "r.html"), ("--plan", "p.json")):
        text = refused(capsys, "combine", "base", "one", "-o", "x", option, file)
        assert f"{option} is not taken where adapters are folded in" in text
        assert not Path(file).exists()
    assert not Path("x").exists()


def test_methods_of_models_say_to_fold_adapters_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base_and_adapters()
    for members, base in (
        (("base", "one"), "base"),
        (("one", "two", "--base", "base"), "base"),
        (("one", "two"), "base/"),
    ):
        text = refused(capsys, "combine", *members, "--method", "ties", "-o", "x")
        assert "--method ties blends models, one is an adapter; fold each adapter into its base first" in text
        assert f"(kofn combine {base} one -o folded/), then blend those, with --base {base}" in text


def test_an_adapter_of_another_base_draws_a_warning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base_and_adapters()
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 2}
    for named, warns in (("owner/Base", False), ("owner/other", True), (None, False)):
        Path("one/adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": named}))
        code, _, err = run(capsys, "combine", "base", "one", "-o", "merged", "--force")
        assert code == 0, err
        wanted = f"warning: one was trained on {named!r} by its configuration, and is folded into base\n"
        assert err == (wanted if warns else "")
    Path("models--owner--other/snapshots").mkdir(parents=True)
    Path("base").rename("models--owner--other/snapshots/0a1b")
    Path("one/adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "owner/other"}))
    code, _, err = run(capsys, "combine", "models--owner--other/snapshots/0a1b", "one", "-o", "merged", "--force")
    assert (code, err) == (0, "")


def test_a_base_of_the_same_name_in_another_folder_is_looked_at(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base_and_adapters()
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 2, "base_model_name_or_path": "own/base"}
    Path("one/adapter_config.json").write_text(json.dumps(config))
    Path("own").mkdir()
    shutil.copytree("base", "own/base")
    warning = "warning: one was trained on 'own/base' by its configuration, and is folded into base\n"
    for own, other, wanted in (
        ({"model_type": "llama", "dtype": "float32"}, {"model_type": "llama", "dtype": "float16"}, ""),
        ({"model_type": "llama"}, {"model_type": "qwen2"}, warning),
    ):
        Path("own/base/config.json").write_text(json.dumps(own))
        Path("base/config.json").write_text(json.dumps(other))
        code, _, err = run(capsys, "combine", "base", "one", "-o", "merged", "--force")
        assert code == 0, err
        assert "".join(line + "\n" for line in err.splitlines() if "was trained on" in line) == wanted
    # The same configuration, other weights.
    Path("base/config.json").write_text(json.dumps(own))
    weights = next(Path("own/base").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x00\x00\x00\x01")
    code, _, err = run(capsys, "combine", "base", "one", "-o", "merged", "--force")
    assert (code, warning in err) == (0, True)


def test_a_fold_that_changes_nothing_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import ml_dtypes
    from safetensors.numpy import save_file

    layers = {f"{name}.weight": np.ones((2, 2), ml_dtypes.bfloat16) for name in ("fc", "up")}
    Path("base").mkdir()
    save_file(layers, "base/model.safetensors")

    def adapter(path: str, **sizes: float) -> None:
        factors = {f"{name}.lora_down.weight": np.ones((1, 2), np.float32) for name in sizes}
        factors |= {f"{name}.lora_up.weight": np.full((2, 1), size, np.float32) for name, size in sizes.items()}
        save_file(factors, path)

    adapter("fresh.safetensors", fc=0, up=0)
    adapter("small.safetensors", fc=1e-4, up=1e-4)
    adapter("partly.safetensors", fc=1e-4, up=1)
    adapter("whole.safetensors", fc=1, up=1)
    fresh = "warning: adapter fresh.safetensors changes nothing: B, A or the scale of every module is zero"
    small = "warning: no tensor differs from the base's: every update is zero, or too small for bfloat16"
    partly = "warning: 1 of 2 targeted tensors do not differ from the base's, 'fc.weight' first"
    for members, wanted in (
        (["fresh"], [fresh]),
        (["small"], [small]),
        (["partly"], [partly]),
        (["whole"], []),
        (["fresh", "whole"], [fresh]),
    ):
        files = [f"{member}.safetensors" for member in members]
        code, _, err = run(capsys, "combine", "base", *files, "-o", "out", "--force")
        said = [line for line in err.splitlines() if "config.json" not in line]
        assert (code, len(said)) == (0, len(wanted)), err
        assert all(line.startswith(start) for line, start in zip(said, wanted, strict=True)), err
    code, _, err = run(capsys, "combine", "base", "fresh.safetensors", "--dry-run")
    assert (code, fresh in err) == (0, True)


def test_an_output_among_the_files_that_are_read_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base_and_adapters()
    shutil.copytree("base", "other")
    joined = "whose files are read together; name a place outside of it, or a new folder in it"
    for members, out in ((("base", "other"), "base/x.safetensors"), (("base", "one"), "one/x.safetensors")):
        assert f"-o {out} lies in {out.partition('/')[0]}, {joined}" in refused(capsys, "combine", *members, "-o", out)
        assert not Path(out).exists()
    for name in ("base", "other"):
        Path(name, "modules.json").write_text("[]")
    assert joined in refused(capsys, "combine", "base", "other", "-o", "base/1_Dense")
    monkeypatch.chdir("base")
    # A folder in a member is none of its files: the same blend is made again beside it.
    for out in ("merged", "again"):
        code, _, err = run(capsys, "combine", ".", "../other", "-o", out)
        assert code == 0, err
    assert Path("merged/model.safetensors").read_bytes() == Path("again/model.safetensors").read_bytes()
    assert joined in refused(capsys, "combine", ".", "../other", "-o", "merged.safetensors")


def _model_and_styles() -> tuple[list[adapter_files.File], dict[str, np.ndarray]]:
    """A model base.safetensors and two adapters of kohya, one.safetensors and two.safetensors."""
    from safetensors.numpy import save_file

    files = [adapter_files.kohya(seed) for seed in (1, 2)]
    for name, file in zip(("one.safetensors", "two.safetensors"), files, strict=True):
        file.save(Path(name))
    base = adapter_files.base(np.float32)
    save_file(base, "base.safetensors")
    return files, base


def test_adapters_of_other_trainers_are_added_and_folded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import load_file

    files, base = _model_and_styles()
    adapter_files.mlx(3).save(Path("mlx"))
    code, text, err = run(capsys, "combine", "one.safetensors", "two.safetensors", "mlx", "--dry-run")
    assert code == 0, err
    assert "one.safetensors  (kohya: 3 modules, rank 2..3, scale 1..2.5)" in text
    assert "mlx  (MLX: 2 modules, rank 2, scale 20)" in text
    code, text, err = run(
        capsys, "combine", "one.safetensors", "two.safetensors", "-o", "sum.safetensors", "--report", "sum.html"
    )
    assert code == 0, err
    assert "stack_adapters: 2 members, 9 tensors (an adapter of kohya) -> sum.safetensors" in text
    assert "two.safetensors  (kohya: 3 modules, rank 2..3, scale 1..2.5)" in text
    assert "The adapters" in Path("sum.html").read_text()
    code, text, err = run(
        capsys, "combine", "base.safetensors", "sum.safetensors", "-o", "merged.safetensors", "--json"
    )
    assert code == 0, err
    assert json.loads(text)["families"][0]["family"] == "kohya"
    for name, array in load_file("merged.safetensors").items():
        updates = [file.updates.get(name.removesuffix(".weight"), 0) for file in files] if "weight" in name else [0]
        np.testing.assert_allclose(array, base[name] + np.sum(updates, axis=0) / len(updates), rtol=1e-4, atol=1e-5)
    code, text, err = run(capsys, "combine", "base.safetensors", "one.safetensors", "--dry-run", "--json")
    assert code == 0, err
    assert json.loads(text)["tensors"] == 4
    part = ("combine", "base.safetensors", "one.safetensors", "--skip", "*_to_q", "-o", "part.safetensors")
    code, text, err = run(capsys, *part)
    assert code == 0, err
    assert "one.safetensors  (kohya: 2 of 3 modules, rank 2..3, scale 1..2.5)" in text
    assert (
        "(kohya: 1 of 3 modules, rank 2, scale 2.5)"
        in run(capsys, "combine", *part[1:3], "--only", "*_to_q", "--dry-run")[1]
    )
    unchanged = [name for name, array in load_file("part.safetensors").items() if (array == base[name]).all()]
    assert unchanged == [f"{adapter_files.Q}.bias", f"{adapter_files.Q}.weight"]
    for option in ("--vocabulary", "--device"):
        wrong = refused(capsys, "combine", "base.safetensors", "one.safetensors", option, "x", "-o", "x.safetensors")
        assert f"{option} is not taken where adapters are folded in" in wrong
    options = ("--base", "base.safetensors", "--format", "peft", "-o", "peft")
    code, text, err = run(capsys, "combine", "one.safetensors", "two.safetensors", *options)
    assert code == 0, err
    assert sorted(path.name for path in Path("peft").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert "--format" in refused(
        capsys, "combine", "base.safetensors", "one.safetensors", "--format", "peft", "-o", "x"
    )


def test_the_sum_and_the_mean_of_adapters_and_of_changes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import load_file, save_file

    files, base = _model_and_styles()
    both = ("one.safetensors", "two.safetensors")

    def folded(*arguments: str) -> dict[str, np.ndarray]:
        code, _, err = run(capsys, "combine", *arguments, "-o", "x.safetensors", "--force")
        assert code == 0, err
        return load_file("x.safetensors")

    run(capsys, "combine", *both, "--sum", "-o", "sum.safetensors")
    run(capsys, "combine", *both, "--mean", "-o", "mean.safetensors")
    key = next(f"{module}.weight" for module in files[0].updates if f"{module}.weight" in base)
    update = sum(file.updates.get(key.removesuffix(".weight"), 0) for file in files)
    for wanted, calls in {
        1.0: (("sum.safetensors",), both, (*both, "--sum")),
        0.5: (("mean.safetensors",), (*both, "--mean")),
    }.items():
        for call in calls:
            np.testing.assert_allclose(folded("base.safetensors", *call)[key], base[key] + wanted * update, atol=1e-5)
    for name, step in (("a", 1.0), ("b", 3.0)):
        save_file({"w": np.full(2, step, np.float32)}, f"{name}.safetensors")
    save_file({"w": np.zeros(2, np.float32)}, "zero.safetensors")
    based = ("a.safetensors", "b.safetensors", "--base", "zero.safetensors")
    assert folded(*based, "--sum")["w"].tolist() == [4.0, 4.0]
    assert folded(*based, "--mean")["w"].tolist() == [2.0, 2.0]
    assert folded("a.safetensors", "b.safetensors", "--mean")["w"].tolist() == [2.0, 2.0]
    assert "--sum is of changes" in refused(capsys, "combine", "a.safetensors", "b.safetensors", "--sum", "-o", "y")
    assert "give one" in refused(capsys, "combine", *both, "--sum", "--no-normalize", "-o", "y")
    assert "positive sum" in refused(
        capsys, "combine", "base.safetensors", *both, "--mean", "--weights=1,-1", "-o", "y.safetensors"
    )
    Path("r.yaml").write_text("merge_method: linear\nmodels: [{model: a.safetensors}]\n")
    assert "--sum belongs in the recipe" in refused(capsys, "combine", "r.yaml", "--sum", "-o", "y")
    Path("board.csv").write_text("model,x\na,1\nb,2\n")
    assert "judges' points" in refused(capsys, "combine", "board.csv", "--mean", "-o", "y.csv")


def test_weights_are_kept_and_pages_are_replaced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One rule: weights at -o are replaced by --force only, what is made again in a moment is without it."""
    base_and_adapters()
    Path("board.csv").write_text("model,x,y\na,3,1\nb,2,9\n")
    ranking = ("combine", "board.csv", "--id", "model", "-o", "ranking.csv", "--report", "r.html", "--plan", "p.npz")
    for _ in range(2):
        code, _, err = run(capsys, *ranking)
        assert code == 0, err
    for call in (("base", "base"), ("base", "one"), ("one", "two")):
        assert run(capsys, "combine", *call, "-o", "out")[0] == 0
        before = {path: path.read_bytes() for path in Path("out").iterdir()}
        assert "is there already" in refused(capsys, "combine", *call, "-o", "out")
        assert {path: path.read_bytes() for path in Path("out").iterdir()} == before
        assert run(capsys, "combine", *call, "-o", "out", "--force")[0] == 0
        for path in Path("out").iterdir():
            path.unlink()
    _, text, _ = run(capsys, "combine", "--help")
    assert "tables, reports and plans are replaced without it" in " ".join(text.split())


def test_a_quantised_model_is_folded_into_another_dtype(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import load_file, save_file

    base_and_adapters()
    codes = {"fc.weight": np.array([[10, 20], [30, 40]], np.int8), "fc.weight_scale": np.array([0.5], np.float32)}
    save_file(codes, "base/model.safetensors")
    assert "(--dtype)" in refused(capsys, "combine", "base", "one", "-o", "m")
    code, _, err = run(capsys, "combine", "base", "one", "--dtype", "float32", "-o", "m")
    assert code == 0, err
    assert load_file("m/model.safetensors")["fc.weight"].tolist() == [[7, 12], [17, 22]]


def test_heads_of_several_adapters_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import load_file, save_file

    base_and_adapters()
    save_file({"fc.weight": np.eye(2, dtype=np.float32), "head": np.zeros(2, np.float32)}, "base/model.safetensors")
    for name, value in (("one", 3.0), ("two", 5.0)):
        tensors = load_file(f"{name}/adapter_model.safetensors")
        head = {"base_model.model.head": np.full(2, value, np.float32)}
        save_file({**tensors, **head}, f"{name}/adapter_model.safetensors")
    code, _, err = run(capsys, "combine", "base", "one", "two", "-o", "sum")
    assert code == 0, err
    assert "warning: adapter one and adapter two trained 'head' in full: it gets the sum of what each changed" in err
    assert load_file("sum/model.safetensors")["head"].tolist() == [8, 8]
    code, _, err = run(capsys, "combine", "base", "one", "two", "--mean", "-o", "mean")
    assert (code, err) == (0, "")
    assert load_file("mean/model.safetensors")["head"].tolist() == [4, 4]


def test_a_folder_of_an_adapter_and_a_model_is_ambiguous(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """torchtune saves the adapter, and the model it is folded into, in one folder."""
    base_and_adapters()
    for name in ("one", "two"):
        shutil.copy("base/model.safetensors", name)
    text = refused(capsys, "combine", "one", "two", "-o", "x")
    assert "one holds an adapter and a model: name the file that is meant, one/adapter_model.safetensors or" in text
    code, text, err = run(capsys, "combine", "base", "one", "-o", "folded")
    assert (code, text.partition(":")[0]) == (0, "1 adapter folded into base"), err
    assert "warning: one holds a model too, which is left out: its adapter is folded" in err
    code, text, err = run(capsys, "combine", "one/model.safetensors", "two/model.safetensors", "-o", "models")
    assert (code, text.partition(":")[0]) == (0, "weighted_mean"), err
    files = [f"{name}/adapter_model.safetensors" for name in ("one", "two")]
    code, text, err = run(capsys, "combine", *files, "-o", "adapters")
    assert (code, text.partition(":")[0]) == (0, "stack_adapters"), err
    Path("two/adapter_model.safetensors").rename("two/adapter_0.pt")
    assert "adapter_0.pt is a pickle, which is not read; convert it" in refused(
        capsys, "combine", "base", "two", "-o", "y"
    )


@pytest.mark.parametrize(
    "words",
    [
        ("--weights", "1,2,3"),
        ("--weights", "1,-1"),
        ("-m", "reduce_adapters", "--rank", 0),
        ("-m", "reduce_adapters", "--energy", 2),
        ("--format", "kohya"),
        ("-o", "base"),
    ],
)
def test_a_dry_run_refuses_what_the_sum_refuses(
    words: tuple[object, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base_and_adapters()
    call = ("combine", "one", "two", *(() if "-o" in words else ("-o", "sum")), *words)
    assert refused(capsys, *call, "--dry-run") == refused(capsys, *call)
    fold = ("combine", "base", "one", "-o", "base2")
    Path("base2").mkdir()
    Path("base2/model.safetensors").write_bytes(Path("base/model.safetensors").read_bytes())
    assert "base2 is there already" in refused(capsys, *fold, "--dry-run")
