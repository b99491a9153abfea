"""Any PyTorch network that `torch.export` can write down, as a `quam_jax` model that needs PyTorch no more.

`capture` asks PyTorch for the graph, `write` puts it into the text form that `quam_jax.networks.graph` runs, `sizes` finds
the image sizes for which it is valid, `cuts` where it can be cut, and `convert` puts the model together and proves it.
PyTorch is imported only inside these functions.
"""

from .convert import convert_exported, from_torch

__all__ = ["convert_exported", "from_torch"]
