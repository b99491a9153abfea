"""Rows of benchmarks.accelerator that take whole runs and plans: a hundred images end to end, and what each plan takes."""

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from .accelerator_problems import SIZES, problem
from .accelerator_rows import Asked
from .timing import seconds

Parts = Iterator[dict[str, Any]]
IMAGES = 100


def default_run(asked: Asked) -> Parts:
    """The default settings on a folder of images: seconds, what the device did meanwhile, and the plan beside the peak."""
    import numpy as np
    from PIL import Image

    import quam_jax
    from quam_jax.config import Config, SampleConfig, SearchConfig
    from quam_jax.runs.request import RunRequest
    from quam_jax.runs.run import run

    data = Path(quam_jax.__file__).parent / "demo_data"
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "images").mkdir()
        given = [np.asarray(Image.open(path)) for path in sorted((data / "images").glob("*.png"))]
        for n in range(2 if asked.small else IMAGES):  # mirrored and shifted, so that no two are the same
            image = np.roll(given[n % len(given)][:: 1 - 2 * (n // 5 % 2)], int(rng.integers(0, 99)), 1)
            Image.fromarray(image[:48, :48] if asked.small else image).save(root / "images" / f"{n:03}.png")
        few = Config(search=SearchConfig(steps=1, space="last_block"), samples=SampleConfig(views="none"))
        request = RunRequest(
            model=data / "model" / "att_unet.pth",
            arch="att_unet",
            images=root / "images",
            out=root / "out",
            fit_images=data / "fit_images",
            fit_masks=data / "fit_masks",
            config=few if asked.small else Config(),
        )
        start, processor = time.perf_counter(), time.process_time()
        with _Watch() as watch:
            run(request)
        wall = time.perf_counter() - start
        info = json.loads((root / "out" / "run.json").read_text())
        yield {
            "part": "run",
            "images": len(info["cases"]),
            "seconds": wall,
            **info["throughput"],
            **watch.figures(),
            "processor_share": (time.process_time() - processor) / wall / (os.cpu_count() or 1),
        }
        memory = next(iter(info["workers"].values()), {}).get("memory") or info.get("memory", {})
        for plan in memory.get("plans", []):
            yield {"part": "memory", **plan, "budget": memory["budget"], "peak": memory["peak"]}


class _Watch:
    """How busy the device said it was, four times a second; nothing where nobody says."""

    def __enter__(self) -> "_Watch":
        self.seen: list[float] = []
        self.process: Any = None
        if shutil.which("nvidia-smi"):
            command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "250"]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            threading.Thread(target=self._read, daemon=True).start()
        return self

    def _read(self) -> None:
        for line in self.process.stdout:
            try:
                self.seen.append(float(line.split()[0]))
            except (ValueError, IndexError):
                continue

    def __exit__(self, *_: Any) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()

    def figures(self) -> dict[str, Any]:
        """The median and mean of what was seen, in per cent."""
        if not self.seen:
            return {"utilisation": None}
        return {"utilisation": statistics.median(self.seen), "utilisation_mean": statistics.fmean(self.seen)}


def plans(asked: Asked, name: str) -> Parts:
    """One search by the plans that a device may take: seconds, the first call, and the bytes that were planned; then what `auto`
    times of its candidates, and which of them it chooses."""
    import jax

    from quam_jax.core.layout.choose import Layout
    from quam_jax.core.layout.measuring import like_searches
    from quam_jax.core.layout.members import plans_made
    from quam_jax.core.searching import search_images

    size = SIZES[name][asked.small]
    precision = "float32" if asked.small else "TF32"
    given = problem(size, (precision,))
    images, targets = given.images, [given.targets] * len(given.images)
    keys = [jax.random.key(0)] * len(images)
    ways = [("vmap", "scan"), ("loop", "loop"), ("unroll", "loop"), ("vmap", "loop"), ("unroll", "scan")]
    for members, steps in ways[:2] if asked.small else ways:
        for together in (1, len(images)) if members == "vmap" and len(images) > 1 and not asked.small else (1,):
            layout = replace(Layout(), members=members, steps=steps)

            def call(layout: Layout = layout, together: int = together) -> None:
                for start in range(0, len(images), together):
                    part = slice(start, start + together)
                    found = search_images(given.prepared[precision], images[part], targets[part], keys=keys[part], layout=layout)
                    jax.block_until_ready(found)

            row: dict[str, Any] = {"part": f"{members}, {steps}, {together} together"}
            start = time.perf_counter()
            try:
                call()
                row["first_seconds"] = time.perf_counter() - start
                row["seconds"] = seconds(call, 2 if asked.small else 3) / len(images)
                row["planned_bytes"] = plans_made()[-1].predicted
            except jax.errors.JaxRuntimeError as error:
                row["failed"] = str(error).splitlines()[0][:300]
            yield row
    with like_searches(10**9):  # so many that every candidate is timed
        jax.block_until_ready(search_images(given.prepared[precision], images, targets, keys=keys, layout=Layout()))
    choice = plans_made()[-1].choice
    assert choice is not None
    for candidate, each in choice.seconds.items():
        yield {"part": f"a step of a member, {candidate}", "seconds": each}
    yield {"part": "chosen", "name": choice.candidate.name, "how": choice.how}
