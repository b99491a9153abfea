"""Settings of a run: which there are (schema), and their way to and from files (files)."""

from .files import change, dump_config, fields_of, from_dict, load_config, to_dict
from .neutral import NEUTRAL, ExecutionConfig, OutputConfig
from .sampling import SampleConfig
from .schema import (
    PRESETS,
    REGION_KINDS,
    WANTED_MASKS,
    Config,
    FitConfig,
    PatchConfig,
    SearchConfig,
    TargetConfig,
)
from .settings import require, setting

__all__ = [
    "NEUTRAL",
    "PRESETS",
    "REGION_KINDS",
    "WANTED_MASKS",
    "Config",
    "ExecutionConfig",
    "FitConfig",
    "OutputConfig",
    "PatchConfig",
    "SampleConfig",
    "SearchConfig",
    "TargetConfig",
    "change",
    "dump_config",
    "fields_of",
    "from_dict",
    "load_config",
    "require",
    "setting",
    "to_dict",
]
