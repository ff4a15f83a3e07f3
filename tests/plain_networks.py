"""Plain networks made for tests: their functions, their units in other orders, and how two compare."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from kofn.combination import permute, weight_matching

State = dict[str, Any]


def mlp(widths: tuple[int, ...], seed: int, names: str = "{}", dtype: Any = np.float64) -> State:
    rng = np.random.default_rng(seed)
    state = {}
    for place, (low, high) in enumerate(itertools.pairwise(widths)):
        stem = names.format(2 * place)
        state[f"{stem}.weight"] = (rng.normal(size=(high, low)) / math.sqrt(low)).astype(dtype)
        state[f"{stem}.bias"] = rng.normal(size=high).astype(dtype)
    return state


def run_mlp(state: State, X: np.ndarray) -> np.ndarray:
    stems = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    for place, stem in enumerate(stems):
        X = (np.maximum(X, 0) if place else X) @ np.float64(state[f"{stem}.weight"]).T + np.float64(
            state[f"{stem}.bias"]
        )
    return X


def shuffled(state: State, seed: int, **known: Any) -> State:
    """The same function with the units of every group in another order."""
    rng = np.random.default_rng(seed)
    found = weight_matching([state], **known).transforms
    orders = {}
    for name, order in found.items():
        width = order.shape[1]
        inner = known.get("inner", {}).get(name.rpartition(".")[2], 1)
        units = rng.permutation(width // inner)
        orders[name] = np.concatenate([unit * inner + rng.permutation(inner) for unit in units])
    return permute(state, orders, **{key: value for key, value in known.items() if key in ("architecture", "heads")})


def same_bits(a: State, b: State) -> bool:
    return list(a) == list(b) and all(
        a[name].dtype == b[name].dtype and a[name].tobytes() == b[name].tobytes() for name in a
    )


def distance(a: State, b: State) -> float:
    return math.fsum(float(np.square(np.subtract(a[name], b[name])).sum()) for name in a)


# The shapes of a small Llama.
HEADS, SHARED, SIZE, DIM, HIDDEN, LAYERS, VOCABULARY = 6, 2, 4, 20, 14, 2, 30


def llama(seed: int) -> State:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape) * 0.4

    state = {"model.embed_tokens.weight": draw(VOCABULARY, DIM)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        state |= {
            f"{at}.self_attn.q_proj.weight": draw(HEADS * SIZE, DIM),
            f"{at}.self_attn.q_proj.bias": draw(HEADS * SIZE),
            f"{at}.self_attn.k_proj.weight": draw(SHARED * SIZE, DIM),
            f"{at}.self_attn.v_proj.weight": draw(SHARED * SIZE, DIM),
            f"{at}.self_attn.o_proj.weight": draw(DIM, HEADS * SIZE),
            f"{at}.self_attn.rotary_emb.inv_freq": np.ones(2),
            f"{at}.mlp.gate_proj.weight": draw(HIDDEN, DIM),
            f"{at}.mlp.up_proj.weight": draw(HIDDEN, DIM),
            f"{at}.mlp.down_proj.weight": draw(DIM, HIDDEN),
            f"{at}.input_layernorm.weight": 1 + draw(DIM),
            f"{at}.post_attention_layernorm.weight": 1 + draw(DIM),
        }
    return state | {"model.norm.weight": 1 + draw(DIM), "lm_head.weight": draw(VOCABULARY, DIM)}
