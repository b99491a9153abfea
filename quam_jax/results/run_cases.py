"""The cases of a run with the masks of raters, for what is computed of a finished run: scores and guarantees."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..data.cases import read_raters, settle_masks
from ..data.datasets import Case, list_images, match_masks
from ..data.decoding import decode
from ..data.files import natural_key
from ..data.left_out import named
from ..data.mask_settings import MaskSettings
from ..data.masks import MaskCoding
from ..data.records import mapping, read_json
from ..runs.codings import Coding, run_coding
from ..runs.findings import CaseFindings, read_findings
from ..runs.scoring import Drawn, drawn_of


class RunCases(NamedTuple):
    """A run with its finished cases by name, the masks that belong to each, and what their values mean."""

    folder: Path
    info: dict[str, Any]
    coding: Coding
    records: dict[str, dict[str, Any]]
    cases: dict[str, Case]
    masks: MaskCoding
    settings: MaskSettings
    notes: list[str]

    def drawn(self, name: str) -> Drawn:
        """What raters drew of a case, on the grid of its maps; ValueError as `read_raters`."""
        case = self.cases[name]
        if not case.raters:
            return drawn_of(case, {}, ())
        outputs = mapping(self.records[name], "outputs")
        shown = outputs.get("segmentation_picture", outputs.get("segmentation"))
        if not isinstance(shown, str):
            raise ValueError(f"{self.folder / name}.json: expected the file of a segmentation, got none")
        grid = decode(self.folder / shown).geometry
        return drawn_of(case, *read_raters(case, grid, classes=self.coding.labels, small_types=True))

    def findings(self, name: str) -> CaseFindings:
        """What the run found of a case; ValueError as `read_findings`."""
        return read_findings(self.folder, self.records[name], self.coding)


def read_run_cases(run: Path, masks: Path | None, settings: MaskSettings) -> RunCases:
    """The finished cases of a run; `masks` are those of the run itself where there are none.

    ValueError for a folder that is no run of this version, or without finished cases, and for masks that contradict each other.
    """
    found = sorted(run.glob("*.json"), key=lambda path: natural_key(path.name))
    read = {path.stem: read_json(path) for path in found if path.name not in ("run.json", "summary.json")}
    records = {name: record for name, record in read.items() if record.get("case") == name and mapping(record, "outputs")}
    if not records:
        raise ValueError(f"{run}: expected the folder of a run with finished cases, got none")
    info = read_json(run / "run.json")
    coding = run_coding(info, where=run / "run.json")
    notes: list[str] = []
    if masks is None:
        drawn = {
            name: {rater: Path(str(path)) for rater, path in mapping(record, "raters").items()}
            for name, record in records.items()
        }
        where: object = run
    else:
        files = list_images(masks, what="masks")
        drawn, where = match_masks(files, records), masks
        used = {path for raters in drawn.values() for path in raters.values()}
        spare = [file for file in files if file not in used]
        notes += [f"masks of {masks} without a case: {named(spare)}"] if spare else []
    cases = [Case(name, _image_of(record), drawn[name]) for name, record in records.items()]
    settings = _settings(settings, info, own=masks is None)
    cases, settled = settle_masks(cases, classes=coding.labels, settings=settings, where=where)
    by_name = {case.name: case for case in cases}
    return RunCases(run, info, coding, records, by_name, settled, settings, [*settled.notes, *notes])


def _image_of(record: Mapping[str, Any]) -> Path:
    return Path(str(mapping(record, "image").get("path")))


def _settings(asked: MaskSettings, info: Mapping[str, Any], *, own: bool) -> MaskSettings:
    """What was said of the masks: now, else to the run; of other masks than the run's the run says what is not rated."""
    stored = mapping(mapping(info, "masks"), "settings")
    if asked != MaskSettings() or not stored:
        return asked
    try:
        settings = MaskSettings(**stored)
    except TypeError:
        raise ValueError(f"run.json: expected the settings of masks, got {stored!r}") from None
    return settings if own else MaskSettings(ignore_label=settings.ignore_label)
