"""A run folder as found on disk: what is there, and a plain sentence for everything that is not.

Nothing here fails on a missing or damaged part. An unfinished, mixed or newer run is read as far as it can
be, and the sentences in `notes` and `missing` are shown in the report.
"""

import csv
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1  # of run.json, as this report reads it
MAPS = ("total", "aleatoric", "epistemic")
SPATIAL = (*MAPS, "softmax", "flipcost")  # arrays of report_data that must have the shape of the segmentation
STACKS = ("raters", "adversarial")  # one more axis in front
TRACES = ("objective", "fit_loss", "bound", "penalty", "feasible")
LABELS = ("segmentation", *STACKS)
NUMERIC = ("image", *SPATIAL, *LABELS, *TRACES)
NOT_CASES = {"run", "summary"}
UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Case:
    """One case of a run: its row of results.csv, its CASE.json, its arrays, and what is missing."""

    name: str
    row: Mapping[str, str]
    record: Mapping[str, Any]
    arrays: Path | None
    failed: str | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """A run folder: run.json, summary.json, columns of results.csv, cases in order, and what is missing."""

    folder: Path
    info: Mapping[str, Any]
    columns: tuple[str, ...]
    summary: Mapping[str, Any]
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = field(default=())


def read_run(folder: Path) -> Run:
    """Read a run folder; ValueError if the folder holds neither run.json nor results.csv."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected the folder of a run, got {'a file' if folder.exists() else 'nothing'}")
    if not (folder / "run.json").is_file() and not (folder / "results.csv").is_file():
        raise ValueError(f"{folder}: not a run folder: expected run.json or results.csv in it, found neither")
    notes: list[str] = []
    info = _read_json(folder / "run.json", notes)
    summary = _read_json(folder / "summary.json", notes)
    columns, rows = _read_rows(folder / "results.csv", notes)
    _, timing = _read_rows(folder / "timing.csv", [])  # a run without it is whole but for the seconds
    rows = {name: {"seconds": timing.get(name, {}).get("seconds", ""), **row} for name, row in rows.items()}
    failures = {str(k): str(v) for k, v in _mapping(info.get("failed")).items()}
    planned = [str(name) for name in info.get("cases") or []] if isinstance(info.get("cases"), list) else []
    names = list(dict.fromkeys([*planned, *failures, *rows]))
    known = NOT_CASES | set(names)
    names += [p.stem for p in sorted(folder.glob("*.json")) if p.stem not in known and "case" in _read_json(p, [])]
    cases = tuple(_read_case(folder, name, rows.get(name), failures.get(name), tabled=bool(columns)) for name in names)
    notes += _describe_run(info, planned, cases)
    return Run(folder, info, columns, summary, cases, tuple(notes))


def load_arrays(case: Case) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays for the page that fit together, by name, and a sentence for each that does not."""
    if case.arrays is None:
        return {}, []
    problems: list[str] = []
    raw: dict[str, np.ndarray] = {}
    for archive in _archives(case.arrays):
        try:
            with np.load(archive, allow_pickle=False) as stored:
                for name in stored.files:
                    raw[name] = stored[name]
        except UNREADABLE as error:
            problems.append(f"{archive.relative_to(case.arrays.parent)} cannot be read ({_first_line(error)}).")
    for name in [n for n in raw if n in NUMERIC and raw[n].dtype.kind not in "buif"]:
        problems.append(f"{name} holds {raw.pop(name).dtype} instead of numbers.")
    for name in [n for n in raw if n in LABELS and raw[n].dtype.kind == "f"]:
        raw[name] = np.nan_to_num(raw[name]).astype(np.int32)
    grids = [raw[n].shape for n in ("segmentation", *SPATIAL) if n in raw]
    space = next((shape for shape in grids if len(shape) >= 2 and min(shape) > 0), None)
    if space is None:
        return {}, problems or [f"{case.arrays.name} holds neither a segmentation nor a map."]
    arrays = {}
    for name, values in raw.items():
        if _fits(name, values.shape, space):
            arrays[name] = values
        else:
            problems.append(f"{name} has shape {_times(values.shape)}, which does not fit {_times(space)}.")
    return arrays, problems


def load_array(case: Case, name: str) -> np.ndarray | None:
    """One array of numbers of a case without the others, None where it cannot be had."""
    if case.arrays is None:
        return None
    for archive in _archives(case.arrays):
        try:
            with np.load(archive, allow_pickle=False) as stored:
                values = stored[name] if name in stored.files else None
        except UNREADABLE:
            continue
        if values is not None:
            return values if values.dtype.kind in "buif" else None
    return None


def _archives(arrays: Path) -> list[Path]:
    """What a case's search left for the page, and its raters, which stand apart because they may change."""
    return [path for path in (arrays, arrays.parent / "raters" / arrays.name) if path.is_file() or path == arrays]


