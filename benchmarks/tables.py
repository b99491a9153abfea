"""The tables of README.md and docs/ from the committed results, so that no figure there is typed by hand.

`python -m benchmarks.tables` rewrites what stands between the `<!-- NAME -->` and `<!-- /NAME -->` marks; a table whose result
is not there yet, or has no rows, is left alone.
"""

import argparse
import json
import re
import typing
from collections.abc import Callable
from typing import Any

from quam_jax.config import Config, fields_of
from quam_jax.config.effects import EFFECTS
from quam_jax.networks import NETWORKS

from . import accelerator_tables, evidence, evidence_tables, guarantee_tables, run_tables, view_share
from .record import RESULTS, put
from .record import markdown_table as _markdown

PACKAGES = {"monai": "MONAI", "smp": "segmentation_models_pytorch", "torchvision": "torchvision", "transformers": "transformers"}


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def demo_table(result: dict[str, Any]) -> str:
    """Agreement of each map with the raters in every setting."""
    rows = [
        [
            r["setting"],
            r["map"],
            "–" if r["pcc"] is None else f"{r['pcc']:.3f} [{r['pcc_low']:.3f}, {r['pcc_high']:.3f}]",
            *(_figure(r[name]) for name in ("r2_pearson", "sdice_product_minmax", "partial_pcc_distance", "auroc_image")),
        ]
        for r in result["rows"]
        if r["map"] not in ("softmax", "boundary") or r["setting"] == "default"
    ]
    return (
        _markdown(
            ["setting", "map", "PCC [95 %]", "R² (Pearson)", "soft Dice", "PCC beyond the contour", "AUROC of errors"], rows
        )
        + f"\n\n{result['rows'][0]['cases']} cases; `{result['command']}`, {result['date']}."
    )


def networks_table(result: dict[str, Any]) -> str:
    """What converts, and the largest difference of the logits from PyTorch's relative to their range."""
    rows = []
    for row in result["rows"]:
        architecture, _, rank = row["name"].partition(" ")
        rows.append(
            [
                f"{NETWORKS[architecture].title} {rank.upper()}".strip(),
                f"`{architecture}`",
                str(row["checkpoints"]),
                f"{row['max_relative_difference']:.1e}",
            ]
        )
    return _markdown(["network", "`--arch`", "checkpoints", "largest difference"], rows) + f"\n\n`{result['command']}`"


def peers_table(result: dict[str, Any]) -> str:
    """Imported networks of other packages: the largest difference of logits and of a loss's gradient from PyTorch's."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in result["rows"]:
        package, name, *_ = row["name"].split()
        found.setdefault((package, name), []).append(row)
    rows = []
    for (package, name), group in found.items():
        ranks = [r["name"].split()[2].upper() for r in group if len(r["name"].split()) > 2]
        rows.append(
            [
                PACKAGES[package],
                f"{name} {', '.join(ranks)}".strip(),
                group[0]["free"],
                f"{max(r['max_relative_difference'] for r in group):.1e}",
                f"{max(r['gradient_relative_difference'] for r in group):.1e}",
            ]
        )
    versions = ", ".join(f"{name} {version}" for name, version in result["packages"].items())
    return _markdown(["package", "network", "left free", "logits", "gradient"], rows) + f"\n\n`{result['command']}` ({versions})"


def forward_table(result: dict[str, Any]) -> str:
    """Seconds beside PyTorch's, and of the imported graph beside our own network."""
    rows = [
        [
            f"`{r['name']}`",
            "x".join(map(str, r["images"])),
            f"{r['forward_seconds']:.3f}",
            f"{r['forward_ratio']:.2f}",
            f"{r['both_seconds']:.3f}",
            f"{r['both_ratio']:.2f}",
            f"{r['both_imported_ratio']:.2f}",
            f"{r['compile_seconds']:.0f}",
            r.get("reason", ""),
        ]
        for r in result["rows"]
    ]
    header = ["network", "images", "forward s", "/ PyTorch", "+ backward s", "/ PyTorch", "imported / own", "compile s", "why"]
    return _markdown(header, rows) + (
        f"\n\n`{result['command']}`, {result['device']['processor']}, {result['threads']} threads, "
        f"{result['precision']}, median of {result['repeats']}, {result['date']}."
    )


