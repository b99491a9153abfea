"""Proof that an imported graph gives the numbers of the network that it was exported from, like with like."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from quam_jax.models.model import SegmentationModel
from quam_jax.networks.graph.program import parse

from ..parity import TOLERANCE, compare, our_logits
from .capture import first_line, import_torch, select_output

LEAST = 1e-30  # of a probability whose logarithm is taken


@dataclasses.dataclass(frozen=True)
class Original:
    """The network as exported: what it returns, the chosen output, the activation inside, how exact its numbers are."""

    run: Callable[[np.ndarray], Any]
    output: str | int | None = None
    inside: str = ""
    tolerance: float = TOLERANCE

    def values(self, images: np.ndarray) -> Any:
        """The chosen output as a tensor of float32."""
        return select_output(self.run(images), self.output)


def prove(
    model: SegmentationModel, example: np.ndarray, original: Original, *, fixed: Sequence[int], axes: Sequence[int], name: str
) -> SegmentationModel:
    """Compare with the original on the example, and on another batch and other sides where they are free.

    Logits are compared with logits, and where an activation was inside, probabilities with probabilities. ValueError where they
    differ, or where PyTorch does not run the graph on the sizes that it declares.
    """
    program = parse(dict(model.network.arguments)["program"])
    if np.ptp(example) == 0:  # a blank image proves little
        example = np.random.default_rng(1).standard_normal(example.shape).astype(np.float32)
    trials = [example]
    multiples = np.broadcast_to(model.network.size_multiple, model.network.rank)
    grown = [n + m * (1 - f) for n, m, f in zip(example.shape[2:], multiples, fixed, strict=True)]
    batch = 3 - min(example.shape[0], 2) if program.sizes[0] == "b" else example.shape[0]
    if grown != list(example.shape[2:]) or batch != example.shape[0]:
        noise = np.random.default_rng(0).standard_normal((batch, example.shape[1], *grown)) * (example.std() or 1.0)
        trials.append((noise + example.mean()).astype(np.float32))
    results = []
    for images in trials:
        try:
            values = original.values(images)
        except Exception as error:  # PyTorch checks what the graph was exported for; the edge needs one clear line
            raise ValueError(
                f"{name}: its graph was exported for free sizes, but PyTorch does not run it on images {list(images.shape)} "
                f"({first_line(error)[:200]}); export it with the sides that your images have, or with multiples of its strides"
            ) from error
        theirs = _logits(values, images, model=model, original=original, axes=axes)
        ours = our_logits(model, images, where=name)
        result = compare(ours, theirs, inside=original.inside, tolerance=original.tolerance, where=name)
        results.append({"kind": "live PyTorch", **result, "shape": list(images.shape)})
        if result["verdict"] != "equal":
            raise ValueError(
                f"{name}: the imported graph differs from the network on images {list(images.shape)} by "
                f"{result['relative']:.2g} of the {'logit' if result['compared'] == 'logits' else 'probability'} range"
            )
    parity = {
        **results[0],
        "other_sizes": results[1:],
        "fixed_sizes": [n for n, f in zip(example.shape[2:], fixed, strict=True) if f],
    }
    return dataclasses.replace(model, manifest={**model.manifest, "parity": parity})


def _logits(values: Any, images: np.ndarray, *, model: SegmentationModel, original: Original, axes: Sequence[int]) -> np.ndarray:
    """The original's output `[b c *space]` as logits of the image's size; of probabilities their logarithm or log-odds."""
    torch = import_torch()
    values = values.float()
    for axis in axes:
        values = values.unsqueeze(axis)
    if original.inside and float(values.min()) >= 0:
        clipped = values.double().clamp(LEAST, 1 - 1e-12 if original.inside == "sigmoid" else 1)
        values = clipped.log() - (torch.log1p(-clipped) if original.inside == "sigmoid" else 0)
    if model.manifest["resized_logits"]:
        mode = "bilinear" if images.ndim == 4 else "trilinear"
        values = torch.nn.functional.interpolate(values, images.shape[2:], align_corners=False, mode=mode)
    return np.asarray(values.cpu())
