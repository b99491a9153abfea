"""What is known of a case after its search: its maps, its adversarial models, and the audit."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from ..data.large import by_blocks, label_type
from ..models.coding import Coding
from .audit import MemberAudit, models_held


class SampledVolumes(NamedTuple):
    """The volumes of a case under the recorded samples, of every structure, with weights that sum to 1 (see samples.py).

    The last sample is the given network.
    """

    ml: Float[np.ndarray, "n structures"]
    weights: Float[np.ndarray, " n"]


class InClasses(NamedTuple):
    """Segmentation and adversarial models in classes of the search, with the probabilities of the classes and of structures."""

    segmentation: Int[np.ndarray, "*space"]
    adversarial: Int[np.ndarray, " n *space"]
    probs: Float[np.ndarray, "*space c"]
    structures: Float[np.ndarray, "*space s"]


class Quantified(NamedTuple):
    """The maps of one case on its own grid; uncertainties in nats. Large arrays lie in temporary files (memory maps).

    Attributes:
        reference: Class probabilities of the given network, `[*space c]`.
        segmentation: Its labels, `[*space]`.
        total: Entropy of the mean of the samples, `[*space]`, from 0 to ln c.
        aleatoric: Mean entropy of the samples, `[*space]`.
        epistemic: total - aleatoric, the mutual information of label and model, `[*space]`.
        softmax: Entropy of the given network's prediction, `[*space]`: what there is without a search.
        adversarial: Label maps of the kept adversarial models, `[n *space]`, named by `adversarial_names`.
        adversarial_names: A name for each, by the mask it was asked for.
        audit: A row an adversarial model: fit loss, bound, and whether it was kept (`held`).
        objective: Loss on the wanted labels after every step, `[m s]`, nats; of a volume's slices and of patches a leading axis.
        fit_loss: Loss on the fit data after every step, in the same axes, nats a pixel.
        bound: What the fit loss may be: L_ref + slack.
        penalty: What the solver paid for going beyond.
        feasible: Whether fit_loss <= bound.
        fragility: Of pixel and region targets, maps by name of what it takes to flip a label.
        regions: Of region targets, their numbers from 0, -1 outside.
        channels: Of a model whose channels are independent regions, their probabilities `[*space k]`.
        adversarial_classes: The classes (see models/coding.py) that `adversarial` was written from, for such a model.
        volumes: Volumes of the structures under the samples, of a model with a plan.
        patches: Into how many patches an image was cut; None where it was not.
        adversarial_weights: With `keep_models`, what each of `adversarial` has in place of given weights, by dotted name.
    """

    reference: Float[np.ndarray, "*space c"]
    segmentation: Int[np.ndarray, "*space"]
    total: Float[np.ndarray, "*space"]
    aleatoric: Float[np.ndarray, "*space"]
    epistemic: Float[np.ndarray, "*space"]
    softmax: Float[np.ndarray, "*space"]
    adversarial: Int[np.ndarray, " n *space"]
    adversarial_names: tuple[str, ...]
    audit: tuple[MemberAudit, ...]
    objective: Float[np.ndarray, "... s"]
    fit_loss: Float[np.ndarray, "... s"]
    bound: Float[np.ndarray, "... s"]
    penalty: Float[np.ndarray, "... s"]
    feasible: Bool[np.ndarray, "... s"]
    fragility: dict[str, np.ndarray] = {}
    regions: Int[np.ndarray, "..."] | None = None
    channels: Float[np.ndarray, "*space k"] | None = None
    adversarial_classes: Int[np.ndarray, " n *space"] | None = None
    volumes: SampledVolumes | None = None
    patches: int | None = None
    adversarial_weights: tuple[Mapping[str, Float[np.ndarray, "..."]], ...] = ()

    def __repr__(self) -> str:
        kept, searched = models_held(self.audit)
        sides = "x".join(map(str, self.segmentation.shape))
        return f"Quantified({sides}, {self.reference.shape[-1]} classes, {kept} of {searched} adversarial models kept the bound)"

    @property
    def maps(self) -> dict[str, np.ndarray]:
        """The uncertainty maps by name, the entropy of the given network's prediction among them."""
        return {"total": self.total, "aleatoric": self.aleatoric, "epistemic": self.epistemic, "softmax": self.softmax}

    def in_classes(self, coding: Coding) -> InClasses:
        """The result in classes of the search (see models/coding.py): as evaluation and volumes take it."""
        if self.channels is None or self.adversarial_classes is None:
            return InClasses(self.segmentation, self.adversarial, self.reference, self.reference[..., 1:])
        kind = label_type(coding.classes)
        return InClasses(
            by_blocks(lambda p: coding.counted(coding.classify_channels(p)), self.channels, kind),
            by_blocks(coding.counted, self.adversarial_classes, kind),
            by_blocks(lambda p: coding.counted_probs(coding.class_probs(p)), self.channels),
            by_blocks(coding.structure_probs, self.channels),
        )

    @property
    def searched_patches(self) -> int:
        """How many of the patches had something to ask."""
        return len({(row.slice, row.patch) for row in self.audit if row.patch is not None})

    @property
    def shown_classes(self) -> int:
        """How many classes the entropies are over, which is the top of their scale; every combination of independent channels."""
        return self.reference.shape[-1] if self.channels is None else 2 ** self.channels.shape[-1]

    def viewer(self, image: Num[np.ndarray, "x y z"] | None = None, *, affine: Float[np.ndarray, "4 4"] | None = None) -> Any:
        """A notebook's widget of a volume (extra `notebook`): planes, 3-D, maps and models as layers.

        `image` is one channel of it, `affine` takes voxel indices to millimetres. ValueError for pictures, which a notebook shows
        without a widget, without ipyniivue, and for an image of another shape.
        """
        from ..report.widget import volume_widget  # drawing is the report's

        if self.segmentation.ndim != 3:
            raise ValueError(
                f"viewer: expected a volume, got maps of {self.segmentation.ndim} axes, which `maps` shows by itself"
            )
        return volume_widget(
            self.maps,
            self.segmentation,
            classes=self.shown_classes,
            image=image,
            affine=affine,
            adversarial=self.adversarial,
            names=self.adversarial_names,
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """What a notebook shows: of a volume the viewer where it is installed, and pictures for whoever has none."""
        from ..report.widget import is_installed

        bundle = {"text/plain": repr(self), "text/html": self._repr_html_()}
        if self.segmentation.ndim == 3 and is_installed():
            shown = self.viewer()._repr_mimebundle_()
            bundle |= shown[0] if isinstance(shown, tuple) else shown  # data and metadata, or data alone
        return bundle

    def _repr_html_(self) -> str:
        """The maps as pictures with their scales, as a notebook shows them."""
        from ..report.notebook import maps_html  # drawing is the report's

        kept, searched = models_held(self.audit)
        return maps_html(
            self.maps,
            self.segmentation,
            classes=self.shown_classes,
            adversarial=self.adversarial,
            names=self.adversarial_names,
            facts=f"{kept} of {searched} adversarial models kept the bound.",
        )


def audit_rows(quantified: Quantified) -> list[dict[str, Any]]:
    """The audit as plain rows, with what there is of slice, patch and fold; files call a patch `tile`."""
    return [{"tile" if k == "patch" else k: v for k, v in asdict(row).items() if v is not None} for row in quantified.audit]
