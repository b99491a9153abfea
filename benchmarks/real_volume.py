"""Volumes of clinical size through `quam-jax run`, in a process of its own: time, and the peak of memory as the system saw it.

Two workloads. `band` is a volume of 512 x 512 x 128 voxels and a network of nnU-Net's hippocampus size (32 to 256 features,
patches of 40 x 56 x 40), every voxel of the boundary band by line search in the space head; claim: the peak is 6 GB at most.
`head` and `last_block` search the dilated and eroded masks, of a full-size network (`--network full`: six stages, 32 to 320
features, patches of 128 x 128 x 128) in a part of a volume.

Nobody's weights of that size may lie here. So a small trained nnU-Net is set into the large one: its channels are the first of
every layer and take nothing from the others, which have random weights and feed on all. The prediction is the small
network's, the work and the memory are the large one's (of the full-size one the levels below the small one's are random, and
the prediction follows the small one's roughly). The volume is noise with real scans in it.

`python -m benchmarks.real_volume` measures at several sizes, fits a line (bytes a voxel), and writes
benchmarks/results/real_volume.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .record import write_result
from .timing import threads

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
MODEL = "golden/N_nnunet/models/Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlansSmall__3d_fullres/fold_0/checkpoint_final.pth"
HIPPOCAMPUS = {"features": (32, 64, 128, 256), "patch": (40, 56, 40)}
SMALL = {"features": (8, 16, 32, 64), "patch": (32, 40, 32)}
FULL = {"features": (32, 64, 128, 256, 320, 320), "patch": (128, 128, 128)}
NETWORKS = {"hippocampus": HIPPOCAMPUS, "small": SMALL, "full": FULL}
SEARCHES = {
    "band": "--target pixel --pixels band --members 1 --space head --solver line_search",
    "head": "--space head --steps 2",
    "last_block": "--space last_block --steps 2",
}
BACKGROUND = 5.0  # added to the logit of the background
SCANS_EVERY = 2**20  # voxels of the volume for each scan in it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=SHARED / MODEL, help="checkpoint of the small trained network")
    parser.add_argument("--data", type=Path, default=SHARED / "data/hippocampus", help="with images and labels")
    parser.add_argument("--network", choices=NETWORKS, default="hippocampus")
    parser.add_argument("--patch", type=int, nargs=3, help="another patch than the network's own")
    parser.add_argument("--search", choices=SEARCHES, default="band")
    parser.add_argument("--mirror", action="store_true", help="over all axes, which takes eight times as long")
    parser.add_argument("--fit-cases", type=int, default=4)
    parser.add_argument("--sizes", nargs="+", default=["128x128x64", "256x256x64", "512x512x128"])
    parser.add_argument("--scans-every", type=int, default=SCANS_EVERY, help="voxels of the volume for each scan in it")
    parser.add_argument("--only", action="store_true", help="print the rows and write nothing")
    parser.add_argument("--trace", type=Path, help="write the resident memory over time to this file")
    parser.add_argument("--name", default="real_volume", help="of the result file")
    options = parser.parse_args()
    rows = []
    for text in options.sizes:
        rows.append(one_size(options, tuple(map(int, text.split("x")))))
        sys.stdout.write(json.dumps(rows[-1]) + "\n")
        sys.stdout.flush()
    if len(rows) > 1:
        rows.append(fitted(rows))
        sys.stdout.write(json.dumps(rows[-1]) + "\n")
    if not options.only:
        setting = {"network": options.network, "search": options.search, "mirror": options.mirror, "threads": threads()}
        write_result(options.name, rows, setting=setting)


def one_size(options: argparse.Namespace, size: Sequence[int]) -> dict[str, Any]:
    """Seconds and peak of a whole run on a volume of one size."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(options, size, root)
        command = [sys.executable, "-c", "from quam_jax.cli.commands import main; main()", "--quiet", "run"]
        command += ["--model", str(root / "model"), "--images", str(root / "images"), "--out", str(root / "out")]
        command += ["--fit-images", str(options.data / "images"), "--fit-masks", str(options.data / "labels")]
        command += ["--fit-cases", str(options.fit_cases), *SEARCHES[options.search].split()]
        start = time.perf_counter()
        peak, code, trace = watch(command)
        seconds = time.perf_counter() - start
        if code:
            raise RuntimeError(f"the run of {size} ended with exit code {code}")
        if options.trace:
            options.trace.write_text("".join(f"{at:.1f} {mb:.0f}\n" for at, mb in trace))
        (case,) = (
            (root / "out" / "cases").glob("*.json") if (root / "out" / "cases").is_dir() else (root / "out").glob("case*.json")
        )
        found = json.loads(case.read_text())
        return {
            "what": f"{options.search} of {options.network}",
            "size": list(size),
            "voxels": size[0] * size[1] * size[2],
            "patches": found["patches"],
            "patches_searched": found["patches_searched"],
            "models": sum(row["searched"] for row in found["audit"]),
            "kept": sum(row["kept"] for row in found["audit"]),
            "seconds": round(seconds, 1),
            "peak_gb": peak * 1024 / 1e9,
            "files_mb": sum(f.stat().st_size for f in (root / "out").rglob("*") if f.is_file()) / 1e6,
        }


def prepare(options: argparse.Namespace, size: Sequence[int], root: Path) -> None:
    """A model folder and one volume, in a process of its own, so that this one stays small."""
    code = "import sys; from benchmarks.real_volume import write_inputs; write_inputs(*sys.argv[1:])"
    setting = json.dumps(
        {name: getattr(options, name) for name in ("network", "patch", "mirror", "scans_every")} | {"size": size}
    )
    command = [sys.executable, "-c", code, str(options.model), str(options.data), str(root), setting]
    subprocess.run(command, check=True)


