"""The given network on its own fit data, before anything is searched: what it does not explain no bound can keep.

A network that was fed otherwise in training, or masks whose labels mean something else, show here: in its loss beside that of a
guess, its Dice, its predictions, and in a common preparation under which all of it would be much better.
"""

import collections
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num
from scipy.special import softmax

from ..core.fit import part_size
from ..data.preprocess import Preprocessing
from ..models.coding import Coding
from ..models.model import SegmentationModel
from .preparations import SIDE, limited, other_ways, window_of

GUESSING = 0.5  # of the loss of equal probabilities, from which on a network is told to guess
DOUBTFUL = 0.1  # of it, from which on other preparations are tried,
TRIED = 3  # on so many fit images
HARDLY = 0.1  # Dice up to which a structure counts as not found
BETTER = 0.5  # of its loss that another preparation must come below
UPSIDE_DOWN = 0.02  # by which the surer half of the pixels is wrong more often
BINS = 1000  # of confidence
TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class OwnFit:
    """How the given network explains the fit data as they are prepared.

    `loss` in nats a labelled pixel, and `guess` that of equal probabilities; `dice` by structure, over the pixels of all images
    together (NaN: neither drawn nor predicted); shares of pixels that are `drawn` and `predicted` by class; the shares of right
    pixels among the half of which it is `surer`, and among the others. `better` names a preparation under which it would
    explain them much better. `error` is the standard error of the loss over `images`, NaN of one alone.
    """

    loss: float
    guess: float
    dice: dict[str, float]
    drawn: tuple[float, ...]
    predicted: tuple[float, ...]
    surer: float
    others: float
    better: str = ""
    error: float = math.nan
    images: int = 0

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

    def doubts(self, slack: float, unit: str) -> list[str]:
        """Why a bound of this slack (a fraction of the loss, or nats) binds less than it seems."""
        if self.images == 1:
            return ["one fit image: a model that keeps the bound on it may have forgotten all others; more of them bind it"]
        allowed = slack * self.loss if unit == "relative" else slack
        if 0 < allowed < self.error:
            return [
                f"{self.images} fit images are few for this slack: it allows {allowed:.3g} nats, and their loss is known to "
                f"{self.error:.3g} (standard error over images); take more (--fit-cases), or more slack"
            ]
        return []

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
            "standard_error": self.error,
            "images": self.images,
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
            for probs, own in zip(_probs(model, batch[start : start + size]), marks[start : start + size], strict=True):
                sums.add(probs, own)
    each = np.array(sums.each)
    error = float(each.std(ddof=1) / math.sqrt(len(each))) if len(each) > 1 else math.nan
    return replace(sums.close(coding), error=error, images=len(each))


def _probs(model: SegmentationModel, images: Float[np.ndarray, "b *space i"]) -> Float[np.ndarray, "b *space c"]:
    return softmax(np.asarray(model(images), np.float32), -1)


class _Sums:
    """What is added up over pixels: a confusion matrix, the loss, and right and wrong ones by confidence."""

    def __init__(self, classes: int) -> None:
        self.confusion = np.zeros((classes, classes), np.int64)
        self.by_confidence = np.zeros((2, BINS), np.int64)
        self.loss = 0.0
        self.each: list[float] = []  # mean losses of what was added

    def add(self, probs: Float[np.ndarray, "*space c"], labels: Int[np.ndarray, "*space"]) -> None:
        """Add the labelled pixels of some images."""
        classes, rated = len(self.confusion), labels >= 0
        probs, labels = probs[rated], labels[rated]
        own = probs.argmax(-1)
        self.confusion += np.bincount(labels * classes + own, minlength=classes**2).reshape(classes, classes)
        lost = -float(np.log(np.maximum(np.take_along_axis(probs, labels[:, None], -1), TINY)).sum(dtype=np.float64))
        self.loss += lost
        self.each += [lost / labels.size] if labels.size else []
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
    pairs = [limited(*pair) for pair in pairs if (pair[1] > 0).any()]
    if own.share <= DOUBTFUL or not pairs:
        return own
    sides, classes = (SIDE[model.network.rank],) * model.network.rank, model.network.classes
    largest = max(float(image.max()) for image, _ in pairs)
    sums: dict[str, _Sums] = {}
    counts: collections.Counter[str] = collections.Counter()
    for image, labels in pairs:
        window = window_of(labels, sides)
        for words, values, marks in other_ways(image, labels, preprocessing, largest, classes):
            part = window if marks.shape == labels.shape else window_of(marks, sides)
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


def _mean(dice: dict[str, float]) -> float:
    known = [value for value in dice.values() if not math.isnan(value)]
    return sum(known) / len(known) if known else 0.0
