"""Running a study: every (network, method, condition, case) that is not done yet, each cached in a file of its own.

A cached row is named by the digest of everything it depends on (package version, network, method, settings, fit cases, case,
condition, seed), so an interrupted study goes on, and a changed one computes what changed. Case order does not matter: the key
of a case comes from its own digest.
"""

import functools
import itertools
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from ..baselines.method import Method, Outcome, Settings, Subject
from ..data.records import digest, read_json, write_json
from ..evaluation.calibration import reliability, top_label
from ..evaluation.evaluate import evaluate
from ..evaluation.overlap import dice
from ..evaluation.ranking import count_errors
from ..evaluation.reference_maps import BOUNDARY_SIGMA, boundary_map, consensus, contour_distance, entropy_map, rater_mean
from ..evaluation.review_zone import remember
from ..models.description import model_digest
from ..models.predict import predict
from ..version import __version__
from .cases import StudyCase
from .ceiling import pcc_halves, rater_figures
from .methods import memo_key
from .shifts import shifted

COVERAGE = np.linspace(0, 1, 41)
BINS = 15


class StudyNetwork(NamedTuple):
    """A network of the study with the digest of its weights."""

    name: str
    subject: Subject
    digest: str


class Cell(NamedTuple):
    """One row of results: which network, method, condition and case, its figures, and its curves."""

    network: str
    method: str
    condition: str
    case: str
    figures: dict[str, float]
    curves: dict[str, list[float]]


def measure(outcome: Outcome, case: StudyCase, *, reference: Float[np.ndarray, "*space c"]) -> tuple[dict, dict]:
    """Figures and curves of one outcome against the raters of its case.

    The segmentation that is judged (Dice, wrong pixels) is the given network's for every method, so that maps are compared
    on the same errors; `dice_mean` is the Dice of the method's own mean prediction. Probabilities and samples are the
    method's own.
    """
    classes = reference.shape[-1]
    labels = reference.argmax(-1)
    spacing = case.spacing
    probabilities = reference if outcome.probabilities is None else outcome.probabilities
    control = boundary_map(contour_distance(labels, spacing=spacing), sigma=BOUNDARY_SIGMA)
    row = evaluate(
        {**outcome.maps, "boundary": control},
        case.raters,
        probabilities=probabilities,
        segmentation=labels,
        samples=outcome.samples,
        sample_weights=outcome.weights,
        spacing=spacing,
    )
    figures = {n: float(v) for n, v in row.items() if not isinstance(v, str) and not n.startswith("boundary/")}
    mean = rater_mean(case.raters, classes=classes)
    truth = consensus(case.raters, classes=classes, ties="smallest")
    rated = truth >= 0
    if outcome.probabilities is None:  # a map without probabilities has no calibration and no samples of its own
        figures = {n: v for n, v in figures.items() if n.startswith("total/") or n.startswith("dice")}
    else:
        own = probabilities.argmax(-1)
        figures["dice_mean"] = (
            float(np.nanmean([dice((own == k) & rated, truth == k) for k in range(1, classes)]))
            if ((truth > 0) | (own > 0) & rated).any()
            else float("nan")
        )
    figures["total/pcc_halves"] = pcc_halves(outcome.maps["total"], case.raters, classes=classes)
    foreground = max(int((labels > 0).sum()), 1)
    for name, values in outcome.maps.items():
        figures[f"{name}/mean"] = float(np.mean(values))
        figures[f"{name}/sum_over_foreground"] = float(np.sum(values) / foreground)
    curves = {"risk": risk_curve(outcome.maps["total"][rated], (labels != truth)[rated]).tolist()}
    if (kept := remember(outcome.maps["total"][rated], (labels != truth)[rated])) is not None:
        curves |= {"review_wrong": kept.wrong.tolist(), "review_levels": kept.levels.tolist()}
    if outcome.probabilities is not None:
        confidence, label = top_label(probabilities[rated])
        correct = np.take_along_axis(mean[rated], label[..., None], -1)[..., 0]
        table = reliability(confidence, correct[None], bins=BINS)
        curves |= {
            "bin_pixels": table.pixels.tolist(),
            "bin_confidence": np.nan_to_num(table.pixels * table.confidence).tolist(),
            "bin_correct": np.nan_to_num(table.pixels * table.accuracy[0]).tolist(),
        }
    return figures, curves


def risk_curve(uncertainty: Float[np.ndarray, "*space"], wrong: Bool[np.ndarray, "*space"]) -> Float[np.ndarray, " t"]:
    """Share of all pixels that are wrong and accepted when the given share of most certain pixels is accepted.

    This is the generalised risk of AUGRC (arXiv 2407.01032), joined by straight lines, at 41 coverages.
    """
    counts = count_errors(uncertainty, wrong)
    size = counts.right + counts.wrong
    coverage = np.concatenate([[0], np.cumsum(size)]) / size.sum()
    risk = np.concatenate([[0], np.cumsum(counts.wrong)]) / size.sum()
    return np.interp(COVERAGE, coverage, risk)


