"""What a study is asked to do: its networks, the parts of its data, and what is computed on them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..data.mask_settings import MaskSettings


@dataclass(frozen=True)
class StudyRequest:
    """The networks of a study and the parts of its data, each LAYOUT:ROOT[,key=value...] (cases.parse_dataset).

    `models` are paths, or one path with {seed} in it; the n-th network takes the n-th of `seeds`, or the last. `trained` holds
    NAME=MODEL for methods with a network of their own kind, which may hold {seed} too. `methods` are names, all that the
    networks can serve where there are none. `train` only serves to check that no other part shares its cases; `patient` is the
    regular expression that finds the patient in a case name. `limit_validation` cases are used, evenly spread, all for 0.
    `mask_settings` say what masks hold.
    """

    models: tuple[str, ...]
    validation: str
    fit: str
    train: str | None = None
    seeds: tuple[int, ...] = (0,)
    trained: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    patient: str | None = None
    inject_dropout: float | None = None
    score: str = "total/pcc"
    limit_validation: int = 0
    mask_settings: MaskSettings = MaskSettings()


@dataclass(frozen=True)
class BenchmarkRequest:
    """Every method of a study on the cases of `dataset`, with tables and pictures in `out`.

    `configs` adds a row by name, the search with the settings of a YAML file. `shifts` are KIND:STRENGTH, under which
    `shift_methods` run too (all where there are none). `baseline` is what every method is compared with. `limit` test cases are
    used, evenly spread, all for 0.
    """

    study: StudyRequest
    dataset: str
    out: Path
    configs: Mapping[str, str | Path] = field(default_factory=dict)
    shifts: tuple[str, ...] = ()
    shift_methods: tuple[str, ...] = ()
    limit: int = 0
    baseline: str = "softmax"
    command: str = ""


@dataclass(frozen=True)
class TuneRequest:
    """Settings to choose for the networks of a study, with the curves that justify them in `out`.

    `grid` lists values by the name of a setting of the search; any of them replaces the built-in grid of `quam_tuned`.
    """

    study: StudyRequest
    out: Path
    grid: Mapping[str, tuple[int | float | str, ...]] = field(default_factory=dict)
