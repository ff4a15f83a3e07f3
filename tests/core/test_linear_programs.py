"""Linear programs in any unit against their optimum, and answers that do not keep them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.optimize
from refusals import refused
from scipy.sparse import csr_array

from kofn.core.checks import FailureError, InfeasibleError
from kofn.core.linear_programs import LinearProgram


def drawn(rows: Any, b: Any, most: Any, c: Any = None, equal: bool = False) -> LinearProgram:
    table = csr_array(np.array(rows, np.float64))
    n = table.shape[1]
    return LinearProgram(
        c=np.ones(n) if c is None else np.array(c, np.float64),
        A=table,
        b=np.array(b, np.float64),
        equal=np.full(table.shape[0], equal),
        least=np.zeros(n),
        most=np.array(most, np.float64),
    )


@pytest.mark.parametrize("of_costs", [1e-100, 1e-8, 1.0, 1e13])
@pytest.mark.parametrize("of_rows", [1e-100, 1e-10, 1.0, 1e8])
@pytest.mark.parametrize("of_columns", [1e-60, 1e-10, 1.0, 1e9])
def test_optimum_and_marginals_in_any_unit(of_costs: float, of_rows: float, of_columns: float) -> None:
    # The most of 3x + 2y with x + y <= 4 and x + 3y <= 6 is 12, at (4, 0); 3 is what one more of the first row brings.
    columns = np.array([1.0, of_columns])
    program = drawn(
        np.array([[1.0, 1.0], [1.0, 3.0]]) / columns * of_rows,
        np.array([4.0, 6.0]) * of_rows,
        [10, 10 * of_columns],
        np.array([-3.0, -2.0]) / columns * of_costs,
    )
    x, marginals, _ = program.solved("none", "unbounded")
    np.testing.assert_allclose(x / columns, [4, 0], atol=1e-9)
    np.testing.assert_allclose(marginals / of_costs * of_rows, [-3, 0], atol=1e-9)
    assert program.kept(x)
    assert not program.kept(x * (1 + 1e-5))


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    refused(lambda: drawn([[1, 1]], [3], [1, 1], equal=True).solved("none", ""), "none", InfeasibleError)
    refused(lambda: drawn([[1, 0]], [3], [1, np.inf], [1, -1]).solved("", "unbounded"), "unbounded")
    refused(
        lambda: drawn([[1, 1e-13, 0], [0, 1, -1]], [1, 0], [0.5, 1e13, 1e13], equal=True).solved("", ""),
        "1e-13 is read as 0 by the solver",
    )
    solver: Any = scipy.optimize.linprog

    def off(*given: Any, **more: Any) -> Any:
        answer = solver(*given, **more)
        answer.x = answer.x * 0.99
        return answer

    monkeypatch.setattr(scipy.optimize, "linprog", off)
    refused(lambda: drawn([[1, 1]], [2], [2, 2], equal=True).solved("", ""), "keeps rows to 1e-06", FailureError)
