"""What QUAM-SM is compared with, a file each. Every method ends in Samples, so decomposition and evaluation are shared by all.

`BASELINES` has what each file declares in `METHODS` by name, in the order of the tables; nothing else needs to know of it. Its
`function` is called as `function(model, image, **own settings)`; the ensemble takes its models in the place of the model. The
control `boundary` gives a map, since it has no probabilities.
"""

from ..registry import collect
from .method import Method

BASELINES: dict[str, Method] = dict(
    sorted(collect(__name__, __path__, attribute="METHODS").items(), key=lambda item: item[1].place)
)

__all__ = ["BASELINES", "Method"]
