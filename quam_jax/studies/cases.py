"""Cases of a study in memory: prepared images with the masks of their raters, read from a known folder layout."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from ..data.cases import read_case_files, settle_masks
from ..data.channels import require_channels
from ..data.datasets import Case
from ..data.layouts import LAYOUTS
from ..data.mask_settings import MaskSettings
from ..data.patients import patient_of
from ..data.preprocess import Preprocessing
from ..data.records import digest, digest_arrays
from .splits import Identity


class StudyCase(NamedTuple):
    """A case ready for a network; `picture` is the image as read, for figures, and `digest` covers image and masks.

    `notes` say what of its files was not taken as it stands.
    """

    identity: Identity
    image: Float[np.ndarray, "*space i"]
    raters: Integer[np.ndarray, " a *space"]
    spacing: tuple[float, ...]
    picture: Float[np.ndarray, "*space j"]
    digest: str
    notes: tuple[str, ...] = ()


def parse_dataset(text: str) -> list[Case]:
    """`LAYOUT:ROOT[,key=value...]` to cases, such as `qubiq:data/prostate,task=2`.

    ValueError for an unknown layout or argument, or a root that does not look like its data set.
    """
    layout, colon, rest = text.partition(":")
    root, *settings = rest.split(",")
    if not colon or layout not in LAYOUTS or not root:
        raise ValueError(f"dataset: expected LAYOUT:ROOT with one of {', '.join(LAYOUTS)}, got {text!r}")
    known = {n: p.default for n, p in inspect.signature(LAYOUTS[layout]).parameters.items() if n != "root"}
    arguments = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or name not in known:
            raise ValueError(f"dataset: {layout}: expected settings among {', '.join(known) or 'none'}, got {setting!r}")
        arguments[name] = type(known[name])(value)
    return LAYOUTS[layout](Path(root), **arguments)


def read_cases(
    cases: Sequence[Case],
    *,
    preprocessing: Preprocessing,
    classes: int,
    patient: str | None = None,
    least_raters: int = 1,
    mask_settings: MaskSettings | None = None,
    where: str = "",
) -> list[StudyCase]:
    """Every case with all its raters; ValueError naming the case whose files are missing, damaged or of another size.

    What the values of masks mean is decided over all of them; `where` names them in notes, which stand with the first case.
    """
    cases, coding = settle_masks(cases, classes=classes, settings=mask_settings or MaskSettings(), where=where)
    read = [
        read_case(case, preprocessing=preprocessing, classes=classes, patient=patient, least_raters=least_raters)
        for case in cases
    ]
    return [read[0]._replace(notes=(*coding.notes, *read[0].notes)), *read[1:]] if read else []


def read_case(
    case: Case, *, preprocessing: Preprocessing, classes: int, patient: str | None = None, least_raters: int = 1
) -> StudyCase:
    """One case (see read_cases)."""
    if len(case.raters) < least_raters:
        raise ValueError(f"{case.image}: case {case.name}: expected at least {least_raters} raters, got {len(case.raters)}")
    image, masks = read_case_files(case, classes=classes)
    raters = np.stack(list(masks.values()))
    told = [f"{case.name}: {note}" for note in (*image.notes, *require_channels(image, preprocessing.channels))]
    prepared = preprocessing.apply(image.array)
    spacing = tuple(float(s) for s in image.geometry.spacing[: raters.ndim - 1])
    identity = Identity(case.name, patient_of(case.name, patient), image.sha256)
    whole = digest(image.sha256, digest_arrays({"raters": raters}), preprocessing.to_dict())
    return StudyCase(identity, prepared, raters, spacing, image.array, whole, tuple(told))