def run_case(
    network: StudyNetwork,
    run: Callable[..., Outcome] | None,
    case: StudyCase,
    *,
    condition: str,
    memo: tuple[str, Settings] | None = None,
) -> tuple[dict[str, float], dict[str, list[float]], Outcome]:
    """A started method on one case under one condition: figures, curves and the outcome itself.

    Noise comes from the case, the condition and the seed of the network alone. Without a function the raters are judged by
    each other. `memo` is the name and settings under which the network's memo keeps the total map.
    """
    image = shifted(case.image, condition, seed=_number(case.digest, condition))
    key = jax.random.key(_number(case.digest, condition, str(network.subject.seed)))
    reference = np.asarray(predict(network.subject.model, image))
    if run is None:
        classes = reference.shape[-1]
        figures = rater_figures(case.raters, reference.argmax(-1), classes=classes)
        return figures, {}, Outcome({"total": rater_entropy(case, classes=classes)}, None, None, None, 0, 0)
    started = time.process_time()  # of all threads: what else the machine does is no cost of a method
    outcome = run(image, key)
    seconds = time.process_time() - started
    if memo is not None and network.subject.memo is not None:
        network.subject.memo[memo_key(*memo, image, key)] = outcome.maps["total"]
    figures, curves = measure(outcome, case, reference=reference)
    return figures | {"seconds": seconds, "forward": float(outcome.forward), "backward": float(outcome.backward)}, curves, outcome


def _number(*parts: str) -> int:
    return zlib.crc32(" ".join(parts).encode())


class Planned(NamedTuple):
    """A cell to come: its network, where it stands, and what computes it or reads it back; None where it is left out."""

    network: StudyNetwork
    where: Cell
    call: Callable[[], Cell] | None


def plan_cells(
    networks: Sequence[StudyNetwork],
    methods: Mapping[str, Method],
    settings: Mapping[tuple[str, str], Settings],
    cases: Sequence[StudyCase],
    *,
    conditions: Sequence[str],
    out: Path,
    keep_maps: int = 4,
    shifted_methods: Sequence[str] | None = None,
) -> Iterator[Planned]:
    """Every cell of a study, in order: `settings` holds what tuning chose by (network, method).

    The maps of the first network's first `keep_maps` cases are kept under `out/maps` for the pictures. Conditions other than
    `none` run for `shifted_methods` only, where these are given.
    """
    remember = {part for method in methods.values() for part in method.parts}
    for network in networks:
        fit_digest = digest([case.digest for case in network.subject.fit_cases])
        together = digest([model_digest(model) for model in network.subject.ensemble])
        for method in methods.values():
            chosen = dict(settings[network.name, method.name])
            depends = (
                __version__,
                network.digest,
                method.name,
                method.about,
                chosen,
                fit_digest,
                network.subject.seed,
                together if method.ensemble else model_digest(network.subject.trained[method.name]) if method.trained else "",
            )
            start = functools.cache(lambda method=method, network=network, chosen=chosen: method.start(network.subject, chosen))
            for condition, (place, case) in itertools.product(conditions, enumerate(cases)):
                where = Cell(network.name, method.name, condition, case.identity.name, {}, {})
                call = functools.partial(
                    _cell,
                    where,
                    network,
                    start,
                    case,
                    identity=digest(*depends, case.digest, condition),
                    out=out,
                    keep=network is networks[0] and condition == conditions[0] and place < keep_maps,
                    memo=(method.name, chosen) if method.name in remember else None,
                )
                left_out = condition != "none" and shifted_methods is not None and method.name not in shifted_methods
                yield Planned(network, where, None if left_out else call)


def run_study(
    planned: Iterable[Planned], *, total: int, progress: Callable[[str, int, int], None] = lambda *_: None
) -> tuple[list[Cell], dict[str, str]]:
    """All cells, computed or read back, and the reason of every one that failed, by `network/method/condition/case`.

    `progress(name, done, total)` is called first with nothing done and after each cell.
    """
    cells: list[Cell] = []
    failed: dict[str, str] = {}
    progress("", 0, total)
    before: StudyNetwork | None = None
    for done, (network, where, call) in enumerate(planned, 1):
        if before is not None and network is not before and before.subject.memo is not None:
            before.subject.memo.clear()  # its maps serve this network alone
        before = network
        if call is None:
            continue
        try:
            cells.append(call())
        except (ValueError, RuntimeError) as error:
            failed["/".join(where[:4])] = " ".join(str(error).split())
        progress(f"{network.name} {where.method} {where.case}", done, total)
    if before is not None and before.subject.memo is not None:
        before.subject.memo.clear()
    return cells, failed


def _cell(
    where: Cell,
    network: StudyNetwork,
    start: Callable[[], Callable[..., Outcome] | None],
    case: StudyCase,
    *,
    identity: str,
    out: Path,
    keep: bool,
    memo: tuple[str, Settings] | None,
) -> Cell:
    """One cell, from its file where that has this identity (and its maps, if they are to be kept, are there)."""
    path = out / "cache" / where.method / f"{identity[:32]}.json"
    picture = out / "maps" / where.method / f"{where.case}.npz"
    stored = read_json(path)
    if stored.get("digest") != identity or (keep and not picture.exists()):
        figures, curves, outcome = run_case(network, start(), case, condition=where.condition, memo=memo)
        stored = {"digest": identity, **where._asdict(), "figures": figures, "curves": curves}
        if keep:
            picture.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(picture, **{n: np.float32(v) for n, v in outcome.maps.items()})  # type: ignore[arg-type]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, stored)
    figures = {n: float("nan") if v is None else float(v) for n, v in stored["figures"].items()}
    return where._replace(figures=figures, curves=stored["curves"])


def rater_entropy(case: StudyCase, *, classes: int) -> Float[np.ndarray, "*space"]:
    """Entropy of the rater mean, the yardstick of agreement, in nats."""
    return entropy_map(rater_mean(case.raters, classes=classes))
