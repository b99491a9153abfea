"""Preprocessing, padding, fit batches, and slices against values by hand or by brute force."""

import itertools
import json

import numpy as np
import pytest

from quam_jax.data.preprocess import (
    Preprocessing,
    batch_fit,
    match_channels,
    pad_to_shape,
    to_slices,
)

IMAGE = np.array([[[0.0], [2.0]], [[4.0], [10.0]]], np.float32)  # mean 4, variance (16 + 4 + 0 + 36) / 4 = 14


def test_normalisations_by_hand():
    root = np.sqrt(14.0)
    for settings, wanted in (
        (Preprocessing("zscore"), [-4 / root, -2 / root, 0, 6 / root]),
        (Preprocessing("zscore", scale=255.0), [-4 / root, -2 / root, 0, 6 / root]),
        (Preprocessing("minmax"), [0, 0.2, 0.4, 1]),
        (Preprocessing("none"), [0, 2, 4, 10]),
        (Preprocessing("none", scale=4.0), [0, 0.5, 1, 2.5]),
        (Preprocessing("fixed", scale=10.0, mean=(0.5,), std=(0.5,)), [-1, -0.6, -0.2, 1]),
        (Preprocessing("none", clip=(0.0, 50.0)), [0, 2, 3, 3]),  # the median of 0 2 4 10 is 3
    ):
        got = settings.apply(IMAGE)
        assert got.dtype == np.float32 and got.shape == IMAGE.shape
        np.testing.assert_allclose(got.ravel(), wanted, rtol=1e-6, atol=1e-7)


def test_the_published_normalisation_and_channels_apart():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (7, 6, 3)).astype(np.float32)
    settings = Preprocessing("fixed", channels=3, scale=255.0, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.125))
    wanted = (image / 255 - [0.5, 0.4, 0.3]) / [0.5, 0.25, 0.125]
    np.testing.assert_allclose(settings.apply(image), wanted, atol=2e-6)
    scored = Preprocessing("zscore", channels=3).apply(image)
    for channel in range(3):
        plane = image[..., channel].astype(np.float64)
        np.testing.assert_allclose(scored[..., channel], (plane - plane.mean()) / plane.std(), atol=2e-6)


@pytest.mark.parametrize("normalise", ["zscore", "minmax"])
def test_a_constant_channel_becomes_zero(normalise):
    image = np.concatenate([IMAGE, np.full_like(IMAGE, 7)], axis=-1)
    got = Preprocessing(normalise, channels=2).apply(image)
    assert (got[..., 1] == 0).all() and np.isfinite(got).all()


def test_apply_leaves_its_input_alone_and_takes_volumes_and_integers():
    volume = np.random.default_rng(1).integers(0, 99, (4, 5, 6, 1)).astype(np.int16)
    before = volume.copy()
    got = Preprocessing("zscore", clip=(1.0, 99.0)).apply(volume)
    assert got.shape == volume.shape and got.dtype == np.float32
    np.testing.assert_array_equal(volume, before)
    image = IMAGE.copy()
    Preprocessing("none").apply(image)[...] = -1
    np.testing.assert_array_equal(image, IMAGE)


def test_channels_are_repeated_or_reduced_to_luminance_or_refused():
    repeated = match_channels(IMAGE, 3)
    assert repeated.shape == (2, 2, 3) and (repeated == IMAGE).all()
    colour = np.array([[[100.0, 0, 0], [0, 100, 0], [0, 0, 100], [50, 50, 50]]], np.float32)
    np.testing.assert_allclose(match_channels(colour, 1)[0, :, 0], [29.9, 58.7, 11.4, 50], rtol=1e-6)
    grey = np.repeat(np.arange(256, dtype=np.float32).reshape(16, 16, 1), 3, axis=-1)
    np.testing.assert_array_equal(match_channels(grey, 1)[..., 0], grey[..., 0])
    for got, wanted in ((2, 1), (2, 3), (4, 3), (1, 2), (3, 4)):
        with pytest.raises(ValueError, match=f"takes {wanted} channels, got {got}"):
            Preprocessing("none", channels=wanted).apply(np.zeros((3, 3, got)))
    with pytest.raises(ValueError, match="expected"):
        Preprocessing("none").apply(np.zeros((3, 3)))


