"""What rounding and pruning cost, against a plain NumPy form and compressed-tensors."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from kofn.allocation import allocate_checkpoint, apply_plan
from kofn.allocation.checkpoints import _kernels, _weights
from kofn.core.checks import InputError
from kofn.io.tensor_writer import write_arrays

DTYPES = {"float32": _kernels.FLOAT32, "bfloat16": _kernels.BFLOAT16, "float16": _kernels.FLOAT16}


def rounded(groups: NDArray[Any], bits: int, symmetric: bool, dtype: np.dtype[Any]) -> NDArray[np.float32]:
    """Round each row to nearest, its scale kept in the dtype."""
    low, high = np.minimum(groups.min(axis=1), 0), np.maximum(groups.max(axis=1), 0)
    count = np.float32(2**bits - 1)
    if symmetric:
        scale, zero = np.maximum(-low, high) / (count / np.float32(2)), np.zeros_like(low)
        least, most = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    else:
        scale, least, most = (high - low) / count, 0, 2**bits - 1
    scale = scale.astype(dtype).astype(np.float32)
    empty = scale == 0
    safe = np.where(empty, np.float32(1), scale)
    if not symmetric:
        zero = np.clip(np.rint(-low / safe), 0, count)
    numbers = np.clip(np.rint(groups / safe[:, None]) + zero[:, None], least, most)
    out = (numbers - zero[:, None]) * safe[:, None]
    out[empty] = 0
    return out.astype(np.float32)


def random_groups(dtype: str, seed: int = 0) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    groups = rng.normal(size=(24, 16)) * 10.0 ** rng.integers(-6, 3, size=(24, 1))
    groups[0], groups[1], groups[2] = 0, np.abs(groups[1]), -np.abs(groups[2])
    groups[3, 1:] = 0
    return groups.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_errors_are_those_of_the_rounded_weights(dtype: str) -> None:
    stored = random_groups(dtype)
    groups = stored.astype(np.float32)
    widths, weights = np.arange(2, 9), np.random.default_rng(1).random((3, 16), np.float32)
    errors, weighted = np.zeros((2, 7)), np.zeros((2, 7))
    squares, weighted_squares = np.zeros(1), np.zeros(1)
    _kernels.add_errors(groups, widths, DTYPES[dtype], errors, squares)
    _kernels.add_weighted_errors(groups, weights, 1, widths, DTYPES[dtype], weighted, weighted_squares)
    np.testing.assert_allclose(squares[0], np.square(groups, dtype=np.float64).sum(), rtol=1e-5)
    turn = weights[(1 + np.arange(24)) % 3]
    for (i, bits), symmetric in itertools.product(enumerate(widths.tolist()), (False, True)):
        mine = np.empty_like(groups)
        _kernels.round_groups(groups, bits, symmetric, DTYPES[dtype], mine)
        np.testing.assert_array_equal(mine, rounded(groups, bits, symmetric, stored.dtype))
        gaps = np.square(mine.astype(np.float64) - groups)
        np.testing.assert_allclose(errors[int(symmetric), i], gaps.sum(), rtol=1e-4)
        np.testing.assert_allclose(weighted[int(symmetric), i], (turn * gaps).sum(), rtol=1e-4)


@pytest.mark.parametrize(("symmetric", "bits"), [*itertools.product((False, True), (2, 3, 4, 8))])
def test_weights_are_rounded_as_compressed_tensors_rounds_them(symmetric: bool, bits: int) -> None:
    pytest.importorskip("compressed_tensors")
    import torch
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.utils import calculate_qparams

    groups = random_groups("float32")[3:].astype(np.float32)
    args = QuantizationArgs(num_bits=bits, symmetric=symmetric, strategy="group", group_size=16)
    rows = torch.from_numpy(groups)
    scale, zero = calculate_qparams(rows.amin(1, keepdim=True), rows.amax(1, keepdim=True), args)
    theirs = fake_quantize(rows, scale, zero, args).numpy()
    mine = np.empty_like(groups)
    _kernels.round_groups(groups, bits, symmetric, _kernels.FLOAT32, mine)
    np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def model(path: Path, dtype: str = "float32", seed: int = 0) -> dict[str, NDArray[Any]]:
    """Two layers of unlike weights, an embedding, a bias, a convolution and stacked experts."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    shapes = {
        "embed_tokens.weight": (50, 32),
        "layers.0.q_proj.weight": (32, 32),
        "layers.0.k_proj.weight": (16, 32),
        "layers.0.up_proj.weight": (48, 32),
        "layers.1.q_proj.weight": (32, 32),
        "layers.1.k_proj.weight": (16, 32),
        "layers.1.experts": (3, 8, 32),
        "conv.weight": (4, 3, 3, 3),
        "norm.weight": (32,),
    }
    tensors = {
        name: (rng.standard_t(3, size=shape) * rng.uniform(0.1, 2)).astype(kind) for name, shape in shapes.items()
    }
    tensors["steps"] = np.arange(6).reshape(2, 3)
    path.mkdir(exist_ok=True)
    write_arrays(path / "model.safetensors", tensors)
    (path / "config.json").write_text('{"model_type": "toy"}')
    return tensors


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_predicted_error_is_that_of_the_written_weights(tmp_path: Path, dtype: str, symmetric: bool) -> None:
    tensors = model(tmp_path / "m", dtype)
    plan = allocate_checkpoint(
        tmp_path / "m", bits=3.5, group_size=16, symmetric=symmetric, criterion="squared", fix={"conv": 8}
    )
    written = apply_plan(plan, out=tmp_path / "out")
    assert {tensor.name for tensor in plan.tensors} == {
        name for name, array in tensors.items() if array.ndim > 1 and name not in ("embed_tokens.weight", "steps")
    }
    lost = 0.0
    for tensor in plan.tensors:
        own = tensors[tensor.name].astype(np.float32).reshape(-1, tensor.group)
        kind = np.dtype(np.float32) if dtype == "float64" else tensors[tensor.name].dtype
        expected = rounded(own, tensor.level, symmetric, kind)
        lost += float(np.square(expected.astype(np.float64) - own).sum())
        np.testing.assert_array_equal(
            written[tensor.name].array().reshape(own.shape), expected.astype(tensors[tensor.name].dtype)
        )
    assert plan.error == pytest.approx(lost, rel=1e-4)
    for name in ("embed_tokens.weight", "norm.weight", "steps"):
        np.testing.assert_array_equal(written[name].array(), tensors[name])
    assert (tmp_path / "out/config.json").is_file()


