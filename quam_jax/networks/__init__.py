"""Flax networks, one architecture a file; NETWORKS maps the name used in files and on the command line to its class.

A network is an `nnx.Module` called as `net(x, mode)` on `[b *space i]` that returns logits `[b *space c]`. It has
`size_multiple` (image sides must be multiples of it), `cuts` (cut name -> the attributes behind the cut) and, for every
cut, `trunk(x, mode, cut=...)` and `tail(activation, mode, cut=...)` whose composition is the whole network.
"""

from .att_unet import AttUNet

NETWORKS = {"att_unet": AttUNet}

__all__ = ["NETWORKS", "AttUNet"]
