"""Section A: the forward pass of every architecture against the reference's numbers, in eval mode and float32.

Weights are those of a case, or made by its recipe; constructor arguments are inferred from their shapes and must agree
with the ones the reference was built with. The error is measured against the reference's float64 run.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from quam_jax.models.model import Network, SegmentationModel
from quam_jax.networks import guess_architecture, infer_arguments

FOLDER = "A_forward"
ARCHITECTURES = {
    "AttUNet": "att_unet",
    "UNet": "unet",
    "UNetDropout": "unet_dropout",
    "UNetpp": "unetpp",
    "UNetppp": "unetppp",
    "SegNet": "segnet",
    "SegNetNarrow": "segnet",
    "SwinTransformerSys": "swin_unet",
    "SwinUnet": "swin_unet_wrapper",
}
BUFFERS = ("num_batches_tracked", "relative_position_index", "attn_mask")
# how often the reference's own float32 error an error may be, and its floor relative to the largest output
TIMES, FLOOR = 4.0, 1e-5


def cases(golden: Path) -> list[str]:
    """Names of the cases that `check` takes."""
    return [case["name"] for case in _index(golden) if case["arch"] in ARCHITECTURES]


def not_covered(golden: Path) -> list[str]:
    """Names of the cases whose architecture is not known here."""
    return [case["name"] for case in _index(golden) if case["arch"] not in ARCHITECTURES]


def check(golden: Path, case: str) -> None:
    """Assert that the logits of a case are the reference's."""
    meta = next(c for c in _index(golden) if c["name"] == case)
    folder = golden / FOLDER / case
    architecture = ARCHITECTURES[meta["arch"]]
    weights = _weights(folder)
    shapes = {name: value.shape for name, value in weights.items()}
    guess = guess_architecture(shapes)
    assert guess == ("unet" if architecture == "unet_dropout" else architecture)
    inferred = infer_arguments(architecture, shapes)
    network = Network.create(architecture, **{**inferred, "in_channels": meta["input_shape"][1], **_unseen(meta["kwargs"])})
    expected = _renamed(meta["kwargs"])
    for name in inferred.keys() & expected.keys():
        assert inferred[name] == expected[name], f"{name}: expected {expected[name]}, inferred {inferred[name]}"
    model = SegmentationModel(network, *from_torch(network, weights))
    with np.load(folder / "io.npz") as io:
        values = {name: io[name] for name in io.files}
    with jax.default_matmul_precision("highest"):
        logits = model(np.moveaxis(values["input"], 1, -1))
        found = {"logits": logits, "pre_softmax": logits}
        if meta["output_kind"] != "logits":
            found["logits"] = jax.nn.softmax(logits, -1)
    for name in found.keys() & values.keys():
        assert_close(np.moveaxis(np.asarray(found[name]), -1, 1), values[name], values[f"{name}_f64"], what=name)


def assert_close(found: np.ndarray, reference: np.ndarray, exact: np.ndarray, *, what: str) -> None:
    """Assert an error within a few times the reference's own, with a floor relative to the largest value."""
    assert found.shape == exact.shape, f"{what}: expected shape {exact.shape}, got {found.shape}"
    own = float(np.abs(reference.astype(np.float64) - exact).max())
    error, scale = float(np.abs(found.astype(np.float64) - exact).max()), float(np.abs(exact).max())
    limit = max(FLOOR * scale, TIMES * own)
    assert error <= limit, f"{what}: error {error:.2e}, allowed {limit:.2e} (reference's own {own:.2e}, scale {scale:.2g})"


def from_torch(network: Network, weights: dict[str, np.ndarray]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and statistics from a state_dict, by axis order alone; every tensor but derived buffers is used once."""
    params, stats = network.shapes()
    layouts = network.layouts()
    unused = {n for n in weights if not n.endswith(BUFFERS)} ^ {*params, *stats}
    assert not unused, f"names on one side only: {sorted(unused)[:5]}"

    def arranged(name: str, shape: tuple[int, ...]) -> jax.Array:
        value, layout = weights[name], layouts.get(name, "plain")
        space = tuple(range(2, value.ndim))
        order = {"conv": (*space, 1, 0), "transposed": (*space, 0, 1), "linear": (1, 0)}.get(layout)
        value = value if order is None else value.transpose(order)
        assert value.shape == shape, f"{name}: expected shape {shape}, got {value.shape}"
        return jnp.asarray(value)

    return ({n: arranged(n, s) for n, s in params.items()}, {n: arranged(n, s) for n, s in stats.items()})


def _index(golden: Path) -> list[dict[str, Any]]:
    return json.loads((golden / FOLDER / "index.json").read_text())


def _weights(folder: Path) -> dict[str, np.ndarray]:
    if (folder / "weights.npz").is_file():
        with np.load(folder / "weights.npz") as weights:
            return {name: weights[name] for name in weights.files}
    meta = json.loads((folder / "meta.json").read_text())
    weights = {name: _recipe(name, tuple(shape), meta["recipe_base"]) for name, (shape, _, _) in meta["tensor_checks"].items()}
    for name, (_, total, absolute) in meta["tensor_checks"].items():
        value = weights[name].astype(np.float64)
        np.testing.assert_allclose([value.sum(), np.abs(value).sum()], [total, absolute], rtol=1e-6, atol=1e-6 * absolute)
    return weights


def _recipe(name: str, shape: tuple[int, ...], base: int) -> np.ndarray:
    """The tensor that the golden set's recipe gives for a name."""
    rng = np.random.RandomState((zlib.crc32(name.encode("ascii")) + base) % 2**32)
    if name.endswith("num_batches_tracked"):
        value: Any = np.zeros(shape)
    elif name.endswith("running_var"):
        value = 0.5 + 1.5 * rng.random_sample(shape)
    elif name.endswith("running_mean"):
        value = 0.3 * rng.standard_normal(shape)
    elif len(shape) == 4:
        value = rng.standard_normal(shape) * np.sqrt(2 / (shape[1] * 9))
    elif name.endswith("weight"):
        value = 0.6 + 0.8 * rng.random_sample(shape)
    else:
        value = 0.1 * rng.standard_normal(shape)
    return np.asarray(value, np.float32)


def _unseen(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments that the weights cannot tell."""
    return {"drop": kwargs["drop"]} if "drop" in kwargs else {}


def _renamed(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The reference's constructor arguments under our names."""
    names = {
        "cin": "in_channels",
        "cout": "n_classes",
        "out_channels": "n_classes",
        "num_classes": "n_classes",
        "w": "widths",
        "in_chans": "in_channels",
        "img": "img_size",
        "emb": "embed_dim",
        "heads": "num_heads",
        "win": "window_size",
    }
    flat = {**kwargs, **kwargs.get("cfg", {})}
    return {names.get(n, n): tuple(v) if isinstance(v, list) else v for n, v in flat.items()}
