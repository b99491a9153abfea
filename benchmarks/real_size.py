"""Images at their real size through `quam-jax run`: seconds, and the peak of memory as the operating system saw it.

Claims, on 2 cores:
- `cells`: ten BU-BIL images of 1024 x 811 with 8 fit cases, default search: at most 4 GB and 40 s an image; with `--memory 2GB`
  it ends too, and the maps are equal within 1e-5 nats; beside it without views;
- `torch`: the same search of one image in PyTorch, both without views (benchmarks.torch_search: same crops and micro-batches), is
  not faster than ours and takes no less memory; both sides in turn;
- `published`: AttUNet-64 at 224 x 224, default search, against the same in PyTorch;
- `vessels`: 2048 x 2048 RGB with a W-Net: at most 4 GB.
Every run is a process of its own. `python -m benchmarks.real_size` writes benchmarks/results/real_size.json; what volumes take is
in benchmarks.real_volume.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .parts import Parts

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
MODEL = ROOT / "quam_jax/demo_data/model/att_unet.pth"
RUNS: dict[str, tuple[str, ...]] = {"default": (), "--memory 2GB": ("--memory", "2GB"), "--views none": ("--views", "none")}
PARTS = ("cells", "torch", "published", "vessels")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED / "data/bubil", help="with images and masks")
    parser.add_argument("--wnet", type=Path, default=SHARED / "weights/lwnet/big_wnet_drive_av.pth")
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--name", default="real_size", help="of the result file")
    options = parser.parse_args()
    results = Parts(options.name)
    with tempfile.TemporaryDirectory() as folder:
        for part in options.parts:
            results.begin(part)
            results.add(part, globals()[f"_{part}"](Path(folder), options))


def measured(command: Sequence[str]) -> tuple[float, int, str]:
    """Seconds and peak bytes of a process, and what it printed; RuntimeError with its words where it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError(f"{' '.join(command)}: {said[-2000:]}")
    return seconds, usage.ru_maxrss * 1024, said


def quam(*arguments: object) -> list[str]:
    """A command of quam-jax as a new process."""
    return [sys.executable, "-c", "from quam_jax.cli import main; main()", *map(str, arguments)]


