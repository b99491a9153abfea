"""What the search for one adversarial model is given and what it carries from step to step."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .loss import Loss, cross_entropy
from .network import Parameters
from .schedule import Schedule, Slack, Steps
from .solvers import LineSearch, Moving, Penalty, Solver
from .space import Activation, FullSpace, Space
from .views import View


@dataclass(frozen=True)
class Procedure:
    """How adversarial models are searched for, whatever the network and the data.

    `learning_rate` scales the solver's direction. `train` runs the network with batch statistics and noise, `record_after`
    records the prediction one step later than the losses beside it (both published). With `stop` a member rests once a
    feasible model has all it wants. In the space `head`, pixels and regions keep the bound on `fit_points` points drawn for
    each step (0: all); pixels in another tail on `fit_patches` patches. `compute` is the type of weights and activations
    inside a pass, `precision` that of matrix products.
    """

    space: Space = FullSpace()
    loss: Loss = cross_entropy
    solver: Solver | LineSearch = Penalty()
    schedule: Schedule = Steps()
    slack: Slack = Slack()
    learning_rate: float = 1e-3
    train: bool = False
    record_after: bool = False
    stop: bool = False
    fit_points: int = 2048
    fit_patches: int = 4
    compute: Literal["float32", "bfloat16"] = "float32"
    precision: Literal["highest", "high", "default"] = "highest"


class Setup(NamedTuple):
    """What is fixed at compile time.

    With `patches` the fit batch is one of patches, whose logits are those of their middles, and so is a target's own image
    if it is an `inner` one; a `border` one is padded like the whole image. `shape` is that of the image without its padding.

    What follows trades memory against time and changes numbers by rounding alone. `micro` fit cases go through the network at
    once, apart from the image (0: all of them, in one program with the image); with `recompute` the blocks of the network are
    run again in the backward pass instead of being remembered; with `products` weight gradients of convolutions are products of
    shifted copies on every device, as they are on a CPU. With `keep` the state carries the weights to be kept.

    Recorded models look at the image through `views`, `views_at_once` of them in one pass: each through the next `views_each` of
    them in turn (0: through all); those that break the bound only with `view_all`.
    """

    network: Any
    space: Space
    loss: Loss
    solver: Any
    train: bool
    record_after: bool
    stop: bool
    half: bool
    shape: tuple[int, ...]
    patches: Literal["", "inner", "border"] = ""
    micro: int = 0
    recompute: bool = False
    keep: bool = False
    views: tuple[View, ...] = ()
    views_each: int = 0
    views_at_once: int = 1
    view_all: bool = False
    products: bool = False

    @property
    def looked(self) -> int:
        """Through how many views a recorded model looks."""
        return self.views_each or len(self.views)

    @staticmethod
    def of(network: Any, procedure: Procedure, shape: tuple[int, ...]) -> "Setup":
        """The choices of a procedure that change the computation rather than its numbers."""
        p = procedure
        return Setup(network, p.space, p.loss, p.solver, p.train, p.record_after, p.stop, p.compute == "bfloat16", tuple(shape))


class Viewed(NamedTuple):
    """An image under its views, prepared, and what the given network says of the image itself."""

    activations: Activation  # [v *padded f]
    given: Float[Array, "*space c"]


class Frozen(NamedTuple):
    """What all members of a case share: weights, prepared image (and its views), prepared fit batches and their bounds."""

    params: Parameters
    stats: Parameters
    image: Activation  # [1 *space f]
    fit: Activation  # [k b *space f]
    fit_labels: Int[Array, "k b *space"]
    reference_loss: Float[Array, " k"]
    bound: Float[Array, " k"]
    viewed: Any = None  # Viewed where there are views


class Target(NamedTuple):
    """One target as one member sees it; `image` are activations of its own (a patch, one of several images) in place of the
    case's, and `viewed` those of its views."""

    points: Int[Array | np.ndarray, " p"]
    labels: Int[Array | np.ndarray, " p"]
    weights: Float[Array | np.ndarray, " p"]
    image: Any = None
    viewed: Any = None


class StepInputs(NamedTuple):
    """What changes from step to step; `noise` is a key, recorded dropout masks of three passes, or None.

    `fit_loss` is given where it was computed before the step, by `fit_loss_of` or `fit_part`: the step does not run the fit batch
    then. Its gradient comes with it, unless the weights are known to keep the bound.
    """

    batch: Int[Array, ""]
    coefficient: Float[Array, ""]
    learning_rate: Float[Array, ""]
    noise: Any
    fit_loss: Any = None
    fit_gradient: Any = None


class Kept(NamedTuple):
    """The weights of the smallest objective among those that kept the bound, and that objective (infinite before there are any).

    They are those of the records: without `record_after` the given weights, where the search begins, are not among them.
    """

    z: Moving
    objective: Float[Array, ""]
    begun: Bool[Array, ""]


class State(NamedTuple):
    """What a member carries from step to step; `done` says for an early stop whether it rests, `kept` what is to be kept."""

    z: Moving
    solver: Any
    stats: Parameters
    done: Any = ()
    kept: Any = ()


class Record(NamedTuple):
    """What one step reports, in nats; see types.Trajectory. `viewed` is put in where the records of all steps are joined."""

    probs: Float[Array, "p c"]
    objective: Float[Array, ""]
    fit_loss: Float[Array, ""]
    bound: Float[Array, ""]
    penalty: Float[Array, ""]
    reference_loss: Float[Array, ""]
    viewed: Any = None
