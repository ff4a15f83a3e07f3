"""Calls on which the laws hold: of members large enough for threads."""

from __future__ import annotations

import numpy as np
from law_runs import keeps_laws_in_tasks, wide
from refusals import refused

import kofn


def test_weighted_mean_at_size() -> None:
    keeps_laws_in_tasks("weighted_mean", {"members": wide(), "weights": [0.3, 0.7]})


def test_fisher_merging_at_size() -> None:
    precisions = [member**2 for member in wide()]
    keeps_laws_in_tasks("fisher_merging", {"members": wide()}, {"fisher": precisions, "balance": True})


def test_the_others_at_size() -> None:
    keeps_laws_in_tasks("slerp", {"members": wide()})
    keeps_laws_in_tasks("variance_corrected_mean", {"members": wide()})
    keeps_laws_in_tasks("balanced_mean", {"members": wide()}, {"temperatures": [1.0, 3.0], "head": "*"})


def test_fisher_merging_wants_a_diagonal_for_each_member() -> None:
    members = [np.array([1.0, 2.0])] * 4
    refused(
        lambda: kofn.combine(members, method="fisher_merging", fisher=[np.ones(2)] * 3),
        "fisher has 3 diagonals for 4 members",
    )
