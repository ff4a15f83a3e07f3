"""The main job on real data: pick 50 of scikit-learn's 1,797 scanned digits to label, and see what they are worth.

Run it with `make demo`. A classifier trained on the 50 picked digits is compared with classifiers trained on 50
random ones, each tested on all the digits that it was not trained on.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

K, DRAWS = 50, 20


def accuracy(X: np.ndarray, y: np.ndarray, picks: np.ndarray) -> float:
    """Share of the other digits that a classifier trained on the picks gets right."""
    rest = np.setdiff1d(np.arange(len(X)), picks)
    model = LogisticRegression(C=1.0, max_iter=2000).fit(X[picks], y[picks])
    return float(model.score(X[rest], y[rest]))


def main() -> None:
    out = Path("out")
    out.mkdir(exist_ok=True)
    digits = load_digits()
    pool, picks, report = out / "digits.npz", out / "picks.csv", out / "digits.html"
    np.savez(pool, X=digits.data.astype(np.float32), images=digits.images.astype(np.uint8) * 15)

    kofn = shutil.which("kofn", path=str(Path(sys.executable).parent)) or "kofn"
    command = [kofn, "select", str(pool), "--vectors", "X", "--images", "images", "-k", str(K)]
    command += ["-o", str(picks), "--report", str(report)]
    print("$ " + " ".join(["kofn", *command[1:]]), flush=True)
    subprocess.run(command, check=True)

    rows = pl.read_csv(picks)["row"].to_numpy()
    X, y = digits.data / 16, digits.target
    ours = accuracy(X, y, rows)
    rng = np.random.default_rng(0)
    random = np.array([accuracy(X, y, rng.choice(len(X), K, replace=False)) for _ in range(DRAWS)])
    print(f"\naccuracy on the other {len(X) - K} digits, logistic regression trained on {K} of them:")
    print(f"  kofn's {K}          {ours:.3f}   ({len(set(y[rows].tolist()))} of 10 digits present)")
    spread = f"mean of {DRAWS} draws, from {random.min():.3f} to {random.max():.3f}"
    print(f"  {K} at random       {random.mean():.3f}   ({spread})")
    print(f"  difference        {ours - random.mean():+.3f}   (beats {int((ours > random).sum())} of {DRAWS} draws)")
    print(f"\nreport with the picked images: {report.resolve()}")
    if ours <= random.mean():
        sys.exit("the picks did not beat the mean of the random draws")


if __name__ == "__main__":
    main()