def search_table(result: dict[str, Any]) -> str:
    """A search against PyTorch: seconds, and how many times as fast as the loop or the published procedure, and the best."""
    rows = [
        [
            r["name"],
            f"{r['seconds']:.2f}",
            f"{r['ratio_published']:.2f}",
            f"{r['ratio_best']:.2f}",
            f"{100 * r['floor_fraction']:.0f} %",
            f"{r['peak_bytes'] / 1e6:.0f}",
        ]
        for r in result["rows"]
    ]
    device = result["device"]
    return _markdown(
        ["search", "seconds", "x published or loop", "x best PyTorch", "of a large matrix product's rate", "MB"], rows
    ) + (
        f"\n\n`{result['command']}`, {device['processor']}, {device['cores']} cores, JAX "
        f"{result['versions']['jax']}, PyTorch {result['versions']['torch']}, {result['date']}."
    )


def step_table(result: dict[str, Any]) -> str:
    """One search step of the attention U-Net against PyTorch."""
    rows = [
        [
            r["name"],
            f"{1e3 * r['seconds']:.0f}",
            f"{1e3 * r['torch_seconds']:.0f}",
            f"{r['ratio']:.2f}",
            f"{r['compile_seconds']:.1f}",
        ]
        for r in result["rows"]
    ]
    header = ["step", "ms", "PyTorch, ms", "ratio", "first call, s"]
    return _markdown(header, rows) + f"\n\n`{result['command']}`, {result['date']}."


def choice_table(result: dict[str, Any]) -> str:
    """The way that was chosen by measurement beside the rule's, and ways that are not timed on a CPU."""
    others = list(result["rows"][0]["others"])
    rows = [
        [
            r["name"],
            r["rule"],
            r["chosen"] if r["chosen"] != r["rule"] else "the same",
            f"{r['ratio']:.2f}",
            *(f"{1 / r['others'][way]:.2f}" if way in r["others"] else "not measured" for way in others),
        ]
        for r in result["rows"]
    ]
    header = ["search", "by the rule", "by measurement", "x as fast as the rule", *(f"x by {way}" for way in others)]
    return _markdown(header, rows) + f"\n\n`{result['command']}`, {result['device']['processor']}, {result['date']}."


def scaling_table(result: dict[str, Any]) -> str:
    """Seconds a target over the number of targets."""
    rows = [
        [f"{r['targets']:,}", f"{r['seconds']:.2f}", f"{r['microseconds_a_target']:.1f}"]
        for r in result["rows"]
        if "targets" in r
    ]
    return _markdown(["targets", "seconds", "microseconds a target"], rows) + f"\n\n`{result['command']}`, {result['date']}."


PARTS = {
    "cells": "cell images of 1024 x 811, 8 fit cases",
    "torch": "one of them, beside PyTorch",
    "published": "AttUNet-64, 224 x 224, beside PyTorch",
    "vessels": "2048 x 2048 RGB, W-Net, in patches",
}


def real_size_table(result: dict[str, Any]) -> str:
    """Seconds and peaks of whole runs at real sizes; a ratio is that of PyTorch to ours."""
    rows = []
    for part, title in PARTS.items():
        for r in (row for row in result["rows"] if row["part"] == part):
            ratio = "/" in r["run"]
            rows.append(
                [
                    f"{r['images']} {title}" if part == "cells" else title,
                    r["run"],
                    f"{r['seconds_each']:.2f} x" if ratio else f"{r['seconds_each']:.1f}",
                    f"{r['peak_bytes']:.2f} x" if ratio else f"{r['peak_bytes'] / 1e9:.2f}",
                    f"{r['predicted_bytes'] / 1e9:.2f}" if r.get("predicted_bytes") else "–",
                ]
            )
    device, dates = result["device"], sorted({part["date"] for part in result["parts"].values()})
    return (
        _markdown(["images", "run", "seconds an image", "peak, GB", "planned, GB"], rows)
        + f"\n\n`python -m benchmarks.real_size`, {device['processor']}, {device['cores']} cores, {', '.join(dates)}."
    )


SECTIONS = {
    "targets": "The question",
    "search": "The search",
    "samples": "Samples",
    "fit": "Fit data",
    "patches": "Patches",
    "execution": "The machine",
    "outputs": "Outputs",
    "": "Everywhere",
}


