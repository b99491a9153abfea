"""Raw intensities to what a network expects: preprocessing, padding, fit batches, slices.

Everything here is NumPy on arrays that fit in memory; the settings are one frozen record that travels with
the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, Integer, Num

from .large import row_blocks

NORMALISATIONS = ("zscore", "fixed", "minmax", "none")
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_LEAST_STD = 1e-8
LARGE = 2**24  # numbers of a picture; a larger one is prepared where it is looked at
IGNORED = -1  # the label of pixels that carry no loss

Padding = Literal["edge", "constant"]


@dataclass(frozen=True)
class Preprocessing:
    """How an image is prepared for a network; the same record serves training, search and prediction.

    In this order: channels are matched to `channels`; all is clipped to the intensities `window` (low, high), as to
    Hounsfield units; each channel is clipped to its own percentiles `clip` (low, high, 0..100); all is divided by `scale`;
    then `normalise`:
    - "zscore": (x - mean) / std over the pixels of the channel, std of at least 1e-8 (population);
    - "fixed": (x - mean[c]) / std[c] with the numbers given, one a channel;
    - "minmax": (x - min) / (max - min) of the channel, 0 where it is constant;
    - "none".
    """

    normalise: str = "zscore"
    channels: int = 1
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    clip: tuple[float, float] | None = None
    window: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.normalise not in NORMALISATIONS:
            raise ValueError(f"normalise: expected {', '.join(NORMALISATIONS)}, got {self.normalise!r}")
        if not isinstance(self.channels, int) or self.channels < 1:
            raise ValueError(f"channels: expected a positive integer, got {self.channels!r}")
        object.__setattr__(self, "scale", _numbers("scale", (self.scale,))[0])
        object.__setattr__(self, "mean", _numbers("mean", self.mean))
        object.__setattr__(self, "std", _numbers("std", self.std))
        if not self.scale > 0:
            raise ValueError(f"scale: expected a positive number, got {self.scale}")
        wanted = self.channels if self.normalise == "fixed" else 0
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) != wanted:
                raise ValueError(
                    f"{name}: {self.normalise} normalisation of {self.channels} channels takes {wanted}, got {len(numbers)}"
                )
        if any(s <= 0 for s in self.std):
            raise ValueError(f"std: expected positive numbers, got {self.std}")
        if self.clip is not None:
            clip = _numbers("clip", self.clip)
            if len(clip) != 2 or not 0 <= clip[0] < clip[1] <= 100:
                raise ValueError(f"clip: expected two percentiles 0 <= low < high <= 100, got {self.clip}")
            object.__setattr__(self, "clip", clip)
        if self.window is not None:
            window = _numbers("window", self.window)
            if len(window) != 2 or not window[0] < window[1]:
                raise ValueError(f"window: expected two intensities low < high, got {self.window}")
            object.__setattr__(self, "window", window)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain numbers, strings and lists (for JSON or YAML)."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "Preprocessing":
        """The inverse of to_dict; ValueError for an unknown key or a bad value."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ValueError(f"preprocessing: unknown key {unknown[0]!r}; known are {', '.join(known)}")
        plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
        return cls(**plain)

    def apply(self, array: Num[np.ndarray, "*space i"]) -> Float[np.ndarray, "*space j"]:
        """The prepared image, float32, with `channels` channels.

        A grey image is repeated for a network of three channels; an RGB image becomes its luminance (.299 R +
        .587 G + .114 B, ITU-R BT.601) for a network of one; any other difference is a ValueError.
        """
        prepared = match_channels(array, self.channels)
        axes = tuple(range(prepared.ndim - 1))
        if self.window is not None:
            prepared = _windowed(prepared, self.window)
        if self.clip is not None:
            low, high = np.percentile(prepared, self.clip, axis=axes)
            prepared = np.clip(prepared, low.astype(np.float32), high.astype(np.float32))
        if self.scale != 1:
            prepared = prepared / np.float32(self.scale)
        if self.normalise == "none":
            return prepared
        if self.normalise == "fixed":
            shift, width = np.array(self.mean), np.array(self.std)
        elif self.normalise == "zscore":
            shift = prepared.mean(axis=axes, dtype=np.float64)
            width = np.maximum(prepared.std(axis=axes, dtype=np.float64), _LEAST_STD)
        else:
            shift = prepared.min(axis=axes).astype(np.float64)
            width = prepared.max(axis=axes) - shift
            width = np.where(width > 0, width, 1.0)
        return (prepared - shift.astype(np.float32)) / width.astype(np.float32)

    def prepare(self, array: Num[np.ndarray, "*space i"]) -> "Float[np.ndarray, '*space j'] | PreparedInParts":
        """`apply`, or the same part by part for a picture so large that it should not lie in memory twice.

        ValueError as there.
        """
        return PreparedInParts(array, self) if array.ndim == 3 and array.size > LARGE else self.apply(array)


