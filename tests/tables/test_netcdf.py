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
from kofn.tables.netcdf import read_posterior, read_posteriors

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


def labelled(path: Path, axes: dict[str, Any], values: np.ndarray, **attributes: Any) -> str:
    """A file of one variable `theta` with the axes chain, draw and these: name -> coordinates, or None."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        held = file.create_group("posterior")
        variable = held.create_dataset("theta", data=values)
        for key, value in attributes.items():
            variable.attrs[key] = value
        for number, (axis, size) in enumerate(zip(("chain", "draw", *axes), values.shape, strict=True)):
            labels = axes.get(axis)
            scale = held.create_dataset(axis, data=np.arange(size) if labels is None else labels)
            bare = "This is a netCDF dimension but not a netCDF variable. 3"
            scale.make_scale(bare if labels is None and axis in axes else axis)
            variable.dims[number].attach_scale(scale)
    return str(path)


VALUES = RNG.normal(size=(2, 40, 3))
ABC = np.array(["a", "b", "c"], dtype=object)


def test_coordinates_name_parameters_in_whatever_order_files_list_them(tmp_path: Path) -> None:
    first = labelled(tmp_path / "1.nc", {"school": ABC}, VALUES)
    order = [2, 0, 1]
    second = labelled(tmp_path / "2.nc", {"school": ABC[order]}, VALUES[:, :, order])
    a, b = read_posteriors([first, second])
    assert list(a) == ["theta[a]", "theta[b]", "theta[c]"]
    assert list(b) == ["theta[c]", "theta[a]", "theta[b]"]
    for key, draws in a.items():
        np.testing.assert_array_equal(draws, b[key])
    assert list(read_posterior(first, ["theta"])) == list(a)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([0, 1, 2], ["theta"]),
        (None, ["theta"]),
        ([2, 1, 0], ["theta[2]", "theta[1]", "theta[0]"]),
        ([0.5, 1.0, 2.0], ["theta[0.5]", "theta[1.0]", "theta[2.0]"]),
        (np.array([b"a", b"b", b"c"]), ["theta[a]", "theta[b]", "theta[c]"]),
        (np.array([[b"x", b"1"], [b"x", b"2"], [b"y", b""]]), ["theta[x1]", "theta[x2]", "theta[y]"]),
    ],
    ids=["positions", "none", "backwards", "numbers", "bytes", "letters"],
)
def test_coordinates_of_every_kind(tmp_path: Path, labels: Any, names: list[str]) -> None:
    read = read_posterior(labelled(tmp_path / "a.nc", {"school": labels}, VALUES))
    assert list(read) == names
    table = np.column_stack(list(read.values()))
    np.testing.assert_array_equal(table, VALUES.reshape(80, 3))


def test_coordinates_with_a_unit_are_not_those_with_another(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = labelled(tmp_path / "a.nc", {"day": [0, 1, 2]}, VALUES)
    with h5py.File(path, "r+") as file:
        file["posterior/day"].attrs["units"] = "days since 2024-01-01"
    assert list(read_posterior(path))[1] == "theta[1 days since 2024-01-01]"


def test_axes_are_in_the_order_of_the_first_file(tmp_path: Path) -> None:
    values = RNG.normal(size=(2, 40, 3, 3))
    first = labelled(tmp_path / "1.nc", {"row": None, "column": [0, 1, 2]}, values)
    second = labelled(tmp_path / "2.nc", {"column": [0, 1, 2], "row": None}, values.swapaxes(2, 3))
    a, b = read_posteriors([first, second])
    np.testing.assert_array_equal(a["theta"], b["theta"])
    third = labelled(tmp_path / "3.nc", {"column": ABC, "row": None}, values.swapaxes(2, 3))
    named = read_posteriors([first, third])[1]
    np.testing.assert_array_equal(named["theta[0,b]"], values[:, :, 0, 1].ravel())


def test_unlike_coordinates_and_odd_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    labelled(Path("1.nc"), {"school": ABC}, VALUES)
    labelled(Path("2.nc"), {"school": np.array(["a", "b", "d"], dtype=object)}, VALUES)
    message = refused(capsys, "combine", "1.nc", "2.nc", "-m", "gaussian_product", "-o", "out.npz")
    assert "member '2' and member '1' do not both have parameter 'theta[c]'" in message
    twice = labelled(Path("3.nc"), {"school": np.array(["a", "b", "a"], dtype=object)}, VALUES)
    with pytest.raises(InputError, match=r"3.nc: axis 'school' has the coordinate 'a' twice"):
        read_posterior(twice)
    square = {"row": np.array(["a,b", "a"], dtype=object), "column": np.array(["c", "b,c"], dtype=object)}
    with pytest.raises(InputError, match=r"coordinates of 'theta' have commas, and two look alike"):
        read_posterior(labelled(Path("4.nc"), square, RNG.normal(size=(2, 40, 2, 2))))


def test_packed_variables_are_unpacked_and_missing_values_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    stored = np.rint(VALUES / 0.001).astype("i2")
    packing = {"scale_factor": 0.001, "add_offset": 5.0, "_FillValue": np.int16(-32768)}
    packed = read_posterior(labelled(Path("1.nc"), {"school": None}, stored, **packing))
    np.testing.assert_allclose(packed["theta"], stored.reshape(80, 3) * 0.001 + 5.0, rtol=1e-15)
    unsigned = labelled(Path("2.nc"), {"school": None}, np.full((2, 40, 3), -1, "i1"), _Unsigned="true")
    assert (read_posterior(unsigned)["theta"] == 255).all()
    for key in ("_FillValue", "missing_value"):
        holed = VALUES.copy()
        holed[1, 3, 0] = -999.0
        for name in ("3.nc", "4.nc"):
            labelled(Path(name), {"school": ABC}, holed, **{key: np.array([-999.0])})
        message = refused(capsys, "combine", "3.nc", "4.nc", "-m", "gaussian_product", "-o", "out.npz")
        assert "parameter 'theta[a]' at row 43 is NaN" in message


def test_what_arviz_names_is_named(tmp_path: Path) -> None:
    arviz = pytest.importorskip("arviz")
    for number, order in enumerate(([0, 1, 2], [2, 1, 0])):
        coords = {"school": [ABC[i] for i in order]}
        data = arviz.from_dict({"theta": VALUES[:, :, order]}, coords=coords, dims={"theta": ["school"]})
        data.to_netcdf(str(tmp_path / f"{number}.nc"))
    a, b = read_posteriors([str(tmp_path / f"{number}.nc") for number in range(2)])
    assert sorted(a) == ["theta[a]", "theta[b]", "theta[c]"]
    for key, draws in a.items():
        np.testing.assert_array_equal(draws, b[key])
