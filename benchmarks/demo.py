"""The demo with its controls: the default search, the published procedure, and both with learning rate 0.

Claim: none; this is the table of README.md. `python -m benchmarks.demo` runs the shipped cases in every setting, prints the mean
agreement of each map with the entropy of the raters' mean, and writes benchmarks/results/demo.json with seconds a case.
"""

import argparse
import dataclasses
import statistics
import tempfile
from pathlib import Path
from typing import Any

from .record import write_result

METRICS = ("pcc", "r2_pearson", "sdice_product_minmax", "partial_pcc_distance", "auroc_image")
MAPS = ("total", "aleatoric", "epistemic", "softmax", "boundary")


def settings() -> dict[str, Any]:
    """The settings of the table; the shipped fit data make two batches, so the published stride of 50 becomes 1."""
    from quam_jax.config import Config, SearchConfig

    published = Config.published(search=SearchConfig.published(batch_stride=1))

    def still(config: Config) -> Config:
        return dataclasses.replace(config, search=dataclasses.replace(config.search, learning_rate=0.0))

    return {
        "default": Config(),
        "default, learning rate 0": still(Config()),
        "published": published,
        "published, learning rate 0": still(published),
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    import quam_jax
    from quam_jax.cli.common import start_jax
    from quam_jax.runs.request import RunRequest
    from quam_jax.runs.run import run

    start_jax()
    data = Path(quam_jax.__file__).parent / "demo_data"
    rows = []
    for name, config in settings().items():
        with tempfile.TemporaryDirectory() as folder:
            result = run(
                RunRequest(
                    model=data / "model" / "att_unet.pth",
                    arch="att_unet",
                    images=data / "images",
                    masks=data / "masks",
                    fit_images=data / "fit_images",
                    fit_masks=data / "fit_masks",
                    out=Path(folder) / "run",
                    config=config,
                )
            )
        columns = result.summary["columns"]
        held = sum(row["held"] for row in result.rows)
        # the first case compiles, so the median case tells what a case costs
        shared = {
            "setting": name,
            "cases": len(result.rows),
            "dice": columns["dice"]["mean"],
            "members_held": held,
            "seconds_a_case": statistics.median(row["seconds"] for row in result.rows),
        }
        for map_name in MAPS:
            figures = {metric: columns[f"{map_name}/{metric}"]["mean"] for metric in METRICS}
            low, high = (columns[f"{map_name}/pcc"][end] for end in ("low", "high"))
            rows.append({**shared, "map": map_name, **figures, "pcc_low": low, "pcc_high": high})
    write_result("demo", rows)


if __name__ == "__main__":
    main()
