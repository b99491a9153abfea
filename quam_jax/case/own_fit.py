"""The given network on its own fit data, before anything is searched: what it does not explain no bound can keep.

A network that was fed otherwise in training, or masks whose labels mean something else, show here: in its loss beside that of a
guess, its Dice, its predictions, and in a common preparation under which all of it would be much better.
"""

import collections
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num
from scipy.ndimage import zoom
from scipy.special import softmax

from ..core.fit import part_size
from ..data.preprocess import LARGE, Preprocessing
from ..models.coding import Coding
from ..models.model import SegmentationModel

GUESSING = 0.5  # of the loss of equal probabilities, from which on a network is told to guess
DOUBTFUL = 0.1  # of it, from which on other preparations are tried,
TRIED = 3  # on so many fit images
HARDLY = 0.1  # Dice up to which a structure counts as not found
BETTER = 0.5  # of its loss that another preparation must come below
UPSIDE_DOWN = 0.02  # by which the surer half of the pixels is wrong more often
SIDE = {2: 512, 3: 96}  # of the part of an image that other preparations are tried on
LARGE_SIDE = 2048  # of the part of a large picture that is prepared for it
SHRUNK = (2, 4, 8)  # by how much images are shrunk to be tried,
LEAST_SIDE = 16  # as long as so many pixels are left of a side
ENLARGED = 2**21  # pixels of an enlarged image, at most
BINS = 1000  # of confidence
TINY = float(np.finfo(np.float32).tiny)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of its channels, values from 0 to 1


@dataclass(frozen=True)
class OwnFit:
    """How the given network explains the fit data as they are prepared.

    `loss` in nats a labelled pixel, and `guess` that of equal probabilities; `dice` by structure, over the pixels of all images
    together (NaN: neither drawn nor predicted); shares of pixels that are `drawn` and `predicted` by class; the shares of right
    pixels among the half of which it is `surer`, and among the others. `better` names a preparation under which it would
    explain them much better.
    """

    loss: float
    guess: float
    dice: dict[str, float]
    drawn: tuple[float, ...]
    predicted: tuple[float, ...]
    surer: float
    others: float
    better: str = ""

    @property
    def share(self) -> float:
        """The loss as a part of that of a guess."""
        return self.loss / self.guess

    @property
    def findings(self) -> list[str]:
        """What looks as if the network did not see what it was trained on; empty where nothing does."""
        found, known = [], [value for value in self.dice.values() if not math.isnan(value)]
        if not self.share <= GUESSING:
            found.append(f"its loss is {self.loss:.3g} nats a pixel, {self.share:.0%} of that of a guess")
        if known and max(known) < HARDLY:
            found.append(f"it finds hardly anything of what the masks show (Dice {max(known):.2g} at most)")
        if sum(share > 0 for share in self.predicted) == 1 < sum(share > 0 for share in self.drawn):
            found.append("it predicts one class everywhere")
        if self.surer + UPSIDE_DOWN < self.others:
            found.append(f"the surer it is, the more often it is wrong (right in {self.surer:.0%} against {self.others:.0%})")
        if self.better:
            found.append(self.better)
        return found

    def __str__(self) -> str:
        """One line for people."""
        known = [f"{name} {value:.2f}" for name, value in self.dice.items() if not math.isnan(value)]
        dice = f", Dice {', '.join(known)}" if known else ""
        return f"the given network on its fit data: {self.loss:.3g} nats a pixel, {self.share:.0%} of a guess{dice}"

    @property
    def warning(self) -> str:
        """The findings as one sentence, with what to do; empty where there are none."""
        if not self.findings:
            return ""
        ask = "" if self.better else "; are preparation, labels and the meaning of its channels those of its training?"
        return f"the network does not explain its own fit data: {'; '.join(self.findings)}{ask}"

    def to_dict(self) -> dict[str, Any]:
        """As run.json has it."""
        dice = {name: None if math.isnan(value) else value for name, value in self.dice.items()}
        return {
            "loss": self.loss,
            "guess": self.guess,
            "dice": dice,
            "drawn": list(self.drawn),
            "predicted": list(self.predicted),
            "right_where_surer": self.surer,
            "right_elsewhere": self.others,
            "findings": self.findings,
        }


def look_at_fit(
    model: SegmentationModel, images: Float[np.ndarray, "k b *space i"], labels: Int[np.ndarray, "k b *space"], *, coding: Coding
) -> OwnFit:
    """The given network on fit batches, whose labels are classes of the search, -1 where nobody says."""
    sums = _Sums(model.network.classes)
    size = part_size(labels.shape[1:])
    for batch, marks in zip(images, labels, strict=True):
        for start in range(0, len(batch), size):
            sums.add(_probs(model, batch[start : start + size]), marks[start : start + size])
    return sums.close(coding)


def _probs(model: SegmentationModel, images: Float[np.ndarray, "b *space i"]) -> Float[np.ndarray, "b *space c"]:
    return softmax(np.asarray(model(images), np.float32), -1)


