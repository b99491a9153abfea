"""Keras 1 weights of a convolutional network as a PyTorch state_dict: the file of the plain U-Net is one.

A layer is a group that holds its weights by the layer's name, `convolution2d_3/convolution2d_3_W` and `..._b`, numbered in the
order in which the layers were made; the n-th becomes `convN.weight` and `convN.bias`. Kernels have Theano's axis order, which
is PyTorch's `[out in h w]`, but Theano turns a kernel by 180 degrees before it correlates, so it is turned here.
Source of the layout: the weights and the architecture file of github.com/orobix/retina-unet (Keras 1.0.5).
"""

import re
from collections.abc import Mapping

import numpy as np

LAYOUT = "Keras 1, Theano: layers by number, kernels turned by 180 degrees"
_NAME = re.compile(r"(convolution2d_(\d+))/\1_(W|b)")
_KINDS = {"W": "weight", "b": "bias"}


def is_keras_1(names: Mapping[str, object]) -> bool:
    """Whether all names are those of 2-D convolutions of Keras 1."""
    return bool(names) and all(_NAME.fullmatch(name) for name in names)


def rename_keras_1(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors under PyTorch's names and for its convolution; ValueError on kernels in another axis order."""
    found = {name: match for name in tensors if (match := _NAME.fullmatch(name))}
    numbers = {number: place for place, number in enumerate(sorted({int(m[2]) for m in found.values()}), start=1)}
    renamed = {}
    for name, match in sorted(found.items(), key=lambda item: (int(item[1][2]), item[1][3])):
        value = tensors[name]
        if match[3] == "W":
            bias = tensors.get(f"{name.removesuffix('W')}b")
            if value.ndim != 4 or (bias is not None and value.shape[:1] != bias.shape):
                raise ValueError(f"{name}: expected a kernel [out in h w] (Theano's axis order), got {list(value.shape)}")
            value = np.ascontiguousarray(value[:, :, ::-1, ::-1])
        renamed[f"conv{numbers[int(match[2])]}.{_KINDS[match[3]]}"] = value
    return renamed
