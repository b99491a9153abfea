"""Settings of a run: which there are (schema), and their way to and from files (files)."""

from .files import change, dump_config, fields_of, from_dict, load_config, to_dict
from .sampling import SampleConfig
from .schema import (
    PRESETS,
    REGION_KINDS,
    WANTED_MASKS,
    Config,
    ExecutionConfig,
    FitConfig,
    PatchConfig,
    SearchConfig,
    TargetConfig,
)
from .settings import require, setting

__all__ = [
    "PRESETS",
    "REGION_KINDS",
    "WANTED_MASKS",
    "Config",
    "ExecutionConfig",
    "FitConfig",
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
