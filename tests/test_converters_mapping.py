"""Names, axis orders and the strictness of the table between PyTorch and our weights."""

import json
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest

from converters.mapping import (
    flax_order,
    pack,
    split_derived,
    to_flax,
    to_torch,
    torch_order,
    torch_shapes,
    unpack,
)
from quam_jax.models.model import Network


@pytest.fixture(scope="module")
def network() -> Network:
    return Network.create("att_unet", in_channels=1, n_classes=2, channels=2)


@pytest.fixture
def tensors(network: Network) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in torch_shapes(network).items()}


@pytest.mark.parametrize(
    ("layout", "torch", "flax"),
    [
        ("conv", (2, 3, 5, 7), (5, 7, 3, 2)),
        ("conv", (2, 3, 5, 7, 9), (5, 7, 9, 3, 2)),
        ("conv", (2, 3, 5), (5, 3, 2)),
        ("transposed", (3, 2, 5, 7), (5, 7, 3, 2)),
        ("transposed", (3, 2, 5, 7, 9), (5, 7, 9, 3, 2)),
        ("linear", (2, 3), (3, 2)),
        ("plain", (4, 3), (4, 3)),
        ("plain", (4,), (4,)),
    ],
)
def test_axis_orders(layout: str, torch: tuple[int, ...], flax: tuple[int, ...]) -> None:
    assert tuple(torch[axis] for axis in flax_order(layout, len(torch))) == flax
    assert tuple(flax[axis] for axis in torch_order(layout, len(torch))) == torch


def test_single_weights_arrive_where_they_belong(network: Network, tensors: dict[str, np.ndarray]) -> None:
    params, stats = to_flax(network, tensors, where="file")
    conv, up = tensors["Conv2.conv1.0.weight"], tensors["Up4.up.weight"]
    assert params["Conv2.conv1.0.weight"][0, 2, 1, 0] == conv[0, 1, 0, 2]
    assert params["Up4.up.weight"][3, 1, 0, 1] == up[0, 1, 3, 1]
    np.testing.assert_array_equal(stats["Att4.psi.1.running_var"], tensors["Att4.psi.1.running_var"])


def test_round_trip_is_exact(network: Network, tensors: dict[str, np.ndarray]) -> None:
    back = to_torch(network, *to_flax(network, tensors, where="file"))
    assert list(back) == list(torch_shapes(network))
    for name, value in tensors.items():
        assert back[name].dtype == np.float32 and back[name].tobytes() == value.tobytes()


def test_round_trip_of_fresh_weights(network: Network) -> None:
    params, stats = network.initialise(jax.random.key(1))
    again, again_stats = to_flax(network, to_torch(network, params, stats), where="own")
    for one, two in ((params, again), (stats, again_stats)):
        assert one.keys() == two.keys()
        assert all(np.array_equal(one[name], two[name]) for name in one)


def test_all_mismatches_in_one_line(network: Network, tensors: dict[str, np.ndarray]) -> None:
    del tensors["Conv.bias"], tensors["Att2.psi.1.running_mean"]
    tensors["stray.weight"] = np.zeros(3, np.float32)
    tensors["Up4.up.weight"] = np.zeros((2, 5, 4, 4), np.float32)
    with pytest.raises(ValueError) as caught:
        to_flax(network, tensors, where="net.pth")
    line = str(caught.value)
    assert "\n" not in line and line.startswith("net.pth: ")
    for part in (
        "2 missing (Conv.bias, Att2.psi.1.running_mean)",
        "1 unexpected (stray.weight)",
        "1 of another shape (Up4.up.weight expected (2, 2, 4, 4), got (2, 5, 4, 4))",
    ):
        assert part in line


def test_long_lists_are_shortened(network: Network) -> None:
    total = len(torch_shapes(network))
    with pytest.raises(ValueError, match=rf"{total} missing \(.*and {total - 4} more\)"):
        to_flax(network, {}, where="net.pth")


@pytest.mark.parametrize(("value", "count"), [(np.nan, 1), (np.inf, 1), (1e300, 1)])
def test_values_that_float32_cannot_hold(network: Network, tensors: dict[str, np.ndarray], value: float, count: int) -> None:
    tensors["Conv.weight"] = tensors["Conv.weight"].astype(np.float64)
    tensors["Conv.weight"][0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=rf"net.pth: Conv.weight expected finite.*got {count} of 4"):
        to_flax(network, tensors, where="net.pth")


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.bool_, np.complex64])
def test_other_types_are_refused(network: Network, tensors: dict[str, np.ndarray], dtype: type) -> None:
    tensors["Conv.bias"] = np.zeros(2, dtype)
    with pytest.raises(ValueError, match=f"Conv.bias expected floating-point weights, got {np.dtype(dtype).name}"):
        to_flax(network, tensors, where="net.pth")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_precisions_become_float32(network: Network, tensors: dict[str, np.ndarray], dtype: type) -> None:
    cast = {name: value.astype(dtype) for name, value in tensors.items()}
    params, stats = to_flax(network, cast, where="net.pth")
    for name, value in to_torch(network, params, stats).items():
        np.testing.assert_array_equal(value, cast[name].astype(np.float32))


def test_derived_buffers_are_ignored(network: Network, tensors: dict[str, np.ndarray]) -> None:
    counter, mask = {"Att4.psi.1.num_batches_tracked": np.asarray(7)}, {"layers.0.attn_mask": np.zeros((2, 3), np.float32)}
    weights, derived = split_derived({**tensors, **counter}, "att_unet")
    assert weights.keys() == tensors.keys() and derived.keys() == counter.keys()
    to_flax(network, {**tensors, **counter}, where="net.pth")
    # the buffers of one architecture are weights too many for another
    assert split_derived({**counter, **mask}, "swin_unet")[1].keys() == {**counter, **mask}.keys()
    assert split_derived({**counter, **mask}, "att_unet")[0].keys() == mask.keys()
    with pytest.raises(ValueError, match=r"1 unexpected \(layers.0.attn_mask\)"):
        to_flax(network, {**tensors, **mask}, where="net.pth")


@pytest.mark.parametrize(
    "value",
    [
        np.asarray(7),
        np.asarray([[0, -100.0]], np.float32),
        np.arange(6).reshape(2, 3),
        np.asarray(1.5, ml_dtypes.bfloat16),
        np.zeros((0, 2), np.float16),
    ],
)
def test_packed_arrays_come_back(value: np.ndarray) -> None:
    back = unpack(json.loads(json.dumps(pack(value))))
    assert back.dtype == value.dtype and back.shape == value.shape and back.tobytes() == value.tobytes()


def test_golden_weights_round_trip(shared: Path) -> None:
    folders = sorted((shared / "golden" / "A_forward").glob("attunet_*"))
    assert folders
    for folder in folders[::5]:
        network = Network.create("att_unet", **json.loads((folder / "meta.json").read_text())["kwargs"])
        with np.load(folder / "weights.npz") as stored:
            tensors, _ = split_derived(dict(stored), "att_unet")
        back = to_torch(network, *to_flax(network, tensors, where=folder.name))
        assert back.keys() == tensors.keys()
        assert all(back[name].tobytes() == tensors[name].tobytes() for name in back)