def links(folder: Path, files: Sequence[Path]) -> Path:
    """A folder with some files."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / file.name).symlink_to(file)
    return folder


def _run(out: Path, *arguments: object) -> dict[str, Any]:
    seconds, peak, _ = measured(quam("--quiet", "run", *arguments, "--out", out))
    with (out / "timing.csv").open(newline="", encoding="utf-8") as file:
        times = [float(line["search"]) for line in csv.DictReader(file)]
    told = json.loads((out / "run.json").read_text()).get("memory", {})
    return {
        "images": len(times),
        "seconds": seconds,
        "seconds_each": statistics.median(times[1:] or times),  # the first image compiles
        "first_seconds": times[0],
        "peak_bytes": peak,
        "predicted_bytes": max((plan["predicted"] for plan in told.get("plans", [])), default=None),
        "plan": told.get("plans", [{}])[0].get("chosen"),
    }


def _cells(folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    import numpy as np

    images = sorted((options.data / "images").iterdir())[: options.images]
    some = links(folder / "cells", images)
    arguments = ("--model", MODEL, "--arch", "att_unet", "--images", some)
    fit = ("--fit-images", options.data / "images", "--fit-masks", options.data / "masks")
    for number, (name, extra) in enumerate(RUNS.items()):
        row = {"run": name, "size": "1024 x 811", **_run(folder / f"out_{number}", *arguments, *fit, *extra)}
        if name == "--memory 2GB":
            pairs = [(path, folder / "out_0" / path.name) for path in (folder / f"out_{number}").glob("*_uncertainty.npz")]
            row["maps_compared"] = len(pairs)
            row["largest_difference_nats"] = max(float(np.abs(_read(a) - _read(b)).max()) for a, b in pairs)
        yield row


def _read(path: Path) -> Any:
    import numpy as np

    with np.load(path) as file:
        return np.asarray(file[max(file.files, key=lambda name: file[name].size)], np.float64)


def _torch(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    images = sorted((options.data / "images").iterdir())[:2]
    return _beside(folder / "torch", images, options.data / "images", options.data / "masks", model=MODEL, rounds=2)


def _published(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Crops of 224 x 224 around the middles of the images, and AttUNet-64 with random weights."""
    import jax
    import numpy as np
    from PIL import Image

    import quam_jax
    from quam_jax.models.folder import save_model
    from quam_jax.models.model import Network, SegmentationModel

    root = folder / "published"
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
        for file in sorted((options.data / kind).iterdir()):
            picture = np.asarray(Image.open(file))
            top, left = (n // 2 - 112 for n in picture.shape[:2])
            Image.fromarray(picture[top : top + 224, left : left + 224]).save(root / kind / file.name)
    network = Network.create("att_unet", in_channels=1, n_classes=2, channels=64, drop=0.0, decoder_drop=0.0)
    save_model(root / "model", SegmentationModel(network, *network.initialise(jax.random.key(0))))
    del quam_jax
    images = sorted((root / "images").iterdir())[:2]
    return _beside(root / "beside", images, root / "images", root / "masks", model=root / "model", rounds=1)


def _beside(
    folder: Path, images: Sequence[Path], fit_images: Path, fit_masks: Path, *, model: Path, rounds: int
) -> list[dict[str, Any]]:
    """Our run and PyTorch's search of the same images, in turn; both with the same crops and micro-batches."""
    some = links(folder / "some", images)
    problem, state = folder / "problem.npz", folder / "state.npz"
    measured(
        [sys.executable, "-m", "benchmarks.real_size_problem", *map(str, (model, some, fit_images, fit_masks, problem, state))]
    )
    ours, theirs = [], []
    for number in range(rounds):
        arguments = ("--model", model, *(("--arch", "att_unet") if model.suffix == ".pth" else ()), "--images", some)
        known = ("--fit-images", fit_images, "--fit-masks", fit_masks, "--views", "none")  # PyTorch's search has none
        ours.append(_run(folder / f"ours_{number}", *arguments, *known))
        out = folder / "torch.json"
        measured([sys.executable, "-m", "benchmarks.torch_search", str(problem), str(state), str(out)])
        theirs.append(json.loads(out.read_text()))
    seconds = min(s for one in theirs for s in one["seconds"][1:])
    each = min(one["seconds_each"] for one in ours)
    peaks = max(one["peak_bytes"] for one in ours), max(one["peak"] for one in theirs)
    return [
        {"run": "ours", **ours[0], "seconds_each": each, "peak_bytes": peaks[0]},
        {"run": "PyTorch", "seconds_each": seconds, "peak_bytes": peaks[1]},
        {"run": "PyTorch / ours", "seconds_each": seconds / each, "peak_bytes": peaks[1] / peaks[0]},
    ]


def _vessels(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A picture of a fundus photograph's size: cells in three colours, enlarged. Fit masks are the network's own labels."""
    import numpy as np
    from PIL import Image

    import quam_jax

    root, model = folder / "vessels", quam_jax.load_model(options.wnet)
    for name in ("images", "fit", "masks"):
        (root / name).mkdir(parents=True)
    for number, file in enumerate(sorted((options.data / "images").iterdir())[:5]):
        grey = np.asarray(Image.open(file).convert("L").resize((2048, 2048), Image.Resampling.BICUBIC))
        picture = np.stack([grey, np.flipud(grey), np.fliplr(grey)], -1)
        if number == 0:
            Image.fromarray(picture).save(root / "images" / "large.png")
            continue
        Image.fromarray(picture).save(root / "fit" / f"{number}.png")
        rows = [np.asarray(model(picture[None, r : r + 256] / np.float32(255)))[0].argmax(-1) for r in range(0, 2048, 256)]
        Image.fromarray(np.concatenate(rows).astype(np.uint8)).save(root / "masks" / f"{number}.png")
    paths = ("--images", root / "images", "--fit-images", root / "fit", "--fit-masks", root / "masks")
    prepared = ("--preprocessing", json.dumps({"normalise": "none", "channels": 3, "scale": 255}))
    return [{"run": "default", "size": "2048 x 2048 x 3", **_run(root / "out", "--model", options.wnet, *paths, *prepared)}]


if __name__ == "__main__":
    main()