def test_statistics_weight_the_errors(tmp_path: Path) -> None:
    tensors = model(tmp_path / "m")
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(64, 32)).astype(np.float32) * rng.uniform(0, 3, 32).astype(np.float32)
    names = [name for name in tensors if name.startswith("layers")]
    grams = dict.fromkeys([name.removesuffix(".weight") for name in names], inputs.T @ inputs / 64)
    call: dict[str, Any] = {"bits": 3, "group_size": 16, "criterion": "squared", "only": "layers.*"}
    plan = allocate_checkpoint(tmp_path / "m", statistics=grams, **call)
    assert plan.statistic == "gram"
    for tensor in plan.tensors:
        rows = tensors[tensor.name].reshape(-1, 32)
        gaps = rounded(rows.reshape(-1, 16), tensor.level, False, rows.dtype).reshape(rows.shape) - rows
        assert tensor.error == pytest.approx(np.square(gaps @ inputs.T).sum() / 64, rel=1e-3)
    means = {name: np.diagonal(gram).copy() for name, gram in grams.items()}
    curvature = {
        name: np.broadcast_to(means[name.removesuffix(".weight")], tensors[name].shape).copy() for name in names
    }
    write_arrays(tmp_path / "curvature.safetensors", curvature)
    np.savez(tmp_path / "means.npz", **means)
    by_mean = allocate_checkpoint(tmp_path / "m", statistics=tmp_path / "means.npz", **call)
    by_weight = allocate_checkpoint(tmp_path / "m", statistics=tmp_path / "curvature.safetensors", **call)
    assert (by_mean.statistic, by_weight.statistic) == ("diagonal", "curvature")
    np.testing.assert_allclose([t.curve for t in by_mean.tensors], [t.curve for t in by_weight.tensors], rtol=1e-5)
    relative = allocate_checkpoint(tmp_path / "m", statistics=means, **{**call, "criterion": "relative"})
    for tensor, absolute in zip(relative.tensors, by_mean.tensors, strict=True):
        rows = tensors[tensor.name].reshape(-1, 32).astype(np.float64)
        whole = float((np.square(rows) * means[tensor.module]).sum())
        np.testing.assert_allclose(np.array(tensor.curve) * whole, absolute.curve, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_least_magnitudes_are_left_out(tmp_path: Path, dtype: str) -> None:
    tensors = model(tmp_path / "m", dtype)
    plan = allocate_checkpoint(tmp_path / "m", sparsity=0.6)
    written = apply_plan(plan, out=tmp_path / "out")
    left = 0
    for tensor in plan.tensors:
        own = tensors[tensor.name].reshape(-1)
        out = written[tensor.name].array().reshape(-1)
        kept = tensor.size * tensor.level // 100
        left += kept
        magnitudes = np.abs(own.astype(np.float64))
        expected = own.copy()
        expected[np.argsort(magnitudes, kind="stable")[: tensor.size - kept]] = 0
        np.testing.assert_array_equal(out, expected)
        lost = float(np.square(own.astype(np.float64) - out.astype(np.float64)).sum())
        assert tensor.error == pytest.approx(lost, rel=0.02)
    assert left <= 0.4 * plan.weights
    assert plan.error <= plan.uniform * (1 + 1e-9)


def test_blocks_and_threads_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model(tmp_path / "m")
    whole = allocate_checkpoint(tmp_path / "m", bits=3, group_size=16)
    monkeypatch.setattr(_weights, "BLOCK", 64)
    parts = [allocate_checkpoint(tmp_path / "m", bits=3, group_size=16, n_threads=n) for n in (1, 3)]
    assert [t.curve for t in parts[0].tensors] == [t.curve for t in parts[1].tensors]
    for mine, theirs in zip(whole.tensors, parts[0].tensors, strict=True):
        np.testing.assert_allclose(mine.curve, theirs.curve, rtol=1e-6)
    first, second = (apply_plan(whole, out=tmp_path / f"{n}", n_threads=n)["conv.weight"].array() for n in (1, 3))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    tensors = model(tmp_path / "m")
    tensors["layers.1.q_proj.weight"][3, 5] = value
    write_arrays(tmp_path / "m/model.safetensors", tensors)
    with pytest.raises(InputError, match=r"'layers\.1\.q_proj\.weight' is .* at \(3, 5\)"):
        allocate_checkpoint(tmp_path / "m", bits=3)
    with pytest.raises(InputError, match=r"at \(3, 5\)"):
        allocate_checkpoint(tmp_path / "m", sparsity=0.5)
    assert allocate_checkpoint(tmp_path / "m", bits=3, fix={"layers.1.q_proj": "keep"}).kept
