"""What the output channels of a network say about labels: one label a class, or several regions at once.

nnU-Net's region models answer yes or no for every region, independently. Such a model is one of exclusive classes too, the
classes being the subsets of regions: the logit of a subset is the sum of its regions' logits, since then
softmax = prod sigma(+-z), and its cross-entropy is the sum of the binary ones. So the search and the decomposition of
exclusive classes serve both kinds; the entropy of a subset is the sum of its regions' entropies.
"""

from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit, softmax

from ..data.plans import Plan
from .model import Network, SegmentationModel

MOST_REGIONS = 4


@dataclass(frozen=True)
class Coding:
    """Labels 0..labels-1, the classes of the search, and the network's channels; without regions all three are the same.

    `channel_regions[r]` are the labels that region r covers; where a region is predicted it writes `order[r]`, later ones over
    earlier ones.
    """

    labels: int
    channel_regions: tuple[tuple[int, ...], ...] | None = None
    order: tuple[int, ...] | None = None

    @staticmethod
    def of(plan: Plan, *, where: str) -> "Coding":
        """The coding of a plan; ValueError for more regions than subsets of them can be searched."""
        if plan.regions is not None and len(plan.regions) > MOST_REGIONS:
            raise ValueError(f"{where}: expected {MOST_REGIONS} regions at most, got {len(plan.regions)}")
        return Coding(plan.labels, plan.regions, plan.regions_order)

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
        """The class of a voxel that has a label."""
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

    def channel_probs(self, logits: Float[np.ndarray, "*space k"]) -> Float[np.ndarray, "*space k"]:
        """Probabilities of the network's channels as nnU-Net exports them: a softmax, or a sigmoid a region."""
        return softmax(logits, -1) if self.channel_regions is None else expit(logits)

    def segment(self, logits: Float[np.ndarray, "*space k"]) -> Int[np.ndarray, "*space"]:
        """Labels from the network's logits: the largest, or every region above one half in order."""
        if self.channel_regions is None or self.order is None:
            return np.argmax(logits, -1).astype(np.int32)
        labels = np.zeros(logits.shape[:-1], np.int32)
        for r, label in enumerate(self.order):
            labels[expit(logits[..., r]) > 0.5] = label
        return labels

    def label_probs(self, probs: Float[np.ndarray, "*space k"]) -> Float[np.ndarray, "*space labels"]:
        """Probabilities of labels from those of the channels."""
        return self.class_to_label_probs(self.class_probs(probs))

    def class_probs(self, probs: Float[np.ndarray, "*space k"]) -> Float[np.ndarray, "*space c"]:
        """Probabilities of the classes of the search from those of the channels."""
        if self.channel_regions is None:
            return probs
        joint = np.ones((*probs.shape[:-1], len(self.subsets)), probs.dtype)
        for r in range(probs.shape[-1]):
            joint *= np.where(self.subsets[:, r] == 1, probs[..., r : r + 1], 1 - probs[..., r : r + 1])
        return joint

    def class_to_label_probs(self, probs: Float[np.ndarray, "*space c"]) -> Float[np.ndarray, "*space labels"]:
        """Probabilities of labels from those of the classes."""
        if self.channel_regions is None:
            return probs
        member = (self.label_of_class[:, None] == np.arange(self.labels)).astype(probs.dtype)
        return probs @ member

    def segment_classes(self, probs: Float[np.ndarray, "*space c"]) -> Int[np.ndarray, "*space"]:
        """Labels from probabilities (or their logarithms' argmax) of the classes, by the same rule as `segment`."""
        if self.channel_regions is None or self.order is None:
            return np.argmax(probs, -1).astype(np.int32)
        labels = np.zeros(probs.shape[:-1], np.int32)
        for r, label in enumerate(self.order):
            labels[probs @ self.subsets[:, r].astype(probs.dtype) > 0.5] = label
        return labels

    def searchable(self, model: SegmentationModel) -> SegmentationModel:
        """The model with one channel a class: the last layer's columns added up over the regions of each subset."""
        if self.channel_regions is None:
            return model
        arguments = {**dict(model.network.arguments), "n_classes": len(self.subsets)}
        sums = jnp.asarray(self.subsets.T, jnp.float32)
        head = {name: model.params[name] @ sums for name in model.network.tail_names("head")}
        network = Network.create(model.network.architecture, **arguments)
        return replace(model, network=network, params={**model.params, **head})
