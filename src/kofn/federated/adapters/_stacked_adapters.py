"""Federated LoRA over clients of unequal rank: updates are stacked and folded into the shared weights (FLoRA)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from kofn.combination.adapters._fold_adapter import fold_adapter
from kofn.combination.adapters._stack_adapters import stack_adapters
from kofn.core import checks
from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.core.plans import Blend
from kofn.core.stepper import Event, Example, Stepper, stepper
from kofn.io.torch_arrays import from_torch, is_torch


def _example(rng: np.random.Generator) -> Example:
    base = {"fc.weight": rng.integers(-2, 3, (3, 2)).astype(np.float64), "bias": np.ones(3)}

    def factors(rng: np.random.Generator) -> dict[str, Array]:
        rank = int(rng.integers(1, 4))
        return {
            "fc.lora_A.weight": rng.integers(-2, 3, (rank, 2)).astype(np.float64),
            "fc.lora_B.weight": rng.integers(-2, 3, (3, rank)).astype(np.float64),
        }

    def event(_server: StackedAdapters, rng: np.random.Generator) -> Event:
        clients = int(rng.integers(1, 4))
        return Event("tell", ([factors(rng) for _ in range(clients)], rng.integers(1, 5, clients).astype(np.float64)))

    wide = {"fc.lora_A.weight": np.ones((1, 5)), "fc.lora_B.weight": np.ones((3, 1))}
    return Example(
        lambda _seed: StackedAdapters(base), event=event, events=6, refused=((Event("tell", ([wide],)), "fc"),)
    )


@stepper(
    "combine",
    paper=304,
    cost="O(in out R) a round and module, R the sum of the ranks; memory the weights and one round's factors",
    exact="the weights move by exactly the weighted sum of the clients' updates",
    events=("tell",),
    aliases=("FLoRA", "federated LoRA", "federated fine-tuning"),
    draws=_example,
)
class StackedAdapters(Stepper[Blend]):
    """Federated LoRA server that sums its clients' updates exactly, for any ranks.

    A round: every client starts fresh factors on the current weights (A random, B zero), trains them on its own rows
    and sends them; `tell` stacks them, so that the weights move by exactly sum_k p_k s_k B_k A_k, and folds that in.
    Each client downloads the stacked adapter `plan.result` and folds it into its own copy. Averaging A and B
    separately, with small ranks padded by zeros, would not give the mean update.

    Args:
        base: name -> array (NumPy or torch), the weights before the first round; copied.

    Attributes:
        base: name -> array, the current weights.
        rounds: rounds so far.
        uploaded, downloaded: numbers (factor entries) that clients sent, and that were sent to them.

    Time O(in out R) a round and module, R the sum of the ranks; memory the weights and one round's factors.

    >>> import numpy as np
    >>> server = StackedAdapters({"fc.weight": np.zeros((2, 2))})
    >>> one = {"fc.lora_A.weight": np.array([[1.0, 0.0]]), "fc.lora_B.weight": np.array([[4.0], [0.0]])}
    >>> two = {"fc.lora_A.weight": np.eye(2), "fc.lora_B.weight": np.eye(2)}
    >>> server.tell([one, two], weights=[1, 3]).result.pairs["fc"].rank
    3
    >>> server.base["fc.weight"].tolist()
    [[1.75, 0.0], [0.0, 0.75]]

    References:
        Wang et al. 2024, FLoRA: federated fine-tuning large language models with heterogeneous low-rank adaptations
        (NeurIPS).
    """

    state: ClassVar = {"base": "tensors", "rounds": "", "uploaded": "", "downloaded": "", "round": ""}

    def __init__(self, base: Mapping[str, Any]) -> None:
        if not isinstance(base, Mapping) or not base:
            raise InputError(f"base is {type(base).__name__}; give the weights as a mapping name -> array")
        self.base: dict[str, Array] = {name: _copied(value) for name, value in base.items()}
        super().__init__(base={name: array.shape for name, array in self.base.items()})
        self.rounds = self.uploaded = self.downloaded = 0
        self._round: Blend | None = None

    def tell(self, updates: Sequence[Any], weights: Any = None) -> Blend:
        """One round: the clients' adapters, with weights (numbers of rows; equal by default).

        Returns:
            The Blend of `stack_adapters`, also in `plan`.

        Raises:
            InputError: adapters that do not match each other or the weights; the state is then unchanged.
        """
        if weights is not None:
            weights = checks.weights(weights)
        plan: Blend = stack_adapters(updates, weights=weights)
        folded = fold_adapter(self.base, plan.result)
        self.base = dict(folded)
        self._round = plan
        self.rounds += 1
        self.uploaded += int(plan.info["entries"])
        self.downloaded += plan.n * plan.result.size
        return plan

    def _plan(self) -> Blend:
        """The last round's sum: `plan.result` is the adapter that clients fold into their copy of the weights.

        Raises:
            InputError: no round has taken place yet.
        """
        if self._round is None:
            raise InputError("plan: no round yet; tell the clients' updates first")
        return self._round


def _copied(value: Any) -> Array:
    return np.array(from_torch(value) if is_torch(value) else value)