class _Sums:
    """What is added up over pixels: a confusion matrix, the loss, and right and wrong ones by confidence."""

    def __init__(self, classes: int) -> None:
        self.confusion = np.zeros((classes, classes), np.int64)
        self.by_confidence = np.zeros((2, BINS), np.int64)
        self.loss = 0.0

    def add(self, probs: Float[np.ndarray, "*space c"], labels: Int[np.ndarray, "*space"]) -> None:
        """Add the labelled pixels of some images."""
        classes, rated = len(self.confusion), labels >= 0
        probs, labels = probs[rated], labels[rated]
        own = probs.argmax(-1)
        self.confusion += np.bincount(labels * classes + own, minlength=classes**2).reshape(classes, classes)
        self.loss -= float(np.log(np.maximum(np.take_along_axis(probs, labels[:, None], -1), TINY)).sum(dtype=np.float64))
        bins = np.minimum((probs.max(-1) * BINS).astype(int), BINS - 1)
        for right in (0, 1):
            self.by_confidence[right] += np.bincount(bins[(own == labels) == bool(right)], minlength=BINS)

    def close(self, coding: Coding) -> OwnFit:
        """The figures of all that was added."""
        total = max(int(self.confusion.sum()), 1)
        dice = {}
        for name, inside in zip(coding.structure_names, coding.structures, strict=True):
            both = int(self.confusion[np.ix_(inside, inside)].sum())
            sizes = int(self.confusion[inside].sum() + self.confusion[:, inside].sum())
            dice[name] = 2 * both / sizes if sizes else math.nan
        return OwnFit(
            self.loss / total,
            math.log(len(self.confusion)),
            dice,
            tuple((self.confusion.sum(1) / total).tolist()),
            tuple((self.confusion.sum(0) / total).tolist()),
            *self._right(),
        )

    def _right(self) -> tuple[float, float]:
        """The shares of right pixels in the surer half and in the other one, bins of the border going to the second."""
        counts = self.by_confidence.sum(0)
        surer = np.cumsum(counts[::-1])[::-1] <= max(counts.sum() / 2, counts[np.flatnonzero(counts)[-1]] if counts.any() else 0)
        halves = [(self.by_confidence[1][part].sum(), counts[part].sum()) for part in (surer, ~surer)]
        return tuple(right / count if count else math.nan for right, count in halves)  # type: ignore[return-value]


def compare_preparations(
    model: SegmentationModel,
    own: OwnFit,
    pairs: Sequence[tuple[Num[np.ndarray, "*space i"], Int[np.ndarray, "*space"]]],
    *,
    coding: Coding,
    preprocessing: Preprocessing | None,
) -> OwnFit:
    """`own` with the common preparation under which the network explains some fit images much better, if there is one.

    Images are as read, and `preprocessing` that of the run; without one they are prepared, and other intensities are not tried.
    Of a volume a network of two axes sees the slice that shows most. Labels are classes of the search; images without foreground
    say nothing.
    """
    pairs = [_limited(*pair) for pair in pairs if (pair[1] > 0).any()]
    if own.share <= DOUBTFUL or not pairs:
        return own
    sides, classes = (SIDE[model.network.rank],) * model.network.rank, model.network.classes
    largest = max(float(image.max()) for image, _ in pairs)
    sums: dict[str, _Sums] = {}
    counts: collections.Counter[str] = collections.Counter()
    for image, labels in pairs:
        window = _window(labels, sides)
        for words, values, marks in _ways(image, labels, preprocessing, largest, classes):
            part = window if marks.shape == labels.shape else _window(marks, sides)
            counts[words] += 1
            sums.setdefault(words, _Sums(classes)).add(_probs(model, values[part][None]), marks[part][None])
    found = {words: own_sums.close(coding) for words, own_sums in sums.items() if counts[words] == len(pairs)}
    now = found.pop("")
    better = {
        words: one
        for words, one in found.items()
        if one.loss < BETTER * now.loss and one.share < GUESSING and _mean(one.dice) > _mean(now.dice)
    }
    if not better:
        return own
    words, best = min(better.items(), key=lambda item: item[1].loss)
    what = "one fit image has" if len(pairs) == 1 else f"{len(pairs)} fit images have"
    dice = f"a Dice of {_mean(best.dice):.2f} instead of {_mean(now.dice):.2f}"
    return replace(own, better=f"{words} {what} {best.loss:.3g} nats a pixel instead of {now.loss:.3g}, and {dice}")


