"""All validation of input, in one place: each check names argument, value, place and remedy in one line."""

from __future__ import annotations

from kofn.core.checks.arrays import as_array as as_array
from kofn.core.checks.arrays import as_float as as_float
from kofn.core.checks.arrays import curves as curves
from kofn.core.checks.arrays import distances as distances
from kofn.core.checks.arrays import first_equal as first_equal
from kofn.core.checks.arrays import is_sparse as is_sparse
from kofn.core.checks.arrays import matrix as matrix
from kofn.core.checks.arrays import members as members
from kofn.core.checks.arrays import rankings as rankings
from kofn.core.checks.arrays import refuse_nonfinite as refuse_nonfinite
from kofn.core.checks.arrays import scores as scores
from kofn.core.checks.arrays import signed_weights as signed_weights
from kofn.core.checks.arrays import square as square
from kofn.core.checks.arrays import vector as vector
from kofn.core.checks.arrays import weights as weights
from kofn.core.checks.constraints import capacity as capacity
from kofn.core.checks.constraints import costs as costs
from kofn.core.checks.constraints import groups as groups
from kofn.core.checks.constraints import ids as ids
from kofn.core.checks.constraints import margins as margins
from kofn.core.checks.constraints import positions as positions
from kofn.core.checks.constraints import quotas as quotas
from kofn.core.checks.constraints import same_length as same_length
from kofn.core.checks.constraints import spread_costs as spread_costs
from kofn.core.checks.errors import BrokenPlanError as BrokenPlanError
from kofn.core.checks.errors import FailureError as FailureError
from kofn.core.checks.errors import InfeasibleError as InfeasibleError
from kofn.core.checks.errors import InputError as InputError
from kofn.core.checks.errors import KofnError as KofnError
from kofn.core.checks.errors import KofnWarning as KofnWarning
from kofn.core.checks.errors import nearest as nearest
from kofn.core.checks.numbers import bytes_of as bytes_of
from kofn.core.checks.numbers import choice as choice
from kofn.core.checks.numbers import count as count
from kofn.core.checks.numbers import entropy as entropy
from kofn.core.checks.numbers import flag as flag
from kofn.core.checks.numbers import fraction as fraction
from kofn.core.checks.numbers import is_number as is_number
from kofn.core.checks.numbers import number as number
from kofn.core.checks.numbers import seconds as seconds
from kofn.core.checks.numbers import shown as shown
from kofn.core.checks.options import option as option
