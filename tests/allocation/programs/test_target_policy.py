"""Programs over stages and policies of targets: duals against differences, and limits that always hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from refusals import refused

from kofn.allocation import StagedProgram, TargetPolicy, fit_target_policy
from kofn.core.checks import InfeasibleError


def store(**changes: Any) -> StagedProgram:
    """Two reservoirs in a row: turbines of either, spills of either, two plants of unlike cost."""
    given: dict[str, Any] = {
        "cost": [0, 0, 0, 0, 3, 10],
        "effect": [[-1, 0, -1, 0, 0, 0], [1, -1, 1, -1, 0, 0]],
        "rows": [[1, 1, 0, 0, 1, 1]],
        "low": [8],
        "high": [8],
        "state_bounds": [[0, 10], [0, 6]],
        "control_bounds": [[0, 4], [0, 4], [0, 99], [0, 99], [0, 3], [0, 99]],
        "start": [5, 3],
        "terminal": [4, 2],
        "penalty": 50,
    }
    return StagedProgram(**{**given, **changes})


def test_duals_are_the_differences_of_the_optimum() -> None:
    rng = np.random.default_rng(1)
    program, flow = store(), rng.uniform(0, 4, (5, 2))
    targets = rng.uniform(1, 5, (5, 2))
    answer = program.solve(flow, targets)

    def cost(moved: Any) -> float:
        result = program.solve(flow, moved)
        return result.total + 50 * result.missed

    for stage in range(5):
        for state in range(2):
            step = np.zeros((5, 2))
            step[stage, state] = 1e-5
            assert answer.duals[stage, state] == pytest.approx(
                (cost(targets + step) - cost(targets - step)) / 2e-5, abs=1e-4
            )


def test_the_gradient_of_the_weights_is_that_of_the_cost() -> None:
    rng = np.random.default_rng(2)
    program = store()
    flow = rng.uniform(0, 4, (3, 4, 2))
    policy = fit_target_policy(program, flow, hidden=3, epochs=1, seed=4)
    assert isinstance(policy, TargetPolicy)
    _, slopes = policy.gradient(flow[0])
    for layer, weight in enumerate(policy.weights):
        index = tuple(rng.integers(weight.shape))
        kept = weight[index]
        costs = []
        for step in (1e-5, -1e-5):
            weight[index] = kept + step
            costs.append(policy.gradient(flow[0])[0])
        weight[index] = kept
        assert slopes[layer][index] == pytest.approx((costs[0] - costs[1]) / 2e-5, rel=1e-3, abs=1e-3)


def test_what_a_policy_does_keeps_all_limits_and_learning_lowers_the_cost() -> None:
    rng = np.random.default_rng(3)
    program = store()
    flow = rng.uniform(0, 3, (24, 6, 2))
    policy = fit_target_policy(program, flow[:16], hidden=0, epochs=6, rate=0.1)
    drawn = fit_target_policy(program, flow[:16], hidden=0, epochs=1, rate=1e-12)
    for row in flow[16:18]:
        plan = policy.plan(row)
        state = program.start
        for stage, controls in enumerate(plan.amounts):
            state = state + row[stage] + program.effect @ controls
            np.testing.assert_allclose(state, plan.info["states"][stage], atol=1e-7)
            assert program.rows @ controls == pytest.approx([8])
            assert (state >= -1e-9).all()
            assert (state <= program.state_bounds[:, 1] + 1e-9).all()
        assert plan.value == pytest.approx((plan.amounts @ program.cost).sum() - program.terminal @ state)
        assert plan.value >= program.solve(row).total - 1e-6
    costs = [np.mean([p.plan(row).value for row in flow[16:]]) for p in (policy, drawn)]
    assert costs[0] < costs[1]
    # A target knows nothing of what flows in later.
    changed = flow[20].copy()
    changed[3:] = 0
    np.testing.assert_array_equal(policy.targets(flow[20])[:3], policy.targets(changed)[:3])


def test_refusals() -> None:
    refused(lambda: store(effect=[[1.0]]), "effect has shape (1, 1)")
    refused(lambda: store(penalty=0), "penalty=0: targets would not bind")
    refused(lambda: store().solve([[1.0]]), "inflows has 1 columns for 2 states")
    refused(lambda: store().solve([[1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]), "targets has shape (2, 2)")
    refused(lambda: store(low=[[8]], high=[[8]]).solve([[1.0, 1.0]] * 2), "limits of 1 stages, asked for 2")
    none = store(control_bounds=[[0, 1]] * 6)
    refused(lambda: none.solve([[0.0, 0.0]]), "no controls keep rows", InfeasibleError)
    refused(lambda: fit_target_policy("x", [[[1.0]]]), "give a StagedProgram")  # type: ignore[arg-type]
    refused(lambda: fit_target_policy(store(), [[1.0, 2.0]]), "inflows has shape (1, 2)")
    policy = fit_target_policy(store(), np.ones((1, 2, 2)), epochs=1)
    refused(lambda: policy.plan(np.ones((3, 2))), "inflows has 3 stages, the policy 2")
