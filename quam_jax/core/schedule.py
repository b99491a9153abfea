"""What changes from step to step: which fit batch, what breaking the bound costs; and how far the bound is from the reference."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int


class StepPlan(NamedTuple):
    """Fit batch and penalty coefficient of every step."""

    batch: Int[np.ndarray, " s"]
    coefficient: Float[np.ndarray, " s"]


@runtime_checkable
class Schedule(Protocol):
    """Anything that lays the steps of a search out over the fit batches."""

    def plan(self, batches: int) -> StepPlan:
        """The steps over so many fit batches."""
        ...


@dataclass(frozen=True)
class Steps:
    """So many steps, which take the fit batches in turn; or, with `epochs`, every `stride`-th batch of so many passes.

    `coefficient` of the penalty: a number, or a function of the count of batches so far, used or not, such as an
    `optax.Schedule`. With `first`, the first step has that coefficient and every later one the value at the batch before it,
    as the published procedure has it.
    """

    count: int = 6
    coefficient: float | Callable[[int], float] = 10.0
    first: float | None = None
    epochs: int = 0
    stride: int = 1

    def plan(self, batches: int) -> StepPlan:
        """The steps over so many fit batches; ValueError if there are fewer than the stride."""
        counts = np.arange(self.count)
        if self.epochs:
            if batches < self.stride:
                raise ValueError(
                    f"fit data: expected at least batch_stride = {self.stride} fit batches, got "
                    f"{batches}; lower --batch-stride or give more fit cases"
                )
            used = np.arange(self.stride - 1, batches, self.stride)
            counts = np.concatenate([epoch * batches + used for epoch in range(self.epochs)])
        value = self.coefficient
        values = [float(value(int(count)) if callable(value) else value) for count in counts]
        if self.first is not None:
            values = [self.first, *values[:-1]]
        return StepPlan(counts % batches, np.asarray(values, np.float64))


class Slack(NamedTuple):
    """How much worse than the given network's the fit loss may get: a fraction of it, or nats a labelled pixel."""

    value: float = 1.0
    relative: bool = True

    def bound(self, reference_loss: Float[Array, " k"]) -> Float[Array, " k"]:
        """The largest fit loss an admissible model may have on each fit batch, in nats: L_ref + slack."""
        return reference_loss + (self.value * reference_loss if self.relative else self.value)
