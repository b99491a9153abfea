"""What QUAM-SM is compared with. Every method ends in Samples, so decomposition and evaluation are shared by all.

`BASELINES` maps a name to its function, called as `function(model, image, **own settings)`; the ensemble takes its models in
the place of the model. The control `boundary` gives a map, since it has no probabilities.
"""

from .blur import blur as blur
from .blur import blurred_mask as blurred_mask
from .boundary import boundary as boundary
from .ensemble import ensemble as ensemble
from .evidential import evidential as evidential
from .laplace import laplace as laplace
from .mc_dropout import mc_dropout as mc_dropout
from .prob_unet import prob_unet as prob_unet
from .random_directions import random_directions as random_directions
from .records import Compute as Compute
from .softmax import softmax as softmax
from .temperature import temperature as temperature
from .tta import tta as tta

BASELINES = {
    "softmax": softmax,
    "temperature": temperature,
    "blur": blur,
    "blurred_mask": blurred_mask,
    "random_directions": random_directions,
    "mc_dropout": mc_dropout,
    "tta": tta,
    "ensemble": ensemble,
    "laplace": laplace,
    "evidential": evidential,
    "boundary": boundary,
}
