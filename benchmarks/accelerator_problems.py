"""What the rows of benchmarks.accelerator search: networks, images and wanted masks, alike for our side and for PyTorch's."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RATE, STEPS, MEMBERS = 5e-4, 6, 2
PRECISIONS = {  # ours: settings of a search; PyTorch takes the same names
    "float32": {"precision": "highest"},
    "TF32": {"precision": "default"},
    "bfloat16": {"precision": "default", "compute": "bfloat16"},
}


class Size(NamedTuple):
    """A network and the images that it is searched on; `twin` are the arguments of its PyTorch twin."""

    architecture: str
    arguments: dict[str, Any]
    twin: dict[str, Any]
    shape: tuple[int, ...]
    fit_cases: int
    images: int


def att_unet(channels: int, side: int, *, fit_cases: int = 4, images: int = 4) -> Size:
    """The attention U-Net of the published procedure."""
    arguments = dict(in_channels=1, n_classes=2, channels=channels, is_batchnorm=False, drop=0.0, decoder_drop=0.0)
    return Size("att_unet", arguments, arguments, (side, side), fit_cases, images)


def nnunet(features: tuple[int, ...], side: int, *, fit_cases: int = 2, images: int = 1) -> Size:
    """The plain network of nnU-Net in three dimensions."""
    stages = len(features)
    strides = ((1,) * 3, *((2,) * 3,) * (stages - 1))
    shared = dict(in_channels=1, n_classes=2, features_per_stage=features, rank=3, kernel_sizes=((3,) * 3,) * stages)
    counts, decoder = (2,) * stages, (2,) * (stages - 1)
    ours = {**shared, "strides": strides, "n_conv_per_stage": counts, "n_conv_per_stage_decoder": decoder}
    twin = {**shared, "strides": strides, "residual": False, "counts": counts, "decoder_counts": decoder}
    return Size("nnunet_plain", ours, twin, (side,) * 3, fit_cases, images)


TINY = att_unet(4, 32, images=1)  # one size for all, so that it is compiled once
SIZES = {  # row -> size on an accelerator, and with --small
    "masks-full-16": (att_unet(16, 224), TINY),
    "masks-full-64": (att_unet(64, 224), TINY),
    "masks-full-3d": (nnunet((32, 64, 128, 256, 320, 320), 128), nnunet((2, 4), 16)),
}


class Problem(NamedTuple):
    """Prepared for our side; `found` is what PyTorch needs of it."""

    prepared: dict[str, Any]  # by precision
    images: list[np.ndarray]
    targets: Any
    model: Any
    fit: np.ndarray
    fit_labels: np.ndarray
    wanted: np.ndarray

    def save(self, folder: Path, size: Size) -> Path:
        """Write what the PyTorch side reads."""
        from converters.mapping import to_torch

        weights = to_torch(self.model.network, self.model.params, self.model.stats)
        np.savez(folder / "weights.npz", **{name: np.asarray(value) for name, value in weights.items()})
        slack = self.prepared["float32"].procedure.slack
        np.savez(folder / "problem.npz", images=np.stack(self.images), fit=self.fit, labels=self.fit_labels, wanted=self.wanted)
        settings = {"architecture": size.architecture, "arguments": size.twin, "rate": RATE, "steps": STEPS}
        bound = np.asarray(self.prepared["float32"].bound).tolist()
        (folder / "settings.json").write_text(json.dumps({**settings, "bounds": bound, "slack": repr(slack)}))
        return folder


def problem(size: Size, precisions: tuple[str, ...] = tuple(PRECISIONS)) -> Problem:
    """Images of noise, a ball that is to grow and to shrink, and a network of random weights."""
    import jax
    import jax.numpy as jnp

    from quam_jax.config import SearchConfig
    from quam_jax.models.model import Network, SegmentationModel
    from quam_jax.models.predict import fit_data
    from quam_jax.models.prepare import prepare
    from quam_jax.targets.masks import mask_targets
    from quam_jax.targets.wanted.dilate import dilate
    from quam_jax.targets.wanted.erode import erode

    rng = np.random.default_rng(0)
    fit = rng.normal(size=(2, size.fit_cases, *size.shape, 1)).astype(np.float32)
    labels = (fit[..., 0] > 0.5).astype(np.int32)
    images = list(rng.normal(size=(size.images, *size.shape, 1)).astype(np.float32))
    middle = [(axis - n / 2) ** 2 for axis, n in zip(np.indices(size.shape), size.shape, strict=True)]
    ball = jnp.asarray(sum(middle) < (size.shape[0] / 4) ** 2, jnp.int32)
    wanted = [dilate(ball, radius=1), erode(ball, radius=1)]
    network = Network.create(size.architecture, **size.arguments)
    model = SegmentationModel(network, *network.initialise(jax.random.key(0, impl="rbg")))
    data = fit_data(model, fit, labels)
    prepared = {
        name: prepare(model, data, SearchConfig(members=MEMBERS, steps=STEPS, learning_rate=RATE, **PRECISIONS[name]))
        for name in precisions
    }
    targets = mask_targets(wanted, members=MEMBERS)
    return Problem(prepared, images, targets, model, fit, labels, np.stack([np.asarray(mask) for mask in wanted]))


def step_operations(prepared: Any, image: np.ndarray, targets: Any) -> float:
    """Floating-point operations of one whole step of one member, as XLA counts them before it optimises; 0 if it tells none."""
    import functools

    import jax
    import jax.numpy as jnp

    from quam_jax.core.network import pad_to_multiple
    from quam_jax.core.setup import Frozen, Setup, StepInputs, Target
    from quam_jax.core.step import begin, step

    network, params, stats, procedure = prepared[:4]
    padded = pad_to_multiple(jnp.asarray(image)[None], network, leading=1)
    frozen = Frozen(params, stats, padded, prepared.fit, prepared.fit_labels, prepared.reference_loss, prepared.bound)
    setup = Setup.of(network, procedure, image.shape[:-1])
    target = Target(targets.points[0], targets.labels[0, 0], targets.weights[0])
    inputs = StepInputs(jnp.asarray(0), jnp.float32(1), jnp.float32(RATE), None)
    lowered = jax.jit(functools.partial(step, setup)).lower(frozen, target, begin(setup, frozen), inputs)
    return float((lowered.cost_analysis() or {}).get("flops", 0.0))
