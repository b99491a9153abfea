"""Where could a trained segmentation network as well have seen something else? Adversarial-model search in JAX.

    model = quam_jax.load_model("net.pth")
    fit = quam_jax.fit_data(model, images, labels)
    maps = quam_jax.quantify(model, image, fit)        # .total, .aleatoric, .epistemic in nats
    row = quam_jax.evaluate(maps.maps, raters, probabilities=maps.reference, segmentation=maps.segmentation)

Names are imported on first use, so that `import quam_jax` and the command line's help stay fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .case import quantify as quantify
    from .checkpoint import save_model as save_model
    from .config import Config as Config
    from .config import SearchConfig as SearchConfig
    from .data.preprocess import Preprocessing as Preprocessing
    from .evaluation.evaluate import evaluate as evaluate
    from .loading import load_model as load_model
    from .model import Network as Network
    from .model import SegmentationModel as SegmentationModel
    from .predict import fit_data as fit_data

__version__ = "0.1.0"

_PLACES = {
    "save_model": "checkpoint", "Config": "config", "SearchConfig": "config", "Preprocessing": "data.preprocess",
    "evaluate": "evaluation.evaluate", "load_model": "loading", "Network": "model", "SegmentationModel": "model",
    "fit_data": "predict", "quantify": "case",
}

__all__ = [*_PLACES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'quam_jax' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
    globals()[name] = value
    return value