def pages_table(result: dict[str, Any]) -> str:
    """Size of report pages, and seconds until they show and answer."""
    rows = []
    for row in result["rows"]:
        times = [(row.get(f"{key}_s"), row.get(f"{key}_worst_s")) for key in ("sheet", "viewer", "by_address")]
        cells = ["–" if middle is None else f"{middle:.1f} ({worst:.1f})" for middle, worst in times]
        rows.append([row["page"], f"{row['megabytes']:.1f} MB", *cells])
    device = result["device"]
    header = ["page", "size", "first screen, s", "viewer after a click, s", "viewer by its address, s"]
    return (
        _markdown(header, rows) + f"\n\nMedian of {result['repeats']} (worst); `{result['command']}`, {device['processor']}, "
        f"{device['cores']} cores, load {result['load']:.1f}, {result['date']}."
    )


def settings_table() -> str:
    """Every setting by its section: default, values, meaning, and what a higher number does."""
    lines = []
    for section, title in SECTIONS.items():
        rows = []
        for name, (own, field) in fields_of(Config()).items():
            if own != section:
                continue
            default = getattr(getattr(Config(), section) if section else Config(), name)
            shown = ", ".join(default) if isinstance(default, tuple) else default
            values = field.metadata.get("choices") or typing.get_args(field.type) if field.type is not tuple else ()
            kinds = {int: "whole number", float: "number", bool: "true, false", str: "text"}
            known = [str(value) for value in values if value is not Ellipsis and not isinstance(value, type)]
            text = field.metadata.get("help", "") + (f"; {EFFECTS[name]}" if name in EFFECTS else "")
            rows.append(
                [f"`{name}`", f"`{shown}`" if shown != "" else "none", ", ".join(known) or kinds.get(field.type, "list"), text]
            )
        lines += [
            f"## {title}" + (f" (`{section}`)" if section else ""),
            "",
            _markdown(["setting", "default", "values", "meaning"], rows),
            "",
        ]
    return "\n".join(lines).rstrip()


# sections of the studies that docs/evidence.md has room for; the others are on a page of their own
ON_THE_PAGE = ("## At a glance", "## Choice of the default", "## More training data")

# mark -> file, result, table
TABLES: dict[str, tuple[str, str, Callable[[dict[str, Any]], str]]] = {
    "demo table": ("docs/results.md", "demo", demo_table),
    "networks table": ("docs/networks.md", "conversions", networks_table),
    "peers table": ("docs/networks.md", "peers", peers_table),
    "forward table": ("docs/networks.md", "forward", forward_table),
    "pixels table": ("docs/speed.md", "search_pixels", search_table),
    "masks table": ("docs/speed.md", "search_masks", search_table),
    "step table": ("docs/speed.md", "search_step", step_table),
    "choice table": ("docs/speed.md", "plan_choice", choice_table),
    "scaling table": ("docs/speed.md", "scaling", scaling_table),
    "real size table": ("docs/speed.md", "real_size", real_size_table),
    "pages table": ("docs/speed.md", "report_pages", pages_table),
    "view share table": ("docs/method.md", "view_share", view_share.table),
    "methods table": ("docs/results.md", "methods_lidc_ct", evidence_tables.short_table),
    "headline table": ("README.md", "methods_lidc_ct", evidence_tables.headline_table),
    **run_tables.TABLES,
    **guarantee_tables.TABLES,
}


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    for name, (file, result, table) in TABLES.items():
        if (RESULTS / f"{result}.json").is_file():
            body = table(json.loads((RESULTS / f"{result}.json").read_text()))
            if body:
                put(file, name, body)
    found = accelerator_tables.results(RESULTS)
    if found:
        put("docs/speed.md", "accelerator table", accelerator_tables.figures_table(found))
    put("docs/reference/settings.md", "settings", settings_table())
    sections = re.split(r"(?m)^(?=## )", evidence.studies(RESULTS))
    short = [section for section in sections if section.startswith(ON_THE_PAGE)]
    put("docs/evidence.md", "studies", "".join(short).strip())
    put("docs/evidence-studies.md", "studies", "".join(section for section in sections if section not in short).strip())


if __name__ == "__main__":
    main()
