"""The default search of one image in PyTorch, as well as we can write it: the other side of benchmarks.real_size.

Weights in float32, channels last, the fit crops in micro-batches whose gradients add up, the gradient of the fit loss only where
the bound is broken, and the kept weights measured on the whole fit images. The problem comes from a file that the JAX side wrote.
`python -m benchmarks.torch_search PROBLEM.npz STATE.npz OUT.json` runs in a process of its own, so that its peak is its own.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .timing import threads
from .torch_att_unet import AttUNet

COEFFICIENT, RATE, STEPS = 10.0, 1e-3, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problem", type=Path)
    parser.add_argument("state", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(threads())
    problem, arguments = np.load(options.problem), json.loads(options.state.with_suffix(".json").read_text())
    module = AttUNet(**arguments).eval().to(memory_format=torch.channels_last)
    module.load_state_dict({k: torch.from_numpy(v) for k, v in np.load(options.state).items()}, strict=False)
    images = [_nchw(image[None]) for image in problem["images"]]
    fit, labels = _nchw(problem["fit"]), torch.from_numpy(problem["labels"].astype(np.int64))
    whole, whole_labels = _nchw(problem["whole"]), torch.from_numpy(problem["whole_labels"].astype(np.int64))
    micro, seconds, objectives = int(problem["micro"]), [], []
    with torch.no_grad():
        bound = 2 * _loss(module, fit, labels, micro).item()
    for image, wanted in zip(images, problem["wanted"], strict=True):
        start = time.perf_counter()
        for mask in wanted:
            objective, kept = search(module, image, torch.from_numpy(mask.astype(np.int64))[None], fit, labels, bound, micro)
            objectives.append(objective)
            if len(whole):
                with torch.no_grad():
                    _loss(kept, whole, whole_labels, 1)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    options.out.write_text(json.dumps({"seconds": seconds, "peak": peak, "objectives": objectives}))


def _nchw(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).contiguous(memory_format=torch.channels_last)


def _loss(module: nn.Module, images: torch.Tensor, labels: torch.Tensor, micro: int, *, gradient: bool = False) -> torch.Tensor:
    """The mean loss of a pixel over all images, micro-batch by micro-batch; with `gradient` it is left in the weights."""
    count, total = int((labels >= 0).sum()), torch.zeros(())
    for x, y in zip(images.split(micro), labels.split(micro), strict=True):
        part = nn.functional.cross_entropy(module(x), y, ignore_index=-1, reduction="sum") / count
        if gradient:
            (COEFFICIENT * part).backward()
        total += part.detach()
    return total


def search(
    given: nn.Module,
    image: torch.Tensor,
    wanted: torch.Tensor,
    fit: torch.Tensor,
    labels: torch.Tensor,
    bound: float,
    micro: int,
) -> tuple[float, nn.Module]:
    """One adversarial model: its last objective, and the weights of the smallest objective within the bound."""
    import copy

    module = copy.deepcopy(given)
    optimizer = torch.optim.Adam(module.parameters(), lr=RATE)
    best, held, broken = float("inf"), copy.deepcopy(module.state_dict()), False
    objective = torch.zeros(())
    probs = []
    for step in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        if step and not broken:
            with torch.no_grad():
                broken_now = _loss(module, fit, labels, micro).item() > bound
        else:
            broken_now = broken
        fit_loss = _loss(module, fit, labels, micro, gradient=True).item() if broken_now else None
        broken = fit_loss is not None and fit_loss > bound
        if fit_loss is not None and not broken:
            optimizer.zero_grad(set_to_none=True)  # within the bound the penalty has no gradient
        logits = module(image)[..., : wanted.shape[1], : wanted.shape[2]]
        probs.append(logits.detach().softmax(1))
        objective = nn.functional.cross_entropy(logits, wanted)
        objective.backward()
        if step and not broken and objective.item() < best:
            best, held = objective.item(), copy.deepcopy(module.state_dict())
        optimizer.step()
    with torch.no_grad():
        fits = _loss(module, fit, labels, micro).item() <= bound
        logits = module(image)[..., : wanted.shape[1], : wanted.shape[2]]
        probs.append(logits.softmax(1))
        objective = nn.functional.cross_entropy(logits, wanted)
    if not (fits and objective.item() < best):
        module.load_state_dict(held)
    return float(objective), module


if __name__ == "__main__":
    main()
