"""One row of benchmarks.accelerator in a process of its own: every part that it measures is a line of JSON in a file, at once.

It ends with the process that started it. `python -m benchmarks.accelerator_row NAME FILE` is called by benchmarks.accelerator;
the row `device` says what there is to measure.
"""

import argparse
import functools
import json
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from . import accelerator_rows, accelerator_runs
from .accelerator_rows import Asked
from .record import hardware, versions


class Row(NamedTuple):
    """What is measured, in words and by a function, and the seconds that it is expected to take, on an accelerator and small."""

    what: str
    measure: Callable[[Asked], Iterator[dict[str, Any]]]
    expected: float
    small: float


def _masks(name: str) -> Any:
    return functools.partial(accelerator_rows.masks, name=name)


ROWS: dict[str, Row] = {  # in order of worth
    "equality": Row("numbers of the published code", accelerator_rows.equality, 90, 20),
    "equality-cpu": Row("one search, this device and the CPU", accelerator_rows.equality_cpu, 40, 10),
    "pixels-head": Row("every pixel of 224 x 224 its own head", accelerator_rows.pixels_head, 25, 6),
    "masks-full-16": Row("AttUNet-16 at 224 x 224, beside PyTorch", _masks("masks-full-16"), 90, 20),
    "plans-16": Row("AttUNet-16 by every plan", functools.partial(accelerator_runs.plans, name="masks-full-16"), 120, 25),
    "masks-full-64": Row("AttUNet-64 at 224 x 224, beside PyTorch", _masks("masks-full-64"), 100, 15),
    "masks-full-3d": Row("a patch of 128 x 128 x 128 of nnU-Net, beside PyTorch", _masks("masks-full-3d"), 120, 15),
    "pixels-last-block": Row("4,096 pixels in the last block", accelerator_rows.pixels_last_block, 25, 8),
    "default-run": Row("100 images by the default, end to end", accelerator_runs.default_run, 60, 25),
    "equality-devices": Row("members on all devices and on one", accelerator_rows.equality_devices, 25, 8),
    "bfloat16-maps": Row("what bfloat16 does to the maps", accelerator_rows.bfloat16_maps, 60, 15),
    "plans-64": Row("AttUNet-64 by every plan", functools.partial(accelerator_runs.plans, name="masks-full-64"), 150, 25),
}


def describe() -> dict[str, Any]:
    """Device, driver and versions; `cuda` is the major version that JAX was built for, None without."""
    import re
    import shutil
    import subprocess

    import jax

    found = str(getattr(jax.devices()[0].client, "platform_version", ""))
    cuda = re.search(r"cuda (\d+)", found)
    version = int(cuda[1]) if cuda else None
    driver = None
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = (subprocess.run(asked, capture_output=True, text=True).stdout.split() or [None])[0]
    kind = jax.devices()[0].device_kind
    return {
        **hardware(),
        "kind": kind,
        "devices": jax.local_device_count(),
        "platform_version": " ".join(found.split()),
        "cuda": None if version is None else version // 1000 if version >= 1000 else version,
        "driver": driver,
        "versions": versions(),
    }


def _end_with_parent() -> None:
    sys.stdin.read()  # ends when the process at the other side does
    os._exit(1)


def finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: None."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", choices=("device", *ROWS))
    parser.add_argument("file", type=Path)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--torch", default="")
    parser.add_argument("--without-torch", default="")
    options = parser.parse_args()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from quam_jax.process import keep_freed_memory

    keep_freed_memory()
    asked = Asked(options.small, options.torch, options.without_torch)
    with options.file.open("a") as file:
        for part in iter([describe()]) if options.row == "device" else ROWS[options.row].measure(asked):
            file.write(json.dumps(finite(part)) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
