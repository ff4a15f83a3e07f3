"""k-medoids clustering: PAM and its faster variants."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "alternating": "_alternating",
    "fastclara": "_fastclara",
    "fastclarans": "_fastclarans",
    "fasterpam": "_fasterpam",
    "fastpam1": "_fastpam1",
    "pam": "_pam",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
