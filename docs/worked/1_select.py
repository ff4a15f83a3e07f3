"""
Select: which 50 digits to label
================================

1,797 scanned digits, and money to label 50. Which 50? Those that best stand for all of them, so that what is learnt
from the 50 holds for the others. The digits come with scikit-learn; their labels are used at the end only, to see what
the picks were worth.
"""

# %%
# The pool
# --------
# A pool is an array with one row an item. Nothing else is needed.

import kofn
from kofn import datasets

digits = datasets.load("digits")
X = digits.X / 16
print(X.shape)

# %%
# Pick
# ----
# ``kofn.select`` picks ``k`` rows. The answer is a plan: the picks in their order, what each added, and a bound that
# says how good any other 50 could be.

picks = kofn.select(X, k=50)
picks

# %%
# The order counts: the first ten of fifty are the picks for a budget of ten.

print(picks.indices[:10])
print(picks.gains[:10].round(1))

# %%
# The report shows why these: the picks, how much each added, and who stands for whom. It is one file.

picks.report("select.html", X=X)

# %%
# What they are worth
# -------------------
# A classifier learns from the 50 picks and is tried on all the others; then from 50 random digits, twenty times.

import numpy as np
from sklearn.linear_model import LogisticRegression


def accuracy(rows):
    rest = np.setdiff1d(np.arange(len(X)), rows)
    model = LogisticRegression(max_iter=2000).fit(X[rows], digits.y[rows])
    return model.score(X[rest], digits.y[rest])


rng = np.random.default_rng(0)
random = [accuracy(rng.choice(len(X), 50, replace=False)) for _ in range(20)]
print(f"picked {accuracy(picks.indices):.3f}")
print(f"random {np.mean(random):.3f}  (from {min(random):.3f} to {max(random):.3f})")

# %%
# With a budget and with quotas
# -----------------------------
# Labels may cost unequally, and some groups must be there. Here a digit costs as much as it has ink, at most 10,000 may
# be spent in total, and at least 5 picks come from the darkest quarter. Both hold exactly.

ink = digits.X.sum(axis=1).astype(int)
shade = np.where(ink >= np.quantile(ink, 0.75), "dark", "light")
plan = kofn.select(X, budget=10_000, costs=ink, groups=shade, quotas={"dark": (5, None)})
print(plan)
print("spent", ink[plan.indices].sum(), "of 10000; dark:", (shade[plan.indices] == "dark").sum())

# %%
# Which method
# ------------
# ``method="auto"`` took lazy greedy. Others trade the objective for speed or for another idea of a good pick;
# ``kofn.compare`` judges them all under one objective.

table = kofn.compare("select", X, k=50, methods=["lazy_greedy", "stochastic_greedy", "farthest_first", "random_sample"])
print(table)

# %%
# From the command line
# ---------------------
# The same, without Python:
#
# .. code-block:: console
#
#    $ kofn select examples/digits.npz --vectors X --images images -k 50 -o picks.csv --report digits.html
#
# Where next: :doc:`/choose` says which method for which task, :doc:`/reference/index` has all of them.
