"""Evaluation of uncertainty maps, probabilities and segmentations against several raters.

Pure functions over numpy arrays, computed in float64 with numpy and scipy: exact over all pixels, one
definition a name, no compilation for each new image shape, 2-D and 3-D alike. `evaluate` makes the row of
one case and `summarise` the statistics of a table of rows; single figures are in the modules, named after
the question they answer.
"""

from .evaluate import Row as Row
from .evaluate import evaluate as evaluate
from .statistics import Comparison as Comparison
from .statistics import Summary as Summary
from .statistics import compare as compare
from .statistics import summarise as summarise
