"""Scoring as a stage of its own: what raters say of a case goes into its JSON, apart from everything that the search found.

A run scores each case after its search, and again, from its files, where the masks have changed since; so does `evaluate` with a
run folder. Neither touches a map, and both write the same.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from ..case.structures import class_counts, structure_volumes, volume_columns
from ..data.datasets import Case
from ..data.maps import pack_arrays
from ..data.records import digest, digest_arrays, mapping
from ..evaluation.evaluate import evaluate
from ..models.coding import Coding
from . import folder as run_folder
from .drawn import drawn_labels
from .findings import CaseFindings

SEARCHED = ("case", "status", "members", "held", "moved")  # columns of the search itself


class Drawn(NamedTuple):
    """What the raters of a case drew: the labels and the file of each by name, and notes on reading them."""

    labels: Mapping[str, Int[np.ndarray, "*space"]]
    files: Mapping[str, Path]
    notes: Sequence[str] = ()

    @property
    def digest(self) -> str:
        """Of all that scores depend on."""
        labels = {name: labels.astype(np.int16) for name, labels in self.labels.items()}
        return digest({name: str(path) for name, path in self.files.items()}, digest_arrays(labels))


NOBODY = Drawn({}, {})


def is_scored(out: Path, record: Mapping[str, Any], drawn: Drawn) -> bool:
    """Whether the scores of a finished case are those of these masks, and what they wrote is sound."""
    return record.get("scored") == drawn.digest and not run_folder.damage(out, mapping(record, "score_files"))


def score(record: Mapping[str, Any], found: CaseFindings, coding: Coding, drawn: Drawn, folder: Path) -> dict[str, Any]:
    """The JSON of a case with its scores; what the report draws of the raters goes into a staging folder.

    `record` is that of the search, or one with other scores, whose place these take. ValueError for masks of another size.
    """
    classes = {who: coding.classes_of(labels) for who, labels in drawn.labels.items()}
    row = {name: value for name, value in mapping(record, "row").items() if name in SEARCHED}
    metrics: dict[str, Any] = {}
    if classes:
        metrics = evaluate(
            {**found.maps, "boundary": found.control()},
            np.stack(list(classes.values())),
            probabilities=found.probs,
            segmentation=found.segmentation,
            structures=coding.structures,
            spacing=found.spacing,
        )
        row |= {"dice": metrics["dice_consensus"], **metrics}
    row |= {f"{name}/mean": float(values.mean()) for name, values in found.maps.items()}
    volumes: dict[str, dict[str, Any]] = {}
    if found.voxel is not None:
        volumes = structure_volumes(
            found.segmentation,
            found.structures,
            found.adversarial,
            structures=coding.structures,
            names=coding.structure_names,
            voxel=found.voxel,
            raters=classes,
            samples=found.volumes,
        )
        row |= volume_columns(volumes)
    row |= mapping(mapping(record, "guarantee"), "row")
    structures = mapping(record, "structures")
    raters = {who: (coding.structures @ class_counts(mask, coding.classes)).tolist() for who, mask in classes.items()}
    if drawn.labels:
        target = folder / run_folder.RATERS / f"{record['case']}.npz"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(pack_arrays(**drawn_labels(drawn.labels, found.segmentation.shape)))
    return {
        **record,
        "scored": drawn.digest,
        "raters": {name: str(path) for name, path in drawn.files.items()},
        "metrics": metrics,
        "structures": {**structures, "pixels": {**mapping(structures, "pixels"), "raters": raters}},
        "volumes": volumes,
        "row": row,
        "mask_notes": [f"{record['case']}: {note}" for note in drawn.notes],
    }


def drawn_of(case: Case, labels: Mapping[str, np.ndarray], notes: Sequence[str]) -> Drawn:
    """The raters of a case with what was read of their files."""
    return Drawn(labels, case.raters, tuple(notes))
