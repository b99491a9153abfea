"""The rows of benchmarks.accelerator, each a function that yields what it measured, in parts, as soon as a part is known.

A row runs in a process of its own (accelerator_row.py), so that its peak of memory is its own, and so that what ends it ends
nothing else. Goldens are compared by the checks of the tests.
"""

import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .accelerator_problems import MEMBERS, PRECISIONS, SIZES, STEPS, Problem, problem, step_operations
from .record import ROOT
from .timing import MATMUL, matmul_rate, seconds

Parts = Iterator[dict[str, Any]]
GOAL_HEAD = 0.3  # seconds, every pixel of 224 x 224 on an H100
GOAL_MASKS = 2.0  # times the best PyTorch


class Asked(NamedTuple):
    """What the command says to every row: small sizes, and a Python whose PyTorch runs on this device, or why there is none."""

    small: bool
    torch: str = ""
    without_torch: str = ""

    @property
    def side(self) -> int:
        """Of the matrices whose product is the floor: so large that it fills the device."""
        return 500 if self.small else 12_000 if _on_accelerator() else MATMUL


def equality(asked: Asked) -> Parts:
    """The goldens of the published code, and the CPU's own numbers."""
    from tests.golden_sections import decomposition, forward, gradients, search

    shared = ROOT.parent / "shared" / "golden"
    golden = ROOT / "tests" / "golden" if asked.small or not shared.is_dir() else shared
    sections: dict[str, tuple[Any, Callable[[Path, str], None]]] = {
        "forward": (forward, forward.check),
        "gradient": (gradients, gradients.check),
        "decomposition": (decomposition, decomposition.check),
        "trajectory": (search, search.check_single),
    }
    for name, (section, check) in sections.items():
        cases, failed = section.cases(golden)[: 1 if asked.small else None], {}
        for case in cases:
            try:
                check(golden, case)
            except AssertionError as error:
                failed[case] = " ".join(str(error).split())[:300]
        yield {"part": name, "cases": len(cases), "equal": len(cases) - len(failed), "failed": failed}


def equality_cpu(asked: Asked) -> Parts:
    """The same search on this device and by the CPU of this machine, as maps."""
    import jax
    import numpy as np

    size = SIZES["masks-full-16"][1]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cpu.npz"
        command = [sys.executable, "-c", f"from benchmarks.accelerator_rows import write_trajectory as w; w({str(file)!r})"]
        environment = {**_environment(), "JAX_PLATFORMS": "cpu"}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        expected = dict(np.load(file))
    found = _trajectory(problem(size, ("float32",)))
    for name, value in found.items():
        apart = np.abs(value.astype(np.float64) - expected[name])
        yield {"part": name, "largest": float(apart.max()), "median": float(np.median(apart)), "scale": float(np.ptp(value))}
    yield {"part": "backend", "is": jax.default_backend()}


def equality_devices(asked: Asked) -> Parts:
    """Members on all devices of this machine, and on one."""
    import jax
    import numpy as np

    from quam_jax.core.layout.choose import Layout

    devices = jax.local_device_count()
    if devices == 1:
        yield {"part": "devices", "left_out": "one device here"}
        return
    given = problem(SIZES["masks-full-16"][1], ("float32",))
    one, all_of_them = (_trajectory(given, Layout("vmap", "scan", devices=count)) for count in (1, devices))
    for name, value in one.items():
        yield {"part": name, "devices": devices, "largest": float(np.abs(value - all_of_them[name]).max())}


def write_trajectory(file: str) -> None:
    """What the CPU finds, for `equality_cpu`."""
    import numpy as np

    np.savez(file, **_trajectory(problem(SIZES["masks-full-16"][1], ("float32",))))


def _trajectory(given: Problem, layout: Any = None) -> dict[str, Any]:
    import jax
    import numpy as np

    from quam_jax.core.layout.choose import AUTO
    from quam_jax.core.searching import search_prepared

    found = search_prepared(
        given.prepared["float32"], given.images[0], given.targets, key=jax.random.key(0), layout=layout or AUTO
    )
    return {name: np.asarray(getattr(found, name)) for name in ("probs", "objective", "fit_loss")}


def pixels_head(asked: Asked) -> Parts:
    """Every pixel its own head."""
    from .pixel_problems import head_searches, line_work, work

    side = 16 if asked.small else 224
    problem = head_searches(side)
    for name, search, operations in (
        ("iterative", problem.search(), functools.partial(work, problem.count)),
        ("line search", problem.search(solver="line_search"), lambda found: line_work(problem.count)),
    ):
        start = time.perf_counter()
        found = search()
        first = time.perf_counter() - start
        each = seconds(search, 3 if asked.small else 5)
        share = operations(found) / matmul_rate(asked.side) / each
        goal = {} if asked.small or name != "iterative" else {"goal_seconds": GOAL_HEAD}
        yield {"part": name, "targets": problem.count, "seconds": each, "first_seconds": first, "floor_fraction": share, **goal}


def pixels_last_block(asked: Asked) -> Parts:
    """Pixels in the last block of AttUNet-16, on patches."""
    from .pixel_problems import block_search, block_work

    count = 32 if asked.small else 4096
    _, call, targets = block_search(count, side=40 if asked.small else 224)
    start = time.perf_counter()
    call()
    first = time.perf_counter() - start
    each = seconds(call, 2 if asked.small else 5)
    share = block_work(targets) / matmul_rate(asked.side) / each
    yield {"part": "patches", "targets": targets, "seconds": each, "first_seconds": first, "floor_fraction": share}


