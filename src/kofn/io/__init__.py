"""Files in and out: tables, vectors from text or columns, checkpoints, and outputs that are whole or not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kofn.core.lazy import attach

if TYPE_CHECKING:
    from kofn.io.atomic import atomic_path as atomic_path
    from kofn.io.atomic import write_table as write_table
    from kofn.io.embedding import embed_texts as embed_texts
    from kofn.io.opening import open_table as open_table
    from kofn.io.pool import Pool as Pool
    from kofn.io.tables import Table as Table
    from kofn.io.vectors import column_vectors as column_vectors
    from kofn.io.vectors import pool_vectors as pool_vectors
    from kofn.io.words import text_vectors as text_vectors

_HOMES = {
    **dict.fromkeys(("atomic_path", "write_table"), "atomic"),
    "Pool": "pool",
    "Table": "tables",
    "embed_texts": "embedding",
    "open_table": "opening",
    **dict.fromkeys(("column_vectors", "pool_vectors"), "vectors"),
    "text_vectors": "words",
}
__getattr__, __dir__, __all__ = attach(__name__, _HOMES)
