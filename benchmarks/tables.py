"""The tables of README.md from the committed results, so that no figure there is typed by hand.

`python -m benchmarks.tables` rewrites what stands between the `<!-- NAME -->` and `<!-- /NAME -->` marks.
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .record import RESULTS

README = Path(__file__).parent.parent / "README.md"
NAMES = {"att_unet": "Attention U-Net", "unet": "U-Net", "unet_dropout": "U-Net with dropout", "unetpp": "U-Net++",
         "unetppp": "U-Net 3+", "segnet": "SegNet", "swin_unet": "Swin-Unet", "swin_unet_wrapper": "Swin-Unet (wrapper)",
         "wnet": "W-Net, little U-Net (lwnet)"}


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def demo_table(result: dict[str, Any]) -> str:
    """Agreement of each map with the raters in every setting."""
    rows = [[r["setting"], r["map"], f"{r['pcc']:.3f} [{r['pcc_low']:.3f}, {r['pcc_high']:.3f}]", f"{r['r2_pearson']:.3f}",
             f"{r['sdice_product_minmax']:.3f}", f"{r['partial_pcc_distance']:.3f}", f"{r['auroc_image']:.3f}"]
            for r in result["rows"] if r["map"] not in ("softmax", "boundary") or r["setting"] == "default"]
    return _markdown(["setting", "map", "PCC [95 %]", "R² (Pearson)", "soft Dice", "PCC beyond the contour", "AUROC of errors"],
                     rows) + f"\n\n{result['rows'][0]['cases']} cases; `{result['command']}`, {result['date']}."


def networks_table(result: dict[str, Any]) -> str:
    """What converts, and the largest difference of the logits from PyTorch's relative to their range."""
    rows = [[NAMES[r["name"]], f"`{r['name']}`", str(r["checkpoints"]), f"{r['max_relative_difference']:.1e}"]
            for r in result["rows"]]
    return _markdown(["network", "`--arch`", "checkpoints", "largest difference"], rows) + f"\n\n`{result['command']}`"


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "demo table": ("demo", demo_table), "networks table": ("conversions", networks_table)}


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    text = README.read_text()
    for name, (result, table) in TABLES.items():
        body = table(json.loads((RESULTS / f"{result}.json").read_text()))
        pattern = rf"<!-- {name} -->.*?<!-- /{name} -->"
        text, count = re.subn(pattern, lambda _, n=name, b=body: f"<!-- {n} -->\n{b}\n<!-- /{n} -->", text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"{README}: expected one place for {name}, got {count}")
    README.write_text(text)


if __name__ == "__main__":
    main()
