"""
Allocate: a model on disk at 3 bits
===================================

A model is a folder of safetensors, and shall take 3 bits a weight. One command measures every tensor, shares the bits,
and writes the model as the plan leaves it, so that its quality can be measured. Here the model writes English: it is
trained in a few seconds to tell the next character from the eight before it.
"""

# %%
# A model on disk
# ---------------
# Verses of the King James Bible, of which it learns from the first few thousand characters and is judged on others.

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.neural_network import MLPClassifier

from kofn import datasets

text = " ".join(datasets.load("verses").frame["text"].to_list()).lower()
letters = " abcdefghijklmnopqrstuvwxyz,.;:"
codes = np.array([max(letters.find(letter), 0) for letter in text[:400_000]])
before = np.lib.stride_tricks.sliding_window_view(codes, 8)[:-1]
X, y = np.eye(32, dtype=np.float32)[before].reshape(-1, 256), codes[8:]
order = np.random.default_rng(0).permutation(300_000)
train, test, seen = order[:24_000], slice(320_000, 340_000), order[24_000:26_000]

network = MLPClassifier((256, 128, 128, 128, 128), random_state=0)
for _ in range(6):
    network.partial_fit(X[train], y[train], classes=range(31))
weights = {f"layers.{i}.weight": np.ascontiguousarray(w.T, np.float32) for i, w in enumerate(network.coefs_)}
disk = Path(tempfile.mkdtemp())
(disk / "model").mkdir()
save_file(weights, disk / "model/model.safetensors")


def logits(weights, rows):
    hidden = X[rows]
    for i, bias in enumerate(network.intercepts_):
        hidden = (np.maximum(hidden, 0) if i else hidden) @ weights[f"layers.{i}.weight"].T + bias
    return hidden


def perplexity(folder):
    scores = logits(load_file(disk / folder / "model.safetensors"), test)
    scores -= np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1, keepdims=True)) + scores.max(1, keepdims=True)
    return np.exp(-scores[np.arange(len(scores)), y[test]].mean())


def command(arguments):
    print(f"$ kofn {arguments}")
    line = [sys.executable, "-m", "kofn", *arguments.split()]
    print(subprocess.run(line, cwd=disk, capture_output=True, text=True, check=True).stdout)


print({name: weight.shape for name, weight in weights.items()})
print(f"perplexity of a character: {perplexity('model'):.3f}")

# %%
# One width for all
# -----------------
# The baseline: all tensors tied together have the same width. ``--apply`` writes weights that are rounded and
# read back, in the shapes and types of the original.

command("allocate model --bits 3 --tie * -o uniform.json --apply uniform")
print(f"perplexity: {perplexity('uniform'):.3f}")

# %%
# By the weights alone
# --------------------
# Each tensor's own rounding errors decide. The command says itself what such errors leave open: how much each layer
# matters to the output.

command("allocate model --bits 3 -o weights.json --apply by_weights")
print(f"perplexity: {perplexity('by_weights'):.3f}")

# %%
# By what each tensor matters
# ---------------------------
# So measure it: noise in one tensor at a time, and how much the output changes, relative to the noise. Of a torch model
# ``kofn.nn.noise_sensitivity`` does this in one call; here it is a few lines. The file goes in as ``--statistics``.

rng, exact = np.random.default_rng(1), logits(weights, seen)
matters = {}
for name, weight in weights.items():
    noise = rng.normal(size=weight.shape) * np.sqrt(0.02 * (weight**2).mean())
    changed = logits({**weights, name: weight + noise}, seen) - exact
    matters[name] = np.array([(changed**2).sum() / (exact**2).sum() / 0.02], np.float32)
save_file(matters, disk / "statistics.safetensors")
print({name: round(float(value[0]), 2) for name, value in matters.items()})

# %%
command(
    "allocate model --bits 3 --statistics statistics.safetensors -o plan.json --apply allocated --report model.html"
)
shutil.copy(disk / "model.html", "model.html")

# %%
# Did it help?
# ------------
# Not at 3 bits: what a tensor matters is the slope for small errors, and rounding to 2 bits, which the plan asks of one
# tensor so that others get more, loses more than in proportion. From Python, at other means:

from kofn.allocation import allocate_checkpoint, apply_plan

for bits in (3.0, 3.5, 4.0):
    shared = allocate_checkpoint(disk / "model", bits=bits, statistics=disk / "statistics.safetensors")
    apply_plan(shared, out=disk / f"allocated_{bits}")
    print(f"{bits} bits, allocated: {perplexity(f'allocated_{bits}'):.3f}  {list(shared.level_of().values())}")
for bits in (3, 4):
    apply_plan(allocate_checkpoint(disk / "model", bits=bits, tie="*"), out=disk / f"uniform_{bits}")
    print(f"{bits} bits for all: {perplexity(f'uniform_{bits}'):.3f}")

# %%
# Curves of the quality itself
# ----------------------------
# A model this small can be asked directly: each tensor at each width, the others exact, and what the predictions change
# by. Such curves hold at 2 bits, too, and :doc:`3_allocate` says how they are shared. By them 3 bits for all is the
# best there is at 3 bits; at 4 bits it is not.

import kofn

levels = [2, 3, 4, 5, 6, 7, 8]
rounded = {}
for bits in levels:
    apply_plan(allocate_checkpoint(disk / "model", bits=bits, tie="*"), out=disk / f"rounded_{bits}")
    rounded[bits] = load_file(disk / f"rounded_{bits}/model.safetensors")


def chances(weights):
    scores = np.exp(logits(weights, seen[:1000]).astype(np.float64))
    return scores / scores.sum(1, keepdims=True)


exactly = chances(weights)
curves = [
    [(exactly * np.log(exactly / chances({**weights, name: rounded[bits][name]}))).sum(1).mean() for bits in levels]
    for name in weights
]
for mean in (3, 4):
    plan = kofn.allocate(curves, levels=levels, sizes=[w.size for w in weights.values()], mean_budget=mean)
    same = plan.info["uniform"]["value"]
    print(f"{mean} bits: {[int(b) for b in plan.amounts]}, change {plan.value:.4f}; for all alike {same:.4f}")

# %%
# So write the model out, measure it, and keep what is better. Where next: ``kofn allocate --help`` for what else shares
# bits (fixed and tied tensors, ``--sparsity``, ``--format llmcompressor``), and the family
# :doc:`/reference/allocation/knapsack`.
