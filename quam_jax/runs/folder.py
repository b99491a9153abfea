"""The folder of a run: who owns it, which cases in it are finished and sound, and how results get there whole or not at all.

A run is identified by a digest of everything its numbers depend on (model, settings, fit data, preprocessing, version);
a case by that digest and the hashes of its files. A case's files are moved into place together, its JSON last, so that a
case is finished exactly when its JSON with the right digest is there. The JSON holds size and SHA-256 of every file and of
itself, so that later damage is found.
"""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..cluster.lock import LOCK, PARTS, hold
from ..data.files import is_part, remove_parts
from ..data.records import digest, mapping, plain, read_json, write_json

FORMAT = 1
STAGING = ".staging"
REPORT_DATA = "report_data"
RATERS = f"{REPORT_DATA}/raters"
STAGES = ("files", "score_files", "guarantee_files")  # of the search, of scoring, of a guarantee: each can be written again
_OWN = (STAGING, PARTS, REPORT_DATA, LOCK)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Claim(NamedTuple):
    """A run folder that is this process's: whether it made it, and the token that says so to workers elsewhere."""

    fresh: bool
    token: str


@contextlib.contextmanager
def claimed(out: Path, run_digest: str, *, overwrite: bool, part: str = "") -> Iterator[Claim]:
    """Take an output folder for a run; ValueError if it holds something else, or another process is at work in it.

    A folder of the same run is continued. `overwrite` empties a folder of another run, and nothing but such a folder. What
    interrupted processes have left is removed; a `part` leaves that to who does the whole.
    """
    fresh = not out.exists()
    try:
        if fresh:
            out.mkdir(parents=True, exist_ok=True)  # another process may make it at the same moment
        elif not out.is_dir():
            raise ValueError(f"{out}: expected a folder to write to, got a file")
        _is_other(out, run_digest, overwrite=overwrite)
        outside = [name for name in _OWN if (out / name).is_symlink()]
        if outside:
            raise ValueError(f"{out / outside[0]}: expected no link; nothing is written outside the folder of the run")
        if not os.access(out, os.W_OK):
            raise ValueError(f"{out}: expected a folder that can be written to")
        held = hold(out, part=part)
        token = held.__enter__()
    except OSError as error:
        raise output_error(out, error) from error
    with contextlib.ExitStack() as stack:
        stack.push(held)
        try:
            if _is_other(out, run_digest, overwrite=overwrite):  # it may have become one before the lock was ours
                if part:
                    raise ValueError(f"{out}: holds another run; expected --overwrite without --part, or a new folder")
                _empty(out)
            elif not part:
                clean(out)
        except OSError as error:
            raise output_error(out, error) from error
        yield Claim(fresh, token)


def _is_other(out: Path, run_digest: str, *, overwrite: bool) -> bool:
    """Whether a folder holds another run, which may be overwritten; ValueError for anything else that is no part of this run."""
    if all(item.name in _OWN or is_part(item) for item in out.iterdir()):
        return False  # a process has begun, or was interrupted, before the first run.json
    found = read_json(out / "run.json")
    if "digest" not in found:
        raise ValueError(f"{out}: expected a new or empty folder, got one with other files in it")
    if found["digest"] != run_digest and not overwrite:
        raise ValueError(
            f"{out}: holds another run (other model, data or settings); expected a new folder, or --overwrite to replace it"
        )
    return found["digest"] != run_digest


def _empty(out: Path) -> None:
    for item in out.iterdir():
        if item.name != LOCK:
            shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()


def output_error(out: Path, error: OSError) -> OSError:
    """An error of the output folder in words that say what to do; nothing written before is harmed."""
    advice = "the same command goes on where it stopped"
    if error.errno in _FULL:
        reason = f"no space left to write to; free some, and {advice}"
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        reason = f"expected a folder that can be written to; it is read-only ({error.strerror})"
    elif error.errno in (errno.ENOENT, errno.ESTALE):
        gone = next((parent for parent in (out, *out.parents) if not parent.is_dir()), None)
        missing = f"its folder {gone} does not exist" if gone is not None else "a part of it was removed while it was written to"
        reason = f"{missing} ({error.strerror}); make it first, or look at the name"
    else:
        reason = f"cannot be written to ({error.strerror or error}); {advice} when it can"
    return type(error)(error.errno, f"{out}: {reason}") if error.errno else OSError(f"{out}: {reason}")


def staging_folder(out: Path, case: str, *, worker: str = "") -> Path:
    """An empty place to write a case's files to, inside the output folder, for this worker alone."""
    folder = out / STAGING / worker / case
    shutil.rmtree(folder, ignore_errors=True)
    (folder / RATERS).mkdir(parents=True)
    return folder


