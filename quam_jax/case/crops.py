"""Fit images larger than is needed are searched on as crops, and the models that are kept are measured on the whole images.

A step's fit pixels then stay in proportion to the image's. Crops are drawn once a run from its seed, centred in turn on every
class that an image shows, the background among them, and moved inside the image. The bound and the audit are about the crops;
what the kept models lose on the whole images, read again one at a time, is told beside it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..config import FitConfig
from ..core.progress import tell
from ..core.schedule import Slack
from ..core.searching import Prepared, loss_under
from ..core.solvers import Moving
from ..models.description import trained_size
from ..models.model import SegmentationModel
from .windows import side_multiples

AUTO_SIDE = {2: 256, 3: 64}  # of a crop where nobody knows what size the network was trained on, by the axes of its images
WORTH = 2.0  # crops of auto are taken of images of more than this many times their size
TILE = {2: 2**20, 3: 2**21}  # pixels of a whole image that are measured at once

Pair = tuple[Float[np.ndarray, "... i"], Int[np.ndarray, "..."]]  # an image and its labels


def crop_side(settings: FitConfig, model: SegmentationModel) -> tuple[int, ...]:
    """The sides of the crops of a model's fit images, as it can take them; empty for whole images."""
    network = model.network
    if settings.fit_crop == "auto":
        trained = trained_size(model)
        usable = trained and math.prod(trained) <= TILE[network.rank] // 4
        sides = trained if usable else (AUTO_SIDE[network.rank],) * network.rank
    else:
        sides = (int(settings.fit_crop),) * network.rank
    if 0 in sides:
        return ()
    return tuple(-(-n // m) * m for n, m in zip(sides, side_multiples(network), strict=True))


def is_cropped(shape: Sequence[int], sides: Sequence[int], settings: FitConfig) -> bool:
    """Whether an image of some shape is used as crops."""
    if not sides or all(n <= s for n, s in zip(shape, sides, strict=True)):
        return False
    return settings.fit_crop != "auto" or math.prod(shape) > WORTH * math.prod(sides)


def crops_of(pair: Pair, sides: Sequence[int], *, count: int, first: int, rng: np.random.Generator) -> list[Pair]:
    """Some crops of an image, the n-th of all of a run centred on the n-th of the classes that it shows, in turn."""
    image, labels = pair
    size = tuple(min(n, s) for n, s in zip(labels.shape, sides, strict=True))
    classes = [label for label in (*np.unique(labels[labels > 0]), 0) if (labels == label).any()]
    crops = []
    for n in range(first, first + count):
        if classes:
            places = np.flatnonzero(labels == classes[n % len(classes)])
            centre = np.unravel_index(places[rng.integers(len(places))], labels.shape)
        else:
            centre = tuple(rng.integers(m) for m in labels.shape)
        start = [min(max(int(c) - s // 2, 0), m - s) for c, s, m in zip(centre, size, labels.shape, strict=True)]
        inside = tuple(slice(b, b + s) for b, s in zip(start, size, strict=True))
        crops.append((image[inside].copy(), labels[inside].copy()))
    return crops


class WholeFit(NamedTuple):
    """The whole images behind the crops: how each is read again, its labelled pixels, and the given network's loss there.

    An image that is searched whole has its kept models look at all of them; of a picture in patches, those of each patch look at
    one of them in turn, so that the look takes a part of the search however many patches there are.
    """

    read: tuple[Callable[[], list[Pair]], ...]
    pixels: tuple[int, ...]
    reference_losses: tuple[float, ...]
    slack: Slack

    @staticmethod
    def of(read: Sequence[Callable[[], list[Pair]]], prepared: Prepared) -> "WholeFit":
        """With the given network measured."""
        looks = [_look(again, prepared, [None], number=n, of=len(read)) for n, again in enumerate(read, 1)]
        losses, pixels = zip(*((sums[0] / max(count, 1), count) for sums, count in looks), strict=True)
        return WholeFit(tuple(read), pixels, losses, prepared.procedure.slack)

    def chosen(self, patch: int | None) -> list[int]:
        """The images that the models of a patch look at (None: of a whole image)."""
        return list(range(len(self.read))) if patch is None else [patch % len(self.read)]

    def reference_loss(self, images: Sequence[int]) -> float:
        """The given network's loss on some of the images, in nats a labelled pixel."""
        return float(np.average([self.reference_losses[n] for n in images], weights=[max(self.pixels[n], 1) for n in images]))

    def bound(self, images: Sequence[int]) -> float:
        """The bound on some of the images."""
        return float(self.slack.bound(jnp.asarray([self.reference_loss(images)]))[0])

    def losses(self, prepared: Prepared, kept: Sequence[Moving], images: Sequence[int]) -> list[float]:
        """The losses of some kept models on some of the images, in nats a labelled pixel; every image is read once."""
        looks = [_look(self.read[n], prepared, kept, number=place, of=len(images)) for place, n in enumerate(images, 1)]
        total = sum(count for _, count in looks)
        return [float(sum(sums[m] for sums, _ in looks) / max(total, 1)) for m in range(len(kept))]


def _look(
    again: Callable[[], list[Pair]], prepared: Prepared, models: Sequence[Moving | None], *, number: int, of: int
) -> tuple[Float[np.ndarray, " m"], int]:
    """The summed losses of some models on one image, and how many pixels of it are labelled."""
    tell("checking", "fit image", number, of)
    sums, count = np.zeros(len(models)), 0
    for pair in again():
        for image, labels in _tiles(pair):
            found = [loss_under(prepared, z, image, labels) for z in models]
            sums += [loss * labelled for loss, labelled in found]
            count += found[0][1]
    return sums, count


def _tiles(pair: Pair) -> Iterator[Pair]:
    """A whole image, or tiles of it that do not overlap where it is very large."""
    image, labels = pair
    parts = math.ceil((labels.size / TILE[labels.ndim]) ** (1 / labels.ndim))
    side = [-(-n // parts) for n in labels.shape]
    for start in np.ndindex(*(-(-n // s) for n, s in zip(labels.shape, side, strict=True))):
        inside = tuple(slice(b * s, (b + 1) * s) for b, s in zip(start, side, strict=True))
        yield image[inside], labels[inside]
