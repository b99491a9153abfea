"""Where could a trained segmentation network as well have seen something else? Adversarial-model search in JAX.

Names are imported on first use, so that `import quam_jax` and the command line's help stay fast.

Examples:
    A model, an image as the network takes it, and known data that an adversarial model must still explain:

    >>> from pathlib import Path
    >>> import numpy as np
    >>> import quam_jax
    >>> data = Path(quam_jax.__file__).parent / "demo_data"
    >>> model = quam_jax.load_model(data / "model" / "att_unet.pth", arch="att_unet")
    >>> prepare = quam_jax.preprocessing_of(model)
    >>> image = prepare.apply(quam_jax.read_image(data / "images" / "B07.png").array)
    >>> known = prepare.apply(quam_jax.read_image(data / "fit_images" / "B04.png").array)
    >>> labels = quam_jax.read_labels(data / "fit_masks" / "B04.png", classes=2, like=None)
    >>> fit = quam_jax.fit_data(model, [known], [labels])  # a whole folder: quam_jax.read_pairs

    The maps are arrays in nats on the image's own pixels. A notebook shows them as pictures. Here only the last layer moves,
    which takes a second; the default moves every weight.

    >>> settings = quam_jax.Config(search=quam_jax.SearchConfig(space="head", learning_rate=0.03))
    >>> maps = quam_jax.quantify(model, image, fit, config=settings)
    >>> maps.epistemic.shape, maps.segmentation.dtype.name
    ((101, 128), 'int32')
    >>> bool(np.allclose(maps.total, maps.aleatoric + maps.epistemic, atol=1e-5))
    True
    >>> [row.held for row in maps.audit]  # did the adversarial models keep the constraint?
    [True, True]

    Scored against the masks of eight people:

    >>> masks = sorted((data / "masks").glob("B07_*.png"))
    >>> raters = np.stack([quam_jax.read_labels(path, classes=2, like=None) for path in masks])
    >>> row = quam_jax.evaluate(maps.maps, raters, probabilities=maps.reference, segmentation=maps.segmentation)
    >>> 0.7 < row["dice_consensus"] < 0.8
    True
    >>> sorted(name for name in row if name.endswith("/pcc"))
    ['aleatoric/pcc', 'epistemic/pcc', 'softmax/pcc', 'total/pcc']
"""

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from .case.quantified import Quantified as Quantified
    from .case.quantify import quantify as quantify
    from .config import Config as Config
    from .config import ExecutionConfig as ExecutionConfig
    from .config import FitConfig as FitConfig
    from .config import OutputConfig as OutputConfig
    from .config import PatchConfig as PatchConfig
    from .config import SampleConfig as SampleConfig
    from .config import SearchConfig as SearchConfig
    from .config import TargetConfig as TargetConfig
    from .core.layout.choose import Layout as Layout
    from .core.searching import search as search
    from .core.setup import Procedure as Procedure
    from .core.space import Space as Space
    from .core.types import FitData as FitData
    from .core.types import Samples as Samples
    from .core.types import Targets as Targets
    from .core.types import Trajectory as Trajectory
    from .data.preprocess import Preprocessing as Preprocessing
    from .data.volumes import read_image as read_image
    from .data.volumes import read_labels as read_labels
    from .evaluation.evaluate import evaluate as evaluate
    from .evaluation.scores import Scores as Scores
    from .models.description import preprocessing_of as preprocessing_of
    from .models.folder import save_model as save_model
    from .models.kept import read_kept_models as read_kept_models
    from .models.loading import from_torch as from_torch
    from .models.loading import load_model as load_model
    from .models.model import Network as Network
    from .models.model import SegmentationModel as SegmentationModel
    from .models.outputs import declare_outputs as declare_outputs
    from .models.predict import fit_data as fit_data
    from .models.wrap import wrap as wrap
    from .results.review import rank_run as rank_run
    from .runs.from_python import run as run
    from .runs.known import read_pairs as read_pairs


_PLACES = {
    "save_model": "models.folder",
    "Config": "config",
    "SearchConfig": "config",
    "TargetConfig": "config",
    "SampleConfig": "config",
    "PatchConfig": "config",
    "FitConfig": "config",
    "ExecutionConfig": "config",
    "OutputConfig": "config",
    "Preprocessing": "data.preprocess",
    "evaluate": "evaluation.evaluate",
    "Scores": "evaluation.scores",
    "load_model": "models.loading",
    "read_kept_models": "models.kept",
    "from_torch": "models.loading",
    "wrap": "models.wrap",
    "Network": "models.model",
    "SegmentationModel": "models.model",
    "declare_outputs": "models.outputs",
    "fit_data": "models.predict",
    "quantify": "case.quantify",
    "Quantified": "case.quantified",
    "read_image": "data.volumes",
    "read_labels": "data.volumes",
    "rank_run": "results.review",
    "read_pairs": "runs.known",
    "run": "runs.from_python",
    "preprocessing_of": "models.description",
    "FitData": "core.types",
    "Targets": "core.types",
    "Trajectory": "core.types",
    "Samples": "core.types",
    "Space": "core.space",
    "Procedure": "core.setup",
    "Layout": "core.layout.choose",
    "search": "core.searching",
}

__all__ = [*_PLACES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'quam_jax' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
