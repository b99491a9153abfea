"""The tiny network once more, in every way in which somebody may have it in memory, with the weights of a given model."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import linen, nnx

from quam_jax.models.model import SegmentationModel
from quam_jax.models.wrap import wrap

EPSILON = 1e-5  # of BatchNorm, as torch has it
LAYERS = ("first", "last", "head")


def norm_of(model: SegmentationModel) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    p, s = model.params, model.stats
    return p["norm.weight"], p["norm.bias"], s["norm.running_mean"], s["norm.running_var"]


def conv(x: jax.Array, layer: dict[str, jax.Array]) -> jax.Array:
    y = jax.lax.conv_general_dilated(x, layer["weight"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y + jnp.reshape(layer["bias"], (1, 1, 1, -1))


def layers_of(model: SegmentationModel) -> dict[str, dict[str, jax.Array]]:
    return {name: {kind: model.params[f"{name}.{kind}"] for kind in ("weight", "bias")} for name in LAYERS}


def as_function(model: SegmentationModel, **options: Any) -> SegmentationModel:
    scale, shift, mean, var = norm_of(model)
    params = {**layers_of(model), "norm": {"scale": scale, "bias": shift}}

    @jax.jit  # calls of jit are opened where a network is cut
    def apply(params: Any, stats: Any, images: jax.Array) -> jax.Array:
        x = conv(images, params["first"])
        x = (x - stats["mean"]) / jnp.sqrt(stats["var"] + EPSILON) * params["norm"]["scale"] + params["norm"]["bias"]
        return conv(jax.nn.silu(conv(jax.nn.silu(x), params["last"])), params["head"])

    return wrap(apply, params, {"mean": mean, "var": var}, example=jnp.ones((1, 8, 12, 2)), **options)


class TinyLinen(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = linen.Conv(4, (3, 3), name="first")(x)
        x = linen.BatchNorm(use_running_average=not train, epsilon=EPSILON, name="norm")(x)
        x = linen.Dropout(0.5, deterministic=not train)(jax.nn.silu(x))
        return linen.Conv(2, (1, 1), name="head")(jax.nn.silu(linen.Conv(4, (1, 1), name="last")(x)))


def as_linen(model: SegmentationModel, **options: Any) -> SegmentationModel:
    scale, shift, mean, var = norm_of(model)
    layers = {name: {"kernel": layer["weight"], "bias": layer["bias"]} for name, layer in layers_of(model).items()}
    variables = {
        "params": {**layers, "norm": {"scale": scale, "bias": shift}},
        "batch_stats": {"norm": {"mean": mean, "var": var}},
    }
    return wrap(TinyLinen(), variables, example=jnp.ones((1, 8, 12, 2)), **options)


class TinyNNX(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, epsilon=EPSILON, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Conv(4, 4, (1, 1), rngs=rngs)
        self.head = nnx.Conv(4, 2, (1, 1), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.dropout(jax.nn.silu(self.norm(self.first(x))))
        return self.head(jax.nn.silu(self.last(x)))


def as_nnx(model: SegmentationModel, **options: Any) -> SegmentationModel:
    module = TinyNNX(nnx.Rngs(0))
    for name, layer in layers_of(model).items():
        getattr(module, name).kernel[...], getattr(module, name).bias[...] = layer["weight"], layer["bias"]
    scale, shift, mean, var = norm_of(model)
    module.norm.scale[...], module.norm.bias[...], module.norm.mean[...], module.norm.var[...] = scale, shift, mean, var
    return wrap(module, example=jnp.ones((1, 8, 12, 2)), **options)


def as_equinox(model: SegmentationModel, **options: Any) -> SegmentationModel:
    eqx = pytest.importorskip("equinox")

    class TinyEquinox(eqx.Module):
        first: Any
        norm: Any
        last: Any
        head: Any

        def __call__(self, x: jax.Array, state: Any) -> tuple[jax.Array, Any]:
            x, state = self.norm(self.first(x), state)
            return self.head(jax.nn.silu(self.last(jax.nn.silu(x)))), state

    def layer(name: str) -> Any:
        weight, bias = model.params[f"{name}.weight"], model.params[f"{name}.bias"]
        kernel, inputs, outputs = weight.shape[0], *weight.shape[2:]
        made = eqx.nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, key=jax.random.key(0))
        values = jnp.transpose(weight, (3, 2, 0, 1)), bias[:, None, None]
        return eqx.tree_at(lambda c: (c.weight, c.bias), made, values)

    scale, shift, mean, var = norm_of(model)
    norm = eqx.nn.BatchNorm(4, axis_name="batch", eps=EPSILON, mode="ema")
    norm = eqx.tree_at(lambda n: (n.weight, n.bias), norm, (scale, shift))
    module = TinyEquinox(layer("first"), norm, layer("last"), layer("head"))
    state = eqx.nn.State(module)
    state = state.set(norm.ema_state_index, (mean, var)).set(norm.ema_first_time_index, jnp.array(False))
    return wrap(module, stats=state, example=jnp.ones((2, 8, 12)), **options)


def as_haiku(model: SegmentationModel, **options: Any) -> SegmentationModel:
    hk = pytest.importorskip("haiku")

    def forward(x: jax.Array, is_training: bool) -> jax.Array:
        x = hk.Conv2D(4, 3, name="first")(x)
        norm = hk.BatchNorm(True, True, 0.9, eps=EPSILON, name="norm")
        x = jax.nn.silu(norm(x, is_training))
        return hk.Conv2D(2, 1, name="head")(jax.nn.silu(hk.Conv2D(4, 1, name="last")(x)))

    network = hk.transform_with_state(forward)
    params, state = network.init(jax.random.key(0), jnp.ones((1, 8, 12, 2)), True)
    scale, shift, mean, var = norm_of(model)
    params = {name: {"w": layer["weight"], "b": layer["bias"]} for name, layer in layers_of(model).items()} | {
        "norm": {"scale": jnp.reshape(scale, (1, 1, 1, -1)), "offset": jnp.reshape(shift, (1, 1, 1, -1))}
    }
    for kind, value in (("mean", mean), ("var", var)):
        state[f"norm/~/{kind}_ema"]["average"] = jnp.reshape(value, (1, 1, 1, -1))
    return wrap(network, params, state, example=jnp.ones((1, 8, 12, 2)), arguments={"is_training": False}, **options)


KINDS = {"function": as_function, "linen": as_linen, "nnx": as_nnx, "equinox": as_equinox, "haiku": as_haiku}
