"""Where work runs and how it is stopped."""

from __future__ import annotations

from kofn.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, {"Local": "local", "Ray": "ray"})