@pytest.mark.parametrize(
    "settings",
    [
        Preprocessing(),
        Preprocessing("fixed", channels=3, scale=255.0, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0)),
        Preprocessing("minmax", channels=2, clip=(0.5, 99.5)),
        Preprocessing("zscore", window=(-160, 240)),
    ],
)
def test_settings_survive_json(settings):
    assert Preprocessing.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert hash(settings) == hash(Preprocessing.from_dict(settings.to_dict()))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"normalise": "whiten"}, "normalise: expected zscore, fixed, minmax, none, got 'whiten'"),
        ({"channels": 0}, "channels: expected a positive integer"),
        ({"channels": 1.5}, "channels: expected a positive integer"),
        ({"scale": 0}, "scale: expected a positive"),
        ({"scale": float("nan")}, "scale: expected finite"),
        (
            {"normalise": "fixed", "mean": [0.5], "std": []},
            "std: fixed normalisation of 1 channels takes 1, got 0",
        ),
        ({"normalise": "fixed", "channels": 3, "mean": [0.5], "std": [1]}, "mean: .* takes 3, got 1"),
        ({"mean": [0.5]}, "mean: zscore normalisation"),
        ({"normalise": "fixed", "mean": [0], "std": [0]}, "std: expected positive"),
        ({"normalise": "fixed", "mean": "0", "std": [1]}, "mean: expected finite numbers, got '0'"),
        ({"normalise": "fixed", "mean": 3, "std": [1]}, "mean: expected finite numbers, got 3"),
        ({"normalise": "fixed", "mean": ["a"], "std": [1]}, "mean: expected finite numbers"),
        ({"clip": [5, 5]}, "clip: expected two percentiles"),
        ({"clip": [1]}, "clip: expected two percentiles"),
        ({"clip": [0, 101]}, "clip: expected two percentiles"),
        ({"window": [5, 5]}, "window: expected two intensities low < high"),
        ({"window": [0]}, "window: expected two intensities low < high"),
        ({"sclae": 255}, "unknown key 'sclae'"),
    ],
)
def test_bad_settings_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        Preprocessing.from_dict(settings)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("mode", ["edge", "constant"])
def test_padding_against_a_walk_over_positions(rank, mode):
    rng = np.random.default_rng(rank)
    for size in itertools.product((1, 2, 3, 8), repeat=rank):
        array = rng.random((*size, 2)).astype(np.float32)
        padded, slices = pad_to_shape(array, (8,) * rank, mode)
        assert padded.shape == (*[8] * rank, 2)
        np.testing.assert_array_equal(padded[slices], array)
        assert [s.start for s in slices] == [(8 - n) // 2 for n in size]
        for position in rng.integers(0, 8, (6, rank)):
            source = [int(p) - s.start for p, s in zip(position, slices, strict=True)]
            if mode == "constant" and any(not 0 <= q < n for q, n in zip(source, size, strict=True)):
                wanted = np.zeros(2)
            else:
                wanted = array[tuple(min(max(q, 0), n - 1) for q, n in zip(source, size, strict=True))]
            np.testing.assert_array_equal(padded[tuple(position)], wanted)


@pytest.mark.usefixtures("unchecked")
def test_padding_sizes():
    array = np.zeros((5, 16, 1))
    assert pad_to_shape(array, (5, 16), "edge")[0] is array
    for shape, mode, says in (((8, 16), "wrap", "mode"), ((4, 16), "edge", "cannot pad"), ((8,), "edge", "cannot pad")):
        with pytest.raises(ValueError, match=says):
            pad_to_shape(array, shape, mode)
    for multiple in (0, (4, 4, 4)):
        with pytest.raises(ValueError, match="multiple"):
            batch_fit([(array, array[..., 0].astype(int))], size=1, multiple=multiple)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("channels", [(), (2,)])
def test_slices_of_a_volume(axis, channels):
    volume = np.random.default_rng(0).random((3, 4, 5, *channels))
    slices = to_slices(volume, axis=axis)
    assert len(slices) == volume.shape[axis] and slices.flags.c_contiguous
    np.testing.assert_array_equal(slices[1], np.take(volume, 1, axis=axis))
    np.testing.assert_array_equal(slices[1:], np.moveaxis(volume, axis, 0)[1:])
    np.testing.assert_array_equal(to_slices(volume)[0], volume[:, :, 0])
    for wrong in (3, -1):
        with pytest.raises(ValueError, match="axis"):
            to_slices(volume, axis=wrong)
    with pytest.raises(ValueError, match="three spatial axes"):
        to_slices(np.zeros((3, 3)))
