"""What converts, and how close: every given checkpoint through the converter, its logits against PyTorch's.

Claim: float32 logits equal PyTorch's within 1e-4 of their range, for every architecture.
`python -m benchmarks.conversions --golden DIR` takes a folder of golden numbers (sections A_forward, H_weights and N_nnunet,
each as far as it is there) and beside it `weights/`, prints a row an architecture and writes
benchmarks/results/conversions.json. The plain U-Net, of which no logits are stored, is compared live with a PyTorch network.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .record import write_result

_WRAPPED = {"SwinUnet": {"in_channels": 1}}  # the wrapper repeats one channel; its weights cannot tell


def stored_cases(golden: Path) -> list[tuple[Path, Path, str | None, dict[str, Any]]]:
    """Checkpoint, logits, architecture where the names cannot tell, and arguments of every stored case."""
    found: list[tuple[Path, Path, str | None, dict[str, Any]]] = []
    for case in _index(golden / "A_forward", []):
        folder = golden / "A_forward" / case["name"]
        arguments = {"in_channels": case["input_shape"][1]} if case["arch"] in _WRAPPED else {}
        architecture = "unet_dropout" if case["arch"] == "UNetDropout" else None
        if (folder / "weights.pt").is_file():
            found.append((folder / "weights.pt", folder / "io.npz", architecture, arguments))
    for case in _index(golden / "H_weights", {"cases": []})["cases"]:
        found.append((golden / case["checkpoint"], golden / "H_weights" / case["file"], None, {}))
    return found


def _index(folder: Path, empty: Any) -> Any:
    return json.loads((folder / "index.json").read_text()) if (folder / "index.json").is_file() else empty


def stored_differences(golden: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Architecture and parity of every checkpoint with stored logits."""
    from converters.parity import check_parity
    from quam_jax.models.loading import load_model

    for checkpoint, logits, architecture, arguments in stored_cases(golden):
        model = load_model(checkpoint, architecture, **arguments)
        with np.load(logits) as stored:
            arrays = {
                "input": stored["input"],
                "logits": stored["pre_softmax"] if "pre_softmax" in stored.files else stored["logits"],
            }
        yield model.network.architecture, check_parity(model, reference=arrays)


def nnunet_differences(golden: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Architecture and parity of the first fold of every nnU-Net folder, on the tile whose logits nnU-Net left."""
    from converters.nnunet import read_nnunet
    from converters.parity import check_parity

    stages = {path.parent.name: path for path in sorted((golden / "N_nnunet" / "stages").glob("*/thick.npz"))}
    for folder in sorted((golden / "N_nnunet" / "models").glob("*/*")):
        model = read_nnunet(folder)[0]
        rank, classes = model.network.rank, model.network.classes
        kind = folder.name.rsplit("__", 1)[-1]
        case = f"resenc_{kind}" if model.network.architecture == "nnunet_residual" else kind
        case += "_regions" if "regions_class_order" in json.loads((folder / "dataset.json").read_text()) else ""
        with np.load(stages[case]) as stored:
            images, logits = stored["tile_input"], stored["tile_logits_plain"]
        yield (
            f"{model.network.architecture} {rank}d",
            check_parity(
                model,
                reference={
                    "input": images.reshape(-1, 1, *images.shape[-rank:]),
                    "logits": logits.reshape(-1, classes, *logits.shape[-rank:]),
                },
            ),
        )


def live_differences(weights: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Architecture and parity of the plain U-Net's weights against a PyTorch network with them."""
    import torch

    from converters.parity import live_parity
    from converters.readers import read_weights
    from quam_jax.models.loading import load_model

    from .torch_unets import PlainUNet

    for path in sorted((weights / "orobix_unet").glob("*.npz")):
        model = load_model(path)
        arguments = dict(model.network.arguments)
        module = PlainUNet(arguments["in_channels"], arguments["n_classes"], arguments["channels"])
        module.load_state_dict({n: torch.from_numpy(v) for n, v in read_weights(path).tensors.items()})
        images = np.random.default_rng(0).random((2, arguments["in_channels"], 96, 96), np.float32)
        yield model.network.architecture, live_parity(model, module, images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--golden", type=Path, required=True)
    options = parser.parse_args()
    sys.argv[1:] = ["--golden", "DIR"]  # what is written names no folder of this machine
    worst: dict[str, list[dict[str, Any]]] = {}
    for kind in (
        stored_differences(options.golden),
        nnunet_differences(options.golden),
        live_differences(options.golden.parent / "weights"),
    ):
        for name, result in kind:
            worst.setdefault(name, []).append(result)
    write_result(
        "conversions",
        [
            {
                "name": name,
                "checkpoints": len(results),
                "reference": results[0]["kind"],
                "max_relative_difference": max(r["relative"] for r in results),
                "equal": all(r["verdict"] == "equal" for r in results),
            }
            for name, results in sorted(worst.items())
        ],
    )


if __name__ == "__main__":
    main()
