"""What converts, and how close: every stored checkpoint through the converter, its logits against PyTorch's.

Claim: float32 logits equal PyTorch's within 1e-4 of their range, for every architecture.
`python -m benchmarks.conversions --golden DIR` takes a folder of golden numbers (sections A_forward and H_weights), prints a
row an architecture and writes benchmarks/results/conversions.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from .record import write_result

_WRAPPED = {"SwinUnet": {"in_channels": 1}}  # the wrapper repeats one channel; its weights cannot tell


def stored_cases(golden: Path) -> list[tuple[Path, Path, str | None, dict[str, Any]]]:
    """Checkpoint, logits, architecture where the names cannot tell, and arguments of every stored case."""
    found: list[tuple[Path, Path, str | None, dict[str, Any]]] = []
    for case in json.loads((golden / "A_forward" / "index.json").read_text()):
        folder = golden / "A_forward" / case["name"]
        arguments = {"in_channels": case["input_shape"][1]} if case["arch"] in _WRAPPED else {}
        architecture = "unet_dropout" if case["arch"] == "UNetDropout" else None
        if (folder / "weights.pt").is_file():
            found.append((folder / "weights.pt", folder / "io.npz", architecture, arguments))
    for case in json.loads((golden / "H_weights" / "index.json").read_text())["cases"]:
        found.append((golden / case["checkpoint"], golden / "H_weights" / case["file"], None, {}))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--golden", type=Path, required=True)
    options = parser.parse_args()
    from converters.parity import check_parity
    from quam_jax.loading import load_model

    worst: dict[str, list[dict[str, Any]]] = {}
    for checkpoint, logits, architecture, arguments in stored_cases(options.golden):
        model = load_model(checkpoint, architecture, **arguments)
        with np.load(logits) as stored:
            arrays = {"input": stored["input"],
                      "logits": stored["pre_softmax"] if "pre_softmax" in stored.files else stored["logits"]}
        worst.setdefault(model.network.architecture, []).append(check_parity(model, reference=arrays))
    write_result("conversions", [
        {"name": name, "checkpoints": len(results), "max_relative_difference": max(r["relative"] for r in results),
         "equal": all(r["verdict"] == "equal" for r in results)} for name, results in sorted(worst.items())])


if __name__ == "__main__":
    main()
