"""How nnU-Net brings the intensities of a channel to those that its networks were trained on."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

from .large import row_blocks


def normalise_channel(
    values: Float[np.ndarray, "*space"],
    inside: Bool[np.ndarray, "*space"],
    result: Float[np.ndarray, "*space"],
    *,
    scheme: str,
    use_mask: bool,
    intensity: Mapping[str, float] | None,
) -> None:
    """One channel by nnU-Net's scheme of this name, into `result`; what computes in float64 does so by rows."""
    values = values.astype(np.float32)
    if scheme == "CTNormalization":
        assert intensity is not None
        for rows in row_blocks(values.shape):
            clipped = np.clip(values[rows], intensity["percentile_00_5"], intensity["percentile_99_5"])
            result[rows] = (clipped - intensity["mean"]) / max(intensity["std"], 1e-8)
    elif scheme == "ZScoreNormalization":
        chosen = values[inside] if use_mask and inside.any() else values
        mean, width = chosen.mean(dtype=np.float64), max(chosen.std(dtype=np.float64), 1e-8)
        for rows in row_blocks(values.shape):
            scaled = (values[rows] - mean) / width
            result[rows] = np.where(inside[rows], scaled, values[rows]) if use_mask else scaled
    elif scheme == "RescaleTo01Normalization":
        np.subtract(values, values.min(), out=result)
        result /= np.float32(max(float(result.max()), 1e-8))
    elif scheme == "RGBTo01Normalization":
        if values.min() < 0 or values.max() > 255:
            raise ValueError(f"image: expected values 0..255 for RGBTo01Normalization, got {values.min():g} to {values.max():g}")
        np.divide(values, np.float32(255), out=result)
    else:
        result[...] = values
