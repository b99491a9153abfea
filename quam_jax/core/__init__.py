"""The search as a library: targets in, adversarial models found, their samples weighed and decomposed.

Stands on jax, optax, numpy and jaxtyping alone. It knows no files, no networks of the package and no settings format: a
network is any object with `apply`, and space, loss, solver and schedule are objects that are passed in.
"""

from .decomposition import decompose as decompose
from .fit import fit_data as fit_data
from .layout.choose import Layout as Layout
from .loss import Loss as Loss
from .loss import cross_entropy as cross_entropy
from .network import EVAL as EVAL
from .network import Mode as Mode
from .network import Network as Network
from .schedule import Schedule as Schedule
from .schedule import Slack as Slack
from .schedule import StepPlan as StepPlan
from .schedule import Steps as Steps
from .searching import Prepared as Prepared
from .searching import prepare as prepare
from .searching import search as search
from .searching import search_images as search_images
from .searching import search_prepared as search_prepared
from .setup import Procedure as Procedure
from .solvers import Backtrack as Backtrack
from .solvers import LineSearch as LineSearch
from .solvers import Penalty as Penalty
from .solvers import Solver as Solver
from .space import FullSpace as FullSpace
from .space import InputSpace as InputSpace
from .space import LowRankSpace as LowRankSpace
from .space import Space as Space
from .space import SubsetSpace as SubsetSpace
from .space import TailSpace as TailSpace
from .types import FitData as FitData
from .types import Samples as Samples
from .types import Targets as Targets
from .types import Trajectory as Trajectory
from .types import Uncertainty as Uncertainty
from .weighting import to_samples as to_samples
from .weighting import trajectory_weights as trajectory_weights
