"""One layer of experts between an embedding and a head, in PyTorch: what `harness.moe` is in NumPy.

Any layer of `kofn.nn` goes in, or a dense one of any size. Torch is imported inside, one thread a process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def network(inputs: int, outputs: int, width: int, layer: Callable[[], Any], seed: int) -> Any:
    """relu(embed(x)) = h; head(h + layer(h)) for x (batch, positions, inputs); `layer()` makes it, seeded."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(seed % 2**31)

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.layer = torch.nn.Linear(inputs, width), layer()
            self.head = torch.nn.Linear(width, outputs)

        def forward(self, x: Any) -> Any:
            h = torch.relu(self.embed(x))
            return self.head(h + self.layer(h))

    return Network()


def dense(width: int, hidden: int) -> Any:
    """A plain feed-forward layer."""
    import torch

    return torch.nn.Sequential(torch.nn.Linear(width, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, width))


def loss_of(predicted: Any, wanted: Any, kind: str) -> Any:
    """The mean over tokens: "squared" error, or "cross_entropy" against one-hot rows."""
    if kind == "squared":
        return (predicted - wanted).square().sum(dim=-1).mean()
    return -(predicted.log_softmax(dim=-1) * wanted).sum(dim=-1).mean()


def train(
    model: Any,
    X: Floats,
    Y: Floats,
    *,
    kind: str,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    after: Callable[[Any], None] | None = None,
) -> None:
    """Adam on batches of examples drawn by the seed; `after(model)` sees the gradients of each step."""
    import torch

    inputs, wanted = torch.as_tensor(X), torch.as_tensor(Y)
    optimizer = torch.optim.Adam(model.parameters(), rate, fused=True)
    draws = np.random.default_rng([seed, 1])
    for _ in range(steps):
        at = torch.as_tensor(draws.integers(0, len(X), batch))
        optimizer.zero_grad()
        loss_of(model(inputs[at]), wanted[at], kind).backward()
        if after is not None:
            after(model)
        optimizer.step()


def operations(run: Callable[[], Any]) -> int:
    """Floating-point operations of all matrix products, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())
