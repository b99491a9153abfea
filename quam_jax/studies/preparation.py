"""From the request of a study to its networks, methods and cases, once no two parts of the data overlap."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..baselines.method import Method, MethodOptions, Subject
from ..config import load_config
from ..data.notes import gathered
from ..models.description import model_digest, preprocessing_of
from ..models.loading import load_model
from ..models.model import SegmentationModel
from ..models.outputs import coding_of
from .cases import StudyCase, parse_dataset, read_cases
from .methods import methods
from .request import StudyRequest
from .splits import check_disjoint, take_evenly
from .study import StudyNetwork


class StudyParts(NamedTuple):
    """What a study works with: its networks, its methods by name, its cases, and notes on their files."""

    networks: list[StudyNetwork]
    methods: dict[str, Method]
    validation: list[StudyCase]
    test: list[StudyCase]
    notes: list[str]


def prepare_study(
    request: StudyRequest, *, dataset: str | None = None, limit: int = 0, configs: Mapping[str, str | Path] | None = None
) -> StudyParts:
    """Load the networks and read the cases; `dataset` names the test cases, of which `limit` are used (0: all).

    ValueError for networks that differ in classes or preprocessing, parts that overlap, validation or test cases with fewer than
    two raters, and methods that are unknown or lack the networks or methods that they need.
    """
    paths = list(request.models)
    if len(paths) == 1 and "{seed}" in paths[0]:
        paths = [paths[0].format(seed=n) for n in request.seeds]
    models = [load_model(path) for path in paths]
    parts = _read_parts(request, models, paths, dataset=dataset, limit=limit)
    table = methods(
        inject_dropout=request.inject_dropout, configs={name: load_config(path) for name, path in (configs or {}).items()}
    )
    others = _trained_networks(request, table)
    names = _choose_methods(request, table, models, others)
    networks = []
    for place, (path, model) in enumerate(zip(paths, models, strict=True)):
        seed = request.seeds[min(place, len(request.seeds) - 1)]
        trained = {name: load_model(other.format(seed=seed)) for name, other in others.items()}
        subject = Subject(model, parts["fit"], parts["validation"], models, trained, seed, {})
        networks.append(StudyNetwork(Path(path).name, subject, model_digest(model)))
    if len({n.name for n in networks}) < len(networks):
        networks = [n._replace(name=f"{n.name}#{place}") for place, n in enumerate(networks)]
    read = [case for cases in parts.values() for case in cases]
    notes = gathered([note for case in read for note in case.notes], [case.identity.name for case in read])
    return StudyParts(networks, {n: table[n] for n in names}, parts["validation"], parts.get("test", []), notes)


def _read_parts(
    request: StudyRequest, models: Sequence[SegmentationModel], paths: Sequence[str], *, dataset: str | None, limit: int
) -> dict[str, list[StudyCase]]:
    preprocessing, classes = preprocessing_of(models[0]), models[0].network.classes
    for path, model in zip(paths, models, strict=True):
        if coding_of(model).channel_regions is not None:
            raise ValueError(f"{path}: expected a network of classes of which a pixel has one, got one of independent channels")
        if preprocessing_of(model) != preprocessing or model.network.classes != classes:
            raise ValueError(f"{path}: expected the classes and the preprocessing of {paths[0]}")
    parts = {}
    for name, text, most in (
        ("fit", request.fit, 0),
        ("validation", request.validation, request.limit_validation),
        ("test", dataset, limit),
        ("train", request.train, 0),
    ):
        if text:
            parts[name] = read_cases(
                take_evenly(parse_dataset(text), most or None),
                preprocessing=preprocessing,
                classes=classes,
                patient=request.patient,
                least_raters=2 if name in ("validation", "test") else 1,
                mask_settings=request.mask_settings,
                where=text,
            )
    check_disjoint({name: [case.identity for case in cases] for name, cases in parts.items()})
    return parts


def _trained_networks(request: StudyRequest, table: Mapping[str, Method]) -> dict[str, str]:
    """The paths of networks of another kind, by the method that needs them."""
    others = dict(text.split("=", 1) for text in request.trained if "=" in text)
    if len(others) < len(request.trained) or any(n not in table or not table[n].trained for n in others):
        known = ", ".join(n for n, method in table.items() if method.trained)
        raise ValueError(f"--trained: expected NAME=MODEL with one of {known}, got {', '.join(request.trained)}")
    return others


def _choose_methods(
    request: StudyRequest, table: Mapping[str, Method], models: Sequence[SegmentationModel], others: Mapping[str, str]
) -> list[str]:
    names = list(request.methods or table)
    unknown = [n for n in names if n not in table]
    if unknown:
        raise ValueError(f"methods: expected some of {', '.join(table)}, got {unknown[0]!r}")
    if not request.methods:  # what these networks cannot serve is left out only where nobody asked for it
        options = MethodOptions(request.inject_dropout)
        names = [
            n
            for n in names
            if (n in others or not table[n].trained)
            and (len(models) > 1 or not table[n].ensemble)
            and all(table[n].serves(model, options) for model in models)
        ]
    for name in names:
        if table[name].trained and name not in others:
            raise ValueError(f"--trained: expected {name}=MODEL for the method {name}, got none")
        missing = [part for part in table[name].parts if part not in names]
        if missing:
            raise ValueError(f"methods: expected {', '.join(table[name].parts)} beside {name}, got no {missing[0]}")
    return names
