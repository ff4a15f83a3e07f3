"""Reading and writing checkpoints, against the safetensors package, on damaged files and in processes that die."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from itertools import pairwise
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from kofn.core.checks import FailureError, InputError
from kofn.io import tensor_writer, tensors
from kofn.io.tensor_writer import CheckpointWriter, write_arrays
from kofn.io.tensors import DTYPES, Checkpoint, Layout, header_bytes
from kofn.io.torch_arrays import from_torch, to_torch


def arrays_of_every_dtype(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    out = {}
    for code, dtype in DTYPES.items():
        raw = rng.integers(0, 2 if code == "BOOL" else 256, 6 * dtype.itemsize, dtype=np.uint8)
        out[f"layer.{code}"] = raw.view(dtype).reshape(2, 3)
    return {**out, "scalar": np.array(3.5, np.float32), "empty": np.empty((0, 4), np.float16), "é/\n": np.arange(3)}


def sharded(folder: Path, shards: dict[str, dict[str, np.ndarray]], **index: object) -> Path:
    folder.mkdir(exist_ok=True)
    for name, arrays in shards.items():
        safetensors.numpy.save_file(arrays, folder / name, {"format": "pt"})
    weight_map = {tensor: name for name, arrays in shards.items() for tensor in arrays}
    content = {"metadata": {"total_size": 1}, "weight_map": weight_map, **index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    return folder


TWO = {
    "model-00001-of-00002.safetensors": {"a": np.arange(6.0).reshape(2, 3), "b": np.arange(4, dtype=np.float32)},
    "model-00002-of-00002.safetensors": {"c": np.arange(5, dtype=np.int64)},
}


def with_header(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_reads_what_the_reference_wrote(tmp_path: Path) -> None:
    arrays = arrays_of_every_dtype()
    safetensors.numpy.save_file(arrays, tmp_path / "x.safetensors")
    checkpoint = Checkpoint.open(tmp_path / "x.safetensors")
    assert set(checkpoint) == set(arrays)
    for name, array in arrays.items():
        got = checkpoint[name]
        assert (got.dtype, got.shape, got.nbytes) == (array.dtype, array.shape, array.nbytes)
        assert got.array().tobytes() == np.asarray(got).tobytes() == array.tobytes()


def test_writes_the_bytes_of_the_reference(tmp_path: Path) -> None:
    arrays = arrays_of_every_dtype()
    write_arrays(tmp_path / "ours.safetensors", arrays)
    safetensors.numpy.save_file(arrays, tmp_path / "theirs.safetensors", {"format": "pt"})
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


def test_torch_reads_ours_and_we_read_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    rng = np.random.default_rng(1)
    names = ("bfloat16", "float16", "float32", "float64", "float8_e4m3fn", "float8_e5m2", "int64", "bool", "uint8")
    tensors = {name: torch.from_numpy(rng.normal(size=(3, 2))).to(getattr(torch, name)) for name in names}
    tensors["scalar"] = torch.tensor(2.5, dtype=torch.bfloat16)
    save_file(tensors, tmp_path / "t.safetensors")
    read = {name: tensor.array() for name, tensor in Checkpoint.open(tmp_path / "t.safetensors").items()}
    for name, tensor in tensors.items():
        assert read[name].tobytes() == from_torch(tensor).tobytes()
        assert read[name].dtype == from_torch(tensor).dtype
    write_arrays(tmp_path / "o.safetensors", read)
    for name, tensor in load_file(tmp_path / "o.safetensors").items():
        assert tensor.dtype == tensors[name].dtype
        assert torch.equal(tensor.double(), tensors[name].double())
    for name, tensor in to_torch(read).items():
        assert tensor.dtype == tensors[name].dtype
        assert torch.equal(tensor.double(), tensors[name].double())
    assert from_torch(torch.ones(3, 2, requires_grad=True).T).tolist() == [[1, 1, 1], [1, 1, 1]]


@given(cuts=st.lists(st.integers(0, 60), max_size=6), dtype=st.sampled_from(["<f4", "<i8", "?", "bfloat16"]))
@settings(deadline=None, max_examples=40)
def test_any_blocks_make_the_tensor(tmp_path_factory: pytest.TempPathFactory, cuts: list[int], dtype: str) -> None:
    path = tmp_path_factory.mktemp("blocks") / "x.safetensors"
    array = np.arange(60).astype(dtype).reshape(3, 4, 5)
    safetensors.numpy.save_file({"before": np.zeros(3, np.uint8), "x": array}, path)
    tensor = Checkpoint.open(path)["x"]
    edges = [0, *sorted(cuts), 60]
    buffer = np.empty(60 * array.itemsize, np.uint8)
    parts = [tensor.read(a, b) for a, b in pairwise(edges)]
    reused = [tensor.read(a, b, buffer).copy() for a, b in pairwise(edges)]
    assert np.concatenate(parts).tobytes() == np.concatenate(reused).tobytes() == array.tobytes()


def test_a_block_outside_the_tensor_is_refused(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"x": np.zeros(4)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"'x' has 4 elements, 2:5"):
        Checkpoint.open(tmp_path / "x.safetensors")["x"].read(2, 5)


def test_opening_reads_headers_and_blocks_bound_the_memory(tmp_path: Path) -> None:
    size = 1 << 38  # a quarter of a terabyte, sparse on disk
    path = with_header(tmp_path / "big.safetensors", {"x": entry("BF16", [size // 2], [0, size])})
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size + size)
    buffer = np.empty(1 << 16, np.uint8)
    tracemalloc.start()
    tensor = Checkpoint.open(path)["x"]
    for place in range(64):
        tensor.read(place << 30, (place << 30) + (1 << 15), buffer)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tensor.nbytes == size
    assert peak < 1 << 19


def test_folders(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "s", TWO)
    for path in (folder, folder / "model.safetensors.index.json", str(folder)):
        checkpoint = Checkpoint.open(path)
        assert list(checkpoint) == ["a", "b", "c"]
        assert [shard.file_name for shard in checkpoint.layout.shards] == sorted(TWO)
        assert checkpoint.layout.nbytes == 6 * 8 + 4 * 4 + 5 * 8
    assert checkpoint.arrays()["c"].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError):
        checkpoint.arrays()["nope"]
    one = tmp_path / "one"
    one.mkdir()
    with pytest.raises(InputError, match="holds no"):
        Checkpoint.open(one)
    safetensors.numpy.save_file({"x": np.zeros(2)}, one / "adapter_model.safetensors")
    assert list(Checkpoint.open(one)) == ["x"]
    safetensors.numpy.save_file({"y": np.zeros(2)}, one / "other.safetensors")
    with pytest.raises(InputError, match="2 safetensors files and no index"):
        Checkpoint.open(one)
    safetensors.numpy.save_file({"z": np.zeros(2)}, one / "model.safetensors")
    assert list(Checkpoint.open(one)) == ["z"]
    safetensors.numpy.save_file({"z": np.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(InputError, match="more than one checkpoint"):
        Checkpoint.open(folder)
    with pytest.raises(InputError, match="no such file"):
        Checkpoint.open(tmp_path / "absent.safetensors")
    (tmp_path / "x.npz").write_bytes(b"")
    with pytest.raises(InputError, match=r"x\.npz: not a"):
        Checkpoint.open(tmp_path / "x.npz")
    (tmp_path / "x.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"x\.bin is a pickle, which is not read; convert it"):
        Checkpoint.open(tmp_path / "x.bin")


def test_a_shard_may_hold_a_tensor_the_index_forgot(tmp_path: Path) -> None:
    forgetful = {tensor: name for name, arrays in TWO.items() for tensor in arrays if tensor != "b"}
    folder = sharded(tmp_path / "s", TWO, weight_map=forgetful)
    assert list(Checkpoint.open(folder)) == ["a", "b", "c"]


SECOND = "model-00002-of-00002.safetensors"


def _truncate_shard(folder: Path) -> None:
    path = folder / SECOND
    path.write_bytes(path.read_bytes()[:-3])


def _twice(folder: Path) -> None:
    safetensors.numpy.save_file({"a": np.zeros(2), "c": np.zeros(2)}, folder / SECOND)


def _index(folder: Path, **content: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_truncate_shard, rf"{SECOND}: truncated: tensor 'c' ends at byte \d+ and the file at \d+; fetch"),
        (lambda f: (f / SECOND).unlink(), rf"shard '{SECOND}' is missing .*1 tensors, 'c' first"),
        (_twice, rf"tensor 'a' is in both 'model-00001-of-00002.safetensors' and '{SECOND}'"),
        (lambda f: safetensors.numpy.save_file({"d": np.zeros(2)}, f / SECOND), "tensor 'c' should be in"),
        (lambda f: (f / "model.safetensors.index.json").write_text("{"), "not a readable index"),
        (lambda f: _index(f, metadata={"title": "\ud800"}), "not a readable index .*half of a surrogate pair"),
        (lambda f: _index(f, weight_map={}), "has no weight_map"),
        (lambda f: _index(f, weight_map=[1]), "has no weight_map"),
        (lambda f: _index(f, weight_map={"a": "../secret.safetensors"}), "'a' is said to be in '../secret"),
        (lambda f: _index(f, weight_map={"a": 3}), "'a' is said to be in 3"),
        (lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "x", "a": "y"}}'), "twice"),
    ],
)
def test_damaged_folders(tmp_path: Path, damage, says: str) -> None:
    folder = sharded(tmp_path / "s", TWO)
    damage(folder)
    with pytest.raises(FailureError, match=says) as caught:
        Checkpoint.open(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "data", "says"),
    [
        ({"w": entry()}, bytes(7), "truncated: tensor 'w'"),
        ({"w": entry()}, bytes(9), "1 bytes after the last tensor"),
        ({"w": entry(offsets=(0, 4))}, bytes(8), r"'w' of shape \(2,\) and type F32 takes 8 bytes, its offsets give 4"),
        ({"w": entry(offsets=(8, 0))}, bytes(8), "'w'"),
        ({"w": entry(), "v": entry(offsets=(4, 12))}, bytes(12), "'v' overlaps tensor 'w'"),
        ({"w": entry(), "v": entry(offsets=(12, 20))}, bytes(20), "'v' leaves 4 unused bytes after tensor 'w'"),
        ({"w": entry(offsets=(4, 12))}, bytes(12), "'w' leaves 4 unused bytes after the header"),
        ({"w": entry(shape=(-2,))}, bytes(8), "'w' has a shape or offsets"),
        ({"w": entry(shape=(2.0,))}, bytes(8), "'w' has a shape or offsets"),
        ({"w": entry(shape=(True, 2))}, bytes(8), "'w' has a shape or offsets"),
        ({"w": entry(shape="2")}, bytes(8), "'w' has a shape or offsets"),
        ({"w": entry(shape=(1 << 40, 1 << 40))}, bytes(8), "'w' of shape"),
        ({"w": entry(offsets=(0, 8, 9))}, bytes(8), "'w' lacks its dtype, shape or data_offsets"),
        ({"w": {"dtype": "F32"}}, bytes(8), "'w' lacks its dtype, shape or data_offsets"),
        ({"w": 3}, bytes(8), "'w' lacks its dtype, shape or data_offsets"),
        ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
        ({"__metadata__": []}, b"", "__metadata__ must map text to text"),
        ({"__metadata__": 0}, b"", "__metadata__ must map text to text"),
        ([1], b"", "not a JSON object"),
        (b"{", b"", "header is not valid"),
        (b'{"w":"\xff"}', b"", "header is not valid"),
        (b'{"w":1,"w":2}', b"", "'w' is there twice"),
        (b"[" * 100_000, b"", "header is not valid"),
        (b'{"w\\ud800": 1}', b"", "half of a surrogate pair"),
        (b'{"__metadata__": {"title": "\\udc00"}}', b"", "half of a surrogate pair"),
    ],
)
def test_damaged_headers(tmp_path: Path, header: object, data: bytes, says: str) -> None:
    path = with_header(tmp_path / "x.safetensors", header, data)
    with pytest.raises(FailureError, match=says) as caught:
        Checkpoint.open(path)
    assert "x.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"abc")
    with pytest.raises(FailureError, match="3 bytes long"):
        Checkpoint.open(path)
    path.write_bytes(b"PK\x03\x04" + bytes(range(200, 240)))
    with pytest.raises(FailureError, match="not a safetensors file"):
        Checkpoint.open(path)
    path.write_bytes((1000).to_bytes(8, "little") + b"{")
    with pytest.raises(FailureError, match="truncated inside its header"):
        Checkpoint.open(path)
    with_header(path, {"w": entry("F4", (2,), (0, 1))}, bytes(1))
    with pytest.raises(InputError, match=r"'w' is of type 'F4', which is not supported; convert"):
        Checkpoint.open(path)
    with_header(path, {"w": entry(["F32"])}, bytes(8))
    with pytest.raises(InputError, match="'w' is of type"):
        Checkpoint.open(path)


@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_no_corruption_gets_past_us_that_stops_the_reference(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = bytearray(safetensors.numpy.save({"a": np.arange(4, dtype=np.int16), "b": np.ones((2, 1))}))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(whole) - 25))
        whole[place] = data.draw(st.sampled_from(b'0123456789[]{},:"F \x00\xff'))
    path = tmp_path_factory.mktemp("fuzz") / "x.safetensors"
    path.write_bytes(whole)
    try:
        ours = {name: tensor.array() for name, tensor in Checkpoint.open(path).items()}
    except (InputError, FailureError):
        return
    theirs = safetensors.deserialize(bytes(whole))
    assert {name: bytes(item["data"]) for name, item in theirs} == {n: a.tobytes() for n, a in ours.items()}


def test_files_are_closed_when_the_interpreter_has_emptied_its_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_arrays(tmp_path / "a.safetensors", {"x": np.ones(3)})
    file = tensors._File(tmp_path / "a.safetensors")
    opened = file.fd
    monkeypatch.setattr(tensors, "os", None)
    file.__del__()
    monkeypatch.undo()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened)


def test_a_file_that_shrinks_while_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(1000)}, path)
    tensor = Checkpoint.open(path)["x"]
    os.truncate(path, 4000)
    with pytest.raises(FailureError, match=r"ends at byte 4000, .* shrank while it was being read"):
        tensor.array()


# ---- writing


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def write_layout(out: Path, layout: Layout, fill: float = 1.0) -> None:
    with CheckpointWriter(out, layout) as writer:
        for shard in layout.shards:
            for spec in shard.tensors:
                writer.write(spec.name, 0, np.full(spec.shape, fill).astype(spec.dtype))


def test_blocks_in_any_order(tmp_path: Path) -> None:
    layout = Layout.of_arrays({"x": np.empty((4, 5), np.float32)})
    values = np.arange(20, dtype=np.float32)
    with CheckpointWriter(tmp_path / "x.safetensors", layout) as writer:
        for start in (15, 0, 10, 5):
            writer.write("x", start, values[start : start + 5])
    assert (safetensors.numpy.load_file(tmp_path / "x.safetensors")["x"] == values.reshape(4, 5)).all()
    with pytest.raises(TypeError, match="'x' is float32"), CheckpointWriter(tmp_path / "y", layout) as writer:
        writer.write("x", 0, np.zeros(20))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.safetensors"]


def test_the_shards_are_kept_or_joined(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "s", TWO)
    layout = Checkpoint.open(folder).layout
    write_layout(tmp_path / "out", layout)
    assert sorted(contents(tmp_path / "out")) == [*sorted(TWO), "model.safetensors.index.json"]
    assert [shard.metadata for shard in Checkpoint.open(tmp_path / "out").layout.shards] == [{"format": "pt"}] * 2
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index == json.loads((folder / "model.safetensors.index.json").read_text())
    write_layout(tmp_path / "whole.safetensors", layout)
    assert list(safetensors.numpy.load_file(tmp_path / "whole.safetensors")) == ["a", "b", "c"]
    header = header_bytes(layout.shards[0])
    assert (folder / layout.shards[0].file_name).read_bytes().startswith(header)


def test_an_existing_folder_is_replaced_and_its_other_files_stay(tmp_path: Path, monkeypatch) -> None:
    out = sharded(tmp_path / "out", TWO)
    (out / "config.json").write_text("{}")
    (out / "tokenizer").mkdir()
    (out / "tokenizer" / "vocab").write_text("v")
    out.chmod(0o750)
    for swap in (None, lambda new, old: False):
        if swap is not None:
            monkeypatch.setattr(tensor_writer, "_swap", swap)
        write_layout(out, Layout.of_arrays({"x": np.empty(3)}), 2.0)
        assert sorted(contents(out)) == ["config.json", "model.safetensors", "tokenizer/vocab"]
        assert safetensors.numpy.load_file(out / "model.safetensors")["x"].tolist() == [2.0, 2.0, 2.0]
        assert out.stat().st_mode & 0o777 == 0o750
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    layout = Layout.of_arrays({"x": np.empty(3)})
    (tmp_path / "f").write_text("")
    (tmp_path / "d.safetensors").mkdir()
    (tmp_path / "d").mkdir()
    safetensors.numpy.save_file({"x": np.zeros(2)}, tmp_path / "d" / "precious.safetensors")
    for out, says in (
        (tmp_path / "absent" / "out", "does not exist; create it"),
        (tmp_path / "f", "is a file that does not end in"),
        (tmp_path / "d.safetensors", "is a folder; name a file"),
        (tmp_path / "d", "holds 'precious.safetensors', which is no earlier output"),
        (Path("/proc"), "mount point"),
    ):
        with pytest.raises(InputError, match=says):
            CheckpointWriter(out, layout)
    with pytest.raises(InputError, match=r"'z' is complex128, which safetensors cannot hold"):
        Layout.of_arrays({"z": np.empty(3, complex)})


@pytest.mark.parametrize("name", ["out", "out.safetensors"])
def test_a_failed_write_leaves_the_old_output(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    write_layout(out, Layout.of_arrays({"x": np.empty(3)}))
    before = contents(tmp_path)
    layout = Layout.of_arrays({"x": np.empty(3), "y": np.empty(3)})
    with pytest.raises(RuntimeError, match="'y' was not written completely"), CheckpointWriter(out, layout) as writer:
        writer.write("x", 0, np.zeros(3))

    def interrupted() -> None:
        with CheckpointWriter(out, layout) as writer:
            writer.write("x", 0, np.zeros(3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert contents(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_disk_full_in_the_middle(tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    write_layout(out, Layout.of_arrays({"x": np.empty(3)}))
    before = contents(tmp_path)
    real, calls = os.pwrite, []

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        calls.append(offset)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(FailureError, match=r"out: disk full while writing 48 bytes .*untouched"):
        write_layout(out, Layout.of_arrays({"x": np.empty(3), "y": np.empty(3)}))
    assert contents(tmp_path) == before
    monkeypatch.undo()
    with pytest.raises(FailureError, match=r"disk full: [\d,]+ bytes to write, [\d,]+ free"):
        write_layout(out, Layout.of_arrays({"x": np.broadcast_to(np.float64(0), (1 << 50,))}))
    assert contents(tmp_path) == before


def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch) -> None:
    def mkdir(self: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(InputError, match="out cannot be written: Permission denied; choose another folder"):
        write_layout(tmp_path / "out", Layout.of_arrays({"x": np.empty(3)}))


LIMITED = """
    import resource, sys, numpy as np
    from kofn.io.tensor_writer import write_arrays
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    write_arrays(sys.argv[1], {"x": np.ones(100_000)})
"""
KILLED = """
    import os, signal, sys, numpy as np
    from kofn.io.tensor_writer import CheckpointWriter
    from kofn.io.tensors import Layout
    with CheckpointWriter(sys.argv[1], Layout.of_arrays({"x": np.empty(1000)})) as writer:
        writer.write("x", 0, np.zeros(500))
        os.kill(os.getpid(), signal.SIGKILL)
