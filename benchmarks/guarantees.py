"""Do guarantees hold on real cases, and how much must one look at? Networks trained here, cases that they have not seen.

`python -m benchmarks.guarantees --data DATA --out FOLDER` writes the cases, trains a network of each data set (and two more of
another seed for the ensemble), runs it, calibrates, and writes benchmarks/results/guarantees.json. What FOLDER holds already is
left alone. DATA holds `lidc_ct/lidc_ct.npz` (nodules on real CT, masks of four radiologists) and `bubil` (cells, eight masks).

Coverage: a thousand random splits; of each one half of the cases calibrates, and the others are the next ones. What they miss on
average must be no more than alpha, but for the binomial band of a thousand trials, which is wider than that of such means.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from .record import ROOT, write_result

MAIN = "from quam_jax.cli import main; main()"
SMALL = '{"features_per_stage":[8,16,32],"rank":2,"n_conv_per_stage":1,"n_conv_per_stage_decoder":1}'
SEEDS = (0, 1, 2)
ALPHAS = (0.05, 0.1, 0.2)
SPLITS = 1000
CASES = 200
TRAINED = 110
PATIENT = {"lidc_ct": r"(LIDC-IDRI-\d+)", "bubil": None}
STEPS = {"lidc_ct": 800, "bubil": 600}


class Split(NamedTuple):
    """What a calibration on one part of the cases says of one case of the other."""

    losses: dict[str, float]
    shares: dict[str, float]
    covered: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    sys.argv[1:] = ["--data", "DATA", "--out", "FOLDER"]  # as the result tells it
    rows: list[dict[str, Any]] = []
    zones: list[dict[str, Any]] = []
    times: dict[str, Any] = {}
    for name, write in (("lidc_ct", write_lidc), ("bubil", write_bubil)):
        folder = options.out / name
        if not (folder / "test").is_dir():
            write(options.data / name, folder)
        train(folder, STEPS[name])
        if not (
            folder / "run" / "summary.json"
        ).is_file():  # views are test-time augmentation, which stands beside the search here
            command(
                *("run", "--model", folder / "net0", "--images", folder / "test" / "images", "--out", folder / "run"),
                *("--masks", folder / "test" / "masks", "--fit-images", folder / "fit" / "images"),
                *("--fit-masks", folder / "fit" / "masks", "--views", "none", "--given", "sample"),
            )
        cases, seconds = evidence(folder, PATIENT[name])
        times[name] = {"cases": len(cases), "calibrate_seconds": seconds, **added(folder)}
        pictures(name, folder, cases)
        for alpha in ALPHAS:
            rows += coverage(name, cases, alpha)
            zones += sizes(name, cases, alpha)
    write_result("guarantees", rows, shown=len(rows), zones=zones, times=times, splits=SPLITS)


def write_lidc(data: Path, out: Path) -> None:
    """Nodules that all four radiologists drew; patients are dealt by the hashes of their names, one nodule of each to test."""
    stored = np.load(data / "lidc_ct.npz")
    masks = np.unpackbits(stored["masks_packed"], axis=-1)
    order = sorted(set(stored["patient_id"].tolist()), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    drawn = {patient: np.flatnonzero((stored["patient_id"] == patient) & (stored["raters_drawn"] == 4)) for patient in order}
    known = [patient for patient in order if drawn[patient].size]
    parts = [("train", n, k) for n in known[:TRAINED] for k in drawn[n]]
    parts += [("fit", n, drawn[n][0]) for n in known[:8]]
    parts += [("test", n, drawn[n][0]) for n in known[TRAINED : TRAINED + CASES]]
    for part, patient, k in parts:
        name = f"{patient}-{k}"
        save(out / part / "images", name, stored["images"][k])
        for rater in range(4):
            save(out / part / "masks", f"{name}_r{rater}", masks[k, rater])


def write_bubil(data: Path, out: Path) -> None:
    """Cells shrunk 12 by 12: ten to train, the other fourteen to calibrate and test."""
    from .real_cases import write_bubil as write

    write(data, out / "dealt")
    for part, sources in {"train": ("train",), "fit": ("fit",), "test": ("validation", "test")}.items():
        for source in sources:
            for file in sorted((out / "dealt" / source).rglob("*.png")):
                target = out / part / file.parent.name / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())


def save(folder: Path, name: str, array: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(folder / f"{name}.png")


def train(folder: Path, steps: int) -> None:
    """Three networks of different seeds, where they are not there yet."""
    for seed in SEEDS:
        if not (folder / f"net{seed}").is_dir():
            command(
                *("train", "--images", folder / "train" / "images", "--masks", folder / "train" / "masks"),
                *("--out", folder / f"net{seed}", "--arch", "nnunet_plain", "--arguments", SMALL),
                *("--steps", steps, "--seed", seed, "--batch-size", 8),
            )


def command(*words: object) -> None:
    """One command of ours, quietly."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = ("-c", MAIN, "-q", *map(str, words))
    subprocess.run([sys.executable, *words], check=True, env=environment, stdout=subprocess.DEVNULL)


