"""What run.json says while a run is on: written by the first process, kept by those that do other parts of it."""

import datetime
import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from ..config import Config, to_dict
from ..config.sizes import bytes_in
from ..core.layout.choose import backend_name
from ..core.layout.members import plans_made
from ..data.records import read_json, write_json
from ..evaluation.reference_maps import BOUNDARY_SIGMA
from ..memory import budget, peak_memory
from ..models.model import SegmentationModel
from ..models.outputs import describe_outputs
from ..version import __version__
from . import folder as run_folder
from .codings import coding_record
from .quantifier import Quantifier
from .request import RunRequest

PLANS = 20  # kinds of searches that run.json tells of


def describe(
    quantifier: Quantifier, request: RunRequest, *, run_digest: str, model_digest: str, began: datetime.datetime, lanes: int
) -> dict[str, Any]:
    """What run.json says from the first moment on."""
    model = quantifier.shared.folds[0].model
    return {
        "format": run_folder.FORMAT,
        "status": "running",
        "digest": run_digest,
        "command": request.command,
        "started": began.isoformat(timespec="seconds"),
        "versions": _versions(),
        "device": backend_name(),
        "devices": jax.local_device_count(),
        "lanes": lanes,
        "units": "nats",
        "method": "adversarial-model search (QUAM-SM)",
        "setting": request.config.setting,
        "config": to_dict(request.config),
        "seed": request.config.seed,
        "model": {
            "path": request.model_name,
            "digest": model_digest,
            "sha256": _sha256_of([fold.model for fold in quantifier.shared.folds]),
            "architecture": model.network.architecture,
            "classes": quantifier.shared.coding.classes,
            "parameters": model.parameter_count,
            "folds": len(quantifier.shared.folds),
        },
        "coding": coding_record(quantifier.shared.coding),
        "preprocessing": quantifier.preparation,
        "patches": quantifier.patches,
        "fit_cases": quantifier.known.names,
        "fit": quantifier.own_fit.to_dict(),
        "fit_sha256": list(quantifier.known.hashes),
        "notes": list(
            dict.fromkeys(
                [*model.manifest.get("notes", ()), *_meant(quantifier, request), *quantifier.notes, *quantifier.found.notes]
            )
        ),
        "unused": list(quantifier.found.unused),
        "masks": dict(quantifier.found.masks),
        "calibration": None if request.calibration is None else request.calibration.to_dict(),
        "cases": [c.name for c in quantifier.cases],
        "controls": {
            "boundary": f"Gaussian of the distance to the reference contour, sigma {BOUNDARY_SIGMA}",
            "softmax": "entropy of the given network's prediction",
        },
    }


def _meant(quantifier: Quantifier, request: RunRequest) -> list[str]:
    """What the channels of a file were taken for, which nobody was told at a conversion."""
    known = not isinstance(request.model, Path) or request.model.is_dir()  # somebody was told at a conversion
    said = "" if known else describe_outputs(quantifier.shared.folds[0].model)
    return [said] if said else []


def _sha256_of(models: Sequence[SegmentationModel]) -> str | list[str] | None:
    """Of the file that the weights came from, or of every fold's; None where no file is known, as of a model trained here."""
    known = [source["sha256"] for model in models if "sha256" in (source := model.manifest.get("source") or {})]
    return known if len(known) > 1 else known[0] if known else None


def _versions() -> dict[str, str]:
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "nibabel")
    return {
        "quam_jax": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def describe_memory(config: Config) -> dict[str, Any]:
    """The budget of this process in bytes, what was chosen for it with the bytes that it was to take, and the peak so far."""
    total, base, asked = budget(bytes_in(config.execution.memory))[:3]
    made = plans_made()[:PLANS]
    total = max(total, *(plan.budget.total for plan in made if plan.budget is not None), 0)  # a share grows with what is held
    plans = [
        {"chosen": str(plan), "predicted": plan.predicted, **({} if plan.choice is None else plan.choice.told())} for plan in made
    ]
    return {"budget": total, "asked": asked, "before": base, "plans": plans, "peak": peak_memory()}


def announce(out: Path, info: dict[str, Any], *, alone: bool) -> dict[str, Any]:
    """Write run.json, unless a process that does another part of this run has done so; returns what stands there."""
    stored = read_json(out / "run.json")
    if alone or any(stored.get(key) != info[key] for key in ("status", "digest", "cases")):
        write_json(out / "run.json", info)
        return info
    return {**info, **{key: stored[key] for key in ("started", "command") if key in stored}}
