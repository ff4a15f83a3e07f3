"""`Selector` in an imbalanced-learn pipeline: train on a tenth of the rows, chosen to stand for all of them."""

from __future__ import annotations

from imblearn.pipeline import make_pipeline
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from kofn import Selector


def main() -> None:
    X, y = load_digits(return_X_y=True)
    for name, method in (("chosen", "lazy_greedy"), ("random", "random_sample")):
        pipeline = make_pipeline(
            Selector(k=0.1, method=method, per_class=True, random_state=0), KNeighborsClassifier(n_neighbors=1)
        )
        scores = cross_val_score(pipeline, X, y, cv=5)
        print(f"{name}: {scores.mean():.3f} +- {scores.std():.3f} trained on a tenth of the rows")


if __name__ == "__main__":
    main()
