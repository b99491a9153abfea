"""Augmentation: image and target move together, brightness and noise leave the target alone, strength zero changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np

from quam_jax.training.augmentation import Strengths, augment

STILL = Strengths(rotation=0.0, scaling=0.0, brightness=0.0, contrast=0.0, grain=0.0)


def _views(
    image: np.ndarray, target: np.ndarray, count: int, *, warp: bool = False, flips: bool = True, **strengths: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    call = jax.jit(
        lambda key: augment(
            key, jnp.asarray(image), jnp.asarray(target), strengths=STILL._replace(**strengths), warp=warp, flips=flips
        )
    )
    return [tuple(np.asarray(part) for part in call(jax.random.key(n))) for n in range(count)]


def _pair(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    """An image that equals its target's last class, so that whatever moves them apart shows."""
    foreground = np.random.default_rng(1).random(shape).astype(np.float32)
    return foreground[..., None], np.stack([1 - foreground, foreground], -1)


def test_flips_and_turns_move_image_and_target_together_and_make_all_eight() -> None:
    image, target = _pair(6, 6)
    turned = [np.rot90(image[..., 0], n) for n in range(4)]
    eight = [view for one in turned for view in (one, one[::-1])]
    seen = set()
    for moved, labels in _views(image, target, 60):
        np.testing.assert_allclose(moved[..., 0], labels[..., 1], atol=1e-6)
        np.testing.assert_array_equal(labels[..., 0], 1 - labels[..., 1])
        seen.add(next(n for n, view in enumerate(eight) if np.array_equal(view, labels[..., 1])))
    assert seen == set(range(8))


def test_oblong_images_and_volumes_flip_only() -> None:
    for shape, number in (((4, 6), 4), ((3, 4, 2), 8)):
        image, target = _pair(*shape)
        views = _views(image, target, 80)
        assert all(np.allclose(moved[..., 0], labels[..., 1], atol=1e-6) for moved, labels in views)
        assert len({labels.tobytes() for _, labels in views}) == number


def test_warps_move_image_and_target_together_and_ignore_what_comes_from_outside() -> None:
    image, target = _pair(12, 16)
    for moved, labels in _views(image, target, 10, warp=True, flips=False, rotation=40.0, scaling=0.3):
        row = labels.sum(-1)
        inside = row > 0.999
        assert 30 < inside.sum() and (row < 1.001).all()
        np.testing.assert_allclose(moved[inside][:, 0], labels[inside][:, 1], atol=1e-5)
        assert np.abs(moved - image).max() > 0.1


def test_a_warp_of_strength_zero_changes_nothing_and_scaling_by_two_halves_the_field_of_view() -> None:
    image, target = _pair(8, 8)
    moved, labels = _views(image, target, 1, warp=True, flips=False)[0]
    np.testing.assert_allclose(moved, image, atol=1e-6)
    np.testing.assert_allclose(labels, target, atol=1e-6)
    ramp = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None, None], (8, 8, 1))
    slopes = [float(m[4, 4, 0] - m[3, 4, 0]) for m, _ in _views(ramp, target, 40, warp=True, flips=False, scaling=1.0)]
    assert 0.5 <= min(slopes) < 0.65 and 1.6 < max(slopes) <= 2.0  # sizes between one half and two


def test_brightness_contrast_and_noise_leave_the_target_alone() -> None:
    image, target = _pair(8, 8)
    for moved, labels in _views(image, target, 20, flips=False, brightness=0.5, contrast=1.0):
        np.testing.assert_array_equal(labels, target)
        slope, offset = np.polyfit(image.ravel(), moved.ravel(), 1)
        assert 0.5 <= slope <= 2 and abs(moved.mean() - image.mean()) <= 0.5 + 1e-5
        np.testing.assert_allclose(moved, slope * image + offset, atol=1e-5)
    grains = [float((moved - image).std()) for moved, _ in _views(image, target, 20, flips=False, grain=0.1)]
    assert 0 < min(grains) and max(grains) < 0.13
