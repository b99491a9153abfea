"""A volume of 128 x 128 x 64 voxels by a real nnU-Net model: prediction against PyTorch, and a search of its boundary band.

Claims (2 CPU cores, float32, one fold, patches of 32 x 40 x 32, mirrored over three axes): the reference prediction takes at most
1.5 times as long as PyTorch's with the same patches and mirrorings (one at a time as nnU-Net does, all mirrorings of a patch
together, or patches on a core each, whichever is fastest), timed on a part of the volume, as patches cost the same everywhere;
one model for every voxel of the boundary band in the space head takes under 2 minutes; neither takes more than 6 GB. The volume
is a hippocampus scan continued by reflection, so that its segmentation is a real one. Memory is the peak of a process of its own.
`python -m benchmarks.volume --model FOLDER --images FOLDER --labels FOLDER` prints the rows and writes
benchmarks/results/volume.json.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .record import write_result
from .timing import alternate, threads

SIZE, PART = (128, 128, 64), (64, 64, 64)
SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
MODEL = "golden/N_nnunet/models/Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlansSmall__3d_fullres/fold_0/checkpoint_final.pth"
PARTS = ("prediction", "penalty", "line_search")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=SHARED / MODEL, help="checkpoint of one fold of an nnU-Net model")
    parser.add_argument("--images", type=Path, default=SHARED / "data/hippocampus/images", help="the first is the scan")
    parser.add_argument("--labels", type=Path, default=SHARED / "data/hippocampus/labels")
    parser.add_argument("--size", type=int, nargs=3, default=SIZE)
    parser.add_argument("--compared", type=int, nargs=3, default=PART, help="voxels of the part that PyTorch predicts too")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--parts", nargs="+", choices=("torch", *PARTS), default=["torch", *PARTS])
    parser.add_argument("--child", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--name", default="volume", help="of the result file")
    options = parser.parse_args()
    if options.child:
        sys.stdout.write(json.dumps(one_part(options)) + "\n")
        return
    rows = []
    if "torch" in options.parts:
        rows.append(against_torch(options))
    for part in (p for p in PARTS if p in options.parts):
        command = [
            sys.executable,
            "-m",
            "benchmarks.volume",
            "--child",
            part,
            "--model",
            str(options.model),
            "--images",
            str(options.images),
            "--labels",
            str(options.labels),
            "--size",
            *map(str, options.size),
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    setting = {"size": list(options.size), "compared": list(options.compared), "rounds": options.rounds, "threads": threads()}
    write_result(options.name, rows, setting=setting)


def scene(options: argparse.Namespace, config: Any) -> tuple[Any, Any, Any]:
    """The model with its fit data, and the volume as an image with its geometry."""
    import numpy as np

    from quam_jax.case.fit import read_fit_patches
    from quam_jax.case.shared import planned_model
    from quam_jax.data.datasets import find_channel_cases
    from quam_jax.data.itk import nifti_geometry
    from quam_jax.data.plans import Plan
    from quam_jax.data.volumes import read_image
    from quam_jax.models.coding import Coding
    from quam_jax.models.loading import load_models

    models, where = load_models(options.model), str(options.model)
    plan = Plan.of(models[0].manifest, where=where)
    coding = Coding.of(plan, where=where)
    cases = find_channel_cases(options.images, options.labels, channels=len(plan.normalisation))
    known = read_fit_patches(cases, options.labels, plan=plan, coding=coding, settings=config.fit)
    shared = planned_model(models, known.images, known.labels, plan=plan, coding=coding, search=config.search)
    scan = read_image(sorted(options.images.iterdir())[0]).array
    more = [(0, max(0, n - m)) for n, m in zip(options.size, scan.shape, strict=False)]
    image = np.pad(scan, [*more, (0, 0)], mode="symmetric")
    image = np.ascontiguousarray(image[tuple(slice(n) for n in options.size)])
    spacing = tuple(plan.spacing[::-1])
    return (
        shared,
        image,
        nifti_geometry(tuple(options.size), np.diag([*spacing, 1.0]), spacing=spacing, suffix=".nii.gz", mode="float32"),
    )


def against_torch(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the reference prediction on both sides, in turn, and how far the logits differ."""
    import numpy as np
    import torch

    from converters.export import state_dict
    from quam_jax.case.prediction import mirrorings, predict_logits
    from quam_jax.config import Config, FitConfig
    from quam_jax.data.patches import cut, importance, lay_patches, weight_sum
    from quam_jax.data.plans import to_grid
    from quam_jax.process import keep_freed_memory

    from .torch_nnunet import NNUNet

    keep_freed_memory()  # as the command line does; both sides gain
    torch.set_num_threads(threads())
    shared, image, geometry = scene(options, Config(fit=FitConfig(fit_cases=1)))
    volume, _ = to_grid(image, geometry, shared.plan)
    volume = np.ascontiguousarray(volume[tuple(slice(n) for n in options.compared)])
    patches, weights = lay_patches(volume.shape[:-1], shared.plan.patch), torch.from_numpy(importance(shared.plan.patch))
    model = shared.folds[0].model
    arguments = dict(model.network.arguments)
    stages = len(arguments["features_per_stage"])
    net = NNUNet(
        arguments["in_channels"],
        arguments["n_classes"],
        arguments["features_per_stage"],
        rank=3,
        residual=False,
        counts=_each(arguments["n_conv_per_stage"], stages),
        decoder_counts=_each(arguments["n_conv_per_stage_decoder"], stages - 1),
        kernel_sizes=arguments.get("kernel_sizes") or [(3,) * 3] * stages,
        strides=arguments["strides"],
    ).eval()
    stored = state_dict(model)  # holds nnU-Net's aliases too
    net.load_state_dict({name: torch.tensor(np.asarray(stored[name])) for name in net.state_dict()})
    flips = mirrorings(shared.plan.mirror_axes)

    def patch_logits(index: int, together: bool) -> torch.Tensor:
        with torch.inference_mode():
            patch = torch.from_numpy(np.ascontiguousarray(cut(volume, patches, index))).movedim(-1, 0)[None]
            turned = [torch.flip(patch, [a + 2 for a in flip]) for flip in flips]
            logits = list(net(torch.cat(turned))[:, None]) if together else [net(x) for x in turned]
            mean = sum(torch.flip(z, [a + 2 for a in flip]) for z, flip in zip(logits, flips, strict=True))
            return mean[0] * weights

    pool = ThreadPoolExecutor(threads(), initializer=torch.set_num_threads, initargs=(1,))

    def predict(together: bool, run: Callable[..., Iterable[torch.Tensor]] = map) -> np.ndarray:
        total = torch.zeros(arguments["n_classes"], *patches.shape)
        count = len(patches.starts)
        for index, logits in enumerate(run(patch_logits, range(count), [together] * count)):
            outer, inner = patches.overlap(index)
            total[(slice(None), *outer)] += logits[(slice(None), *inner)]
        torch.set_num_threads(threads())
        return total.movedim(0, -1).numpy() / (weight_sum(patches)[..., None] * len(flips))

    def ours() -> np.ndarray:
        return predict_logits([fold.model for fold in shared.folds], volume, patches, mirror_axes=shared.plan.mirror_axes)

    difference = float(np.abs(ours() - predict(False)).max())
    times = alternate(
        {
            "ours": ours,
            "torch one by one": lambda: predict(False),
            "torch together": lambda: predict(True),
            "torch threads": lambda: predict(False, pool.map),
        },
        rounds=options.rounds,
    )
    best = min(times["torch one by one"], times["torch together"], times["torch threads"])
    return {
        "what": "reference prediction",
        "patches": len(patches.starts),
        "mirrorings": len(flips),
        "seconds": times["ours"],
        "torch_one_by_one_seconds": times["torch one by one"],
        "torch_together_seconds": times["torch together"],
        "torch_threads_seconds": times["torch threads"],
        "ratio": times["ours"] / best,
        "largest_difference_of_logits": difference,
    }


