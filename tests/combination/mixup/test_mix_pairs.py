"""The stages of mixup: exact identities of labels, boxes and marginals, peers' boxes, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from refusals import refused, untested

from kofn.combination import mix_pairs, mixup_loss, pair_marginal
from kofn.combination.mixup import Mixed, _mix_pairs, _pairs
from kofn.combination.mixup._boxes import draw_boxes

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3, 7, 5)).astype(np.float32)
Y = np.repeat(["a", "b", "c"], [30, 20, 10])
GROUPS = RNG.permutation(np.repeat(["u", "v"], [40, 20]))
CHANCES = np.array([[0.1, 0.2, 0.0], [0.0, 0.3, 0.1], [0.2, 0.0, 0.1]])
NAMED = ("random", "same_class", "cross_class", "same_group", "cross_group", "same_class_cross_group")


@pytest.mark.parametrize("pairs", [*NAMED, CHANCES], ids=[*NAMED, "chances"])
def test_every_stage_keeps_what_it_promises(pairs: Any) -> None:
    for inputs, labels in itertools.product(_mix_pairs.INPUTS, _mix_pairs.LABELS):
        mixed = mix_pairs(X, Y, pairs=pairs, groups=GROUPS, inputs=inputs, labels=labels, seed=1)
        assert isinstance(mixed, Mixed)
        np.testing.assert_allclose(mixed.labels.sum(axis=1), 1, rtol=1e-15)
        assert mixed.X.shape == X.shape
        assert mixed.X.dtype == X.dtype
        same_class = Y[mixed.first] == Y[mixed.second]
        same_group = GROUPS[mixed.first] == GROUPS[mixed.second]
        if not isinstance(pairs, str):
            codes = np.searchsorted(mixed.classes, [Y[mixed.first], Y[mixed.second]])
            assert CHANCES[codes[0], codes[1]].all()
            continue
        np.testing.assert_array_equal(mixed.first, np.arange(60))
        assert "same_class" not in pairs or same_class.all()
        assert "cross_class" not in pairs or not same_class.any()
        assert "same_group" not in pairs or same_group.all()
        assert "cross_group" not in pairs or not same_group.any()


@pytest.mark.parametrize("pairs", [*NAMED, CHANCES], ids=[*NAMED, "chances"])
@pytest.mark.parametrize("ratio", [1.0, 0.0, ("beta", 2.0, 1.0)], ids=str)
def test_the_marginal_is_what_draws_have(pairs: Any, ratio: Any) -> None:
    shares = pair_marginal(Y, pairs=pairs, groups=GROUPS, ratio=ratio)
    draws = 100_000
    mixed = mix_pairs(np.zeros((60, 1)), Y, pairs=pairs, groups=GROUPS, ratio=ratio, draws=draws, seed=2)
    assert shares.sum() == pytest.approx(1, abs=1e-12)
    # Six standard errors of a share, which is a mean over draws in [0, 1].
    np.testing.assert_allclose(mixed.labels.mean(axis=0), shares, atol=6 * 0.5 / draws**0.5)


def test_cross_class_pairs_of_two_classes_are_even_whatever_the_shares() -> None:
    for size in (1, 3, 40, 99):
        y = np.arange(100) < size
        np.testing.assert_allclose(pair_marginal(y, pairs="cross_class"), 0.5, rtol=1e-14)
    three = pair_marginal(Y, pairs="cross_class", ratio=0.0)
    shares = {"a": 0.5, "b": 1 / 3, "c": 1 / 6}
    naive = [sum(p * shares[b] / (1 - p) for a, p in shares.items() if a != b) for b in shares]
    np.testing.assert_allclose(three, naive, rtol=1e-12)


def test_cut_labels_are_the_exact_share_of_pixels() -> None:
    marks = np.broadcast_to(np.arange(60.0)[:, None, None, None], (60, 1, 9, 11)).copy()
    mixed = mix_pairs(marks, np.arange(60), inputs="cut", pairs="cross_class", seed=3)
    kept = (mixed.first[:, None, None, None] == mixed.X).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(mixed.labels[np.arange(60), mixed.first], kept, rtol=0, atol=1e-15)
    np.testing.assert_allclose(mixed.ratios, kept, rtol=0, atol=1e-15)
    assert 0 < kept.mean() < 1
    assert mixed.boxes is not None
    assert ((mixed.boxes[:, 1] > mixed.boxes[:, 0]) & (mixed.boxes[:, 3] > mixed.boxes[:, 2])).sum() > 30


def test_boxes_have_the_area_that_the_ratio_leaves() -> None:
    ratios = np.repeat([0.0, 0.5, 0.75, 1.0], 5000)
    boxes, kept = draw_boxes(ratios, (64, 64), np.random.default_rng(4))
    sides = boxes[:, [1, 3]] - boxes[:, [0, 2]]
    for ratio, side in ((0.5, 44), (0.75, 32), (1.0, 0)):
        chosen = ratios == ratio
        assert sides[chosen].max() == side
        # A centre is at least half a side from both borders with probability 1 - side / 64, within rounding.
        assert ((sides[chosen] == side).all(axis=1).mean() - (1 - side / 64) ** 2) == pytest.approx(0, abs=0.05)
    assert kept[ratios == 1.0].min() == 1.0
    assert kept.min() >= 0


def test_cut_labels_equal_those_of_torchvision() -> None:
    transforms = pytest.importorskip("torchvision.transforms.v2")
    import torch

    marks = torch.arange(2.0)[:, None, None, None].expand(2, 1, 16, 16).clone()
    for _ in range(20):
        images, labels = transforms.CutMix(num_classes=2)(marks, torch.arange(2))
        kept = np.array([(images[row] == row).double().mean().item() for row in (0, 1)])
        np.testing.assert_allclose(np.diag(labels), kept, atol=1e-6)
    images, labels = transforms.MixUp(num_classes=2)(marks, torch.arange(2))
    share = float(labels[0, 0])
    ours = mix_pairs(marks.numpy(), [0, 1], pairs="cross_class", ratio=share, seed=0)
    np.testing.assert_allclose(ours.X, images.numpy(), atol=1e-6)
    np.testing.assert_allclose(ours.labels, labels.numpy(), atol=1e-6)


def test_rows_and_labels_equal_those_of_timm() -> None:
    timm = pytest.importorskip("timm.data.mixup")
    import torch

    marks = torch.arange(2.0)[:, None, None, None].expand(2, 1, 16, 16).clone()
    settings = {"num_classes": 2, "label_smoothing": 0.0, "mode": "elem"}
    for _ in range(20):
        mixer = timm.Mixup(mixup_alpha=1.0, **settings)
        images, labels = mixer(marks.clone(), torch.arange(2))
        for row, share in enumerate(labels[[0, 1], [0, 1]].tolist()):
            ours = mix_pairs(marks.numpy(), [0, 1], pairs="cross_class", ratio=share, seed=0)
            np.testing.assert_allclose(ours.X[row], images[row].numpy(), atol=1e-6)
            np.testing.assert_allclose(ours.labels[row], labels[row].numpy(), atol=1e-6)
        images, labels = timm.Mixup(mixup_alpha=0.0, cutmix_alpha=1.0, **settings)(marks.clone(), torch.arange(2))
        kept = [(images[row] == row).double().mean().item() for row in (0, 1)]
        np.testing.assert_allclose(labels[[0, 1], [0, 1]], kept, atol=1e-6)


def test_boxes_are_drawn_as_those_of_timm() -> None:
    timm = pytest.importorskip("timm.data.mixup")
    # Boxes of 10 by 6 pixels: timm keeps an odd pixel that CutMix's authors, torchvision and this library round off.
    boxes, _ = draw_boxes(np.full(20_000, 0.6), (16, 10), np.random.default_rng(10))
    state = np.random.get_state()  # noqa: NPY002  timm draws from the global state, which is put back
    np.random.seed(11)  # noqa: NPY002
    theirs = timm.rand_bbox((1, 1, 16, 10), 0.6, count=20_000)
    np.random.set_state(state)  # noqa: NPY002
    for ours, other, length in zip(boxes.T, theirs, (16, 16, 10, 10), strict=True):
        counts = np.array([np.bincount(ends, minlength=length + 1) for ends in (ours, other)])
        assert ((counts[0] > 0) == (counts[1] > 0)).all()
        # Six standard errors of the difference of two counts.
        assert (np.abs(counts[0] - counts[1]) <= 6 * np.sqrt(counts.sum(axis=0))).all()


def test_inputs_that_are_not_blended_are_rows() -> None:
    numbers = np.arange(60)[:, None]
    for inputs, ratio in (("resample", ("beta", 1.0)), ("blend", 1.0), ("blend", 0.0), ("first", 0.3)):
        mixed = mix_pairs(numbers, Y, inputs=inputs, ratio=ratio, draws=200, seed=5)
        taken = mixed.first if inputs == "first" else np.where(mixed.ratios == 1, mixed.first, mixed.second)
        np.testing.assert_array_equal(mixed.X[:, 0], taken)
        assert inputs == "first" or set(np.unique(mixed.labels)) == {0.0, 1.0}
        assert inputs == "blend" or mixed.X.dtype == numbers.dtype
    values = RNG.normal(size=(60, 2))
    np.testing.assert_array_equal(mix_pairs(values, Y, ratio=1.0, seed=6).X, values)


def test_other_arrays_are_mixed_by_the_same_pairs() -> None:
    mixed = mix_pairs(X, Y, inputs="cut", seed=7)
    np.testing.assert_array_equal(mixed.mix(X), mixed.X)
    blended = mix_pairs(X, Y, seed=7)
    np.testing.assert_allclose(blended.mix(np.eye(3)[np.searchsorted(["a", "b", "c"], Y)]), blended.labels, atol=1e-15)


def test_labels_follow_the_larger_share_and_weights_the_labels() -> None:
    mixed = mix_pairs(X, Y, pairs="cross_class", labels="larger", class_weights=[1.0, 2.0, 4.0], seed=8)
    winner = np.where(mixed.ratios >= 0.5, Y[mixed.first], Y[mixed.second])
    np.testing.assert_array_equal(mixed.classes[mixed.labels.argmax(axis=1)], winner)
    np.testing.assert_array_equal(mixed.weights, mixed.labels @ [1.0, 2.0, 4.0])
    assert mix_pairs(X, Y, classes=["c", "d", "a", "b"], seed=8).labels.shape == (60, 4)
    assert mix_pairs(X[:2], [2, 0], classes=4, labels="first").labels.argmax(axis=1).tolist() == [2, 0]


def test_the_loss_is_the_mean_of_both_labels_losses() -> None:
    mixed = mix_pairs(X, Y, pairs="cross_class", seed=9)
    logits = RNG.normal(size=(60, 3))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    codes = np.searchsorted(mixed.classes, [Y[mixed.first], Y[mixed.second]])
    first, second = (-np.log(chances[np.arange(60), code]) for code in codes)
    weights = RNG.random(60)
    expected = np.average(mixed.ratios * first + (1 - mixed.ratios) * second, weights=weights)
    assert mixup_loss(logits, mixed.labels, weights) == pytest.approx(expected, rel=1e-12)
    assert mixup_loss([[1e4, 0.0]], [[1.0, 0.0]]) == 0.0


def test_a_seed_repeats_itself_and_tiny_laws_are_finite() -> None:
    assert np.array_equal(mix_pairs(X, Y, seed=1).X, mix_pairs(X, Y, seed=1).X)
    ratios = mix_pairs(X, Y, ratio=("beta", 1e-300), seed=1).ratios
    assert set(ratios.tolist()) == {0.0, 1.0}


REFUSED: dict[str, tuple[Any, str]] = {
    "lengths": (lambda: mix_pairs(X, Y[:9]), "y has 9 values, X has 60 rows"),
    "infinite": (lambda: mix_pairs([[np.inf]], [0]), "X at row 0"),
    "no rows": (lambda: mix_pairs(3.0, [0]), "X has shape (); give (n, ...) with at least one row"),
    "no image": (lambda: mix_pairs([[1.0]], [0], inputs="cut"), "inputs='cut': X has shape (1, 1); give images"),
    "inputs": (lambda: mix_pairs(X, Y, inputs="bend"), "inputs='bend'"),
    "labels": (lambda: mix_pairs(X, Y, labels="second"), "labels='second'"),
    "pairs": (lambda: mix_pairs(X, Y, pairs="cross"), "pairs='cross'"),
    "no groups": (lambda: mix_pairs(X, Y, pairs="same_group"), "pairs='same_group' needs groups: (n,)"),
    "groups' length": (lambda: mix_pairs(X, Y, groups=["u"]), "groups"),
    "no partner": (
        lambda: mix_pairs(X, Y, pairs="cross_group", groups=["u"] * 60),
        "pairs='cross_group': row 0 of class 'a' has no partner; leave its rows out",
    ),
    "chances' shape": (lambda: mix_pairs(X, Y, pairs=np.eye(2) / 2), "pairs has shape (2, 2); there are 3 classes"),
    "chances' sum": (lambda: mix_pairs(X, Y, pairs=np.eye(3)), "pairs sum to 3, with 0 the least; give chances >= 0"),
    "no row of it": (
        lambda: mix_pairs(X, Y, pairs=np.eye(4) / 4, classes=["a", "b", "c", "d"]),
        "pairs give class 'd' a chance, and y has no row of it",
    ),
    "ratio": (lambda: mix_pairs(X, Y, ratio=1.5), "ratio=1.5"),
    "law": (lambda: mix_pairs(X, Y, ratio=("gamma", 1)), "ratio=('gamma', 1): give a number between 0 and 1"),
    "beta": (lambda: mix_pairs(X, Y, ratio=("beta", 0)), "ratio=('beta', 0): give a beta law numbers above 0"),
    "uniform": (lambda: mix_pairs(X, Y, ratio=("uniform", 0.6, 0.5)), "ratio's high end=0.5"),
    "draws": (lambda: mix_pairs(X, Y, draws=0), "draws=0"),
    "class weights": (lambda: mix_pairs(X, Y, class_weights=[1, 2]), "class_weights"),
    "classes twice": (lambda: mix_pairs(X, Y, classes=["a", "b", "c", "a"]), "classes name 'a' twice"),
    "no class": (lambda: mix_pairs(X, Y, classes=["a", "b"]), "y at row 50 is 'c', which is none of the 2 classes"),
    "other kind": (lambda: mix_pairs(X, Y, classes=3), "and classes int64; give both as text or both as numbers"),
    "other rows": (lambda: mix_pairs(X, Y, seed=0).mix(X[:5]), "values have 5 rows, and row 59 was mixed"),
    "loss": (lambda: mixup_loss([[0.0, 1.0]], [[1.0]]), "logits are (1, 2) and labels (1, 1)"),
}


def test_what_is_refused_says_why() -> None:
    reached = {refused(call, message) for call, message in REFUSED.values()}
    assert not untested([_mix_pairs, _pairs], reached)
