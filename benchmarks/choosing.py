"""What targets, spaces and solvers give on the same image, and what each costs: the pictures and the table of docs/choosing.md.

Claim: none. `python -m benchmarks.choosing` searches one shipped image in every choice, prints a row a choice, and writes
benchmarks/results/choosing.json, docs/pictures/choosing_epistemic.png, docs/pictures/choosing_fragility.png and the table in
docs/choosing.md. Full networks are searched for fewer pixels and larger regions, because they cost seconds each.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .record import ROOT, markdown_table, put, write_result

PICTURES = ROOT / "docs" / "pictures"
CASE = "B07"
PATIENCE = 40.0  # processor seconds; what takes longer is not searched a second time, and its time includes compilation


class Choice(NamedTuple):
    """One panel: what is asked, what moves, and the settings that differ from the defaults."""

    target: str
    space: str
    asked: str
    settings: dict[str, Any]

    @property
    def solver(self) -> str:
        return self.settings.get("solver", "penalty")


SLACK = 0.2  # relative
# Learning rates: the largest of a few at which most iterates of this network stay feasible; the fewer weights, the larger.
CHOICES = [
    Choice("mask", "full", "dilated, eroded", {"learning_rate": 1e-4}),
    Choice("mask", "last_block", "dilated, eroded", {"learning_rate": 1e-3}),
    Choice("mask", "head", "dilated, eroded", {"learning_rate": 3e-2}),
    Choice("region", "full", "tiles of 48", {"region_size": 48, "learning_rate": 1e-4}),
    Choice("region", "last_block", "tiles of 16", {"region_size": 16, "learning_rate": 1e-3}),
    Choice("region", "head", "super-pixels of 8", {"regions": "superpixels", "region_size": 8, "learning_rate": 3e-2}),
    Choice(
        "pixel", "full", "a stratified sample", {"pixels": "stratified", "pixel_count": 24, "members": 1, "learning_rate": 1e-4}
    ),
    Choice("pixel", "last_block", "boundary band of 3", {"pixels": "band", "band_width": 3, "members": 1, "learning_rate": 1e-3}),
    Choice("pixel", "head", "all", {"members": 1, "learning_rate": 3e-2, "steps": 20}),
    Choice("pixel", "head", "all", {"members": 1, "solver": "line_search"}),
]


class Result(NamedTuple):
    """One choice with what came of it."""

    choice: Choice
    quantified: Any
    row: dict[str, Any]


def search_case(choice: Choice, known: Any, image: np.ndarray, entropy: np.ndarray) -> Result:
    """Search the image twice, unless it takes long; the second time, without compilation, is the time of the row."""
    from quam_jax.case.audit import models_held
    from quam_jax.case.quantify import quantify_images
    from quam_jax.case.shared import whole_image_model
    from quam_jax.config import Config, change

    config = change(Config(), {"target": choice.target, "space": choice.space, "slack": SLACK, **choice.settings})
    shared = whole_image_model(known.model, known.fit, config.search)
    times: list[tuple[float, float]] = []
    while len(times) < 2 and (not times or times[0][1] < PATIENCE):
        start, start_work = time.perf_counter(), time.process_time()
        (quantified,) = quantify_images(shared, [image], config=config)
        times.append((time.perf_counter() - start, time.process_time() - start_work))
    seconds, work = times[-1]
    held, searched = models_held(quantified.audit)
    asked = asked_pixels(quantified)
    agreement = np.corrcoef(quantified.total[asked], entropy[asked])[0, 1]
    flipped = quantified.adversarial != quantified.segmentation
    return Result(
        choice,
        quantified,
        {
            "target": choice.target,
            "asked": choice.asked,
            "space": choice.space,
            "solver": choice.solver,
            "members": config.search.members,
            "steps": 1 if choice.solver == "line_search" else config.search.steps,
            "models": searched,
            "seconds": seconds,
            "processor_seconds": work,
            "compiled_before": len(times) > 1,
            "processor_seconds_a_model": work / searched,
            "models_held": held / searched,
            "pixels_asked": int(asked.sum()),
            "pixels_changed": float(flipped.any(0)[asked].mean()),
            "pcc_total_asked": float(agreement),
        },
    )


def asked_pixels(quantified: Any) -> np.ndarray:
    """Where some target asked."""
    steps = quantified.fragility.get("steps")
    return np.ones(quantified.segmentation.shape, bool) if steps is None else ~np.isnan(steps)


def _panel(axes: Any, values: np.ndarray, title: str, *, unit: str, colours: str = "magma") -> None:
    """A map on its own scale, from 0 to the largest finite value, which the title names; grey where nobody asked."""
    from matplotlib import colormaps

    finite = values[np.isfinite(values)]
    top = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    palette = colormaps[colours].with_extremes(bad="0.75", over="white")
    shown = np.where(np.isposinf(values), 2 * top, values)  # asked in vain: white
    axes.imshow(np.ma.masked_invalid(shown), cmap=palette, vmin=0, vmax=top, interpolation="nearest")
    axes.set_title(f"{title}\n0 to {top:.2g} {unit}".rstrip(), fontsize=8)


def _figure(rows: int, columns: int, *, height: float = 2.25) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.3 * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for one in axes.ravel():
        one.set_axis_off()
    return figure, axes


def draw_epistemic(results: list[Result], picture: np.ndarray, raters: np.ndarray, entropy: np.ndarray) -> None:
    """Rows of targets, columns of spaces; the image, the network's own entropy and the raters' entropy beside them."""
    figure, axes = _figure(3, 5)
    first = results[0].quantified
    axes[0, 0].imshow(picture, cmap="gray")
    for mask in raters:
        axes[0, 0].contour(mask, [0.5], colors="tab:orange", linewidths=0.4)
    axes[0, 0].contour(first.segmentation, [0.5], colors="tab:cyan", linewidths=0.9)
    axes[0, 0].set_title("image, network (blue),\nraters (orange)", fontsize=8)
    _panel(axes[1, 0], first.softmax, "entropy of the network", unit="nats")
    _panel(axes[2, 0], entropy, "entropy of the raters' mean", unit="nats")
    for result in results:
        choice = result.choice
        column = ("full", "last_block", "head").index(choice.space) + 1 + (choice.solver == "line_search")
        values = np.where(asked_pixels(result.quantified), result.quantified.epistemic, np.nan)
        title = f"{choice.target}, {choice.space.replace('_', ' ')}"
        _panel(
            axes[("mask", "region", "pixel").index(choice.target), column],
            values,
            title + (", line search" if choice.solver == "line_search" else f": {choice.asked}"),
            unit="nats",
        )
    figure.savefig(PICTURES / "choosing_epistemic.png", dpi=110)


def draw_fragility(results: list[Result]) -> None:
    """What a flip takes, where there is more than one target."""
    wanted = [
        ("region", "head", "share", "part of a region that flips", ""),
        ("pixel", "last_block", "steps", "steps until a pixel flips", "steps"),
        ("pixel", "head", "steps", "steps until a pixel flips", "steps"),
        ("pixel", "head", "slack", "slack of the flip", "nats"),
    ]
    figure, axes = _figure(1, len(wanted), height=2.6)
    for one, (target, space, name, title, unit) in zip(axes[0], wanted, strict=True):
        result = next(r for r in results if (r.choice.target, r.choice.space) == (target, space))
        _panel(
            one, result.quantified.fragility[name], f"{target}, {space.replace('_', ' ')}:\n{title}", unit=unit, colours="viridis"
        )
        one.set_axis_on()  # a frame, because white means something here
        one.set(xticks=[], yticks=[])
    figure.savefig(PICTURES / "choosing_fragility.png", dpi=110)


def _number(value: float) -> str:
    """Two figures, without an exponent."""
    return f"{float(f'{value:.2g}'):.10g}"


def table(result: dict[str, Any]) -> str:
    """The rows of the result as a Markdown table."""
    header = [
        "target",
        "asked",
        "space",
        "solver",
        "models x steps",
        "pixels asked",
        "processor s",
        "ms a model",
        "models held",
        "pixels changed",
        "PCC",
    ]
    rows = [
        [
            r["target"],
            r["asked"],
            f"`{r['space']}`",
            r["solver"].replace("_", " "),
            f"{r['models']} x {r['steps']}",
            str(r["pixels_asked"]),
            _number(r["processor_seconds"]) + ("" if r["compiled_before"] else "*"),
            _number(1000 * r["processor_seconds_a_model"]),
            f"{100 * r['models_held']:.0f} %",
            f"{100 * r['pixels_changed']:.1f} %",
            f"{r['pcc_total_asked']:.2f}",
        ]
        for r in result["rows"]
    ]
    device = result["device"]
    return markdown_table(header, rows) + (
        f"\n\n`{result['command']}`, case {result['case']} ({result['shape'][0]} x {result['shape'][1]} "
        f"pixels), {device['processor']}, {device['cores']} cores, {result['date']}; * with compilation."
    )


class Known(NamedTuple):
    """The shipped network and its fit data."""

    model: Any
    fit: Any


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    import quam_jax
    from quam_jax.case.fit import read_fit_images
    from quam_jax.cli.common import start_jax
    from quam_jax.config import FitConfig, SearchConfig
    from quam_jax.data.datasets import find_cases
    from quam_jax.data.volumes import read_channels, read_labels
    from quam_jax.models.description import preprocessing_of
    from quam_jax.models.loading import load_model
    from quam_jax.models.predict import fit_data

    start_jax()
    data = Path(quam_jax.__file__).parent / "demo_data"
    model = load_model(data / "model" / "att_unet.pth", "att_unet")
    preprocessing = preprocessing_of(model)
    fit_cases = find_cases(data / "fit_images", data / "fit_masks")
    fit = read_fit_images(fit_cases, data / "fit_masks", model=model, preprocessing=preprocessing, settings=FitConfig())
    known = Known(model, fit_data(model, fit.images, fit.labels))
    case = next(c for c in find_cases(data / "images", data / "masks") if c.name == CASE)
    picture = read_channels(case.files)
    raters = np.stack([read_labels(path, classes=2, like=picture.geometry) for path in case.raters.values()])
    share = raters.mean(0)
    entropy = -sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0) for p in (share, 1 - share))
    image = preprocessing.apply(picture.array)
    results = [search_case(choice, known, image, entropy) for choice in CHOICES]
    path = write_result(
        "choosing",
        [r.row for r in results],
        case=CASE,
        shape=list(share.shape),
        settings=dataclasses.asdict(SearchConfig()) | {"slack": SLACK},
    )
    PICTURES.mkdir(parents=True, exist_ok=True)
    draw_epistemic(results, picture.array[..., 0], raters, entropy)
    draw_fragility(results)
    put("docs/choosing.md", "choosing table", table(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
