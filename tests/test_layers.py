"""Values and gradients of every layer against its PyTorch namesake, over the settings that it takes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from quam_jax.core.network import Mode
from quam_jax.networks import bilinear as bilinear_module
from quam_jax.networks import convolution as convolution_module
from quam_jax.networks import weight_gradient as weight_gradient_module
from quam_jax.networks.activations import leaky_relu, relu
from quam_jax.networks.convolution import convolution
from quam_jax.networks.layers import Conv, ConvTranspose, Linear, transposed_convolution
from quam_jax.networks.norms import BatchNorm, GroupNorm, InstanceNorm, LayerNorm
from tests.against_torch import assert_close, called, channels_first, compare, plain, random, rngs

torch = pytest.importorskip("torch")
functional = torch.nn.functional
CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
SIZES = (7, 6, 5)


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
    layer(jnp.asarray(x), Mode(batch_statistics=True))
    assert_close(layer.running_mean[...], norm.running_mean.numpy(), "running mean")
    assert_close(layer.running_var[...], norm.running_var.numpy(), "running variance")


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
    monkeypatch.setattr(weight_gradient_module, "BLOCK", 200)  # several blocks and slices of these small images
    monkeypatch.setattr(convolution_module, "SLICED", 500)
    monkeypatch.setattr(bilinear_module, "LARGE", 10)
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


@pytest.mark.parametrize(
    ("sizes", "channels", "kernel", "stride", "padding", "dilation"),
    [
        ((40, 30), (5, 4), (3, 3), (1, 1), (1, 1), (1, 1)),
        ((40, 30), (5, 4), (3, 3), (2, 2), (1, 1), (1, 1)),
        ((41, 29), (3, 4), (5, 3), (1, 1), (4, 2), (2, 2)),
        ((41, 29), (3, 4), (3, 5), (3, 2), (0, 3), (2, 1)),
        ((17, 3), (4, 4), (7, 1), (1, 1), (6, 0), (2, 1)),
        ((2, 3), (4, 4), (3, 3), (1, 1), (1, 1), (1, 1)),
        ((1, 1), (2, 3), (3, 3), (1, 1), (1, 1), (1, 1)),
        ((12, 12), (1, 16), (3, 3), (1, 1), (1, 1), (1, 1)),
        ((23, 12), (1, 32), (3, 3), (2, 1), (1, 0), (1, 2)),
        ((50,), (3, 4), (5,), (1,), (2,), (1,)),
        ((9, 8, 7), (3, 4), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
        ((9, 8, 7), (3, 4), (3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1)),
        ((30, 20), (6, 3), (1, 1), (1, 1), (0, 0), (1, 1)),
    ],
)
@pytest.mark.parametrize("block", [1, 300, 1_000_000])
def test_gradients_are_exact_for_every_block(monkeypatch, block, sizes, channels, kernel, stride, padding, dilation):
    monkeypatch.setattr(weight_gradient_module, "BLOCK", block)
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x, w = jnp.asarray(rng.normal(size=(2, *sizes, channels[0]))), jnp.asarray(rng.normal(size=(*kernel, *channels)))
        settings = dict(stride=stride, padding=padding, dilation=dilation)
        expected, plain = jax.vjp(lambda x, w: lax_convolution(x, w, stride, padding, dilation), x, w)
        found, ours = jax.vjp(lambda x, w: convolution(x, w, **settings), x, w)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
        dy = jnp.asarray(rng.normal(size=expected.shape))
        for mine, theirs in zip(ours(dy), plain(dy), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-11, atol=1e-11)


def test_activations_are_those_of_jax_at_zero_too():
    x = jnp.asarray([-2.0, -0.0, 0.0, 3.0, jnp.nan, jnp.inf, -jnp.inf])
    for ours, theirs in ((relu, jax.nn.relu), (lambda x: leaky_relu(x, 0.1), lambda x: jax.nn.leaky_relu(x, 0.1))):
        np.testing.assert_array_equal(ours(x), theirs(x))
        found, expected = (jax.vjp(f, x)[1](jnp.ones_like(x))[0] for f in (ours, theirs))
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(jax.jvp(ours, (x,), (x,))[1][:4], jax.jvp(theirs, (x,), (x,))[1][:4])


def test_a_gradient_that_nobody_asks_for_costs_nothing():
    x, w = jnp.asarray(random(1, 64, 64, 8)), jnp.asarray(random(3, 3, 8, 8))

    def operations(which):
        settings = dict(stride=(1, 1), padding=(1, 1), dilation=(1, 1))
        chained = jax.grad(lambda *a: jnp.sin(convolution(jnp.sin(a[0]), a[1], **settings)).sum(), which)
        return jax.jit(chained).lower(x, w).compile().cost_analysis()["flops"]

    one = 2 * 64 * 64 * 9 * 8 * 8  # floating-point operations of a convolution; the loop's body is counted once
    assert operations(0) < 2.5 * one and operations(1) < 2.5 * one < operations((0, 1)) + one


def test_nothing_padded_or_shifted_is_kept_for_the_backward_pass():
    x, w = jnp.asarray(random(1, 64, 64, 8)), jnp.asarray(random(3, 3, 8, 8))
    settings = dict(stride=(1, 1), padding=(1, 1), dilation=(1, 1))
    _, back = jax.vjp(lambda x, w: convolution(x, w, **settings), x, w)
    assert sorted(leaf.size for leaf in jax.tree.leaves(back)) == sorted([x.size, w.size])
    w = jnp.asarray(random(4, 4, 8, 8))
    up = dict(stride=(2, 2), padding=(1, 1), output_padding=(0, 0))
    _, back = jax.vjp(lambda x, w: transposed_convolution(x, w, **up), x, w)
    assert sorted(leaf.size for leaf in jax.tree.leaves(back)) == sorted([x.size, w.size])
