"""`kofn.find`: questions as people ask them, each with its answer among the first three."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kofn
from kofn.core.checks import InputError
from kofn.finding import Hit, stems
from kofn.indexing import collect, finding

ROOT = Path(__file__).resolve().parents[1]
FIRST = 3
QUESTIONS = {
    "chinchilla": "fit_supervised_law",
    "scaling law": "fit_supervised_law",
    "doremi": "InfluenceMixture",
    "online data mixing": "OnlineDataMixing",
    "multi epoch repeat data": "quality_quantity",
    "emd": "sinkhorn_newton_sparse",
    "earth mover's distance": "sinkhorn_newton_sparse",
    "semantic deduplication cluster ids": "near_duplicates",
    "community detection embeddings threshold": "near_duplicates",
    "students to projects preferences": "balanced_assignment",
    "assign tasks to workers with capacity": "balanced_assignment",
    "same size clusters": "constrained_kmeans",
    "cluster into equal groups": "constrained_kmeans",
    "undersampling majority class": "Selector",
    "n rows per group": "lazy_greedy",
    "precomputed distance matrix": "fasterpam",
    "predict on new rows": "place",
    "route tokens to experts": "token_choice",
    "prune mislabeled training data": "ccs",
    "k-center": "farthest_first",
    "must-link": "constrained_kmeans",
    "few-shot": "laplacian_shot",
    "equal size groups": "constrained_kmeans",
    "near-duplicates": "near_duplicates",
    "remove duplicate texts": "near_duplicates",
    "model soup": "greedy_soup",
    "MoE router": "capped_routing",
    "CRAIG": "lazy_greedy",
    "coreset selection under label noise": "ccs",
    "merge LoRA adapters of different ranks": "stack_adapters",
    "merge a lora into its model": "fold_adapter",
    "which 500 rows should I label": "lazy_greedy",
    "active learning": "stochastic_batch",
    "noisy annotators": "annotator_accuracy",
    "quantization bits per layer": "multiple_choice_knapsack",
    "rank models on a leaderboard with missing scores": "borda",
    "elect a committee": "multiwinner",
    "condorcet winner": "copeland",
    "schulze": "schulze",
    "tideman": "ranked_pairs",
    "plackett luce": "plackett_luce",
    "leave one judge out": "compare_rules",
    "elo": "bradley_terry",
    "elo ratings": "bradley_terry",
    "battles": "vote_ballots",
    "chatbot arena": "kemeny",
    "bradley terry": "bradley_terry",
    "bradley-terry model": "bradley_terry",
    "pairwise comparisons": "vote_ballots",
    "head to head win matrix": "win_ballots",
    "k-medoids on large data": "fastclara",
    "how many clusters are there": "pamk",
    "stream larger than memory": "stream_file",
    "rows come and go": "DynamicSelection",
    "differential privacy": "private_streaming",
    "optimal transport between histograms": "sinkhorn_newton_sparse",
    "DPP": "log_determinant",
    "resolve interference between task vectors": "ties",
    "git re-basin": "weight_matching",
    "mergekit recipe": "merge_recipe",
    "federated clients with different distributions": "fedcollab",
    "expert choice": "expert_choice",
    "load balancing without an auxiliary loss": "BiasRouter",
    "pass@k": "best_of_k",
    "instruction tuning data like my examples": "rds_plus",
    "sparse autoencoder activations": "topk_mask",
    "hierarchical clustering": "single_linkage",
    "search the merge weights with a score": "evolved_mean",
    "nearest neighbors graph": "knn_graph",
    "which regions explain a prediction": "lima",
    "scikit-learn pipeline": "Selector",
    "compare methods over seeds": "compare",
    "spread documents evenly over annotators": "annotator_pairs",
    "limit how many rows come from one source": "lazy_greedy",
    "split a labelling budget between tasks": "hull_greedy",
    "merge two models trained from different initializations": "weight_matching",
    "select with a cost per item": "lazy_greedy",
    "groups of at most 50 rows": "constrained_kmeans",
    "similar to these queries but diverse": "marginal_relevance",
    "stratified sample": "random_sample",
    "train test split": "scikit-learn: train_test_split",
    "detect outliers": "scikit-learn: IsolationForest",
    "pareto front of accuracy and cost": "pymoo: NSGA-II",
    "bin packing": "OR-Tools: bin packing",
    "feature selection": "scikit-learn: SelectKBest",
}


@pytest.mark.parametrize(("question", "answer"), QUESTIONS.items(), ids=lambda text: text.replace(" ", "_"))
def test_a_real_question_has_its_answer_in_the_first_three(question: str, answer: str) -> None:
    assert answer in [hit.name for hit in kofn.find(question, limit=FIRST)]


@pytest.mark.parametrize(
    ("question", "answer"),
    [("facilty location", "facility_location"), ("silhuette", "fastermsc"), ("sinkhron", "sinkhorn_newton_sparse")],
)
def test_a_misspelt_word_is_taken_for_the_nearest(question: str, answer: str) -> None:
    assert answer in [hit.name for hit in kofn.find(question, limit=FIRST)]


def test_everything_is_found_by_its_own_name() -> None:
    for row in _rows():
        names = [(hit.name, hit.form) for hit in kofn.find(row["name"], limit=FIRST)]
        assert (row["name"], row["form"]) in names, row["name"]


def test_the_packaged_rows_are_what_make_index_writes() -> None:
    assert _rows() == finding.rows(collect.collect())


def test_every_row_says_where_things_are() -> None:
    for row in _rows():
        assert row["summary"], row["name"]
        assert row["call"], row["name"]
        for key in ("file", "test", "claim"):
            assert key == "claim" or row["form"] == "elsewhere" or row.get(key), f"{row['name']} has no {key}"
            assert not row.get(key) or (ROOT / row[key]).is_file(), f"{row['name']}: no {row[key]}"


def test_every_curated_phrase_names_what_there_is() -> None:
    known = {row["name"] for row in _rows()}
    for phrase, names in finding.field_words().items():
        assert set(names) <= known, f"{phrase}: {set(names) - known}"


def test_a_hit_prints_its_call_and_its_places() -> None:
    (hit,) = kofn.find("fasterpam", limit=1)
    assert isinstance(hit, Hit)
    assert hit.call == 'kofn.assign(X, k=10, method="fasterpam")'
    assert hit.claim.startswith("claims/assignment/medoids/p033_")
    assert "Schubert & Rousseeuw 2021" in str(hit)
    assert repr(hit) == f"<fasterpam: {hit.call}>"


def test_what_is_nowhere_finds_nothing_and_an_empty_question_is_refused() -> None:
    assert kofn.find("xyzzyplugh") == []
    with pytest.raises(InputError, match="words=''"):
        kofn.find("")
    with pytest.raises(InputError, match="limit"):
        kofn.find("merge", limit=0)


def test_stems_join_the_forms_of_a_word() -> None:
    assert stems("neighbours") == stems("neighbor")
    assert stems("clustering") == stems("clusters")
    assert stems("CapacityAware") == stems("capacity aware")


def test_finding_is_quick_and_imports_no_method() -> None:
    code = (
        "import time, sys; import kofn; began = time.process_time(); kofn.find('near duplicates');"
        "print(time.process_time() - began, *(name in sys.modules for name in ('torch', 'numba', 'numpy')))"
    )
    runs = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds, *loaded = done.stdout.split()
        assert loaded == ["False"] * 3
        runs.append(float(seconds))
    assert min(runs) < 0.2
    began = time.process_time()
    kofn.find("merge lora adapters")
    assert time.process_time() - began < 0.02


def _rows() -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((ROOT / "src/kofn/_index/find.json").read_text(encoding="utf-8"))
    return found
