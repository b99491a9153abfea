"""Converting a large checkpoint: seconds, and memory beside the size of the file.

Claims: a checkpoint of 100 MB is read, mapped, checked and saved in under 10 s, and takes under 3 times its size of memory
beyond what a process has that only imported the converter. The checkpoint is nnU-Net's plain network with random weights.
`python -m benchmarks.conversions_large` converts it from a .pth and a .safetensors file, each several times in a process of
its own, and writes benchmarks/results/conversions_large.json.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from .record import write_result

FEATURES = (32, 64, 128, 256, 512, 512, 512)
SUFFIXES = (".pth", ".safetensors")


def write_checkpoint(path: Path, features: tuple[int, ...] = FEATURES) -> float:
    """Write a checkpoint with nnU-Net's names; its size in megabytes."""
    from converters.export import WRITERS
    from converters.mapping import torch_shapes
    from quam_jax.models.model import Network

    network = Network.create("nnunet_plain", in_channels=1, n_classes=3, rank=2, features_per_stage=features)
    rng = np.random.default_rng(0)
    WRITERS[path.suffix](path, {n: rng.standard_normal(s, np.float32) for n, s in torch_shapes(network).items()})
    return path.stat().st_size / 1e6


def convert_here(source: Path | None, target: Path) -> dict[str, float]:
    """Import everything and, if there is a source, convert it: seconds and the peak memory of this process in megabytes."""
    import jax

    from converters.convert import convert
    from quam_jax.models.folder import save_model

    jax.devices()
    start = time.perf_counter()
    if source is not None:
        save_model(target, convert(source))
    seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": seconds, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6}


def measure(suffix: str, *, repeats: int, features: tuple[int, ...] = FEATURES) -> dict[str, Any]:
    """Convert a checkpoint in processes of their own: median seconds, and the largest memory beyond importing."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"net{suffix}"
        size = write_checkpoint(source, features)
        baseline = min(_child("-", Path(folder) / "none")["megabytes"] for _ in range(2))
        start = time.perf_counter()
        runs = [_child(str(source), Path(folder) / f"model{n}") for n in range(repeats)]
        process = (time.perf_counter() - start) / repeats
    memory = max(run["megabytes"] for run in runs) - baseline
    return {
        "name": f"nnunet_plain{suffix}",
        "megabytes": size,
        "seconds": statistics.median(run["seconds"] for run in runs),
        "process_seconds": process,
        "memory_megabytes": memory,
        "memory_ratio": memory / size,
        "import_only_megabytes": baseline,
    }


def _child(source: str, target: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.conversions_large", "--child", source, str(target)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        source, target = options.child
        sys.stdout.write(json.dumps(convert_here(None if source == "-" else Path(source), Path(target))) + "\n")
        return
    write_result("conversions_large", [measure(suffix, repeats=options.repeats) for suffix in SUFFIXES])


if __name__ == "__main__":
    main()
