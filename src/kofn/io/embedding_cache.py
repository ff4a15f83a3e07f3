"""Embeddings that were computed before, by the content of the text and of the model.

One SQLite file in the user's cache folder: `KOFN_CACHE` where that is set ("off" keeps nothing), else
`XDG_CACHE_HOME/kofn`, `~/.cache/kofn`, on macOS `~/Library/Caches/kofn`, on Windows `%LOCALAPPDATA%/kofn`. A cache is
never in the way: what cannot be read back whole is computed again, a file that is no longer a database is begun anew,
and where nothing can be written nothing is kept.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     with EmbeddingCache(Path(folder) / "embeddings.sqlite") as cache:
...         cache.put(b"model", {b"text": np.ones(2, np.float32)})
...         cache.get(b"model", [b"text", b"another"])
{b'text': array([1., 1.], dtype=float32)}
"""

from __future__ import annotations

import os
import sqlite3
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

# About 500,000 vectors of 384 numbers; beyond, the oldest fifth goes.
MAX_BYTES = 1 << 30
_OFF = ("", "0", "off", "no", "none")
_ASKED = 500  # keys in one query
_PATIENCE = 5.0  # seconds to wait for another process that writes
_SCHEMA = """
CREATE TABLE IF NOT EXISTS vectors (model BLOB, text BLOB, vector BLOB, crc INTEGER);
CREATE UNIQUE INDEX IF NOT EXISTS by_text ON vectors (model, text);
"""


def cache_folder() -> Path | None:
    """The folder for what is computed once and used again; None where nothing should be kept."""
    named = os.environ.get("KOFN_CACHE")
    if named is not None:
        return None if named.strip().lower() in _OFF else Path(named).expanduser()
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "kofn"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "kofn"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")) / "kofn"
    return home / ".cache" / "kofn"


class EmbeddingCache:
    """Vectors under two keys, the model's and the text's; used in a `with` block.

    Args:
        path: the file; None keeps nothing.
        max_bytes: how large the file may grow; the vectors written longest ago go first.

    Each vector is stored with its checksum, and each `put` is one transaction: a run that is stopped, a full disk or a
    second process leave whole vectors or none.
    """

    def __init__(self, path: Path | None, max_bytes: int = MAX_BYTES) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._base: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        if self._path is not None:
            self._base = _opened(self._path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_up()

    def get(self, model: bytes, texts: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """The vectors that are known, float32, by the text's key."""
        known: dict[bytes, NDArray[np.float32]] = {}
        try:
            for start in range(0, len(texts), _ASKED):
                if self._base is None:
                    break
                part = texts[start : start + _ASKED]
                query = (
                    f"SELECT text, vector, crc FROM vectors WHERE model = ? AND text IN ({','.join('?' * len(part))})"
                )
                for text, vector, crc in self._base.execute(query, (model, *part)):
                    if _is_whole(model, text, vector, crc):
                        known[text] = np.frombuffer(vector, "<f4").astype(np.float32)
        except sqlite3.OperationalError:
            self._give_up()
        except sqlite3.DatabaseError:
            self._begin_anew()
        return known

    def put(self, model: bytes, vectors: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Keep vectors by the text's key; those kept before under the same keys are replaced."""
        if self._base is None:
            return
        blobs = ((text, np.asarray(row, "<f4").tobytes()) for text, row in vectors.items())
        cells = ((model, text, blob, _crc(model, text, blob)) for text, blob in blobs)
        try:
            with self._base:
                self._base.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", cells)
                self._trim(self._base)
        except sqlite3.OperationalError:
            self._give_up()
        except sqlite3.DatabaseError:
            self._begin_anew()

    def _trim(self, base: sqlite3.Connection) -> None:
        """Drop the oldest fifth of the vectors where the file would be too large; its pages are used again."""
        pages, free, size = (
            int(base.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
        )
        if (pages - free) * size > self._max_bytes:
            count = int(base.execute("SELECT COUNT(*) FROM vectors").fetchone()[0])
            oldest = "SELECT rowid FROM vectors ORDER BY rowid LIMIT ?"
            base.execute(f"DELETE FROM vectors WHERE rowid IN ({oldest})", (count // 5 + 1,))

    def _begin_anew(self) -> None:
        """The file is no sound database: it is removed and begun anew."""
        self._give_up()
        if self._path is not None:
            self._base = _opened_anew(self._path)

    def _give_up(self) -> None:
        if self._base is not None:
            self._base.close()
            self._base = None


def _crc(model: bytes, text: bytes, vector: bytes) -> int:
    """The checksum of a vector and of what it belongs to."""
    return zlib.crc32(vector, zlib.crc32(text, zlib.crc32(model)))


def _is_whole(model: bytes, text: Any, vector: Any, crc: Any) -> bool:
    """Whether a row is what was written; of a damaged file its cells may be of any type."""
    sound = isinstance(text, bytes) and isinstance(vector, bytes) and len(vector) % 4 == 0
    return sound and _crc(model, text, vector) == crc


def _opened(path: Path) -> sqlite3.Connection | None:
    """The database, made where there is none and made again where the file is none; None where that cannot be."""
    try:
        return _connected(path)
    except sqlite3.OperationalError:  # locked, read only, disk full: the file itself may be sound
        return None
    except sqlite3.DatabaseError:
        return _opened_anew(path)
    except OSError:
        return None


def _opened_anew(path: Path) -> sqlite3.Connection | None:
    try:
        path.unlink(missing_ok=True)
        return _connected(path)
    except (sqlite3.DatabaseError, OSError):
        return None


def _connected(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    base = sqlite3.connect(path, timeout=_PATIENCE)
    try:
        base.text_factory = bytes
        base.executescript(_SCHEMA)
    except sqlite3.DatabaseError:
        base.close()
        raise
    return base
