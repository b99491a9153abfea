"""A guarantee applied to the cases of a run: one more stage, which reads what the search found and touches none of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config import NEUTRAL
from ..data.geometry import Geometry
from ..data.maps import write_map
from ..data.records import digest, mapping, read_json
from ..guarantees.guarantee import Guarantee, apply_guarantee, guarantee_of
from ..models.coding import Coding
from ..version import __version__
from . import folder as run_folder
from .findings import CaseFindings

COLUMNS = ("error_rate", "review_share", "expected_dice", "dice_lower")
SAID = {"model": "another model", "preprocessing": "another preparation", "fit": "other fit data", "version": "another version"}


@dataclass(frozen=True)
class Calibration:
    """A guarantee that a run is given, from a file, and the Dice below which a case is to be looked at."""

    guarantee: Guarantee
    where: str
    least_dice: float | None = None

    @property
    def digest(self) -> str:
        """Of all that its statements depend on."""
        return digest(self.guarantee.to_dict(), self.least_dice)

    def to_dict(self) -> dict[str, Any]:
        """What run.json says of it."""
        return {**self.guarantee.to_dict(), "file": self.where, "least_dice": self.least_dice}


def read_calibration(path: Path, *, least_dice: float | None = None) -> Calibration:
    """The guarantee of a file; ValueError for anything else, and for a Dice that is none."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected a guarantee that `quam-jax calibrate` has written")
    if least_dice is not None and not 0 < least_dice <= 1:
        raise ValueError(f"least Dice: expected a number above 0, up to 1, got {least_dice}")
    return Calibration(guarantee_of(read_json(path), where=path), str(path), least_dice)


def decisive_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of recorded settings that numbers depend on."""
    return {name: value for name, value in config.items() if name not in NEUTRAL}


def known_of(*, model: str, config: Mapping[str, Any], preprocessing: Mapping[str, Any], fit: Sequence[str]) -> dict[str, Any]:
    """What a guarantee is about: a network (digest), its settings, the preparation and the fit images (SHA-256)."""
    return {
        "version": __version__,
        "model": model,
        "settings": decisive_settings(config),
        "preprocessing": dict(preprocessing),
        "fit": sorted(fit),
    }


def require_same(calibration: Calibration, known: Mapping[str, Any]) -> None:
    """ValueError, saying what differs, where a guarantee is about another model, setting or preparation than a run."""
    own = calibration.guarantee.known
    for name, said in SAID.items():
        if own.get(name) != known[name]:
            raise ValueError(
                f"{calibration.where}: a guarantee for {said} than that of this run; calibrate a run of the same one"
            )
    there, here = _leaves(mapping(own, "settings")), _leaves(known["settings"])
    for name in dict.fromkeys([*there, *here]):
        if there.get(name) != here.get(name):
            raise ValueError(
                f"{calibration.where}: a guarantee for another setting: {name} {there.get(name)} there, {here.get(name)} in this "
                "run; expected the same"
            )


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= _leaves(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = list(value) if isinstance(value, tuple) else value
    return found


def is_guaranteed(out: Path, record: Mapping[str, Any], calibration: Calibration | None) -> bool:
    """Whether a finished case has what this guarantee says of it, or nothing without one."""
    told = mapping(record, "guarantee")
    if calibration is None:
        return not told
    return told.get("digest") == calibration.digest and not run_folder.damage(out, mapping(record, "guarantee_files"))


def guarantee(
    record: Mapping[str, Any],
    found: CaseFindings,
    coding: Coding,
    calibration: Calibration | None,
    folder: Path,
    geometry: Geometry,
) -> dict[str, Any]:
    """The JSON of a case with what a guarantee says of it, or without; its maps go into a staging folder."""
    before = mapping(mapping(record, "guarantee"), "row")
    row = {name: value for name, value in mapping(record, "row").items() if name not in before}
    if calibration is None:
        return {**record, "row": row, "guarantee": {}}
    pixels = mapping(mapping(record, "structures"), "pixels")
    findings = found.for_guarantee(coding, mapping(record, "dice_scores"), pixels)
    told = apply_guarantee(calibration.guarantee, findings, least_dice=calibration.least_dice)
    name, outputs, figures = str(record["case"]), dict[str, list[Path]](), told.figures
    if told.error is not None:
        outputs["error"] = write_map(folder / f"{name}_desc-error_probseg", told.error, geometry, kind="probability")
    if told.zone is not None:
        outputs["zone"] = write_map(folder / f"{name}_desc-zone_dseg", told.zone.astype(np.uint8), geometry, kind="label")
    for number, (structure, bounds) in enumerate(told.bounds.items(), 1):
        ending = "" if len(findings.names) == 1 else str(number)
        outputs[f"bounds:{structure}"] = write_map(folder / f"{name}_desc-bounds{ending}_dseg", bounds, geometry, kind="label")
    for structure in figures["structures"].values():
        if found.voxel is not None and "pixels" in structure:
            structure["ml"] = [pixels * found.voxel for pixels in structure["pixels"]]
    columns: dict[str, Any] = {key: figures[key] for key in COLUMNS if key in figures}
    if "look" in figures:
        columns["look"] = "yes" if figures["look"] else "no"
    for structure, values in figures["structures"].items():
        unit = "ml" if "ml" in values else "pixels"
        if unit in values:
            low, high = values[unit]
            columns |= {f"guaranteed_low_{unit}:{structure}": low, f"guaranteed_high_{unit}:{structure}": high}
    used = {sha256 for _, sha256, _ in calibration.guarantee.cases}
    seen = mapping(record, "image").get("sha256") in used
    notes = [f"{name}: the guarantee was calibrated on this case, and does not hold for it"] if seen else []
    if figures.get("look"):
        notes.append(f"{name}: look at this case: its Dice may be below {calibration.least_dice:g}")
    return {
        **record,
        "row": {**row, **{key: math.nan if value is None else value for key, value in columns.items()}},
        "guarantee": {
            "digest": calibration.digest,
            **figures,
            "row": columns,
            "notes": notes,
            "outputs": {
                key if place == 0 else f"{key}_picture": path.name
                for key, paths in outputs.items()
                for place, path in enumerate(paths[:2])
            },
        },
    }
