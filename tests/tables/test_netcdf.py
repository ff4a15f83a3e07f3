"""Draws in NetCDF files: what ArviZ writes is read with its chains joined, anything else is refused by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import refused, run

from kofn.combination import consensus_monte_carlo
from kofn.core.checks import InputError
from kofn.tables.netcdf import read_posterior

RNG = np.random.default_rng(0)
DRAWS = {"mu": RNG.normal(size=(2, 50)), "theta": RNG.normal(size=(2, 50, 3)), "Rho": RNG.normal(size=(2, 50, 2, 2))}
COORDINATES = {"chain": 2, "draw": 50, "school": 3, "row": 2, "column": 2}
AXES = {"mu": ("chain", "draw"), "theta": ("chain", "draw", "school"), "Rho": ("chain", "draw", "row", "column")}


def write(path: Path, *, group: str = "posterior", axes: Any = AXES, shift: float = 0.0) -> str:
    """A file laid out as NetCDF 4 is: coordinates are scales of the variables' axes."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        held = file.create_group(group)
        for name, size in COORDINATES.items():
            held.create_dataset(name, data=np.arange(size)).make_scale(name)
        held.create_dataset("label", data=np.array([b"a", b"b", b"c"]))
        for name, draws in DRAWS.items():
            order = [AXES[name].index(axis) for axis in axes[name] if axis in AXES[name]]
            values = np.transpose(draws, order) if len(order) == draws.ndim else draws[0]
            variable = held.create_dataset(name, data=values + shift)
            for number, axis in enumerate(axes[name]):
                variable.dims[number].attach_scale(held[axis])
    return str(path)


def test_chains_are_joined_one_after_the_other(tmp_path: Path) -> None:
    read = read_posterior(write(tmp_path / "a.nc"))
    assert sorted(read) == ["Rho", "mu", "theta"]
    for name, draws in DRAWS.items():
        np.testing.assert_array_equal(read[name], draws.reshape(100, *draws.shape[2:]))
    assert list(read_posterior(str(tmp_path / "a.nc"), ["theta"])) == ["theta"]


def test_axes_are_known_by_their_names(tmp_path: Path) -> None:
    axes = {**AXES, "theta": ("school", "draw", "chain")}
    read = read_posterior(write(tmp_path / "a.nc", axes=axes))
    np.testing.assert_array_equal(read["theta"], DRAWS["theta"].reshape(100, 3))


def test_what_arviz_writes_is_read(tmp_path: Path) -> None:
    arviz = pytest.importorskip("arviz")
    data = arviz.from_dict({"mu": DRAWS["mu"], "theta": DRAWS["theta"]}, dims={"theta": ["school"]})
    data.to_netcdf(str(tmp_path / "a.nc"))
    read = read_posterior(str(tmp_path / "a.nc"))
    assert sorted(read) == ["mu", "theta"]
    np.testing.assert_array_equal(read["theta"], DRAWS["theta"].reshape(100, 3))


def test_the_command_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for shard in range(2):
        write(Path(f"posterior_{shard}.nc"), shift=0.1 * shard)
    words = ("-m", "consensus_monte_carlo", "--columns", "mu,theta", "-o", "out.npz")
    code, out, _ = run(capsys, "combine", "posterior_*.nc", *words)
    assert code == 0
    assert "100 draws of the product of 2 shards" in out
    assert "theta[2]" in out
    members = [
        {name: DRAWS[name].reshape(100, *DRAWS[name].shape[2:]) + 0.1 * shard for name in ("mu", "theta")}
        for shard in range(2)
    ]
    with np.load("out.npz") as made:
        np.testing.assert_allclose(made["theta"], consensus_monte_carlo(members).result[:, 1:], rtol=1e-12)
    assert "'posterior' has no variable 'nu' of numbers; it has Rho, mu, theta" in refused(
        capsys, "combine", "posterior_*.nc", "-m", "consensus_monte_carlo", "--columns", "nu", "-o", "out.npz"
    )


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("h5py")
    (tmp_path / "text.nc").write_text("a,b\n1,2\n")
    prior = write(tmp_path / "prior.nc", group="prior")
    flat = write(tmp_path / "flat.nc", axes={**AXES, "mu": ("draw",)})
    cases = {
        "text.nc": "is no NetCDF 4 file, or is damaged; write it by ArviZ's",
        "none.nc": "no such file",
        prior: "has no group 'posterior' (groups: prior)",
        flat: "variable 'mu' has the axes draw, no 'chain'",
    }
    for name, message in cases.items():
        with pytest.raises(InputError) as error:
            read_posterior(str(tmp_path / name))
        assert message in str(error.value)
        assert Path(name).name in str(error.value)


def test_the_package_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"a.nc needs h5py: pip install 'kofn\[arviz\]'"):
        read_posterior("a.nc")