def evidence(folder: Path, patient: str | None) -> tuple[list[Any], float]:
    """What every case says, with the maps of test-time augmentation and of the ensemble beside the run's; and seconds."""
    import jax

    from quam_jax.baselines.ensemble import ensemble
    from quam_jax.baselines.method import outcome_of
    from quam_jax.baselines.tta import tta
    from quam_jax.data.mask_settings import MaskSettings
    from quam_jax.data.volumes import read_image
    from quam_jax.guarantees.evidence import gather
    from quam_jax.models.description import preprocessing_of
    from quam_jax.models.loading import load_models
    from quam_jax.results.calibrate_run import CalibrateRequest, calibrate_run
    from quam_jax.results.run_cases import read_run_cases

    began = time.perf_counter()
    calibrate_run(CalibrateRequest(folder / "run", folder / "guarantee.json", patient=patient))
    seconds = time.perf_counter() - began
    models = [load_models(folder / f"net{seed}")[0] for seed in SEEDS]
    found = read_run_cases(folder / "run", None, MaskSettings())
    cases = []
    for name, record in found.records.items():
        own = found.findings(name).for_guarantee(found.coding, record["dice_scores"], record["structures"]["pixels"])
        image = preprocessing_of(models[0]).apply(read_image(record["image"]["path"]).array)
        others = {"tta": tta(models[0], image, key=jax.random.key(0)), "ensemble": ensemble(models, image)}
        maps = {key: outcome_of(value, own.segmentation.shape, forward=0).maps["total"] for key, value in others.items()}
        raters = np.stack(list(found.drawn(name).labels.values()))
        findings = own._replace(maps={**own.maps, **maps})
        cases.append(gather(findings, raters, name=name, sha256=record["image"]["sha256"]))
    return cases, seconds


def added(folder: Path, *, count: int = 20) -> dict[str, float]:
    """Seconds that a guarantee adds to a case of a run, its files included, and those that a case took."""
    import csv
    import tempfile

    from quam_jax.data.decoding import decode
    from quam_jax.data.mask_settings import MaskSettings
    from quam_jax.results.run_cases import read_run_cases
    from quam_jax.runs.guaranteeing import guarantee, read_calibration

    found = read_run_cases(folder / "run", None, MaskSettings())
    calibration = read_calibration(folder / "guarantee.json")
    with (folder / "run" / "timing.csv").open() as file:
        took = [float(row["seconds"]) for row in csv.DictReader(file)]
    seconds = []
    for name in list(found.records)[:count]:
        own, geometry = (
            found.findings(name),
            decode(folder / "run" / found.records[name]["outputs"]["segmentation_picture"]).geometry,
        )
        with tempfile.TemporaryDirectory() as place:
            began = time.perf_counter()
            guarantee(found.records[name], own, found.coding, calibration, Path(place), geometry)
            seconds.append(time.perf_counter() - began)
    return {"guarantee_seconds": float(np.median(seconds)), "case_seconds": float(np.median(took))}


def pictures(name: str, folder: Path, cases: Sequence[Any]) -> None:
    """The picture of the command, and three cases with what the others guarantee of them."""
    from matplotlib.figure import Figure

    from quam_jax.data.mask_settings import MaskSettings
    from quam_jax.guarantees.calibrate import calibrate
    from quam_jax.guarantees.guarantee import apply_guarantee
    from quam_jax.results.run_cases import read_run_cases

    target = ROOT / "docs" / "pictures"
    if name != "lidc_ct":
        return
    (target / f"guarantees_{name}.png").write_bytes((folder / "guarantee.png").read_bytes())
    found = read_run_cases(folder / "run", None, MaskSettings())
    own_maps = set(found.findings(cases[0].name).maps) | {"boundary"}
    plain = [case._replace(errors={key: one for key, one in case.errors.items() if key in own_maps}) for case in cases]
    plain = [case._replace(questions={key: _without(one, own_maps) for key, one in case.questions.items()}) for case in plain]
    order = sorted(plain, key=lambda case: case.dice)
    shown = [order[int(share * len(order))] for share in (0.3, 0.6, 0.9)]
    guarantee = calibrate([case for case in plain if case not in shown], alpha=0.1)
    figure = Figure((7.2, 7.4), dpi=110, layout="constrained")
    for row, case in zip(figure.subplots(3, 3), shown, strict=True):
        record = found.records[case.name]
        own = found.findings(case.name).for_guarantee(found.coding, record["dice_scores"], record["structures"]["pixels"])
        told = apply_guarantee(guarantee, own)
        image = np.asarray(Image.open(record["image"]["path"]))
        (bounds,), (structure,) = told.bounds.values(), told.figures["structures"].values()
        for axes in row:
            axes.imshow(image, cmap="gray")
            axes.set_axis_off()
        for mask in found.drawn(case.name).labels.values():
            row[0].contour(mask, [0.5], colors="#f29ac8", linewidths=0.8)
        row[0].contour(own.segmentation, [0.5], colors="#39c0ed", linewidths=1.2)
        row[1].imshow(np.ma.masked_less(told.error, 0.02), cmap="inferno", vmin=0, vmax=0.5, alpha=0.8)
        row[1].contour(told.zone, [0.5], colors="white", linewidths=0.8)
        row[2].contour(bounds, [0.5], colors="#ffb000", linewidths=1.2)
        row[2].contour(bounds, [1.5], colors="#7be07b", linewidths=1.2)
        low, high = structure["pixels"]
        titles = (
            f"raters, and the prediction:\nDice {case.dice:.2f}",
            f"rate of errors, and review zone:\n{told.figures['review_share']:.1%} of the image",
            f"outer and inner mask: {low:.0f} to {high:.0f} pixels,\nDice {told.figures['dice_lower']:.2f} or more",
        )
        for axes, title in zip(row, titles, strict=True):
            axes.set_title(title, fontsize=8)
    figure.savefig(target / f"guarantees_{name}_cases.png")


