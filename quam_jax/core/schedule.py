"""What changes from step to step: which fit batch, what breaking the bound costs; and how far the bound is from the reference."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Array, Float, Int


class StepPlan(NamedTuple):
    """Fit batch and penalty coefficient of every step."""

    batch: Int[np.ndarray, " s"]
    coefficient: Float[np.ndarray, " s"]


class Schedule(Protocol):
    """Anything that lays the steps of a search out over the fit batches."""

    def plan(self, batches: int) -> StepPlan:
        """The steps over so many fit batches."""
        ...


@dataclass(frozen=True)
class Steps:
    """So many steps, which take the fit batches in turn.

    `coefficient` of the penalty: a number, or a function of the step such as an `optax.Schedule`.
    """

    count: int = 6
    coefficient: float | Callable[[int], float] = 10.0

    def plan(self, batches: int) -> StepPlan:
        """The steps over so many fit batches."""
        value = self.coefficient
        steps = [value(step) if callable(value) else value for step in range(self.count)]
        return StepPlan(np.arange(self.count) % batches, np.asarray(steps, np.float64))


class Slack(NamedTuple):
    """How much worse than the given network's the fit loss may get: a fraction of it, or nats a labelled pixel."""

    value: float = 1.0
    relative: bool = True

    def bound(self, reference_loss: Float[Array, " k"]) -> Float[Array, " k"]:
        """The largest fit loss an admissible model may have on each fit batch, in nats: L_ref + slack."""
        return reference_loss + (self.value * reference_loss if self.relative else self.value)
