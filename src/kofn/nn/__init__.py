"""The PyTorch form of a family, under the same file name: `kofn.nn.masks` beside `kofn.selection.masks`.

Needs `pip install 'kofn[torch]'`; a name is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kofn._lazy import lazy
from kofn.checks import InputError

if TYPE_CHECKING:
    from kofn.nn.masks import TopKMask as TopKMask
    from kofn.nn.masks import aux_zipf_loss as aux_zipf_loss
    from kofn.nn.masks import topk_mask as topk_mask

_HOMES = {
    "TopKMask": "masks",
    "aux_zipf_loss": "masks",
    "topk_mask": "masks",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    try:
        return lazy(__name__, _HOMES, name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise InputError(f"kofn.nn.{name} needs torch: pip install 'kofn[torch]'") from None


def __dir__() -> list[str]:
    return list(__all__)
