"""A run from Python: what `quam-jax run` does, with a model in memory or a path."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import Config
from ..data.mask_settings import MaskSettings
from ..data.preprocess import Preprocessing
from ..models.model import SegmentationModel
from .request import RunRequest, RunResult
from .run import Progress
from .run import run as run_request


def run(
    model: SegmentationModel | str | Path,
    images: str | Path,
    out: str | Path,
    *,
    fit_images: str | Path,
    fit_masks: str | Path,
    masks: str | Path | None = None,
    config: Config | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    mask_settings: MaskSettings | None = None,
    only: Sequence[str] = (),
    overwrite: bool = False,
    strict: bool = False,
    progress: Progress = lambda *_: None,
) -> RunResult:
    """Quantify every image of a folder and write the run folder, as `quam-jax run` does.

    Args:
        model: A model in memory (`wrap`, `from_torch`, `load_model`), or the path of one.
        images: Folder, file or glob of images.
        out: Folder of the run: maps, tables and `report.html`. An interrupted run goes on there when the same call is made
            again, with the same network.
        fit_images: Known images that an adversarial model must still explain.
        fit_masks: Their masks.
        masks: Masks of one or several raters, only needed to score the maps.
        config: Every setting; without it the defaults.
        preprocessing: How images are prepared, in place of what the model's manifest says.
        mask_settings: What masks hold, where it is not plain.
        only: Names of the cases to take; all where it is empty.
        overwrite: Replace another run in that folder.
        strict: Refuse where the network does not explain its own fit data.
        progress: Called with the name of a case, how many are done and how many there are.

    Returns:
        A row a case, the failures with their reasons, the summary, and where the report is.

    Raises:
        ValueError: With one line, before anything is written, for a model, files or settings that cannot be used.
        OSError: Where the folder cannot be written to.
    """
    if not isinstance(model, SegmentationModel):
        model = Path(model)
    if isinstance(preprocessing, Mapping):
        preprocessing = Preprocessing.from_dict(dict(preprocessing))
    request = RunRequest(
        model,
        Path(images),
        Path(out),
        Path(fit_images),
        Path(fit_masks),
        masks=None if masks is None else Path(masks),
        config=config or Config(),
        preprocessing=preprocessing,
        overwrite=overwrite,
        only=tuple(only),
        strict=strict,
        mask_settings=mask_settings or MaskSettings(),
        command="quam_jax.run",
    )
    return run_request(request, progress=progress)
