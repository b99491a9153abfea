"""What the output channels of a network say: one class each, or several regions at once; one table for all that is done with it.

A label is a number in a file. Masks hold labels, and of a model of regions the labels that are written need not mean what those
of the masks mean: a class is what a pixel is, the set of regions that it lies in. Search, evaluation and volumes are about
classes; labels are what is read (`class_of_label`) and what is written (`label_of_class`). A structure is what has a name, a
volume and a Dice: a label but 0, or a region. Sigmoids may say yes to a tumour and no to the organ around it: where labels mean
the same in both, a class counts as the label that is written for it is read (`counts_as`), as nnU-Net measures its regions in its
own files; where they do not, as it is.

nnU-Net's region models answer yes or no for every region, independently. Such a model is one of exclusive classes too, the
classes being the subsets of regions: the logit of a subset is the sum of its regions' logits, since then
softmax = prod sigma(+-z), and its cross-entropy is the sum of the binary ones. So the search and the decomposition of
exclusive classes serve both kinds; the entropy of a subset is the sum of its regions' entropies.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int, Integer
from scipy.special import expit, softmax

from ..data.large import label_type
from ..data.plans import Plan
from .model import SegmentationModel

MOST_REGIONS = 4
NOT_RATED = -1  # in place of a label or a class: nobody says what the pixel is


@dataclass(frozen=True)
class Coding:
    """Labels 0..labels-1, the classes of the search, and the network's channels; without regions all three are the same.

    `channel_regions[r]` are the labels of masks that region r covers; where a region is predicted it writes `order[r]`, later
    ones over earlier ones. `channel_names` has a name for every channel, or none. Regions that are `overlapping` by themselves,
    whatever labels can say, count as they are.
    """

    labels: int
    channel_regions: tuple[tuple[int, ...], ...] | None = None
    order: tuple[int, ...] | None = None
    channel_names: tuple[str, ...] = ()
    overlapping: bool = False

    @staticmethod
    def of(plan: Plan, *, where: str) -> "Coding":
        """The coding of a plan; ValueError for more regions than subsets of them can be searched."""
        if plan.regions is not None and len(plan.regions) > MOST_REGIONS:
            raise ValueError(f"{where}: expected {MOST_REGIONS} regions at most, got {len(plan.regions)}")
        return Coding(plan.labels, plan.regions, plan.regions_order, plan.names)

    @staticmethod
    def exclusive(classes: int, names: Sequence[str] = ()) -> "Coding":
        """One class a channel; names that are not one a class do not count."""
        return Coding(classes, channel_names=tuple(names) if len(names) == classes else ())

    @property
    def classes(self) -> int:
        """Classes of the search."""
        return self.labels if self.channel_regions is None else 2 ** len(self.channel_regions)

    @property
    def subsets(self) -> Int[np.ndarray, "c r"]:
        """Which regions make up each class: the binary digits of its number."""
        count = len(self.channel_regions or ())
        return (np.arange(2**count)[:, None] >> np.arange(count)) & 1

    @property
    def class_of_label(self) -> Int[np.ndarray, " labels"]:
        """The class of a voxel that has a label in a mask."""
        if self.channel_regions is None:
            return np.arange(self.labels, dtype=np.int32)
        return np.array(
            [sum((label in region) << r for r, region in enumerate(self.channel_regions)) for label in range(self.labels)],
            np.int32,
        )

    @property
    def label_of_class(self) -> Int[np.ndarray, " c"]:
        """The label that a class is written as."""
        if self.order is None:
            return np.arange(self.labels, dtype=np.int32)
        written = np.zeros(len(self.subsets), np.int32)
        for r, label in enumerate(self.order):
            written[self.subsets[:, r] == 1] = label
        return written

    @property
    def structures(self) -> Bool[np.ndarray, "s c"]:
        """The classes that make up each structure: every label but 0 by itself, or every region but the background."""
        if self.channel_regions is None:
            return np.eye(self.labels, dtype=bool)[1:]
        return self.subsets.T[self._named] == 1

    @property
    def _named(self) -> list[int]:
        """The regions that are structures."""
        return [r for r, region in enumerate(self.channel_regions or ()) if not (self.overlapping and region == (0,))]

    @property
    def structure_names(self) -> tuple[str, ...]:
        """A name for every structure."""
        if self.channel_regions is None:
            return self.label_names[1:]
        names = self.channel_names or tuple(f"region {r}" for r in range(len(self.channel_regions)))
        return tuple(names[r] for r in self._named)

    @property
    def label_names(self) -> tuple[str, ...]:
        """A name for every label that is written; what regions write is called after those that it lies in and outside of.

        Examples:
            >>> Coding(4, ((1, 2, 3), (2, 3), (2,)), (1, 3, 2), ("kidney", "masses", "tumor")).label_names
            ('background', 'kidney outside masses, tumor', 'tumor', 'masses outside tumor')
        """
        if self.order is None:
            return self.channel_names or tuple(f"class {label}" for label in range(self.labels))
        names = self.channel_names or tuple(f"region {r}" for r in range(len(self.order)))
        found = dict[int, str]()
        for r, label in enumerate(self.order):
            later = [names[q] for q in range(r + 1, len(self.order)) if self.order[q] != label]
            own = names[r] + (f" outside {', '.join(later)}" if later else "")
            found[label] = f"{found[label]} or {own}" if label in found else own
        return tuple(found.get(label, "background" if label == 0 else f"label {label}") for label in range(self.labels))

    @property
    def contradictions(self) -> list[str]:
        """Where labels that are written mean something else than those of the masks, in words; empty where all agree.

        A label of the masks agrees if what is written for it is a label of the same regions.
        """
        own, used = self.class_of_label, sorted({label for region in self.channel_regions or () for label in region})
        written = self.label_of_class[own]
        return [f"{label} of the masks is written as {written[label]}" for label in used if own[written[label]] != own[label]]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the table."""
        if not self.contradictions:
            return ()
        return (
            "regions_class_order writes labels that do not mean what those of the masks mean "
            f"({', '.join(self.contradictions)}): the segmentation is written as nnU-Net writes it; masks and prediction are "
            "compared region by region, the regions of the prediction being those of more than one half",
        )

    @property
    def counts_as(self) -> Int[np.ndarray, " c"]:
        """The class that each class of the channels counts as, in comparisons and volumes."""
        if self.channel_regions is None or self.overlapping or self.contradictions:
            return np.arange(self.classes, dtype=np.int32)
        return self.class_of_label[self.label_of_class]

    def counted(self, classes: Integer[np.ndarray, "*space"]) -> Integer[np.ndarray, "*space"]:
        """Classes of the channels as what they count as."""
        return classes if self.channel_regions is None else self.counts_as.astype(label_type(self.classes))[classes]

    def counted_probs(self, probs: Float[np.ndarray, "*space c"]) -> Float[np.ndarray, "*space c"]:
        """Probabilities of classes of the channels as those of what they count as."""
        if self.channel_regions is None:
            return probs
        return probs @ (self.counts_as[:, None] == np.arange(self.classes)).astype(probs.dtype)

    def classes_of(self, labels: Integer[np.ndarray, "*space"]) -> Integer[np.ndarray, "*space"]:
        """Labels of masks as classes; -1 (not rated) stays."""
        if self.channel_regions is None:
            return labels
        return np.append(self.class_of_label, NOT_RATED).astype(label_type(self.classes))[labels]

    def labels_of(self, classes: Integer[np.ndarray, "*space"]) -> Integer[np.ndarray, "*space"]:
        """The labels that classes are written as."""
        return classes if self.order is None else self.label_of_class.astype(label_type(self.labels))[classes]

    def channel_probs(self, logits: Float[np.ndarray, "*space k"]) -> Float[np.ndarray, "*space k"]:
        """Probabilities of the network's channels as nnU-Net exports them: a softmax, or a sigmoid a region."""
        return softmax(logits, -1) if self.channel_regions is None else expit(logits)

    def classify(self, logits: Float[np.ndarray, "*space k"]) -> Int[np.ndarray, "*space"]:
        """Classes from the network's logits: the largest, or all regions above one half."""
        return np.argmax(logits, -1).astype(np.int32) if self.channel_regions is None else self._joined(expit(logits))

    def classify_channels(self, probs: Float[np.ndarray, "*space k"]) -> Int[np.ndarray, "*space"]:
        """`classify` of the probabilities of the channels."""
        return np.argmax(probs, -1).astype(np.int32) if self.channel_regions is None else self._joined(probs)

    def classify_classes(self, probs: Float[np.ndarray, "*space c"]) -> Int[np.ndarray, "*space"]:
        """Classes from probabilities (without regions: or their logarithms) of the classes, by the same rule as `classify`."""
        if self.channel_regions is None:
            return np.argmax(probs, -1).astype(np.int32)
        return self._joined(self.class_to_channel_probs(probs))

    def segment(self, logits: Float[np.ndarray, "*space k"]) -> Int[np.ndarray, "*space"]:
        """Labels from the network's logits: the largest, or every region above one half in order."""
        return self.labels_of(self.classify(logits)).astype(np.int32)

    def _joined(self, regions: Float[np.ndarray, "*space r"]) -> Int[np.ndarray, "*space"]:
        """The class of the regions of more than one half."""
        classes = np.zeros(regions.shape[:-1], np.int32)
        for r in range(regions.shape[-1]):
            classes |= (regions[..., r] > 0.5).astype(np.int32) << r
        return classes

    def structure_probs(self, probs: Float[np.ndarray, "*space k"]) -> Float[np.ndarray, "*space s"]:
        """Probabilities of the structures from those of the channels."""
        return self.class_to_structure_probs(self.class_probs(probs))

    def label_probs(self, probs: Float[np.ndarray, "*space k"]) -> Float[np.ndarray, "*space labels"]:
        """Probabilities of written labels from those of the channels."""
        if self.channel_regions is None:
            return probs
        member = (self.label_of_class[:, None] == np.arange(self.labels)).astype(probs.dtype)
        return self.class_probs(probs) @ member

    def class_probs(self, probs: Float[np.ndarray, "*space k"]) -> Float[np.ndarray, "*space c"]:
        """Probabilities of the classes of the search from those of the channels."""
        if self.channel_regions is None:
            return probs
        joint = np.ones((*probs.shape[:-1], len(self.subsets)), probs.dtype)
        for r in range(probs.shape[-1]):
            joint *= np.where(self.subsets[:, r] == 1, probs[..., r : r + 1], 1 - probs[..., r : r + 1])
        return joint

    def class_to_structure_probs(self, probs: Float[np.ndarray, "*space c"]) -> Float[np.ndarray, "*space s"]:
        """Probabilities of the structures from those of the classes."""
        if self.channel_regions is None:
            return probs[..., 1:]
        return probs @ self.subsets[self.counts_as][:, self._named].astype(probs.dtype)

    def class_to_channel_probs(self, probs: Float[np.ndarray, "*space c"]) -> Float[np.ndarray, "*space k"]:
        """Probabilities of the channels from those of the classes."""
        return probs if self.channel_regions is None else probs @ self.subsets.astype(probs.dtype)

    def background_first(self, classes: Integer[np.ndarray, "..."]) -> Integer[np.ndarray, "..."]:
        """Classes with that of label 0 and class 0 in each other's place, where a region covers label 0; its own inverse."""
        own = int(self.class_of_label[0])
        if own == 0:
            return classes
        return np.where(classes == own, 0, np.where(classes == 0, own, classes)).astype(classes.dtype)

    def searchable(self, model: SegmentationModel) -> SegmentationModel:
        """The model with a logit a class: the sum of the channels of its regions."""
        if self.channel_regions is None:
            return model
        sums = tuple(tuple(map(int, row)) for row in self.subsets)
        return replace(model, network=replace(model.network, sums=sums))
