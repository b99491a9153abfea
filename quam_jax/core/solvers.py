"""Solvers: how one adversarial model takes a step, given the gradient of its objective and of what breaking the bound costs.

A solver is a hashable object with `init`, `penalty` and `step`, written for one member; searches map or loop over members.
The learning rate comes in as a number, so that changing it (the control with 0) compiles nothing anew.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

Moving = Any  # the numbers that a space lets move: a pytree of arrays

ADAM = optax.scale_by_adam()  # one object, so that equal solvers share compiled functions
DESCENT = optax.identity()


@runtime_checkable
class Solver(Protocol):
    """How a member moves. `objective + penalty(violation, coefficient)` is what is differentiated."""

    @property
    def spares_fit(self) -> bool:
        """Whether penalty and its gradient are 0 within the bound, so that the fit data may be left out of such a step."""
        ...

    def init(self, z: Moving) -> Any:
        """The solver's own state before the first step."""
        ...

    def penalty(self, violation: Float[Array, ""], coefficient: Float[Array, ""]) -> Float[Array, ""]:
        """What a fit loss of bound + violation costs, in nats."""
        ...

    def step(
        self, z: Moving, state: Any, gradient: Moving, *, rate: Float[Array, ""], feasible: Bool[Array, ""]
    ) -> tuple[Moving, Any]:
        """The moved numbers and the state after; `feasible` says whether `z` keeps the bound."""
        ...


@dataclass(frozen=True)
class Penalty:
    """Descent on the objective plus `coefficient` times the violation: max(0, .) of it, or all of it without `hinge`.

    `optimizer` turns gradients into a direction of unit learning rate, such as `optax.scale_by_adam()`; an optimiser that has
    a learning rate of its own, such as `optax.adam(1e-3)`, would apply it twice and with the other sign.
    """

    optimizer: optax.GradientTransformation = ADAM
    hinge: bool = True

    @property
    def spares_fit(self) -> bool:
        """With a hinge."""
        return self.hinge

    def init(self, z: Moving) -> optax.OptState:
        """The optimiser's state."""
        return self.optimizer.init(z)

    def penalty(self, violation: Float[Array, ""], coefficient: Float[Array, ""]) -> Float[Array, ""]:
        """Linear in the violation, above 0 or everywhere."""
        return coefficient * (jax.nn.relu(violation) if self.hinge else violation)

    def step(
        self, z: Moving, state: Any, gradient: Moving, *, rate: Float[Array, ""], feasible: Bool[Array, ""]
    ) -> tuple[Moving, Any]:
        """Along the optimiser's direction, wherever that leads."""
        return _descend(self.optimizer, z, state, gradient, rate)


class BacktrackState(NamedTuple):
    """The optimiser's state, and the last feasible numbers."""

    optimizer: optax.OptState
    held: Moving


@dataclass(frozen=True)
class Backtrack:
    """Descent on the objective alone; where a step broke the bound, halfway back to the last feasible numbers.

    The optimiser stays as it was on the way back.
    """

    optimizer: optax.GradientTransformation = ADAM

    @property
    def spares_fit(self) -> bool:
        """Never: every step asks whether the bound is kept."""
        return False

    def init(self, z: Moving) -> BacktrackState:
        """The given numbers are feasible."""
        return BacktrackState(self.optimizer.init(z), z)

    def penalty(self, violation: Float[Array, ""], coefficient: Float[Array, ""]) -> Float[Array, ""]:
        """None."""
        return jnp.zeros_like(violation)

    def step(
        self, z: Moving, state: BacktrackState, gradient: Moving, *, rate: Float[Array, ""], feasible: Bool[Array, ""]
    ) -> tuple[Moving, BacktrackState]:
        """On from feasible numbers, back from others."""
        moved, optimizer = _descend(self.optimizer, z, state.optimizer, gradient, rate)
        halfway = jax.tree.map(lambda a, b: (a + b) / 2, z, state.held)
        z_after, optimizer = where(feasible, (moved, optimizer), (halfway, state.optimizer))
        return z_after, BacktrackState(optimizer, where(feasible, z, state.held))


@dataclass(frozen=True)
class LineSearch:
    """The closed direction with an exact line search, for many targets in a linear head; see head/line_search.py.

    `damping` of the Fisher matrix, as a fraction of its mean diagonal.
    """

    damping: float = 1e-3


def where(condition: Bool[Array, ""], yes: Any, no: Any) -> Any:
    """One of two trees of the same structure."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _descend(
    optimizer: optax.GradientTransformation, z: Moving, state: optax.OptState, gradient: Moving, rate: Float[Array, ""]
) -> tuple[Moving, optax.OptState]:
    direction, state = optimizer.update(gradient, state, z)
    return jax.tree.map(lambda value, d: value - rate * d, z, direction), state