def number(value: object) -> float:
    """A float from a cell of a file; NaN where the cell is empty or no number."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")


def output_files(run: Run, case: Case) -> list[tuple[str, str, bool]]:
    """(what, name, exists) of the files named in CASE.json; nothing outside the run folder exists."""
    files = []
    later = _mapping(_mapping(case.record.get("guarantee")).get("outputs"))
    for what, value in {**_mapping(case.record.get("outputs")), **later}.items():
        for name in value if isinstance(value, list) else [value]:
            if isinstance(name, str) and name:
                files.append((str(what), name, _inside(run.folder, name)))
    own = f"{case.name}.json"
    if case.record and own not in [name for _, name, _ in files]:
        files.append(("record", own, _inside(run.folder, own)))
    return files


def other_settings(info: Mapping[str, Any], cases: Sequence[Case]) -> list[str]:
    """Names of cases that were computed with another configuration than the rest."""
    made = {c.name: str(c.record[key]) for key in ("run_digest", "config_hash") for c in cases if c.record.get(key)}
    if len(set(made.values())) < 2:
        return []
    usual = str(info.get("digest") or info.get("config_hash") or Counter(made.values()).most_common(1)[0][0])
    return [name for name, value in made.items() if value != usual]


def _inside(folder: Path, name: str) -> bool:
    try:
        path = (folder / name).resolve()
        return path.is_relative_to(folder.resolve()) and path.is_file()
    except (OSError, ValueError):
        return False


def _read_case(folder: Path, name: str, row: Mapping[str, str] | None, failed: str | None, *, tabled: bool) -> Case:
    missing: list[str] = []
    record = _read_json(folder / f"{name}.json", missing) if _inside(folder, f"{name}.json") else {}
    arrays = folder / "report_data" / f"{name}.npz"
    status = str((row or {}).get("status", ""))
    if failed is None and status.lower().startswith("fail"):
        failed = str((row or {}).get("reason") or "no reason was recorded")
    if failed is None:
        if row is None and not record:
            missing.append("The case has not been computed (yet).")
        else:
            if row is None and tabled:
                missing.append("results.csv has no row of this case.")
            if not record:
                missing.append(f"{name}.json is missing or cannot be read: no audit, no links to the files.")
            if not _inside(folder, f"report_data/{name}.npz"):
                missing.append(f"report_data/{name}.npz is missing: no pictures of this case.")
    inside = arrays if _inside(folder, f"report_data/{name}.npz") else None
    return Case(name, row or {}, record, inside, failed, tuple(missing))


def _describe_run(info: Mapping[str, Any], planned: list[str], cases: tuple[Case, ...]) -> list[str]:
    notes = []
    if info and info.get("format") != FORMAT:
        notes.append(f"The run has format {info.get('format')!r}; this report is made for format {FORMAT}.")
    if info and info.get("status") != "finished":
        done = sum(bool(c.row or c.record) and c.failed is None for c in cases)
        notes.append(f"The run is not finished (status {info.get('status')!r}): {done} of {len(cases)} cases are here.")
    if info.get("units") not in (None, "nats"):
        notes.append(f"run.json gives the units {info['units']!r}; the colour scales of this page assume nats.")
    strangers = [c.name for c in cases if planned and c.name not in planned and c.failed is None]
    if strangers:
        notes.append(f"In the folder but not in the run's list: {', '.join(strangers)}. Two runs may be mixed.")
    others = other_settings(info, cases)
    if others:
        notes.append(f"Computed with another configuration than the rest: {', '.join(others)}. Do not compare these.")
    return notes


def _fits(name: str, shape: tuple[int, ...], space: tuple[int, ...]) -> bool:
    if name == "image":
        return shape == space or (len(shape) == len(space) + 1 and shape[:-1] == space and shape[-1] == 3)
    if name == "segmentation" or name in SPATIAL:
        return shape == space
    if name in STACKS:
        return len(shape) == len(space) + 1 and shape[1:] == space
    if name in TRACES:
        return len(shape) in (2, 3)
    return True


def _read_json(path: Path, notes: list[str]) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        notes.append(f"{path.name} is missing.")
        return {}
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{path.name} cannot be read ({_first_line(error)}).")
        return {}
    if not isinstance(values, dict):
        notes.append(f"{path.name} holds {type(values).__name__} instead of named values.")
        return {}
    return values


def _read_rows(path: Path, notes: list[str]) -> tuple[tuple[str, ...], dict[str, dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = [{k: v or "" for k, v in row.items() if isinstance(k, str) and not isinstance(v, list)} for row in reader]
            columns = tuple(name for name in reader.fieldnames or ())
    except FileNotFoundError:
        notes.append("results.csv is missing: no table of figures.")
        return (), {}
    except (OSError, ValueError, csv.Error) as error:
        notes.append(f"results.csv cannot be read ({_first_line(error)}).")
        return (), {}
    if "case" not in columns:
        notes.append("results.csv has no column 'case'.")
        return (), {}
    twice = [name for name, count in Counter(row["case"] for row in rows).items() if count > 1]
    if twice:
        notes.append(f"results.csv has several rows of {', '.join(twice)}; the last one is shown.")
    return columns, {row["case"]: row for row in rows if row["case"]}


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "nothing"