def _without(question: Any, maps: set[str]) -> Any:
    known = {*maps, "probability"}
    parts = [{key: one for key, one in part.items() if key in known} for part in (question.losses, question.levels)]
    return question._replace(losses=parts[0], levels=parts[1])


def coverage(name: str, cases: Sequence[Any], alpha: float) -> list[dict[str, Any]]:
    """A row a statement: how often, or how much, it missed over random splits, and what the theory allows."""
    from quam_jax.evaluation.conformal import binomial_band, least_cases

    count = max(len(cases) // 2, min(len(cases) - 1, least_cases(alpha)))
    if count < least_cases(alpha):
        return [{"data": name, "alpha": alpha, "statement": "none", "cases": count, "takes": least_cases(alpha)}]
    rng = np.random.default_rng(0)
    splits = []
    for _ in range(SPLITS):
        order = rng.permutation(len(cases))
        splits += split([cases[i] for i in order[:count]], [cases[i] for i in order[count:]], alpha)
    rows = []
    for kind in ("losses", "covered"):
        for statement in dict.fromkeys(key for one in splits for key in getattr(one, kind)):
            missed = [getattr(one, kind)[statement] for one in splits if statement in getattr(one, kind)]
            high = binomial_band(alpha, SPLITS)[1]
            shares = [one.shares[statement] for one in splits if statement in one.shares]
            rows.append(
                {
                    "data": name,
                    "alpha": alpha,
                    "statement": statement,
                    "cases": count,
                    "splits": SPLITS,
                    "missed": float(np.mean(missed)),
                    "allowed": high,
                    "holds": bool(np.mean(missed) <= high),
                    "looked_at": float(np.mean(shares)) if shares else float("nan"),
                }
            )
    return rows


def split(calibrating: Sequence[Any], others: Sequence[Any], alpha: float) -> list[Split]:
    """What is missed of cases by the statements of others."""
    from quam_jax.guarantees.calibrate import find_statements, outside

    found = find_statements(calibrating, alpha=alpha)
    rows = []
    for case in others:
        losses, shares, covered = {}, {}, {}
        for key, limit in found.limits.items():
            if key in case.questions:
                question = case.questions[key]
                losses[key] = question.losses[limit.map].at(limit.threshold)
                shares[key] = question.looked_at(limit.map, limit.threshold)
        for structure, (widening, _) in found.volumes.items():
            if structure in case.volumes:
                covered[f"volume:{structure}"] = float(outside(*case.volumes[structure]) > widening)
        if found.dice is not None and not np.isnan(case.dice):
            expected = float(found.dice.curve(case.scores[found.dice.score]))
            covered["dice"] = float(case.dice < expected - found.dice.below)
        rows.append(Split(losses, shares, covered))
    return rows


def sizes(name: str, cases: Sequence[Any], alpha: float) -> list[dict[str, Any]]:
    """What one looks at with each map alone, mean over random splits of the cases that were not calibrated on."""
    from quam_jax.evaluation.conformal import control_risk, least_cases

    count = max(len(cases) // 2, min(len(cases) - 1, least_cases(alpha)))
    shown = [case.questions["zone"] for case in cases if "zone" in case.questions]
    if count < least_cases(alpha) or len(shown) <= count:
        return []
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(shown)) for _ in range(100)]
    rows = []
    for key in shown[0].losses:
        parts = []
        for order in orders:
            threshold = control_risk([shown[i].losses[key] for i in order[:count]], alpha)
            parts.append(np.mean([shown[i].looked_at(key, threshold) for i in order[count:]]))
        rows.append({"data": name, "alpha": alpha, "map": key, "looked_at": float(np.mean(parts)), "sd": float(np.std(parts))})
    return sorted(rows, key=lambda row: row["looked_at"])


if __name__ == "__main__":
    main()
