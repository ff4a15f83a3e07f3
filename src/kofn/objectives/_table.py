"""Table of the named objectives. Importing this module imports none of them."""

from __future__ import annotations

from dataclasses import dataclass

from kofn.core.bibliography import Keys
from kofn.core.lazy import attach


@dataclass(frozen=True)
class Known:
    """A named objective: the location of its class, its inputs and its properties.

    `monotone` is None where that depends on the objective's parameters; the built objective knows. `paper` is its key
    in `papers.toml`, or several. `on_device` is the location of its form for devices, where it has one.
    """

    path: str
    sources: tuple[str, ...]
    does: str
    submodular: bool = True
    monotone: bool | None = True
    paper: Keys = ()
    on_device: str = ""

    @property
    def maker(self) -> str:
        """The name of its class, which `load` finds."""
        return self.path.partition(":")[2]

    def row(self) -> dict[str, str]:
        """As a row of a table for people."""
        monotone = {True: "monotone", False: "not monotone", None: "monotone or not, by its parameters"}[self.monotone]
        return {
            "is": self.does,
            "needs": " or ".join(self.sources),
            "declares": f"{'submodular' if self.submodular else 'not submodular'}, {monotone}",
        }


OBJECTIVES: dict[str, Known] = {
    "facility_location": Known(
        "facility_location:FacilityLocation",
        ("X", "similarity"),
        "each item by the pick most similar to it",
        paper=("cornuejols1977", 1004),
        on_device="_device_facility_location:DeviceFacilityLocation",
    ),
    "saturated_coverage": Known(
        "coverage:SaturatedCoverage",
        ("X", "similarity"),
        "each item's summed similarity to the picks, up to a share",
        paper="lin2011",
    ),
    "graph_cut": Known(
        "graph_cut:GraphCut",
        ("X", "similarity"),
        "similarity to the pool less lam x that among the picks",
        monotone=None,
        paper=("lin2010", "iyer2021"),
    ),
    "medoid_loss": Known(
        "medoids:MedoidLoss",
        ("X", "distances"),
        "how much the picks lower the summed distance to the nearest",
        paper="krause2010",
    ),
    "feature_based": Known(
        "coverage:FeatureBased", ("X",), "a concave function of each feature's total (X >= 0)", paper="wei2014"
    ),
    "weighted_coverage": Known(
        "coverage:WeightedCoverage",
        ("X",),
        "the weight of the elements in any pick (X >= 0, dense or sparse sets)",
        paper="nemhauser1978",
    ),
    "log_determinant": Known(
        "determinantal:LogDeterminant",
        ("X", "similarity"),
        "log det(I + kernel of the picks)",
        monotone=None,
        paper="chen2018",
    ),
    "dispersion": Known(
        "dispersion:Dispersion",
        ("X", "distances"),
        'distances among the picks: kind="sum" or the least, "min"',
        False,
        None,
        paper="ravi1994",
    ),
    "facility_location_mutual_information": Known(
        "information:FacilityLocationMutualInformation",
        ("X",),
        "what the picks tell of the `queries`, and they of them",
        paper=("kothawade2022", "iyer2021"),
    ),
    "facility_location_conditional_gain": Known(
        "information:FacilityLocationConditionalGain",
        ("X",),
        "what the picks add to the `private` set",
        paper=("kothawade2022", "iyer2021"),
    ),
    "graph_cut_mutual_information": Known(
        "information:GraphCutMutualInformation",
        ("X",),
        "summed similarity of the picks to the `queries`",
        paper=("kothawade2022", "iyer2021"),
    ),
    "log_determinant_mutual_information": Known(
        "information:LogDeterminantMutualInformation",
        ("X",),
        "what the picks tell of the `queries`",
        False,
        paper=("kothawade2022", "iyer2021"),
    ),
    "log_determinant_conditional_gain": Known(
        "information:LogDeterminantConditionalGain",
        ("X",),
        "volume that the picks add to `private`",
        monotone=None,
        paper=("kothawade2022", "iyer2021"),
    ),
    "modular": Known("modular:Modular", ("scores",), "the sum of the scores", monotone=None, paper="folklore"),
    "mnl_revenue": Known(
        "assortment:MNLRevenue",
        ("scores",),
        "what its best part earns when customers choose by multinomial logit",
        False,
        paper=298,
    ),
    "k_center": Known(
        "kcenter:KCenter", ("X", "distances"), "the farthest item's distance to its pick", False, paper="gonzalez1985"
    ),
}
# Minimised by its own methods, not by greedy maximisation.
_MINIMISED = ("k_center",)
GREEDY = tuple(name for name in OBJECTIVES if name not in _MINIMISED)
# The module of each class, for those who import it from `kofn.objectives`.
HOMES = {"Mixture": "mixtures", **{row.maker: row.path.partition(":")[0] for row in OBJECTIVES.values()}}
load, listed, exported = attach("kofn.objectives", HOMES)
