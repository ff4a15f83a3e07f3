"""
Assign: 3,376 airports and 12 hubs
==================================

Every airport of the United States is to be served from one of twelve hubs, which are airports themselves. Then each hub
gets a limit, and at last some airports must stay together. The airports come with ``vega_datasets``.
"""

# %%
# Groups around real examples
# ---------------------------
# Latitude and longitude become points on a sphere, so that distances are those through the earth, which rank as those
# over it do.

import numpy as np

import kofn
from kofn import datasets

airports = datasets.load("airports")
latitude, longitude = np.radians(airports.X).T
X = 6371 * np.column_stack(
    [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)]
)

plan = kofn.assign(X, k=12, seed=0)
print(plan)

# %%
# The centre of a group is one of its rows, a medoid, so it has a name:

codes = airports.frame["iata"].to_numpy()
cities = airports.frame["city"].to_numpy()
sizes = np.bincount(plan.labels)
for group, row in enumerate(plan.medoids):
    print(f"{codes[row]}  {cities[row]:15s} {sizes[group]:5d} airports")

# %%
# No single exchange of a hub for another airport makes the sum of distances smaller: that is what ``status="local"``
# says. The report shows the groups and how far each member is.

plan.report("assign.html", X=X)

# %%
# A limit for each hub
# --------------------
# Nobody serves more than 300. With a ``capacity`` the same call is another problem, solved exactly for given centres.

capped = kofn.assign(X, k=12, capacity=300, seed=0)
print(capped)
print("largest groups without and with a limit:", sizes.max(), np.bincount(capped.labels).max())

# %%
# Pairs that stay together
# ------------------------
# Any two rows can be tied, or kept apart. Links hold exactly, too.

lax, jfk = np.flatnonzero(codes == "LAX")[0], np.flatnonzero(codes == "JFK")[0]
tied = kofn.assign(X, k=12, capacity=300, must_link=[(lax, jfk)], seed=0)
print("LAX and JFK in one group:", bool(tied.labels[lax] == tied.labels[jfk]))

# %%
# Items into bins with a capacity
# -------------------------------
# Where there are scores instead of points, ``assign`` routes: here 1,000 tokens to 8 experts of 125 places each. The
# default sends a refused token to its next expert, in the order of the scores; ``balanced_assignment`` finds the best
# total.

rng = np.random.default_rng(0)
scores = rng.normal(size=(1000, 8)) + rng.normal(size=8)
routed = kofn.assign(scores=scores, capacity=125, overflow="reroute")
best = kofn.assign(scores=scores, method="balanced_assignment")
print(f"rerouted {routed.value:.1f} ({routed.status}), balanced {best.value:.1f} ({best.status})")

# %%
# From the command line
# ---------------------
#
# .. code-block:: console
#
#    $ kofn assign points.npy --k 12 --capacity 300 --must-link pairs.csv -o groups.csv --report groups.html
#    $ kofn assign scores.npy --scores --capacity 125 --overflow reroute -o routes.csv
#
# Where next: :doc:`/choose`, and the families :doc:`/reference/assignment/medoids`,
# :doc:`/reference/assignment/means` and :doc:`/reference/assignment/routing`.
