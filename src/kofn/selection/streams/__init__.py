"""Streaming, dynamic and private submodular selection."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "DynamicSelection": "_dynamic_selection",
    "PrivateStreaming": "_private_streaming",
    "SieveStreaming": "_sieve_streaming",
    "private_streaming": "_private_streaming",
    "sieve_streaming": "_sieve_streaming",
    "stream_file": "_sieve_streaming",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
