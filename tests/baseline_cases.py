"""Images and a network for tests of baselines."""

import jax
import numpy as np

from quam_jax.models.model import Network, SegmentationModel
from tests.small_run import picture

KEY = jax.random.key(3)


def image(seed: int = 0, size: tuple[int, ...] = (12, 14)) -> np.ndarray:
    values = picture(seed, size)[..., None].astype(np.float32)
    return (values - values.mean()) / values.std()


def pixelwise() -> SegmentationModel:
    """Kernels of one pixel and no strides, so every permutation of pixels commutes with the network."""
    network = Network.create(
        "nnunet_plain",
        in_channels=1,
        n_classes=2,
        features_per_stage=(3, 3),
        rank=2,
        n_conv_per_stage=1,
        n_conv_per_stage_decoder=1,
        kernel_sizes=((1, 1), (1, 1)),
        strides=((1, 1), (1, 1)),
    )
    params, stats = network.initialise(jax.random.key(0))
    return SegmentationModel(network, params, stats)
