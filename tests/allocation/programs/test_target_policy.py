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


def test_rows_that_are_kept_from_call_to_call_follow_changes_and_horizons() -> None:
    flow = np.random.default_rng(2).uniform(0, 4, (6, 2))
    program = store()
    for stages in (6, 3, 6):
        for targets in (None, np.full((stages, 2), 2.0)):
            assert program.solve(flow[:stages], targets).total == store().solve(flow[:stages], targets).total
    program.effect[1, 0] = 0.5
    changed = store(effect=program.effect)
    assert program.solve(flow).total == changed.solve(flow).total != store().solve(flow).total
    program.high = np.array([np.inf])
    assert program.solve(flow).total == store(effect=program.effect, high=[np.inf]).solve(flow).total


def in_units(of_costs: float, of_water: float, penalty: float = 50) -> StagedProgram:
    """The same stores, measured otherwise."""
    given = store()
    parts = ("low", "high", "state_bounds", "control_bounds", "start")
    return store(
        cost=given.cost * of_costs,
        terminal=given.terminal * of_costs,
        penalty=penalty * of_costs,
        **{name: getattr(given, name) * of_water for name in parts},
    )


@pytest.mark.parametrize("of_costs", [1e-100, 1e-8, 1.0, 1e13])
@pytest.mark.parametrize("of_water", [1e-100, 1e-8, 1.0, 1e9])
def test_programs_in_any_unit(of_costs: float, of_water: float) -> None:
    rng = np.random.default_rng(5)
    flow, targets = rng.uniform(0, 4, (4, 2)), rng.uniform(1, 5, (4, 2))
    program = in_units(of_costs, of_water)
    for given in (None, targets):
        same = store().solve(flow, given)
        answer = program.solve(flow * of_water, None if given is None else given * of_water)
        least = same.total + 50 * same.missed
        got = answer.total / of_costs / of_water + 50 * (answer.missed / of_water)
        assert got == pytest.approx(least, rel=1e-7)
        assert answer.controls @ program.rows[0] == pytest.approx(8 * of_water, rel=1e-6)
        assert (answer.states >= 0).all()
        assert (answer.states <= program.state_bounds[:, 1]).all()
        assert (answer.controls <= program.control_bounds[:, 1]).all()
        before = np.vstack([program.start, answer.states[:-1]])
        moved = before + flow * of_water + answer.controls @ program.effect.T
        np.testing.assert_allclose(moved, answer.states, atol=1e-9 * of_water)
        np.testing.assert_allclose(answer.duals / of_costs, same.duals, rtol=1e-6, atol=1e-6)


def test_a_store_far_smaller_than_another_and_controls_of_large_units() -> None:
    # The second store, its inflow and what it turbines are a hundred-millionth of the first's.
    small = 1e-8
    apart = StagedProgram(
        cost=[0, 5, 0, 0, 5, 0],
        effect=[[-1, 0, -1, 0, 0, 0], [0, 0, 0, -1, 0, -1]],
        rows=[[1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0]],
        low=[2, 2 * small],
        high=[2, 2 * small],
        state_bounds=[[0, 4], [0, 4 * small]],
        control_bounds=[[0, 9]] * 6,
        start=[1, small],
        terminal=[0, 0],
        penalty=100,
    )
    answer = apart.solve([[0.0, 0.0], [2.0, 2 * small]])
    assert answer.controls[:, 3:5].sum(axis=1) == pytest.approx([2 * small] * 2, rel=1e-6)
    assert answer.costs.sum() == pytest.approx(5 + 5 * small, rel=1e-12)
    bought = StagedProgram(
        cost=[1, 2], effect=[[1e-12, 1e-12]], rows=[[0, 0]], low=[-1], high=[1], state_bounds=[[3, 9]],
        control_bounds=[[0, 1e12]] * 2, start=[1], terminal=[0], penalty=1,
    )  # fmt: skip
    assert bought.solve([[0.0]]).controls[0] == pytest.approx([1e12, 1e12])


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
    refused(
        lambda: store(
            cost=[0, 0, 0, 0, -1, 0], rows=[[1, 0, 0, 0, 0, 0]], low=[0], control_bounds=[[0, np.inf]] * 6
        ).solve([[0.0, 0.0]]),
        "cost: the controls have no least cost",
    )
    refused(lambda: fit_target_policy("x", [[[1.0]]]), "give a StagedProgram")  # type: ignore[arg-type]
    refused(lambda: fit_target_policy(store(), [[1.0, 2.0]]), "inflows has shape (1, 2)")
    policy = fit_target_policy(store(), np.ones((1, 2, 2)), epochs=1)
    refused(lambda: policy.plan(np.ones((3, 2))), "inflows has 3 stages, the policy 2")