def _each(value: Any, count: int) -> list[int]:
    return [value] * count if isinstance(value, int) else list(value)


def one_part(options: argparse.Namespace) -> dict[str, Any]:
    """One part in a process of its own, with the peak of its memory."""
    from quam_jax.process import keep_freed_memory

    keep_freed_memory()
    import numpy as np

    from quam_jax.case.prediction import predict_logits
    from quam_jax.case.quantify import quantify_images
    from quam_jax.config import Config, SearchConfig, TargetConfig
    from quam_jax.data.patches import lay_patches
    from quam_jax.data.plans import to_grid

    solver = "line_search" if options.child == "line_search" else "penalty"
    config = Config(
        targets=TargetConfig(target="pixel", pixels="band", band_width=2),
        search=SearchConfig(space="head", solver=solver, members=1, learning_rate=1e-2),
    )  # type: ignore[arg-type]
    shared, image, geometry = scene(options, config)
    start = time.perf_counter()
    volume, _ = to_grid(image, geometry, shared.plan)
    patches = lay_patches(volume.shape[:-1], shared.plan.patch)
    predict_logits([fold.model for fold in shared.folds], volume, patches, mirror_axes=shared.plan.mirror_axes)
    predicted = time.perf_counter() - start
    row: dict[str, Any] = {"what": f"{options.child} of a whole process", "prediction_seconds": predicted}
    if options.child != "prediction":
        start = time.perf_counter()
        (found,) = quantify_images(shared, [image], geometries=[geometry], config=config)
        row |= {
            "what": f"search of the boundary band, {options.child}",
            "seconds": time.perf_counter() - start - predicted,
            "voxels": int((~np.isnan(found.fragility["slack"])).sum()),
            "models": sum(a.searched for a in found.audit),
            "kept": sum(a.kept for a in found.audit),
            "patches": found.searched_patches,
        }
    return row | {"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}


if __name__ == "__main__":
    main()
