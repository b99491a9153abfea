"""From a finished run and masks of its cases to a guarantee: who may take part, and what is read of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.datasets import list_images
from ..data.decoding import decode
from ..data.files import image_stem
from ..data.left_out import SHOWN
from ..data.mask_settings import MaskSettings
from ..data.patients import patient_of
from ..data.records import mapping, plain, write_json
from ..evaluation.conformal import require_alpha
from ..guarantees.calibrate import calibrate
from ..guarantees.evidence import Evidence, gather
from ..guarantees.guarantee import Guarantee
from ..runs.guaranteeing import known_of
from .guarantee_words import draw_guarantee
from .run_cases import RunCases, read_run_cases


@dataclass(frozen=True)
class CalibrateRequest:
    """A run whose cases the network was not trained on, and masks of them; its own masks where there are none.

    `alpha` is the level, `map_name` fixes the map (empty: it is chosen). `patient` is a regular expression that finds the patient
    in the name of a case. `training` are folders of images that the network was trained on, which no case may be among.
    """

    run: Path
    out: Path
    masks: Path | None = None
    alpha: float = 0.1
    map_name: str = ""
    patient: str | None = None
    training: tuple[Path, ...] = ()
    mask_settings: MaskSettings = MaskSettings()


def calibrate_run(
    request: CalibrateRequest, *, progress: Callable[[str, int, int], None] = lambda *_: None
) -> tuple[Guarantee, dict[str, str], list[str]]:
    """The guarantee of a run's cases with masks, written to `out` with a picture beside it.

    Returned with it are the reason of every case that could not be read, and notes.

    ValueError for cases that are fit or training cases, by the image or the patient, for too few of them, and as `calibrate`.
    """
    require_alpha(request.alpha)
    if request.out.is_dir():
        raise ValueError(f"{request.out}: expected a file to write the guarantee to, got a folder")
    found = read_run_cases(request.run, request.masks, request.mask_settings)
    names = [name for name, case in found.cases.items() if case.raters]
    if not names:
        raise ValueError(f"{request.masks or request.run}: expected masks of the run's cases, got none")
    fit = found.info.get("fit_sha256")
    if not isinstance(fit, list):
        raise ValueError(f"{request.run / 'run.json'}: expected the hashes of the fit images, got none; run again to calibrate")
    told = _require_new(found, names, request, fit)
    cases: list[Evidence] = []
    failed: dict[str, str] = {}
    progress("", 0, len(names))
    for done, name in enumerate(names, 1):
        try:
            cases.append(_evidence(found, name, request.patient))
        except (ValueError, OSError) as error:
            failed[name] = " ".join(str(error).split())
        progress(name, done, len(names))
    if not cases:
        raise ValueError(next(iter(failed.values())))
    known = known_of(
        model=str(mapping(found.info, "model").get("digest")),
        config=mapping(found.info, "config"),
        preprocessing=mapping(found.info, "preprocessing"),
        fit=list(map(str, fit)),
    )
    guarantee = calibrate(cases, alpha=request.alpha, map_name=request.map_name or None, known=plain(known))
    request.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(request.out, guarantee.to_dict())
    draw_guarantee(guarantee, request.out.with_suffix(".png"))
    notes = [*found.notes, *told]
    findings = mapping(found.info, "fit").get("findings")
    if findings:
        notes.append(f"the network of this run does not explain its own fit data: {'; '.join(map(str, findings))}")
    return guarantee, failed, notes


def _evidence(found: RunCases, name: str, patient: str | None) -> Evidence:
    drawn, record = found.drawn(name), found.records[name]
    pixels = mapping(mapping(record, "structures"), "pixels")
    scores = {key: float("nan") if value is None else float(value) for key, value in mapping(record, "dice_scores").items()}
    findings = found.findings(name).for_guarantee(found.coding, scores, pixels)
    raters = np.stack([found.coding.classes_of(labels) for labels in drawn.labels.values()])
    sha256 = str(mapping(record, "image").get("sha256"))
    return gather(findings, raters, name=name, sha256=sha256, patient="" if patient is None else patient_of(name, patient))


def _require_new(found: RunCases, names: Sequence[str], request: CalibrateRequest, fit: Sequence[Any]) -> list[str]:
    """ValueError naming cases that the network or the search knows, by the image or the patient; else notes."""
    hashes = {str(sha256): "fit" for sha256 in fit}
    patients: dict[str, str] = {}
    told = found.info.get("fit_cases")
    known = [(str(name), "fit") for name in told] if isinstance(told, list) else []
    for folder in request.training:
        for file in list_images(folder, what="images"):
            hashes[decode(file).sha256] = "training"
            known.append((image_stem(file), "training"))
    nameless = 0
    if request.patient is not None:
        patient_of(names[0], request.patient)
        for name, what in known:
            try:
                patients[patient_of(name, request.patient)] = what
            except ValueError:  # their files may be named otherwise
                nameless += 1
    images = {name: str(mapping(found.records[name], "image").get("sha256")) for name in names}
    again = [name for name in names if images[name] in hashes]
    if again:
        raise ValueError(
            f"{request.run}: {hashes[images[again[0]]]} cases are no calibration cases, but {_some(again)} "
            f"{'is one' if len(again) == 1 else 'are some'}, by the bytes of the image; leave their masks out"
        )
    if request.patient is not None:
        same = [name for name in names if patient_of(name, request.patient) in patients]
        if same:
            what = patients[patient_of(same[0], request.patient)]
            raise ValueError(
                f"{request.run}: patients of {what} cases are none to calibrate on, but those of {_some(same)} are; leave their "
                "masks out"
            )
    if request.patient is None:
        return ["every case counts as a patient of its own; --patient says which cases are of one"]
    return (
        [f"{nameless} fit or training images have no patient in their names: told apart by the image alone"] if nameless else []
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
