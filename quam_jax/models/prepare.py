"""A model and settings as a prepared search."""

from ..config import SearchConfig
from ..config.build import build_procedure
from ..core.searching import Prepared
from ..core.searching import prepare as prepare_search
from ..core.types import FitData
from .model import SegmentationModel


def prepare(model: SegmentationModel, fit: FitData, config: SearchConfig) -> Prepared:
    """What all cases of a model share under these settings; ValueError for settings that the network cannot serve."""
    procedure = build_procedure(config, model.network)
    return prepare_search(model.network, model.params, model.stats, fit, procedure=procedure)