class PreparedInParts:
    """A large picture that is prepared where it is looked at: `picture[rows, columns]` is float32 with the network's channels.

    Means and deviations are those of the whole picture, summed up in float64 over blocks of rows.
    """

    def __init__(self, array: Num[np.ndarray, "h w i"], settings: Preprocessing) -> None:
        match_channels(array[:1, :1], settings.channels)  # names what does not fit
        self.array, self.shape, self.ndim = array, (*array.shape[:2], settings.channels), 3
        self.size = array.shape[0] * array.shape[1] * settings.channels
        self._settings = settings
        self._clip = None if settings.clip is None else self._percentiles(settings.clip)
        if settings.normalise == "fixed":
            shift, width = np.array(settings.mean), np.array(settings.std)
        elif settings.normalise == "none":
            shift, width = np.zeros(1), np.ones(1)
        else:
            shift, width = self._moments() if settings.normalise == "zscore" else self._range()
        self._shift, self._width = shift.astype(np.float32), width.astype(np.float32)

    def __getitem__(self, box: Any) -> Float[np.ndarray, "h w j"]:
        return (self._scaled(box) - self._shift) / self._width

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.float32)

    def _matched(self, box: Any) -> Float[np.ndarray, "h w j"]:
        values = match_channels(self.array[box], self.shape[2])
        return values if self._settings.window is None else _windowed(values, self._settings.window)

    def _scaled(self, box: Any) -> Float[np.ndarray, "h w j"]:
        values = self._matched(box)
        if self._clip is not None:
            values = np.clip(values, *self._clip)
        return values / np.float32(self._settings.scale)

    def _percentiles(self, clip: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        """Of one channel at a time."""
        found = []
        for channel in range(self.shape[2]):
            values = [self._matched(rows)[..., channel] for rows in row_blocks(self.shape)]
            found.append(np.percentile(np.concatenate(values), clip))
        low, high = np.array(found, np.float32).T
        return low, high

    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        count = self.shape[0] * self.shape[1]
        blocks = list(row_blocks(self.shape))
        mean = sum(self._scaled(rows).sum((0, 1), dtype=np.float64) for rows in blocks) / count
        squares = sum(np.square(self._scaled(rows) - mean).sum((0, 1)) for rows in blocks)
        return mean, np.maximum(np.sqrt(squares / count), _LEAST_STD)

    def _range(self) -> tuple[np.ndarray, np.ndarray]:
        ends = [(part.min((0, 1)), part.max((0, 1))) for part in map(self._scaled, row_blocks(self.shape))]
        low = np.min([end[0] for end in ends], 0).astype(np.float64)
        width = np.max([end[1] for end in ends], 0) - low
        return low, np.where(width > 0, width, 1.0)


def match_channels(array: Num[np.ndarray, "*space i"], channels: int) -> Float[np.ndarray, "*space j"]:
    """A float32 copy of an image with the wanted number of channels (see Preprocessing.apply)."""
    if array.ndim < 3:
        raise ValueError(f"image: expected [*space i] with 2 or 3 spatial axes, got shape {array.shape}")
    got = array.shape[-1]
    if got == channels:
        return np.array(array, np.float32, order="C")
    if got == 1 and channels == 3:
        return np.repeat(array.astype(np.float32), 3, axis=-1)
    if got == 3 and channels == 1:
        return (array.astype(np.float64) @ _LUMA)[..., None].astype(np.float32)
    raise ValueError(f"image: the network takes {channels} channels, got {got}")


def pad_to_shape(
    array: Num[np.ndarray, "*space i"], shape: Sequence[int], mode: Padding
) -> tuple[Num[np.ndarray, "*padded i"], tuple[slice, ...]]:
    """Pad the spatial axes (all but the last) to a shape, and the slices that crop the result back.

    The image is centred, an odd pixel of padding stands at the end. "edge" repeats the border, "constant" pads zeros.
    """
    space = array.shape[:-1]
    if mode not in ("edge", "constant"):
        raise ValueError(f"mode: expected edge or constant, got {mode!r}")
    if len(shape) != len(space) or any(n > m for n, m in zip(space, shape, strict=True)):
        raise ValueError(f"cannot pad an image of size {space} to {tuple(shape)}")
    before = [(m - n) // 2 for n, m in zip(space, shape, strict=True)]
    slices = tuple(slice(b, b + n) for b, n in zip(before, space, strict=True))
    widths = [(b, m - n - b) for b, n, m in zip(before, space, shape, strict=True)]
    if not any(after for _, after in widths):
        return array, slices
    return np.pad(array, [*widths, (0, 0)], mode=mode), slices


def batch_fit(
    pairs: Sequence[tuple[Num[np.ndarray, "... i"], Integer[np.ndarray, "..."]]],
    *,
    size: int = 0,
    multiple: int | Sequence[int] = 1,
) -> tuple[Float[np.ndarray, "k b *space i"], Int[np.ndarray, "k b *space"]]:
    """Images and labels of any sizes as batches of `size` (0: all in one), in order, each image once.

    All are padded to the largest sides, rounded up to `multiple`: images by their border values, labels by -1, which carries no
    loss. A last incomplete batch is filled with zero images whose labels are all -1. ValueError for images and labels that do not
    belong together, naming the place in the list.
    """
    if not pairs:
        raise ValueError("fit data: expected at least one image with labels, got none")
    if size < 0:
        raise ValueError(f"fit data: expected a batch size of 0 (all) or more, got {size}")
    first, _ = pairs[0]
    for index, (image, label) in enumerate(pairs):
        if image.shape[:-1] != label.shape:
            raise ValueError(f"fit data {index}: image of size {image.shape[:-1]}, labels of {label.shape}")
        if (image.ndim, image.shape[-1]) != (first.ndim, first.shape[-1]):
            raise ValueError(f"fit data {index}: shape {image.shape} does not go with {first.shape}")
    steps = np.array(_steps(multiple, first.ndim - 1))
    largest = np.max([label.shape for _, label in pairs], 0)
    sides, size = tuple(int(n) for n in -(-largest // steps) * steps), size or len(pairs)
    count = -(-len(pairs) // size)
    images = np.zeros((count * size, *sides, first.shape[-1]), np.float32)
    labels = np.full((count * size, *sides), IGNORED, np.int32)
    for index, (image, label) in enumerate(pairs):
        images[index], slices = pad_to_shape(image, sides, "edge")
        labels[index][slices] = label
    return images.reshape(count, size, *images.shape[1:]), labels.reshape(count, size, *sides)


def to_slices(volume: Num[np.ndarray, "x y z ..."], *, axis: int = 2) -> Num[np.ndarray, "s h w ..."]:
    """A volume as a batch of slices across one spatial axis (0, 1 or 2; the last by default)."""
    _require_axis(axis)
    if volume.ndim < 3:
        raise ValueError(f"volume: expected three spatial axes, got shape {volume.shape}")
    return np.ascontiguousarray(np.moveaxis(volume, axis, 0))


def _windowed(values: Float[np.ndarray, "*space i"], window: tuple[float, float]) -> Float[np.ndarray, "*space i"]:
    return np.clip(values, np.float32(window[0]), np.float32(window[1]))


def _numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        numbers = () if isinstance(values, str) else tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = (np.nan,)
    if isinstance(values, str) or not np.all(np.isfinite(numbers)):
        raise ValueError(f"{name}: expected finite numbers, got {values!r}")
    return numbers


def _steps(multiple: int | Sequence[int], rank: int) -> tuple[int, ...]:
    steps = (multiple,) * rank if isinstance(multiple, int) else tuple(multiple)
    if len(steps) != rank or any(step < 1 for step in steps):
        raise ValueError(f"multiple: expected one positive integer or {rank} of them, got {multiple!r}")
    return steps


def _require_axis(axis: int) -> None:
    if axis not in (0, 1, 2):
        raise ValueError(f"axis: expected a spatial axis 0, 1 or 2, got {axis}")
