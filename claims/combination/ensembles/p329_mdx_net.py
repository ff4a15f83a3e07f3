"""Two separators of mixed sounds blended by weights fitted for each source, against each alone and shared weights.

Simulated: a bass line, drums, a gliding voice and chords in one signal. One separator masks a spectrogram of long
windows by factors fitted to each source, which tells pitches apart; the other one of short windows, which tells moments
apart, as a network on the waveform does.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.combination import blend_predictions, stacking

Floats = NDArray[np.float64]
SOURCES = ("bass", "drums", "voice", "chords")
# Samples a second, and of each of three parts: separators are fitted on the first, blends on the second.
RATE, LENGTH = 8000, 24_000
WINDOWS, PARTS, UPDATES = {"frequency": 1024, "time": 64}, 6, 25
COPIED = (0.0, 0.5, 0.9, 1.0)


@claim(
    paper=329,
    says="Stems blended from a time-frequency and a time-domain separator, by weights of each source, are nearer to "
    "the sources than either separator's",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Signal-to-distortion ratios on sounds that fitted nothing; broken: one weight for all sources together."""
    runs = 10 if scale == "small" else 30
    rows = spread(functools.partial(_run, broken=broken), derive(seed, runs))
    gains = {
        name: difference([row["blend"][name] for row in rows], [max(row[s][name] for s in WINDOWS) for row in rows])
        for name in SOURCES
    }
    mean = {side: [float(np.mean([row[side][name] for name in SOURCES])) for row in rows] for side in rows[0]["sides"]}
    over = {side: difference(mean["blend"], mean[side]) for side in mean if side != "blend"}
    off = max(row["off"] for row in rows)
    alike = np.mean([[row["copied"][share] for share in COPIED] for row in rows], axis=0)
    criteria = {
        **{f"{name}: no less than the better separator": gain.low > -0.02 for name, gain in gains.items()},
        **{f"all sources: better than {side}": gap.above(0) for side, gap in over.items()},
        "the weights are those of the closed form": off < 1e-3,
        "the gain falls as the errors become alike": bool((np.diff(alike) < 0).all()) and abs(float(alike[-1])) < 0.02,
    }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured={
            "decibels": {
                name: {side: round(float(np.mean([row[side][name] for row in rows])), 2) for side in rows[0]["sides"]}
                for name in SOURCES
            },
            "blend less the better separator": {name: gain.figures() for name, gain in gains.items()},
            "blend less others, all sources": {side: gap.figures() for side, gap in over.items()},
            "largest difference from the closed form": float(f"{off:.2g}"),
            "gain by how alike the errors are": dict(zip(map(str, COPIED), alike.round(3).tolist(), strict=True)),
            "weight of the time-frequency separator": {
                name: round(float(np.mean([row["weights"][name] for row in rows])), 3) for name in SOURCES
            },
        },
        expected="for each source a paired lower 95% limit of the gain over the better separator above -0.02 decibels; "
        "over all sources lower limits of the gains over either, their mean and shared weights above 0; weights within "
        "0.001 of least squares; a gain that falls to nothing",
        baseline="each separator; their mean; one pair of weights for all sources, fitted to the same samples",
        kind="reduced",
    )