def publish(out: Path, case: str, sidecar: Mapping[str, Any], *, worker: str = "") -> None:
    """Move a case's staged files into place and write its JSON last; files of an older result are removed first."""
    remove_case(out, case)
    amend(out, case, sidecar, STAGES, worker=worker)


def amend(out: Path, case: str, sidecar: Mapping[str, Any], stages: Sequence[str], *, worker: str = "") -> None:
    """Move the staged files of some stages of a case into place, and write its JSON last; those of other stages stay as they are.

    The JSON says which outputs are those of a guarantee.
    """
    folder = out / STAGING / worker / case
    staged = sorted(path for path in folder.rglob("*") if path.is_file())
    found: dict[str, dict[str, Any]] = {stage: {} for stage in stages}
    for path in staged:
        name = str(path.relative_to(folder))
        found[_stage_of(name, case, sidecar)][name] = {"bytes": path.stat().st_size, "sha256": _file_digest(path)}
    record = plain({**sidecar, **found})
    record.pop("sha256", None)
    before = read_json(out / f"{case}.json")
    for path in staged:
        target = out / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
    write_json(out / f"{case}.json", {**record, "sha256": digest(record)})
    for stage in stages:
        _remove_files(out, case, set(mapping(before, stage)) - set(found[stage]))
    shutil.rmtree(folder, ignore_errors=True)


def _stage_of(name: str, case: str, sidecar: Mapping[str, Any]) -> str:
    if name == f"{RATERS}/{case}.npz":
        return "score_files"
    return "guarantee_files" if name in mapping(mapping(sidecar, "guarantee"), "outputs").values() else "files"


def discard(out: Path, case: str, *, worker: str = "") -> None:
    """Remove what a failed case has staged."""
    shutil.rmtree(out / STAGING / worker / case, ignore_errors=True)


def remove_case(out: Path, case: str) -> None:
    """Remove the published files of a case, its JSON first; nothing outside the folder, whatever the JSON says."""
    sidecar = read_json(out / f"{case}.json")
    (out / f"{case}.json").unlink(missing_ok=True)
    for stage in STAGES:
        _remove_files(out, case, mapping(sidecar, stage))


def _remove_files(out: Path, case: str, names: Iterable[str]) -> None:
    for name in names:
        if _is_of_case(name, case):
            (out / name).unlink(missing_ok=True)


def verify(out: Path, case: str, case_digest: str) -> tuple[dict[str, Any] | None, str]:
    """The JSON of a case that is complete, sound and up to date; else None, and why it has to be done again.

    The reason is empty where the case was never finished.
    """
    path = out / f"{case}.json"
    sidecar = read_json(path)
    if not sidecar:
        return None, f"{path.name} is damaged" if path.exists() else ""
    if sidecar.get("sha256") != digest({k: v for k, v in sidecar.items() if k != "sha256"}):
        return None, f"{path.name} is damaged, or was written by an earlier version"
    if sidecar.get("digest") != case_digest:
        return None, "its image, or the model or settings, have changed since"
    why = damage(out, sidecar["files"])
    return (None, why) if why else (sidecar, "")


def damage(out: Path, files: Mapping[str, Any]) -> str:
    """What is wrong with files of a case, by their sizes and hashes; empty where nothing is."""
    for name, known in files.items():
        file = out / name
        if not file.is_file():
            return f"{name} is missing"
        size = file.stat().st_size
        if size != known["bytes"]:
            return f"{name} is damaged: {size:,} of {known['bytes']:,} bytes"
        if _file_digest(file) != known["sha256"]:
            return f"{name} is damaged: other bytes than were written"
    return ""


def clean(out: Path) -> None:
    """Remove what interrupted processes have left: staged files and halves of atomic writes."""
    shutil.rmtree(out / STAGING, ignore_errors=True)
    remove_parts(out)


def remove_run(out: Path) -> None:
    """Remove what a run without a single finished case has written; whatever else is there stays."""
    for name in ("run.json", "results.csv", "review.csv", "summary.json", "timing.csv", "report.html"):
        (out / name).unlink(missing_ok=True)
    clean(out)
    shutil.rmtree(out / PARTS, ignore_errors=True)
    shutil.rmtree(out / REPORT_DATA, ignore_errors=True)


def _is_of_case(name: str, case: str) -> bool:
    own = (f"{REPORT_DATA}/{case}.npz", f"{RATERS}/{case}.npz")
    return name in own or ("/" not in name and "\\" not in name and name.startswith(f"{case}_"))


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
