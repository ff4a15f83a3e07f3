"""What `method="auto"` picks: the first row whose method takes all the arguments and options of the call."""

from __future__ import annotations

# The second column is what the docs and the plan say.
AUTO: dict[str, tuple[tuple[str, str], ...]] = {
    "select": (
        ("top_k", "scores alone: the highest scores, exact"),
        ("lazy_greedy", "vectors or similarities: facility location, (1 - 1/e) of the optimum"),
        ("multiwinner", "rankings: the most Borda points, exact, within quotas"),
    ),
    "assign": (
        (
            "capped_routing",
            "scores by bin: capacities held exactly; `balanced_assignment`, the largest total, where that is cheap",
        ),
        ("balanced_assignment", "scores by bin without capacities: the largest total at equal loads, exact"),
        ("generalized_assignment", "scores by bin with sizes and limits, or links: the largest total, exact"),
        (
            "sinkhorn_newton_sparse",
            "scores with margins: the largest total, exact (`reg=0`), where that is cheap, else the entropic coupling",
        ),
        ("fasterpam", "vectors or distances: k-medoids, no swap improves"),
        ("constrained_kmeans", "vectors with a capacity or links: k-means, sizes and links held exactly"),
        ("constrained_kmedoids", "distances with a capacity or links: k-medoids, sizes and links held exactly"),
        ("pamk", 'vectors or distances with k="auto": as many groups as have the largest average silhouette width'),
        ("dynmsc", "the same with an init: as many groups as the medoid silhouette finds"),
        ("laplacian_shot", "vectors and a few labels"),
    ),
    "allocate": (
        ("multiple_choice_knapsack", "curves: exact"),
        (
            "constrained_knapsack",
            "curves with groups' quotas, k, tied items, other resources or pairs: exact, by HiGHS",
        ),
        ("sainte_lague", "scores: whole units in proportion, which add up exactly"),
    ),
    "combine": (
        ("borda", "rankings: averaged Borda points, missing scores allowed"),
        ("ensemble_selection", "members that are predictions, with the answers y: those whose mean loses least"),
        ("greedy_soup", "members with a score: averages those that help"),
        (
            "weighted_mean",
            "members: exact weighted mean; `stack_adapters`, the mean of updates, where all are adapters",
        ),
        ("task_arithmetic", "members and a base: the base plus the mean of the task vectors"),
    ),
}