def _limited(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A part of a very large picture."""
    if labels.ndim > 2 or image.size <= LARGE:
        return image, labels
    part = _window(labels, (LARGE_SIDE, LARGE_SIDE))
    return image[part], labels[part]


def _ways(
    image: np.ndarray, labels: np.ndarray, preprocessing: Preprocessing | None, largest: float, classes: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The image and its labels as they are prepared, and in other ways, with words for each."""
    prepared = np.asarray(image, np.float32) if preprocessing is None else preprocessing.apply(image)
    yield "", prepared, labels
    yield from _other_places(prepared, labels)
    yield from _other_labels(prepared, labels, classes)
    for words, resized, marks in other_sizes(image, labels):
        yield words, np.asarray(resized, np.float32) if preprocessing is None else preprocessing.apply(resized), marks
    if preprocessing is not None:
        for other in common_preparations(largest, preprocessing.channels):
            if other != preprocessing:
                yield f"with --preprocessing '{json.dumps(_short(other))}'", other.apply(image), labels


def _mean(dice: dict[str, float]) -> float:
    known = [value for value in dice.values() if not math.isnan(value)]
    return sum(known) / len(known) if known else 0.0


def _window(labels: Int[np.ndarray, "*space"], sides: Sequence[int]) -> tuple[slice | int, ...]:
    """A part of an image around the middle of its foreground; of a volume with two sides, in the slice that shows most."""
    if labels.ndim > len(sides):
        shown = int(np.argmax((labels > 0).sum((0, 1))))
        return (*_window(labels[..., shown], sides), shown)
    middle = [int(np.median(axis)) for axis in np.nonzero(labels > 0)]
    starts = [min(max(m - s // 2, 0), max(n - s, 0)) for m, s, n in zip(middle, sides, labels.shape, strict=True)]
    return tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))


def _other_places(prepared: np.ndarray, labels: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The image lying otherwise beside its mask, and its channels in reverse."""
    for axis in range(labels.ndim):
        yield f"flipped along axis {axis} beside its mask,", np.flip(prepared, axis), labels
    if labels.shape[0] == labels.shape[1]:
        yield "with its first two axes exchanged beside its mask,", np.swapaxes(prepared, 0, 1), labels
    if prepared.shape[-1] == 3 and (np.ptp(prepared, -1) > 0).any():
        yield "with its channels in reverse order (BGR for RGB),", prepared[..., ::-1], labels


def _other_labels(prepared: np.ndarray, labels: np.ndarray, classes: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Labels counted otherwise."""
    shifts = (
        {1: "with labels 0 and 1 exchanged,"} if classes == 2 else {1: "with labels one higher,", -1: "with labels one lower,"}
    )
    for shift, words in shifts.items():
        yield words, prepared, np.where(labels >= 0, (labels + shift) % classes, labels)


def other_sizes(image: np.ndarray, labels: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The image with larger or smaller pixels, in the plane of its first two axes, or in space where all three are as long.

    Values are means of blocks or lie on lines between pixels, labels are those in the middle of a block. Nothing is made so small
    that little is left of it, or so large that a pass takes long.
    """
    axes = [a for a in range(labels.ndim) if labels.ndim < 3 or a < 2 or 2 * labels.shape[a] >= min(labels.shape[:2])]
    for factor in SHRUNK:
        if min(labels.shape[a] for a in axes) >= factor * LEAST_SIDE:
            cut = tuple(slice(n // factor * factor if a in axes else n) for a, n in enumerate(labels.shape))
            small = image[cut].astype(np.float32)
            for axis in axes:
                blocks = (*small.shape[:axis], small.shape[axis] // factor, factor, *small.shape[axis + 1 :])
                small = small.reshape(blocks).mean(axis + 1)
            middle = tuple(slice(factor // 2, None, factor) if a in axes else slice(None) for a in range(labels.ndim))
            yield f"with images shrunk {' by '.join([str(factor)] * len(axes))},", small, labels[cut][middle]
    if labels.size * 2 ** len(axes) <= ENLARGED:
        sizes = [2 if a in axes else 1 for a in range(labels.ndim)]
        marks = labels
        for axis in axes:
            marks = np.repeat(marks, 2, axis)
        larger = zoom(image.astype(np.float32), [*sizes, 1], order=1)
        yield f"with images enlarged {' by '.join(['2'] * len(axes))},", larger, marks


def common_preparations(largest: float, channels: int) -> Sequence[Preprocessing]:
    """What people do to the intensities of an image whose largest value this is."""
    full = 255.0 if largest <= 255 else 65535.0
    known = [Preprocessing("zscore", channels), Preprocessing("minmax", channels), Preprocessing("none", channels)]
    if largest <= 1:
        return [*known, Preprocessing("none", channels, scale=1 / 255)]
    known += [
        Preprocessing("none", channels, scale=full),
        Preprocessing("fixed", channels, scale=full, mean=(0.5,) * channels, std=(0.5,) * channels),
    ]
    return [*known, Preprocessing("fixed", 3, full, *IMAGENET)] if channels == 3 else known


def _short(settings: Preprocessing) -> dict[str, Any]:
    """The settings that are not those of a plain Preprocessing, and how values are normalised."""
    plain = Preprocessing().to_dict()
    return {name: value for name, value in settings.to_dict().items() if name == "normalise" or value != plain[name]}