def _sounds(rng: np.random.Generator) -> Floats:
    """(4, samples) of the sources, equally loud."""
    total = 3 * LENGTH
    time = np.arange(total) / RATE
    beat = RATE // 4
    steps = np.arange(total) // beat
    out = np.zeros((4, total))
    notes = rng.integers(0, 8, steps[-1] + 1)
    fade = np.exp(-4 * (np.arange(total) % beat) / beat)
    low = 55 * 2 ** (notes[steps] / 12)
    out[0] = sum(np.sin(2 * np.pi * h * np.cumsum(low) / RATE) / h**2 for h in (1, 2, 3)) * fade
    hits = rng.random(steps[-1] + 1) < 0.7
    burst = np.exp(-30 * (np.arange(total) % beat) / beat) * hits[steps]
    noise = rng.normal(size=total)
    out[1] = burst * (noise - 0.7 * np.append(0.0, noise[:-1]))
    glide = 300 * 2 ** (np.cumsum(rng.normal(size=total)) * 0.002 / 12 * 8)
    glide = np.clip(glide, 200, 700) * (1 + 0.01 * np.sin(2 * np.pi * 5.5 * time))
    out[2] = sum(np.sin(2 * np.pi * h * np.cumsum(glide) / RATE) / h for h in (1, 2, 3, 4))
    out[2] *= 0.5 + 0.5 * np.sin(2 * np.pi * 0.7 * time + rng.uniform(0, 6))
    chord = rng.integers(0, 5, steps[-1] // 4 + 1)[steps // 4]
    for third in (0, 4, 7):
        pitch = 220 * 2 ** ((chord + third) / 12)
        out[3] += sum(np.sin(2 * np.pi * h * np.cumsum(pitch) / RATE) / h for h in (1, 2))
    return np.asarray(out / out.std(axis=1, keepdims=True))


def _factors(spectrum: Floats, parts: Floats, rng: np.random.Generator, *, learn: bool) -> tuple[Floats, Floats]:
    """Nonnegative factors of a spectrogram by multiplicative updates for the Kullback-Leibler divergence."""
    gains = rng.uniform(0.5, 1.5, (parts.shape[1], spectrum.shape[1]))
    for _ in range(UPDATES):
        ratio = spectrum / (parts @ gains + 1e-12)
        gains *= parts.T @ ratio / (parts.sum(axis=0)[:, None] + 1e-12)
        if learn:
            ratio = spectrum / (parts @ gains + 1e-12)
            parts = parts * (ratio @ gains.T) / (gains.sum(axis=1) + 1e-12)
    return parts, gains


def _separated(sounds: Floats, window: int, rng: np.random.Generator) -> Floats:
    """What masks of one length of windows make of the mixture, all of it; they are fitted on the first part alone."""
    from scipy.signal import istft, stft

    def spectrum(x: Floats) -> Any:
        return stft(x, RATE, nperseg=window)[2]

    templates = []
    for source in sounds[:, :LENGTH]:
        sizes = np.abs(spectrum(source))
        start = rng.uniform(0.5, 1.5, (len(sizes), PARTS))
        templates.append(_factors(sizes, start, rng, learn=True)[0])
    whole = spectrum(sounds.sum(axis=0))
    _, gains = _factors(np.abs(whole), np.hstack(templates), rng, learn=False)
    powers = [np.square(template @ gains[PARTS * i : PARTS * (i + 1)]) for i, template in enumerate(templates)]
    total = np.sum(powers, axis=0) + 1e-12
    return np.array([istft(whole * power / total, RATE, nperseg=window)[1][: sounds.shape[1]] for power in powers])


def _decibels(source: Floats, estimate: Floats) -> float:
    return float(10 * np.log10(np.square(source).sum() / np.square(source - estimate).sum()))


def _fit(members: list[Floats], source: Floats) -> Any:
    return stacking(members, y=source, final="simplex", penalty=0.0, folds=0)


def _run(seed: int, *, broken: bool) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    sounds = _sounds(rng)
    made = {side: _separated(sounds, window, rng) for side, window in WINDOWS.items()}
    fit, test = slice(LENGTH, 2 * LENGTH), slice(2 * LENGTH, 3 * LENGTH)
    together = _fit([made[side][:, fit].ravel() for side in WINDOWS], sounds[:, fit].ravel())
    out: dict[str, Any] = {side: {} for side in (*WINDOWS, "mean", "shared", "blend")}
    out |= {"sides": list(out), "weights": {}, "off": 0.0}
    for number, name in enumerate(SOURCES):
        source = sounds[number]
        members = [made[side][number] for side in WINDOWS]
        own = _fit([member[fit] for member in members], source[fit])
        plan = together if broken else own
        apart = members[0][fit] - members[1][fit]
        closed = float(np.clip(apart @ (source[fit] - members[1][fit]) / (apart @ apart), 0, 1))
        out["off"] = max(out["off"], abs(float(plan.weights[0]) - closed))
        out["weights"][name] = float(plan.weights[0])
        tests = [member[test] for member in members]
        for side, estimate in {
            **dict(zip(WINDOWS, tests, strict=True)),
            "mean": np.mean(tests, axis=0),
            "shared": blend_predictions(together, tests),
            "blend": blend_predictions(plan, tests),
        }.items():
            out[side][name] = _decibels(source[test], estimate)
    out["copied"] = {share: _gain_where_alike(sounds[2], made["frequency"][2], share, rng) for share in COPIED}
    return out


def _gain_where_alike(source: Floats, estimate: Floats, share: float, rng: np.random.Generator) -> float:
    """Decibels that a blend gains over the better of two whose errors are this share the same."""
    size = float((source - estimate).std())
    common, noises = rng.normal(size=len(source)), rng.normal(size=(2, len(source)))
    members = [source + size * (np.sqrt(share) * common + np.sqrt(1 - share) * noise) for noise in noises]
    plan = _fit([member[LENGTH : 2 * LENGTH] for member in members], source[LENGTH : 2 * LENGTH])
    tests = [member[2 * LENGTH :] for member in members]
    best = max(_decibels(source[2 * LENGTH :], member) for member in tests)
    return _decibels(source[2 * LENGTH :], blend_predictions(plan, tests)) - best
