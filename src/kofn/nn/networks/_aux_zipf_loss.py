"""Auxiliary loss that revives under-used features of a sparse autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor

from kofn.core.checks import InputError, count
from kofn.core.torch_module import module
from kofn.nn.networks._topk_mask import topk_mask
from kofn.selection.networks._topk_mask import zipf_share


@module(form_of=None, paper=121, aliases=("auxiliary loss", "dead features"))
def aux_zipf_loss(
    residual: Tensor,
    scores: Tensor,
    decoder: Tensor,
    fired: Tensor,
    *,
    k: int,
    exponent: float = 1.0,
    shift: float = 0.0,
) -> Tensor:
    """Auxiliary Zipf loss: error of the under-used features alone in reconstructing the residual, which revives them.

    A feature is under-used if it and all less-used features fire less often than a Zipf law predicts for their ranks.
    These features share `k` entries of the batch in proportion to their targets, each keeping its highest. If only dead
    features fall short, this is the usual auxiliary loss on the top-k dead features.

    Args:
        residual: (tokens, d) input minus reconstruction; detached.
        scores: (tokens, features) pre-activations; negative ones count as zero.
        decoder: (features, d) direction of each feature.
        fired: (features,) recent number of activations of each feature.
        k: total number of batch entries for the under-used features, at least one each.
        exponent: exponent of the Zipf law.
        shift: added to the rank (Mandelbrot's form).

    Returns:
        Scalar: squared error relative to the residual's squared norm; 0 if nothing has fired or no feature is
            under-used.

    Raises:
        InputError: shapes that do not fit, k below 1.

    References:
        Ayonrinde, "Adaptive Sparse Allocation with Mutual Choice & Feature Choice Sparse Autoencoders", 2024.
        Gao et al., "Scaling and evaluating sparse autoencoders", 2024 (the loss on dead features).

    Examples:
        >>> import torch
        >>> from kofn.nn import aux_zipf_loss
        >>> residual, decoder = torch.tensor([[0.0, 1.0]]), torch.eye(2)
        >>> aux_zipf_loss(residual, torch.tensor([[3.0, 0.5]]), decoder, torch.tensor([9, 0]), k=1).item()
        0.25
    """
    tokens, features = scores.shape
    for name, got, want in (
        ("residual", tuple(residual.shape), (tokens, decoder.shape[-1])),
        ("decoder", len(decoder), features),
        ("fired", tuple(fired.shape), (features,)),
    ):
        if got != want:
            raise InputError(f"{name} has {got}, scores of shape {(tokens, features)} ask for {want}")
    share = torch.as_tensor(zipf_share(fired.cpu().numpy(), exponent=exponent, shift=shift), device=scores.device)
    # From the least used up to the first that fires as often as its rank should: where use is flatter than the law, the
    # most used fall short of it too, but they are not what is to be revived.
    order = fired.argsort(stable=True)
    short = (fired < fired.sum() * share)[order]
    under = order[: int(short.long().cumprod(0).sum())]
    targets = (count(k) * share[under] / share[under].sum()).ceil().long()
    if not len(under):
        return scores.new_zeros(())
    kept = topk_mask(scores[:, under], capacity=targets)
    missed = residual.detach()
    reconstruction = torch.where(kept, scores[:, under].relu(), 0.0) @ decoder[under]
    return (missed - reconstruction).square().sum() / missed.square().sum().clamp_min(torch.finfo(scores.dtype).tiny)
