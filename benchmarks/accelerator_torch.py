"""The search of benchmarks.accelerator in PyTorch, as well as we can write it; a process of its own, in any Python that has it.

Reference losses cached, channels_last, and the fastest of four ways: fit batch and image in one pass (`joined`), the same
compiled (`compiled`), members mapped by torch.func.vmap (`mapped`), and, as we do, without the gradient of a fit loss that keeps
its bound (`spared`). `python -m benchmarks.accelerator_torch FOLDER --precision TF32` prints a line of JSON a way; float32, TF32
and bfloat16 are what they are on our side. Imports nothing but NumPy and PyTorch.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

WAYS = ("joined", "spared", "compiled", "mapped")
COEFFICIENT = 10.0


class Search:
    """One problem on one device."""

    def __init__(self, folder: Path, *, precision: str, device: str) -> None:
        from .torch_att_unet import AttUNet
        from .torch_nnunet import NNUNet

        settings, data = json.loads((folder / "settings.json").read_text()), np.load(folder / "problem.npz")
        self.device, self.half = device, precision == "bfloat16"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "float32"
        torch.backends.cudnn.benchmark = True
        self.rate, self.steps, self.bounds = settings["rate"], settings["steps"], settings["bounds"]
        twin = AttUNet if settings["architecture"] == "att_unet" else NNUNet
        module = twin(**settings["arguments"]).eval()
        weights = {name: torch.from_numpy(value) for name, value in np.load(folder / "weights.npz").items()}
        module.load_state_dict(weights, strict=False)
        rank = data["images"].ndim - 2
        self.format = torch.channels_last if rank == 2 else torch.channels_last_3d
        self.module = module.to(device, memory_format=self.format)
        self.images = [self._tensor(image[None]) for image in data["images"]]
        self.fits = [self._tensor(fit) for fit in data["fit"]]
        self.labels = [torch.from_numpy(labels.astype(np.int64)).to(device) for labels in data["labels"]]
        self.wanted = [torch.from_numpy(mask.astype(np.int64))[None].to(device) for mask in data["wanted"]]

    def _tensor(self, x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.moveaxis(x, -1, 1).copy()).to(self.device).contiguous(memory_format=self.format)

    def fresh(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        """A copy of the given network with its optimiser."""
        module = copy.deepcopy(self.module)
        return module, torch.optim.Adam(module.parameters(), lr=self.rate, fused=self.device == "cuda")

    def logits(self, module: Callable[..., Any], x: torch.Tensor) -> torch.Tensor:
        """One pass; in bfloat16, where asked, between float32 weights and float32 logits."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.half):
            return module(x).float()

    def total(self, logits: torch.Tensor, labels: torch.Tensor, wanted: torch.Tensor, bound: float) -> torch.Tensor:
        """What is minimised, of fit batch and image in one pass."""
        entropy = nn.functional.cross_entropy
        return entropy(logits[-1:], wanted) + COEFFICIENT * torch.relu(entropy(logits[:-1], labels) - bound)

    def joined(self, *, compiled: bool = False) -> None:
        """Fit batch and image in one pass, one member after the other."""
        for image in self.images:
            for wanted in self.wanted:
                module, optimizer = self.fresh()
                run = self._compiled if compiled else self._loss
                for s in range(self.steps):
                    k = s % len(self.fits)
                    optimizer.zero_grad()
                    run(module, torch.cat([self.fits[k], image]), self.labels[k], wanted, self.bounds[k]).backward()
                    optimizer.step()
                with torch.no_grad():
                    self.logits(module, torch.cat([self.fits[0], image]))

    def _loss(self, module: nn.Module, x: torch.Tensor, labels: torch.Tensor, wanted: torch.Tensor, bound: float) -> torch.Tensor:
        return self.total(self.logits(module, x), labels, wanted, bound)

    def compiled(self) -> None:
        """The same with loss and gradient compiled."""
        if not hasattr(self, "_function"):

            def loss(params: dict, x: torch.Tensor, labels: torch.Tensor, wanted: torch.Tensor, bound: torch.Tensor) -> Any:
                logits = self.logits(lambda batch: torch.func.functional_call(self.module, params, (batch,)), x)
                return self.total(logits, labels, wanted, bound)  # type: ignore[arg-type]

            self._function = torch.compile(loss)
        self.joined(compiled=True)

    def _compiled(
        self, module: nn.Module, x: torch.Tensor, labels: torch.Tensor, wanted: torch.Tensor, bound: float
    ) -> torch.Tensor:
        return self._function(dict(module.named_parameters()), x, labels, wanted, torch.tensor(bound, device=self.device))

    def spared(self) -> None:
        """Without the gradient of a fit loss that keeps the bound."""
        entropy = nn.functional.cross_entropy
        for image in self.images:
            for wanted in self.wanted:
                module, optimizer = self.fresh()
                kept = True
                for s in range(self.steps):
                    k = s % len(self.fits)
                    fit, labels, bound = self.fits[k], self.labels[k], self.bounds[k]
                    optimizer.zero_grad()
                    if s and kept:
                        with torch.no_grad():
                            kept = entropy(self.logits(module, fit), labels).item() <= bound
                    if kept:
                        total = entropy(self.logits(module, image), wanted)
                    else:
                        logits = self.logits(module, torch.cat([fit, image]))
                        kept = entropy(logits[:-1].detach(), labels).item() <= bound
                        total = self.total(logits, labels, wanted, bound)
                    total.backward()
                    optimizer.step()
                with torch.no_grad():
                    self.logits(module, torch.cat([self.fits[0], image]))

    def mapped(self) -> None:
        """All members of an image at once."""
        from torch.func import functional_call, grad, stack_module_state, vmap

        def loss(params: dict, x: torch.Tensor, labels: torch.Tensor, wanted: torch.Tensor, bound: float) -> torch.Tensor:
            logits = self.logits(lambda batch: functional_call(self.module, params, (batch,)), x)
            return self.total(logits, labels, wanted, bound)

        step = vmap(grad(loss), in_dims=(0, None, None, 0, None))
        wanted = torch.stack(self.wanted)
        for image in self.images:
            params, _ = stack_module_state([self.fresh()[0] for _ in self.wanted])
            optimizer = torch.optim.Adam(params.values(), lr=self.rate)
            for s in range(self.steps):
                k = s % len(self.fits)
                found = step(params, torch.cat([self.fits[k], image]), self.labels[k], wanted, self.bounds[k])
                for name, value in params.items():
                    value.grad = found[name]
                optimizer.step()
            with torch.no_grad():
                last = torch.cat([self.fits[0], image])
                vmap(lambda p, x=last: self.logits(lambda batch: functional_call(self.module, p, (batch,)), x))(params)

    def seconds(self, way: str, rounds: int) -> tuple[float, float]:
        """Seconds of the first call, and of an image after it (the median)."""
        times = []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            getattr(self, way)()
            if self.device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return times[0], statistics.median(times[1:]) / len(self.images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", default=",".join(WAYS))
    options = parser.parse_args()
    search = Search(options.folder, precision=options.precision, device=options.device)
    for way in options.ways.split(","):
        row: dict[str, Any] = {"way": way}
        try:
            row["first_seconds"], row["seconds"] = search.seconds(way, options.rounds)
        except Exception as error:  # out of memory, no compiler: the other ways go on
            row["failed"] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[:300]
        if options.device == "cuda":
            row["peak_bytes"] = torch.cuda.max_memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        print(json.dumps(row), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