def write_inputs(model: str, data: str, root: str, setting: str) -> None:
    """The inputs of a run: `root/model` and `root/images/case_0000.nii.gz`."""
    import nibabel as nib
    import numpy as np

    from quam_jax.data.volumes import read_image
    from quam_jax.models.folder import save_model
    from quam_jax.models.loading import load_models

    wish = json.loads(setting)
    kind = NETWORKS[wish["network"]]
    (small,) = load_models(Path(model))
    patch = wish["patch"] or kind["patch"]
    save_model(Path(root) / "model", enlarge(small, kind["features"], patch=patch, mirror=wish["mirror"]))
    rng = np.random.default_rng(0)
    scans = [read_image(path).array[..., 0] for path in sorted((Path(data) / "images").iterdir())[:8]]
    scans = [(scan - scan.mean()) / scan.std() for scan in scans]
    size = wish["size"]
    volume = rng.standard_normal(size, np.float32) * np.float32(0.2)
    for number in range(max(1, volume.size // wish["scans_every"])):
        scan = scans[number % len(scans)]
        scan = scan[tuple(slice(min(n, m)) for n, m in zip(scan.shape, size, strict=True))]
        start = [int(rng.integers(0, m - n + 1)) for n, m in zip(scan.shape, size, strict=True)]
        volume[tuple(slice(s, s + n) for s, n in zip(start, scan.shape, strict=True))] = scan
    (Path(root) / "images").mkdir()
    stored = np.clip(volume * 200 + 1000, 1, 4000).astype(np.int16)
    nib.save(nib.Nifti1Image(stored, np.eye(4)), Path(root) / "images" / "case_0000.nii.gz")


def enlarge(small: Any, features: Sequence[int], *, patch: Sequence[int], mirror: bool) -> Any:
    """The prediction of a small network by one of more features: its channels come first and take nothing from the others.

    Where the large network has more stages than the small one its upper stages are the small one's, and what comes up from below
    goes to the other channels.
    """
    import jax
    import numpy as np

    from quam_jax.models.model import Network, SegmentationModel

    arguments = dict(small.network.arguments)
    old = arguments["features_per_stage"]
    stages = len(features)
    more = {
        "features_per_stage": tuple(features),
        "n_conv_per_stage": (2,) * stages,
        "n_conv_per_stage_decoder": (2,) * (stages - 1),
        "kernel_sizes": ((3, 3, 3),) * stages,
        "strides": ((1, 1, 1),) + ((2, 2, 2),) * (stages - 1),
    }
    network = Network.create(small.network.architecture, **{**arguments, **more})
    params, stats = network.initialise(jax.random.key(0))
    large = {name: np.array(value) for name, value in params.items()}
    for name, value in small.params.items():
        value = np.asarray(value)
        parts = name.split(".")
        if parts[0] == "decoder":  # counted from below
            parts[2] = str(int(parts[2]) + stages - len(old))
        target = large[".".join(parts)]
        rows = _places(value.shape, target.shape, joined=parts[0] == "decoder" and name.endswith("convs.0.conv.weight"))
        if value.ndim > 1:
            target[..., : value.shape[-1]] = 0  # nothing from the others
            target[..., rows, : value.shape[-1]] = value
        else:
            target[: len(value)] = value
    large[f"decoder.seg_layers.{stages - 2}.bias"][0] += BACKGROUND  # beyond its scans the small network sees things
    manifest = json.loads(json.dumps(small.manifest))
    manifest["nnunet"] |= {"patch_size": list(patch), "mirror_axes": [0, 1, 2] if mirror else []}
    return SegmentationModel(network, large, dict(stats), manifest)


def _places(small: Sequence[int], large: Sequence[int], *, joined: bool) -> Any:
    """Where the input channels of a small convolution stand among those of a large one: behind a joint, in both halves."""
    import numpy as np

    if len(small) < 2:
        return None
    count, whole = small[-2], large[-2]
    if not joined:
        return np.arange(count)
    return np.concatenate([np.arange(count // 2), whole // 2 + np.arange(count // 2)])


def watch(command: list[str]) -> tuple[int, int, list[tuple[float, float]]]:
    """Run a command; its largest resident memory in KiB, its exit code, and the memory in MB over time."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    trace: list[tuple[float, float]] = []
    start = time.perf_counter()

    def look() -> None:
        while child.returncode is None:
            try:
                pages = int(Path(f"/proc/{child.pid}/statm").read_text().split()[1])
                trace.append((time.perf_counter() - start, pages * os.sysconf("SC_PAGE_SIZE") / 1e6))
            except (OSError, IndexError, ValueError):
                return
            time.sleep(0.1)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    thread.join()
    return usage.ru_maxrss, child.returncode, trace


def fitted(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The line through the peaks: bytes a voxel, and what a volume of 512 x 512 x 300 would take by it."""
    import numpy as np

    voxels, peaks = np.array([row["voxels"] for row in rows], float), np.array([row["peak_gb"] for row in rows])
    slope, start = np.polyfit(voxels, peaks * 1e9, 1)
    residual = float(np.abs(start + slope * voxels - peaks * 1e9).max() / 1e9)
    return {
        "what": "line through the peaks",
        "bytes_a_voxel": float(slope),
        "at_no_voxel_gb": float(start / 1e9),
        "largest_residual_gb": residual,
        "peak_gb_of_512x512x300": float((start + slope * 512 * 512 * 300) / 1e9),
    }


if __name__ == "__main__":
    main()
