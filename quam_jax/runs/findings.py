"""What was found of a case, from memory or from the files of its run: all that scores and a guarantee are computed from.

Both ways give the same numbers, so that a case can be scored again, by other masks, years after its search.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import entr

from ..case.quantified import Quantified, SampledVolumes
from ..data.geometry import Geometry
from ..data.large import by_blocks, label_type
from ..data.maps import read_map_file
from ..data.records import mapping
from ..evaluation.reference_maps import BOUNDARY_SIGMA, boundary_map, contour_distance
from ..guarantees.evidence import Findings
from ..models.coding import Coding
from .folder import REPORT_DATA

MAPS = ("total", "aleatoric", "epistemic")


class CaseFindings(NamedTuple):
    """Segmentation, adversarial models and probabilities of a case, in classes of the search, and its maps in nats.

    `spacing` is that of its axes, `voxel` the millilitres of a voxel of a volume, and `volumes` are those under the samples,
    where there are any.
    """

    segmentation: Int[np.ndarray, "*space"]
    adversarial: Int[np.ndarray, " n *space"]
    probs: Float[np.ndarray, "*space c"]
    structures: Float[np.ndarray, "*space s"]
    maps: dict[str, Float[np.ndarray, "*space"]]
    spacing: tuple[float, ...]
    voxel: float | None
    volumes: SampledVolumes | None

    def control(self) -> Float[np.ndarray, "*space"]:
        """The map that knows the contour of the prediction alone."""
        return boundary_map(contour_distance(self.segmentation, spacing=self.spacing), sigma=BOUNDARY_SIGMA)

    def for_guarantee(self, coding: Coding, scores: Mapping[str, float], pixels: Mapping[str, Any]) -> Findings:
        """As guarantees take it; `pixels` counts those of the structures, as the JSON of a case has them."""
        ranges = np.array([pixels["prediction"], *pixels["adversarial"]], np.float64)
        return Findings(
            self.segmentation,
            {**self.maps, "boundary": self.control()},
            self.structures,
            coding.structures,
            coding.structure_names,
            np.stack([ranges.min(0), ranges.max(0)], 1),
            scores,
        )


def findings_of(quantified: Quantified, coding: Coding, *, spacing: tuple[float, ...], voxel: float | None) -> CaseFindings:
    """What a search has found."""
    found = quantified.in_classes(coding)
    return CaseFindings(
        found.segmentation,
        found.adversarial,
        found.probs,
        found.structures,
        {**{name: getattr(quantified, name) for name in MAPS}, "softmax": _entropy(quantified.reference, quantified.channels)},
        spacing,
        voxel,
        quantified.volumes,
    )


def read_findings(out: Path, record: Mapping[str, Any], coding: Coding) -> CaseFindings:
    """What the files of a finished case hold; ValueError, naming the file, for one that is missing or damaged."""
    where = out / f"{record.get('case')}.json"
    names, image = mapping(record, "outputs"), mapping(record, "image")
    missing = [kind for kind in ("segmentation", "reference", *MAPS) if not isinstance(names.get(kind), str)]
    if missing:
        raise ValueError(f"{where}: expected a file of {missing[0]}, got none")
    read = {kind: read_map_file(out / names[kind])[0] for kind in ("segmentation", "reference", *MAPS)}
    arrays = _arrays(out / REPORT_DATA / f"{record['case']}.npz")
    reference, channels = read["reference"], None
    segmentation, adversarial = read["segmentation"].astype(np.int32), arrays.get("adversarial_classes", arrays["adversarial"])
    probs, structures = reference, reference[..., 1:]
    if coding.channel_regions is not None:
        channels = read_map_file(out / names["regions"])[0]
        kind = label_type(coding.classes)
        segmentation = by_blocks(lambda p: coding.counted(coding.classify_channels(p)), channels, kind)
        probs = by_blocks(lambda p: coding.counted_probs(coding.class_probs(p)), channels)
        structures = by_blocks(coding.structure_probs, channels)
        adversarial = by_blocks(coding.counted, adversarial, kind)
    volumes = SampledVolumes(arrays["sample_ml"], arrays["sample_weights"]) if "sample_ml" in arrays else None
    spacing = image.get("spacing")
    if not isinstance(spacing, list) or len(spacing) != segmentation.ndim:
        raise ValueError(f"{where}: expected the spacing of {segmentation.ndim} axes, got {spacing!r}")
    voxel = image.get("voxel_ml")
    return CaseFindings(
        segmentation,
        adversarial,
        probs,
        structures,
        {**{name: read[name] for name in MAPS}, "softmax": _entropy(reference, channels)},
        tuple(map(float, spacing)),
        None if voxel is None else float(voxel),
        volumes,
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    wanted = ("adversarial", "adversarial_classes", "sample_ml", "sample_weights")
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = {name: stored[name] for name in wanted if name in stored.files}
    except Exception as error:
        raise ValueError(f"{path}: not readable ({type(error).__name__}: {error}); run the case again") from None
    if "adversarial" not in found:
        raise ValueError(f"{path}: expected the adversarial models, got none; run the case again")
    return found


def voxel_of(geometry: Geometry) -> float | None:
    """The millilitres of a voxel of a volume, or of a single slice that has a thickness; None of a picture."""
    return math.prod(geometry.voxel_sides) / 1000 if geometry.kind == "nifti" and len(geometry.voxel_sides) == 3 else None


def _entropy(reference: Float[np.ndarray, "*space c"], channels: Float[np.ndarray, "*space k"] | None) -> np.ndarray:
    """The entropy of the given network's prediction: of exclusive classes, or the sum of those of its regions."""
    if channels is None:
        return by_blocks(lambda p: entr(p).sum(-1), np.asarray(reference))
    return by_blocks(lambda p: (entr(p) + entr(1 - p)).sum(-1), channels)
