"""
Combine: networks into one, judges into one ranking
===================================================

Two things that come in several and are wanted once: trained networks, whose weights are blended, and rankings, whose
judges differ. The networks are trained here on scikit-learn's digits.
"""

# %%
# Networks that began together
# ----------------------------
# One network learns a little of everything. From it, three go on, each with the rows of another third of the classes
# and a few of all. A member is a mapping from names to arrays, such as a state dict or a file of safetensors.

import copy

import numpy as np
from sklearn.neural_network import MLPClassifier

import kofn
from kofn import datasets

digits = datasets.load("digits")
X, y = digits.X / 16, digits.y
train, valid, test = np.split(np.random.default_rng(0).permutation(len(X)), [900, 1300])


def weights(network):
    return {f"{kind}{i}": w for kind in ("coefs_", "intercepts_") for i, w in enumerate(getattr(network, kind))}


def tuned(network, rows, steps):
    network = copy.deepcopy(network)
    for _ in range(steps):
        network.partial_fit(X[rows], y[rows])
    return network


start = MLPClassifier((48, 32), random_state=0).partial_fit(X[train], y[train], classes=range(10))
start = tuned(start, train, 10)
parts = [np.concatenate([train[np.isin(y[train], part)], train[:150]]) for part in ([0, 1, 2], [3, 4, 5], [6, 7, 8, 9])]
members = [weights(tuned(start, rows, 25)) for rows in parts]


def accuracy(state, rows=test):
    network = copy.deepcopy(start)
    network.coefs_ = [np.asarray(state[f"coefs_{i}"]) for i in range(3)]
    network.intercepts_ = [np.asarray(state[f"intercepts_{i}"]) for i in range(3)]
    return network.score(X[rows], y[rows])


print("start  ", round(accuracy(weights(start)), 3))
print("members", [round(accuracy(member), 3) for member in members])

# %%
# Blend them
# ----------
# The mean is the default. With the network that they began from as ``base``, the changes can be added instead, and
# cleared of what contradicts.

base = weights(start)
blends = {
    "weighted_mean": kofn.combine(members),
    "task_arithmetic": kofn.combine(members, base=base, method="task_arithmetic", scale=1.0),
    "ties": kofn.combine(members, base=base, method="ties", density=0.5),
}
for name, blend in blends.items():
    print(f"{name:16s} {accuracy(blend.result):.3f}")

# %%
# A score decides
# ---------------
# Where some rows can be kept for judging, a soup adds a member only if it helps. Every rating is recorded in the plan.

soup = kofn.combine(members, method="greedy_soup", score=lambda state: accuracy(state, valid))
print(soup)
print(f"greedy_soup      {accuracy(soup.result):.3f}")

# %%
# What the report advises
# -----------------------
# With the base and ``measure``, the plan says how far the blend goes: the length of its change over that of its
# members'. Far from 1, the report names the option that brings it there. Here is whether that helps, on other data: the
# price of 54,000 diamonds in six classes, over five seeds. The advice knows weights only, no rows.

from sklearn.preprocessing import StandardScaler

diamonds = datasets.load("diamonds")
X = StandardScaler().fit_transform(diamonds.X)
y = np.digitize(diamonds.y, np.quantile(diamonds.y, np.arange(1, 6) / 6))


def fine_tunes(seed):
    """A network that saw some rows, and three that went on from it with two of the six classes each."""
    train, test = np.split(np.random.default_rng(seed).permutation(len(X))[:6000], [3600])
    start = MLPClassifier((64, 32), random_state=seed).partial_fit(X[train[:700]], y[train[:700]], classes=range(6))
    start = tuned(start, train[:700], 20)
    parts = [np.concatenate([train[y[train] // 2 == part], train[:600]]) for part in range(3)]
    return start, [weights(tuned(start, rows, 25)) for rows in parts], test


merges: dict[str, tuple[str, dict[str, float]]] = {
    "ties": ("ties", {}),
    "ties, scale 2": ("ties", {"scale": 2.0}),
    "sum of changes": ("task_arithmetic", {"normalize": False}),
    "dare, density 0.1": ("dare", {"density": 0.1, "seed": 0}),
}


def merged(start, members, method, options):
    return kofn.combine(members, base=weights(start), method=method, measure=True, **options)


rows, plans = [], []
for seed in range(5):
    start, members, test = fine_tunes(seed)
    for name, (method, options) in merges.items():
        blend = merged(start, members, method, options)
        length, advised = blend.info["length"], dict(options)
        if not 0.5 <= length <= 1.75:  # as far as the members themselves: there the report advises nothing
            if method == "dare":
                advised["density"] = options["density"] * length**2
            else:
                advised["scale"] = options.get("scale", 1.0) / length
        after = merged(start, members, method, advised)
        plans.append(blend)
        rows.append((name, length, accuracy(blend.result, test), accuracy(after.result, test)))
for name in merges:
    length, before, after = np.transpose([row[1:] for row in rows if row[0] == name])
    print(f"{name:18s} length {length.mean():.2f}  before {before.mean():.3f}  after {after.mean():.3f}", end="  ")
    print(f"better for {(after > before).sum()} of 5 seeds, worse for {(after < before).sum()}")

# %%
# It is a rule about length and no more. ``python -m benchmarks merge_advice`` holds it on five data sets: 101 of 125
# blends gained and 14 lost, 13 of these on sets of a few hundred rows. No figure of the weights foretold which layer
# costs accuracy. The report of the last blend, before the advice:

plans[-1].report("merge.html")

# %%
# Judges
# ------
# Five classifiers on four data sets: a leaderboard, with one score that nobody measured. The data sets judge, each on a
# scale of its own, one column of ``rankings`` a judge. What is ranked gets a point for each other that it beats,
# averaged over the judges that rated it.

import polars as pl
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

models = [KNeighborsClassifier(), GaussianNB(), LinearDiscriminantAnalysis(), SVC()]
models.append(DecisionTreeClassifier(random_state=0))
sets = {name: datasets.load(name) for name in ("digits", "wine", "breast_cancer", "cars")}
board = pl.DataFrame({name: [cross_val_score(m, d.X, d.y, cv=3).mean() for m in models] for name, d in sets.items()})
board[3, "cars"] = None
names = [type(model).__name__ for model in models]
print(board.with_columns(pl.Series("model", names)).select("model", pl.all().exclude("model").round(3)))

ranking = kofn.combine(rankings=board, ids=names)
print(ranking)
print(ranking.to_frame())

# %%
ranking.report("combine.html")

# %%
# From the command line
# ---------------------
# Checkpoints are blended on disk, tensor by tensor; a killed run goes on where it was.
#
# .. code-block:: console
#
#    $ kofn combine a/ b/ c/ --base start/ --method ties --density 0.5 -o merged/ --report merged.html
#    $ kofn combine leaderboard.csv --id model --lower perplexity -o ranking.csv --report ranking.html
#
# Where next: :doc:`/choose`, and the families :doc:`/reference/combination/averaging`,
# :doc:`/reference/combination/task_vectors`, :doc:`/reference/combination/adapters` and
# :doc:`/reference/combination/rankings`.
