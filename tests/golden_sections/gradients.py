"""Section B: loss, gradient and statistics of the attention U-Net in both modes, against the reference's numbers.

The float64 run is compared tightly. The float32 run is compared with the float64 numbers within a few times the
reference's own float32 error; gradients that are zero in exact arithmetic are pure rounding there and only have to be
small beside the whole gradient.
"""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from quam_jax.core.loss import cross_entropy
from quam_jax.core.network import Mode
from quam_jax.models.model import Network, Parameters

from .double import as_double, double_precision
from .forward import from_torch

FOLDER = "B_grad"
# allowed error of a float32 gradient: times the reference's own, and floors relative to the tensor and to the whole
TIMES, TENSOR_FLOOR, WHOLE_FLOOR = 4.0, 1e-5, 1e-6
WITHOUT_DOUBLE = 4e-6  # the floor relative to the whole where a case has no float64 gradients to know that error from
LOGITS = 5e-5  # allowed float32 error relative to the largest logit, against float32 numbers; seen: 1.6e-5
DOUBLE = 1e-9  # allowed relative error in float64 (sums of about 1e4 terms)
COUNTER = "num_batches_tracked"  # a buffer that has no meaning here


def cases(golden: Path) -> list[str]:
    """Names of the cases that `check` takes: those whose files are there."""
    return [case["name"] for case in _index(golden) if case["arch"] == "AttUNet"]


def not_covered(golden: Path) -> list[str]:
    """Cases of another architecture."""
    return [case["name"] for case in _index(golden) if case["arch"] != "AttUNet"]


def check(golden: Path, case: str) -> None:
    """Assert loss, logits, every gradient, the gradient of the image and the statistics after the pass."""
    meta = next(c for c in _index(golden) if c["name"] == case)
    folder = golden / FOLDER / case
    network = Network.create("att_unet", **{**meta["kwargs"], "drop": 0.0, "decoder_drop": 0.0})
    params, stats = from_torch(network, _arrays(folder / "weights.npz"))
    io = _arrays(folder / "io.npz")
    buffers = {n: v for n, v in _arrays(folder / "buffers_after.npz").items() if not n.endswith(COUNTER)}
    single, double = _arrays(folder / "grads.npz"), None
    if (folder / "grads_f64.npz").is_file():
        double = _arrays(folder / "grads_f64.npz")
    zero = set(meta["grads_exactly_zero_in_exact_arithmetic"])
    images, labels = np.moveaxis(io["input"], 1, -1), jnp.asarray(io["target"].astype(np.int32))
    run = functools.partial(_differentiate, network, meta["mode"] == "train")

    with jax.default_matmul_precision("highest"):
        found = _as_torch(network, *run(params, stats, jnp.asarray(images), labels))
    floor = WITHOUT_DOUBLE if double is None else WHOLE_FLOOR
    scale = float(np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in single.values())))
    assert found["grads"].keys() == single.keys(), "names of the gradients differ"
    exact, image_exact = double or single, io.get("grad_input_f64", io["grad_input"])
    for name in single:
        _assert_near(found["grads"][name], single[name], exact[name], whole=floor * scale, zero=name in zero, what=name)
    _assert_near(found["grad_input"], io["grad_input"], image_exact, whole=0.0, zero=False, what="grad_input")
    np.testing.assert_allclose(found["loss"], io["loss"], rtol=1e-5)
    np.testing.assert_allclose(found["logits"], io["logits"], rtol=0, atol=LOGITS * np.abs(io["logits"]).max())
    assert found["buffers"].keys() == buffers.keys(), "names of the buffers differ"
    for name, value in buffers.items():
        np.testing.assert_allclose(found["buffers"][name], value, rtol=1e-5, atol=1e-5, err_msg=name)

    if double is not None:
        with double_precision():
            found = _as_torch(network, *run(*as_double((params, stats, images)), labels))
        np.testing.assert_allclose(found["loss"], io["loss_f64"], rtol=DOUBLE)
        np.testing.assert_allclose(found["grad_input"], image_exact, atol=DOUBLE * np.abs(image_exact).max())
        for name, value in double.items():
            limit = DOUBLE * (scale if name in zero else np.abs(value).max())
            np.testing.assert_allclose(found["grads"][name], value, rtol=0, atol=limit, err_msg=name)


def _assert_near(found: np.ndarray, single: np.ndarray, exact: np.ndarray, *, whole: float, zero: bool, what: str) -> None:
    assert found.shape == exact.shape, f"{what}: expected shape {exact.shape}, got {found.shape}"
    own = float(np.abs(single.astype(np.float64) - exact).max())
    floor = 0.0 if zero else TENSOR_FLOOR * float(np.abs(exact).max())
    error, limit = float(np.abs(found - exact).max()), max(TIMES * own, floor, whole)
    assert error <= limit, f"{what}: error {error:.2e}, allowed {limit:.2e} (reference's own {own:.2e})"


@functools.partial(jax.jit, static_argnums=(0, 1))
def _differentiate(
    network: Network, train: bool, params: Parameters, stats: Parameters, images: Any, labels: Any
) -> tuple[Any, Any, Any, Any, Any]:
    def loss(params: Parameters, images: Any) -> tuple[Any, Any]:
        logits, after = network.apply(params, stats, images, Mode(batch_statistics=train))
        return cross_entropy.mean(logits, labels), (logits, after)

    (value, (logits, after)), (grads, grad_input) = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, images)
    return value, logits, grads, grad_input, after


def _as_torch(
    network: Network, loss: Any, logits: Any, grads: Parameters, grad_input: Any, buffers: Parameters
) -> dict[str, Any]:
    layouts = network.layouts()

    def arranged(name: str, value: Any) -> np.ndarray:
        order = {"conv": (3, 2, 0, 1), "transposed": (2, 3, 0, 1)}.get(layouts.get(name, "plain"))
        return np.asarray(value) if order is None else np.asarray(value).transpose(order)

    return {
        "loss": np.asarray(loss),
        "logits": np.moveaxis(np.asarray(logits), -1, 1),
        "grad_input": np.moveaxis(np.asarray(grad_input), -1, 1),
        "grads": {name: arranged(name, value) for name, value in grads.items()},
        "buffers": {name: np.asarray(value) for name, value in buffers.items()},
    }


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _index(golden: Path) -> list[dict[str, Any]]:
    index = json.loads((golden / FOLDER / "index.json").read_text())
    return [case for case in index if (golden / FOLDER / case["name"]).is_dir()]
