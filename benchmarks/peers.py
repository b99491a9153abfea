"""Networks of other packages, imported by `from_torch`: how far logits and gradients are from PyTorch's.

Claim: for every network, batch and image size the float32 logits differ from PyTorch's by at most 1e-4 of their range, and the
gradient of a cross-entropy by at most 1e-4 of the norm of PyTorch's in float64. Weights, affine weights and running
statistics are random. It needs an environment of its own with the extra `peers`: torchvision does not import beside the CPU
build of PyTorch 2.13. `python -m benchmarks.peers` takes one network after the other, each in a process of its own, prints a
row a network and writes benchmarks/results/peers.json; names, or parts of them, restrict it, and the other rows stay.
"""

import argparse
import contextlib
import importlib.metadata
import io
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np

from .peers_networks import PEERS
from .record import RESULTS, write_result

PACKAGES = ("torch", "torchvision", "monai", "segmentation_models_pytorch", "transformers")
TOLERANCE = 1e-4


def randomised(module: Any) -> Any:
    """The module in eval mode with statistics and affine weights that are not at their start."""
    import torch

    torch.manual_seed(0)
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        kind = name.rsplit(".", 1)[-1]
        with torch.no_grad():
            if kind == "running_var":
                value.uniform_(0.5, 2.0)
            elif kind == "running_mean" or (kind == "bias" and value.ndim == 1):
                value.normal_(std=0.1)
            elif kind == "weight" and value.ndim == 1:
                value.uniform_(0.5, 1.5)
    return module.eval()


def torch_logits(module: Any, images: Any) -> Any:
    """The logits of the module at the size of the images."""
    import torch

    from converters.exported.capture import select_output

    logits = select_output(module(images), None)
    if logits.shape[2:] != images.shape[2:]:
        logits = torch.nn.functional.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False)
    return logits


def measure(name: str) -> dict[str, Any]:
    """One network: import it, compare logits on two batches of two sizes, and the gradient with PyTorch's in float64."""
    import jax
    import jax.numpy as jnp
    import optax
    import torch

    from converters.exported import from_torch
    from converters.mapping import to_torch

    peer = PEERS[name]
    torch.manual_seed(0)
    module = randomised(peer.make())

    def images_of(shape: tuple[int, ...], seed: int) -> Any:
        return torch.as_tensor(np.random.default_rng(seed).standard_normal(shape), dtype=torch.float32)

    example = images_of(peer.shape, 0)
    start = time.perf_counter()
    model = from_torch(module, example, dynamic=peer.dynamic)
    seconds = time.perf_counter() - start
    differences = []
    for shape, seed in ((peer.shape, 1), (peer.other, 2)):
        images = images_of(shape, seed)
        with torch.no_grad():
            theirs = torch_logits(module, images).movedim(1, -1).numpy()
        ours = np.asarray(model(jnp.asarray(images.movedim(1, -1).numpy())))
        if ours.shape != theirs.shape:
            raise ValueError(f"{name}: expected logits {theirs.shape}, got {ours.shape}")
        differences.append(float(np.abs(ours - theirs).max() / np.ptp(theirs)))

    labels = np.random.default_rng(3).integers(0, model.network.classes, (peer.shape[0], *peer.shape[2:]))
    # in float64: the float32 gradients of PyTorch itself are 4e-4 off them for fcn_resnet50
    module.double().zero_grad()
    torch.nn.functional.cross_entropy(torch_logits(module, example.double()), torch.as_tensor(labels)).backward()
    wanted = {n: p.grad.numpy() for n, p in module.named_parameters() if p.grad is not None}

    def loss(params: Any) -> Any:
        logits = model.network.apply(params, model.stats, jnp.asarray(example.movedim(1, -1).numpy()))[0]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    gradient = to_torch(model.network, jax.jit(jax.grad(loss))(model.params), model.stats)
    missing = sorted(set(wanted) - set(gradient))
    if missing:
        raise ValueError(f"{name}: no gradient of {', '.join(missing[:5])}")
    norm = np.sqrt(sum(float((g**2).sum()) for g in wanted.values()))
    error = np.sqrt(sum(float(((gradient[n] - g) ** 2).sum()) for n, g in wanted.items()))
    fixed = model.manifest["parity"]["fixed_sizes"]
    return {
        "name": name,
        "weights": model.parameter_count,
        "cuts": list(model.network.cuts),
        "shapes": [list(peer.shape), list(peer.other)],
        "free": "batch" if fixed else "batch and sides",
        "max_relative_difference": max(differences),
        "gradient_relative_difference": float(error / norm),
        "equal": bool(max(*differences, error / norm) <= TOLERANCE),
        "import_seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of names; all networks without")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        sys.stdout.write(json.dumps(measure(options.one)) + "\n")
        return
    chosen = [n for n in PEERS if not options.names or any(part in n for part in options.names)]
    path = RESULTS / "peers.json"
    rows = {r["name"]: r for r in json.loads(path.read_text())["rows"]} if path.is_file() else {}
    failed = []
    sys.argv[1:] = []  # what is written is the whole set, whatever was asked for now
    for name in chosen:  # a process each: PyTorch's exporter keeps what it traced
        done = subprocess.run([sys.executable, "-m", "benchmarks.peers", "--one", name], capture_output=True, text=True)
        if done.returncode:
            rows.pop(name, None)
            failed.append(f"{name}: {done.stderr.strip().splitlines()[-1]}")
            continue
        rows[name] = json.loads(done.stdout.splitlines()[-1])
        with contextlib.redirect_stdout(io.StringIO()):
            write_result(
                "peers", [rows[n] for n in PEERS if n in rows], packages={p: importlib.metadata.version(p) for p in PACKAGES}
            )
        sys.stdout.write(
            f"{name}: logits {rows[name]['max_relative_difference']:.1e}, "
            f"gradient {rows[name]['gradient_relative_difference']:.1e}\n"
        )
        sys.stdout.flush()
    if failed:
        raise SystemExit("\n".join(failed))


if __name__ == "__main__":
    main()
