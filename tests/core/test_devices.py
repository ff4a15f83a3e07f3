"""The word `device`: which names there are, who takes it, and what is said where torch or the device is missing."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run
from device_pools import DEVICE
from refusals import refused

import kofn
from kofn.core import devices

X = np.random.default_rng(0).normal(size=(30, 3))


@pytest.mark.parametrize("device", ["", " cuda", 3, True, ["cuda"]])
def test_a_device_is_a_name(device: Any) -> None:
    refused(lambda: kofn.select(X, k=1, device=device), "give 'cpu', 'auto', or a device of torch such as 'cuda'")
    refused(lambda: kofn.combine([X, X], device=device), "give 'cpu', 'auto', or a device of torch such as 'cuda'")


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "meta"])
@pytest.mark.parametrize("method", ["auto", "farthest_first"])
def test_a_device_that_is_not_there_is_refused(device: str, method: str) -> None:
    torch = pytest.importorskip("torch")
    if device.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    refused(lambda: kofn.select(X, k=1, method=method, device=device), f"device={device!r}: torch sees none here")


@pytest.mark.parametrize("device", ["toaster", "gpu", "CPU", "torch", "torch:cpu:0"])
def test_a_device_of_no_such_name_is_not_taken_for_missing_hardware(device: str) -> None:
    pytest.importorskip("torch")
    refused(lambda: kofn.select(X, k=1, device=device), f"device={device!r} is none that torch knows; give 'cuda'")


def test_methods_that_run_on_the_processor_name_those_that_do_not() -> None:
    refused(
        lambda: kofn.select(X, k=2, method="naive_greedy", device="cuda"),
        "device='cuda': method='naive_greedy' runs on the processor only; leave device out, or use farthest_first,",
    )
    refused(lambda: kofn.allocate([[2.0, 1.0]], budget=1, device="cuda"), "no method that fits this call runs on one")
    refused(lambda: kofn.assign(X, k=2, method="pam", device=DEVICE), "or use fasterpam")


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_names_that_ask_for_no_device_are_everybodys(device: str) -> None:
    assert kofn.select(X, k=2, method="naive_greedy", device=device).equals(kofn.select(X, k=2, method="naive_greedy"))
    assert kofn.allocate([[2.0, 1.0]], budget=1, device=device).amounts.tolist() == [1]


def test_without_torch_a_device_names_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    refused(lambda: kofn.select(X, k=1, device="cuda"), "device='cuda' needs torch: pip install 'kofn[torch]'")
    assert devices.resolve_device("auto") is None


def test_a_device_without_float64_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")

    def zeros(*_shape: int, dtype: Any, **_words: Any) -> None:
        raise TypeError(f"no {dtype}")

    monkeypatch.setattr(torch, "zeros", zeros)
    refused(lambda: devices.device_with_float64(DEVICE), "has no float64, which exact answers need; leave device out")


def test_products_are_of_float32_and_the_setting_is_left_as_it_was() -> None:
    torch = pytest.importorskip("torch")
    torch.set_float32_matmul_precision("medium")
    try:
        with devices.full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_auto_keeps_to_the_method_that_runs_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes too long on the processor is not sampled where a device was asked for."""
    pytest.importorskip("torch")
    from kofn.core import dispatch

    monkeypatch.setattr(dispatch, "_PATIENCE", 0.0)
    assert kofn.select(X, k=2).method == "sampled_greedy"
    assert kofn.select(X, k=2, device=DEVICE).method == "lazy_greedy"
    assert kofn.assign(X, k=2, device=DEVICE).method == "fasterpam"


def test_objectives_without_a_form_for_devices_are_refused() -> None:
    pytest.importorskip("torch")
    for words in ({"X": X, "objective": "graph_cut"}, {"similarity": np.eye(5)}, {"scores": [1.0, 2.0]}):
        refused(
            lambda words=words: kofn.select(**words, k=1, method="lazy_greedy", device=DEVICE),
            "a device has no objective=",
        )
    refused(
        lambda: kofn.select(X, k=1, objective="facility_location + graph_cut", device=DEVICE),
        "no objective='graph_cut' of what is given; leave device out, or take facility_location of X",
    )
    kernel = np.exp(-np.abs(X[:, :1] - X[:, 0]))
    refused(
        lambda: kofn.select(kernel, k=1, metric="precomputed", device=DEVICE),
        "similarity is given, and a device compares dense rows",
    )


def test_the_command_takes_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    pool = tmp_path / "x.npy"
    np.save(pool, X)
    assert run(capsys, "select", pool, "-k", 3, "-o", tmp_path / "a.csv")[0] == 0
    assert run(capsys, "select", pool, "-k", 3, "-o", tmp_path / "b.csv", "--device", DEVICE)[0] == 0
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()
    assert run(capsys, "assign", pool, "--k", 3, "-o", tmp_path / "g.csv", "--device", DEVICE)[0] == 0
    code, _out, error = run(capsys, "select", pool, "-k", 3, "-m", "gist", "--device", DEVICE)
    assert code != 0
    assert "runs on the processor only" in error


@pytest.mark.parametrize(("device", "asked"), [(None, None), ("auto", None), ("cpu", "cpu"), (DEVICE, "cpu")])
def test_a_model_of_texts_computes_on_the_device(
    device: str | None, asked: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The name reaches the library, from a call about a table."""
    pytest.importorskip("torch")
    library = types.ModuleType("sentence_transformers")
    from kofn.io import embedders

    seen: list[Any] = []

    class Model:
        max_seq_length = 8

        def __init__(self, _name: str, *, device: str | None = None) -> None:
            seen.append(device)

        def encode(self, texts: list[str], **_words: Any) -> np.ndarray:
            return np.array([[len(text), text.count("a"), 1.0] for text in texts], np.float32)

    library.SentenceTransformer = Model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", library)
    monkeypatch.setattr(embedders, "_hash_of", lambda *_: b"")
    (tmp_path / "config.json").write_text("{}")
    texts = {"body": ["a", "bb", "aaa", "bbbb", "abab"]}
    plan = kofn.select(texts, text="body", embedder=str(tmp_path), k=2, cache=False, device=device)
    assert seen == [asked]
    assert (
        plan.indices.tolist()
        == kofn.select(texts, text="body", embedder=str(tmp_path), k=2, cache=False).indices.tolist()
    )
