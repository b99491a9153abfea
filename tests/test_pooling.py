"""Interpolation, pooling and dropout: values and gradients against PyTorch, and by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.core.network import GivenNoise, Mode
from quam_jax.networks.dropout import BranchDropout, ChannelDropout, ValueDropout
from quam_jax.networks.pooling import max_pool, max_pool_place, unpool
from quam_jax.networks.resizing import resize_linear
from tests.against_torch import channels_first, compare, random

torch = pytest.importorskip("torch")
functional = torch.nn.functional
SIZES = (7, 6, 5)


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
