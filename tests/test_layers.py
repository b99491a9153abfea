"""Values and gradients of every layer against its PyTorch namesake, over the settings that it takes."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from quam_jax.core.network import GivenNoise, Mode
from quam_jax.networks import convolution as convolution_module
from quam_jax.networks.convolution import convolution
from quam_jax.networks.dropout import BranchDropout, ChannelDropout, ValueDropout
from quam_jax.networks.layers import Conv, ConvTranspose, Linear
from quam_jax.networks.norms import BatchNorm, GroupNorm, InstanceNorm, LayerNorm
from quam_jax.networks.pooling import max_pool, max_pool_place, unpool
from quam_jax.networks.resizing import resize_linear

torch = pytest.importorskip("torch")
functional = torch.nn.functional
CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
SIZES = (7, 6, 5)


def channels_first(x: Any) -> np.ndarray:
    return np.moveaxis(np.asarray(x), -1, 1)


def plain(x: Any) -> np.ndarray:
    return np.asarray(x)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def assert_close(found: Any, expected: Any, what: str) -> None:
    scale = max(1.0, float(np.abs(expected).max())) if expected.size else 1.0
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * scale, err_msg=what)


def compare(
    pairs: list[tuple[Callable, Callable]], arguments: list[np.ndarray], orders: list[Callable], *, out: Callable = channels_first
) -> None:
    """Outputs and vector-Jacobian products of pairs (ours, PyTorch's) at the same arguments.

    `orders` bring arguments of ours into PyTorch's axis order, `out` an output.
    """
    theirs = [
        torch.tensor(np.ascontiguousarray(order(a)), requires_grad=True) for a, order in zip(arguments, orders, strict=True)
    ]

    @jax.jit
    def values(*arguments):
        results = []
        for ours, _ in pairs:
            y, pull = jax.vjp(ours, *arguments)
            weight = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
            results.append((y, weight, pull(weight)))
        return results

    for index, ((y, weight, gradients), (_, reference)) in enumerate(zip(values(*arguments), pairs, strict=True)):
        expected = reference(*theirs)
        pulled = torch.autograd.grad(expected, theirs, torch.tensor(np.ascontiguousarray(out(weight))))
        assert_close(out(y), expected.detach().numpy(), f"value of pair {index}")
        for number, (mine, theirs_, order) in enumerate(zip(gradients, pulled, orders, strict=True)):
            assert_close(order(mine), theirs_.numpy(), f"gradient {number} of pair {index}")


def called(layer: nnx.Module) -> Callable:
    """A layer as a function of input, weight and bias."""
    graph, state = nnx.split(layer)

    def call(x, weight, *bias):
        values = jax.tree.map(lambda v: v, state)
        nnx.replace_by_pure_dict(values, {**nnx.to_pure_dict(state), "weight": weight, **({"bias": bias[0]} if bias else {})})
        return nnx.merge(graph, values)(x)

    return call


def rngs() -> nnx.Rngs:
    return nnx.Rngs(0)


# every setting in one dimension; in two and three, every fifth and seventh, from another start for every kernel
KERNELS = [(1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (2, 4), (2, 5), (3, 2), (3, 3)]
STEP = {1: 1, 2: 5, 3: 7}


@pytest.mark.parametrize(("rank", "kernel"), KERNELS)
def test_convolution(rank, kernel):
    def pair(stride, padding, dilation):
        layer = Conv(3, 4, kernel, rank=rank, stride=stride, padding=padding, dilation=dilation, rngs=rngs())
        return called(layer), lambda x, w, b: CONVOLUTIONS[rank](x, w, b, stride, padding, dilation)

    settings = [(s, p, d) for s, p, d in itertools.product((1, 2, 3), (0, 1, 2), (1, 2)) if d * (kernel - 1) < 5 + 2 * p]
    compare(
        [pair(*setting) for setting in settings[kernel % STEP[rank] :: STEP[rank]]],
        [random(2, *SIZES[:rank], 3), random(*(kernel,) * rank, 3, 4), random(4)],
        [channels_first, lambda w: np.moveaxis(w, (-1, -2), (0, 1)), plain],
    )


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        ((1, 3, 3), (1, 2, 2), (0, 1, 1), (1, 1, 1)),
        ((3, 1, 5), (2, 3, 1), (1, 0, 3), (2, 1, 1)),
        ((2, 3), (1, 2), (1, 0), (3, 1)),
    ],
)
def test_convolution_with_settings_of_its_own_for_every_axis(kernel, stride, padding, dilation):
    rank = len(kernel)
    layer = Conv(3, 4, kernel, rank=rank, stride=stride, padding=padding, dilation=dilation, bias=False, rngs=rngs())
    compare(
        [(called(layer), lambda x, w: CONVOLUTIONS[rank](x, w, None, stride, padding, dilation))],
        [random(2, *SIZES[:rank], 3), random(*kernel, 3, 4)],
        [channels_first, lambda w: np.moveaxis(w, (-1, -2), (0, 1))],
    )


@pytest.mark.parametrize("rank", [2, 3])
def test_grouped_convolution(rank):
    layer = Conv(4, 6, 3, rank=rank, groups=2, rngs=rngs())
    compare(
        [(called(layer), lambda x, w, b: CONVOLUTIONS[rank](x, w, b, 1, 1, 1, 2))],
        [random(2, *SIZES[:rank], 4), random(*(3,) * rank, 2, 6), random(6)],
        [channels_first, lambda w: np.moveaxis(w, (-1, -2), (0, 1)), plain],
    )


@pytest.mark.parametrize(("rank", "kernel"), KERNELS)
def test_transposed_convolution(rank, kernel):
    def pair(stride, padding, extra):
        layer = ConvTranspose(3, 2, kernel, rank=rank, stride=stride, padding=padding, output_padding=extra, rngs=rngs())
        return called(layer), lambda x, w, b: TRANSPOSED[rank](x, w, b, stride, padding, extra)

    sizes = SIZES[:rank] if rank < 3 else (3, 4, 2)
    settings = [
        (s, p, e)
        for s, p, e in itertools.product((1, 2, 3), (0, 1, 2), (0, 1, 2))
        if e < s and (min(sizes) - 1) * s - 2 * p + kernel + e > 0
    ]
    compare(
        [pair(*setting) for setting in settings[kernel % STEP[rank] :: STEP[rank]]],
        [random(2, *sizes, 3), random(*(kernel,) * rank, 3, 2), random(2)],
        [channels_first, lambda w: np.moveaxis(w, (-2, -1), (0, 1)), plain],
    )


def test_transposed_convolution_with_settings_of_its_own_for_every_axis():
    layer = ConvTranspose(
        3, 2, (1, 4, 3), rank=3, stride=(1, 2, 3), padding=(0, 1, 0), output_padding=(0, 1, 2), bias=False, rngs=rngs()
    )
    compare(
        [(called(layer), lambda x, w: functional.conv_transpose3d(x, w, None, (1, 2, 3), (0, 1, 0), (0, 1, 2)))],
        [random(2, 3, 4, 2, 3), random(1, 4, 3, 3, 2)],
        [channels_first, lambda w: np.moveaxis(w, (-2, -1), (0, 1))],
    )


def test_linear():
    compare(
        [(called(Linear(5, 3, rngs=rngs())), functional.linear)],
        [random(2, 4, 5), random(5, 3), random(3)],
        [plain, np.transpose, plain],
        out=plain,
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_normalisation(rank):
    x, weight, bias = 3 + 2 * random(2, *SIZES[:rank], 4), random(4), random(4)
    orders = [channels_first, plain, plain]
    compare(
        [
            (called(InstanceNorm(4)), lambda x, w, b: functional.instance_norm(x, weight=w, bias=b)),
            (called(GroupNorm(2, 4)), lambda x, w, b: functional.group_norm(x, 2, w, b)),
            (called(BatchNorm(4)), lambda x, w, b: functional.batch_norm(x, torch.zeros(4), torch.ones(4), w, b)),
        ],
        [x, weight, bias],
        orders,
    )
    compare(
        [
            (InstanceNorm(4, affine=False), functional.instance_norm),
            (GroupNorm(2, 4, affine=False), lambda x: functional.group_norm(x, 2)),
        ],
        [x],
        [channels_first],
    )
    compare(
        [(called(LayerNorm(4)), lambda x, w, b: functional.layer_norm(x, (4,), w, b))],
        [x, weight, bias],
        [plain, plain, plain],
        out=plain,
    )


@pytest.mark.parametrize("shape", [(3, 5, 4, 2), (1, 4, 3, 2), (2, 3, 2, 2, 2)])
def test_batch_statistics(shape):
    norm = torch.nn.BatchNorm2d(2) if len(shape) == 4 else torch.nn.BatchNorm3d(2)
    mean, variance, weight, bias = random(2, seed=1), np.abs(random(2, seed=2)) + 0.5, random(2, seed=3), random(2, seed=4)
    layer = BatchNorm(2)
    for name, value in (("running_mean", mean), ("running_var", variance), ("weight", weight), ("bias", bias)):
        getattr(norm, name).data = torch.tensor(value)
        getattr(layer, name)[...] = jnp.asarray(value)
    x = 3 + 2 * random(*shape)
    graph, state = nnx.split(layer)

    def normalised(x):  # merged with copies: a pass updates the statistics
        return nnx.merge(graph, jax.tree.map(lambda v: v, state))(x, Mode(batch_statistics=True))

    compare([(normalised, norm)], [x], [channels_first])
    layer(x, Mode(batch_statistics=True))
    assert_close(layer.running_mean[...], norm.running_mean.numpy(), "running mean")
    assert_close(layer.running_var[...], norm.running_var.numpy(), "running variance")


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("align_corners", [False, True])
def test_linear_interpolation(rank, align_corners):
    kind = {1: "linear", 2: "bilinear", 3: "trilinear"}[rank]
    sizes = [(14, 12, 10), (3, 9, 5), (1, 1, 1), (8, 2, 7)]
    compare(
        [
            (
                lambda x, size=size[:rank]: resize_linear(x, size, align_corners=align_corners),
                lambda x, size=size[:rank]: functional.interpolate(x, size, mode=kind, align_corners=align_corners),
            )
            for size in sizes
        ],
        [random(2, *SIZES[:rank], 3)],
        [channels_first],
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_max_pool(rank):
    pool = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}[rank]
    compare(
        [
            (lambda x, w=window, c=ceil: max_pool(x, w, ceil_mode=c), lambda x, w=window, c=ceil: pool(x, w, ceil_mode=c))
            for window in (2, 3, 4)
            for ceil in (False, True)
        ],
        [random(2, *SIZES[:rank], 3)],
        [channels_first],
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_gradient_of_equal_values_goes_to_the_first(rank):
    pool = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}[rank]
    levels = np.random.default_rng(rank).integers(0, 3, (2, *SIZES[:rank], 3)).astype(np.float32)
    compare(
        [(lambda x, w=window: max_pool(x, w), lambda x, w=window: pool(x, w)) for window in (2, 3)], [levels], [channels_first]
    )


@pytest.mark.parametrize("place", range(4))
def test_a_maximum_with_nan_is_nan(place):
    x = np.zeros((1, 2, 2, 1), np.float32)
    x.reshape(-1)[place] = np.nan
    assert np.isnan(max_pool(jnp.asarray(x), 2)).all()


@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_unpooling_puts_values_where_the_maxima_stood(size):
    x, y = random(2, *size, 3), random(2, size[0] // 2, size[1] // 2, 3, seed=1)

    def theirs(x, y):
        pooled, indices = functional.max_pool2d(x, 2, return_indices=True)
        return functional.max_unpool2d(pooled * y, indices, 2, output_size=size)

    def ours(x, y):
        pooled, place = max_pool_place(x)
        return unpool(pooled * y, place, size)

    compare([(ours, theirs)], [x, y], [channels_first, channels_first])


def test_a_tie_goes_to_the_first_place():
    ties = np.array([[5, 5], [5, 5], [1, 7], [7, 7]], np.float32).reshape(1, 4, 2, 1)
    pooled, place = max_pool_place(jnp.asarray(ties))
    _, indices = functional.max_pool2d(torch.tensor(channels_first(ties)), 2, return_indices=True)
    assert pooled.ravel().tolist() == [5, 7] and place.ravel().tolist() == [0, 1]
    assert indices.ravel().tolist() == [0, 5]  # in the whole image: row 0 column 0, row 2 column 1


def test_dropout_scales_what_it_keeps():
    x = jnp.ones((2, 2, 2, 2))
    for layer, mask in (
        (ChannelDropout(0.25), [[1, 0], [0, 1]]),
        (BranchDropout(0.25), [[[[1]]], [[[0]]]]),
        (ValueDropout(0.25), np.arange(16).reshape(2, 2, 2, 2) % 2),
    ):
        mask = jnp.asarray(mask, jnp.float32)
        spread = mask.reshape(2, 1, 1, 2) if mask.ndim == 2 else mask
        kept = layer(x, Mode(noise=GivenNoise([mask])))
        np.testing.assert_allclose(kept, jnp.broadcast_to(spread / 0.75, x.shape))
        np.testing.assert_array_equal(layer(x), x)


def lax_convolution(x: jax.Array, weight: jax.Array, stride: tuple, padding: tuple, dilation: tuple) -> jax.Array:
    space = "DHW"[-len(stride) :]
    return jax.lax.conv_general_dilated(
        x,
        weight,
        stride,
        [(p, p) for p in padding],
        rhs_dilation=dilation,
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
    )


@pytest.mark.parametrize(
    ("sizes", "kernel", "stride", "padding", "dilation"),
    [
        ((13, 6), (3, 3), (1, 1), (1, 1), (1, 1)),
        ((13, 6), (4, 3), (2, 1), (1, 0), (2, 1)),
        ((9,), (3,), (2,), (1,), (1,)),
        ((5, 8, 4), (3, 3, 3), (2, 1, 2), (1, 1, 1), (1, 2, 1)),
        ((1, 7, 4), (1, 3, 3), (1, 1, 1), (0, 1, 1), (1, 1, 1)),
    ],
)
def test_strips_and_slices_change_no_derivative(monkeypatch, sizes, kernel, stride, padding, dilation):
    monkeypatch.setattr(convolution_module, "STRIP", 60)  # several strips of these small images
    x, w = jnp.asarray(random(2, *sizes, 3)), jnp.asarray(random(*kernel, 3, 2))
    dx, dw = jnp.asarray(random(2, *sizes, 3, seed=1)), jnp.asarray(random(*kernel, 3, 2, seed=1))

    def derivatives(f):
        def bend(x, w):
            return jnp.sin(f(x, w)).sum()

        return {
            "tangent": jax.jvp(f, (x, w), (dx, dw))[1],
            "weight tangent": jax.jvp(lambda w: f(x, w), (w,), (dw,))[1],
            "gradient of x": jax.grad(bend)(x, w),
            "gradient of w": jax.grad(bend, 1)(x, w),
            "curvature": jax.jvp(jax.grad(bend, (0, 1)), (x, w), (dx, dw))[1],
            "members": jax.vmap(jax.grad(bend, 1), (None, 0))(x, jnp.stack([w, dw])),
        }

    settings = dict(stride=stride, padding=padding, dilation=dilation)
    found = jax.jit(lambda: derivatives(lambda x, w: convolution(x, w, **settings)))()
    expected = jax.jit(lambda: derivatives(lambda x, w: lax_convolution(x, w, stride, padding, dilation)))()
    for name in expected:
        for mine, theirs in zip(jax.tree.leaves(found[name]), jax.tree.leaves(expected[name]), strict=True):
            assert_close(mine, np.asarray(theirs), name)