def masks(asked: Asked, name: str) -> Parts:
    """Masks in the full network, beside the best PyTorch, at every precision that both have."""
    import jax

    from quam_jax.config import ExecutionConfig
    from quam_jax.config.build import build_layout
    from quam_jax.core.layout.choose import choose_group
    from quam_jax.core.layout.members import plans_made
    from quam_jax.core.searching import search_images
    from quam_jax.memory import budget, peak_memory

    budget()  # before anything is there
    size = SIZES[name][asked.small]
    precisions = ("float32",) if asked.small else tuple(PRECISIONS)
    given = problem(size, precisions)
    layout, pixels = build_layout(ExecutionConfig()), given.images[0][..., 0].size
    group = min(len(given.images), choose_group(layout, members=MEMBERS, pixels=pixels))
    rounds = 2 if asked.small else 5

    def ours(precision: str) -> None:
        for start in range(0, len(given.images), group):
            some = given.images[start : start + group]
            keys = [jax.random.key(0)] * len(some)
            targets = [given.targets] * len(some)
            jax.block_until_ready(search_images(given.prepared[precision], some, targets, keys=keys, layout=layout))

    rate = matmul_rate(asked.side)
    with tempfile.TemporaryDirectory() as folder:
        path = given.save(Path(folder), size)
        for precision in precisions:
            start = time.perf_counter()
            ours(precision)
            first = time.perf_counter() - start
            each = seconds(functools.partial(ours, precision), rounds) / len(given.images)
            work = step_operations(given.prepared[precision], given.images[0], given.targets) * MEMBERS * STEPS
            plan = plans_made()[-1]
            yield {
                "part": f"ours {precision}",
                "seconds": each,
                "first_seconds": first,
                "float32_rate_fraction": work / rate / each,
                "images_together": group,
                "plan": str(plan),
                "planned_bytes": plan.predicted,
                "peak_bytes": peak_memory(),
            }
            if asked.without_torch:
                yield {"part": f"PyTorch {precision}", "left_out": asked.without_torch}
                continue
            best = None
            for row in torch_ways(asked, path, precision=precision, rounds=rounds):
                yield {"part": f"PyTorch {precision} {row.pop('way')}", **row}
                best = min(best or row.get("seconds", float("inf")), row.get("seconds", float("inf")))
            again = seconds(functools.partial(ours, precision), rounds) / len(given.images)
            if best is not None and best < float("inf"):
                ratio = best / ((each + again) / 2)
                yield {"part": f"ratio {precision}", "seconds_again": again, "ratio_best": ratio, "goal_ratio": GOAL_MASKS}


def torch_ways(asked: Asked, folder: Path, *, precision: str, rounds: int) -> Parts:
    """What the PyTorch side says, line by line."""
    import jax

    device = {"gpu": "cuda"}.get(jax.default_backend(), "cpu")
    command = [asked.torch, "-m", "benchmarks.accelerator_torch", str(folder), "--precision", precision]
    command += ["--device", device, "--rounds", str(rounds)]
    environment = _environment()
    if asked.small:  # compiling takes longer than all rows together; one thread, so that cores that others use stop nothing
        command += ["--ways", "joined,spared,mapped"]
        environment["OMP_NUM_THREADS"] = "1"
        yield {"way": "compiled", "left_out": "--small"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        yield {"way": "process", "failed": f"ended with code {process.returncode}"}


def bfloat16_maps(asked: Asked) -> Parts:
    """What lower precision inside a search does to the maps of the demo's images, beside float32 at the highest precision."""
    import numpy as np

    import quam_jax

    data = Path(quam_jax.__file__).parent / "demo_data"
    model = quam_jax.load_model(data / "model" / "att_unet.pth", arch="att_unet")
    ready = quam_jax.preprocessing_of(model)

    def read(path: Path) -> Any:
        array = ready.apply(quam_jax.read_image(path).array)
        return array[:40, :48] if asked.small else array

    def labels(path: Path) -> Any:
        found = quam_jax.read_labels(path, classes=2, like=None)
        return found[:40, :48] if asked.small else found

    known = sorted((data / "fit_images").glob("*.png"))[: 1 if asked.small else None]
    fit = quam_jax.fit_data(model, [read(p) for p in known], [labels(data / "fit_masks" / p.name) for p in known])
    images = [read(path) for path in sorted((data / "images").glob("*.png"))[: 1 if asked.small else None]]
    found = {}
    for name, settings in PRECISIONS.items():
        if asked.small and name == "TF32":
            continue
        search = quam_jax.SearchConfig(**settings, **({"steps": 2, "space": "last_block"} if asked.small else {}))
        samples = quam_jax.SampleConfig(**({"views": "none"} if asked.small else {}))
        config = quam_jax.Config(search=search, samples=samples)
        found[name] = [quam_jax.quantify(model, image, fit, config=config) for image in images]
        if name == "float32":
            continue
        for kind in ("aleatoric", "epistemic"):
            pairs = [(getattr(a, kind), getattr(b, kind)) for a, b in zip(found["float32"], found[name], strict=True)]
            yield {
                "part": f"{name} {kind}",
                "images": len(images),
                "largest": float(max(np.abs(a - b).max() for a, b in pairs)),
                "mean": float(np.mean([np.abs(a - b).mean() for a, b in pairs])),
                "scale": float(np.mean([a.max() for a, _ in pairs])),
                "pcc": float(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])),
            }


def _on_accelerator() -> bool:
    import jax

    return jax.default_backend() != "cpu"


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}