"""


def run(script: str, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(out)], capture_output=True, text=True)


def test_the_system_refuses_more_bytes(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    write_arrays(out, {"x": np.ones(2)})
    before = contents(tmp_path)
    done = run(LIMITED, out)
    assert done.returncode == 1
    assert "FailureError" in done.stderr
    assert "disk full while writing 800,000 bytes" in done.stderr
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["out", "out.safetensors"])
def test_kill_leaves_the_old_output_and_the_next_run_cleans_up(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    write_arrays(out, {"x": np.ones(2)})
    before = contents(tmp_path)
    assert run(KILLED, out).returncode == -signal.SIGKILL
    left = {path: data for path, data in contents(tmp_path).items() if not path.startswith(f".{name}.kofn-")}
    assert left == before
    assert len(list(tmp_path.iterdir())) == 2
    write_arrays(out, {"x": np.zeros(2)})
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert Checkpoint.open(out)["x"].array().tolist() == [0, 0]


def test_two_writers_do_not_remove_each_other(tmp_path: Path) -> None:
    layout = Layout.of_arrays({"x": np.empty(2)})
    with CheckpointWriter(tmp_path / "out", layout) as first:
        write_layout(tmp_path / "out", layout, 1.0)
        first.write("x", 0, np.full(2, 7.0))
    assert Checkpoint.open(tmp_path / "out")["x"].array().tolist() == [7, 7]


def test_bfloat16_survives(tmp_path: Path) -> None:
    array = np.array([1.5, -0.0, np.inf, 3e38]).astype(ml_dtypes.bfloat16)
    write_arrays(tmp_path / "x.safetensors", {"x": array})
    assert Checkpoint.open(tmp_path / "x.safetensors")["x"].array().tobytes() == array.tobytes()


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_writing_back_early_changes_no_byte(platform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kofn.io.tensor_writer._SEND_BLOCK", 100)
    monkeypatch.setattr("kofn.io.tensor_writer.sys.platform", platform)
    arrays = {name: np.random.default_rng(0).normal(size=40) for name in ("a", "b")}
    write_arrays(tmp_path / "x.safetensors", arrays)
    back = Checkpoint.open(tmp_path / "x.safetensors")
    assert all(back[name].array().tobytes() == value.tobytes() for name, value in arrays.items())


def test_a_header_may_have_no_metadata_by_name(tmp_path: Path) -> None:
    """MLX writes null where there is none, as in every adapter of mlx-lm."""
    header = json.dumps({"__metadata__": None, "w": entry()}).encode()
    (tmp_path / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    checkpoint = Checkpoint.open(tmp_path / "m.safetensors")
    assert checkpoint.layout.shards[0].metadata == {}
    assert checkpoint["w"].array().tolist() == [0, 0]
