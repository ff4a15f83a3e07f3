"""
Allocate: how many bits each layer gets
=======================================

A trained network is stored in fewer bits. Some layers bear that better than others: with the same average, how many
bits should each have? The network is trained here, on scikit-learn's digits.
"""

# %%
# What each layer loses
# ---------------------
# A network with three hidden layers, the first much the largest. Each layer's weights are rounded to 2, 3, ..., 8 bits
# while the others stay, and the change of the output is measured. That is a curve a layer.

import numpy as np
from sklearn.neural_network import MLPClassifier

import kofn
from kofn import datasets

digits = datasets.load("digits")
X = digits.X / 16
network = MLPClassifier((128, 16, 16), random_state=0, max_iter=300, tol=0.003).fit(X[:1200], digits.y[:1200])
exact = [w.copy() for w in network.coefs_]
before = np.asarray(network.predict_proba(X[1200:]))
levels = [2, 3, 4, 5, 6, 7, 8]


def rounded(weights, bits):
    step = 2 * np.abs(weights).max() / (2**bits - 1)
    return np.round(weights / step) * step


def change(bits):
    network.coefs_ = [w if b is None else rounded(w, b) for w, b in zip(exact, bits)]
    return ((np.asarray(network.predict_proba(X[1200:])) - before) ** 2).sum(axis=1).mean()


curves = np.array([[change([b if j == i else None for j in range(4)]) for b in levels] for i in range(4)])
sizes = [w.size for w in exact]
print(curves.round(4))

# %%
# Share the bits
# --------------
# Each layer costs its size times its bits; on average 3 bits a weight may be spent. The optimum is exact: no other
# choice of bits has a smaller sum of changes.

plan = kofn.allocate(curves, sizes=sizes, levels=levels, mean_budget=3, ids=[f"layer {i}" for i in range(4)])
print(plan)
print(plan.to_frame())

# %%
# ``price`` is what one more bit of the whole budget would be worth, and ``marginal_up`` what the next level of one
# layer would be.

print(plan.price)
plan.report("allocate.html")

# %%
# What it is worth
# ----------------
# The network with these bits, and with 3 bits everywhere, which takes as much room:

for name, bits in (("allocated", [int(b) for b in plan.amounts]), ("uniform", [3] * 4)):
    moved = change(bits)
    print(f"{name:10s} bits {bits}  change {moved:.4f}  accuracy {network.score(X[1200:], digits.y[1200:]):.3f}")

# %%
# From the command line
# ---------------------
# A file with one row a layer and one column a level:
#
# .. code-block:: console
#
#    $ kofn allocate curves.csv --id layer --size params --levels 2,3,4,5,6,7,8 --mean-budget 3 -o bits.csv
#
# Where next: :doc:`/choose`, and the families :doc:`/reference/allocation/knapsack` and
# :doc:`/reference/allocation/scaling_laws`.
