"""From settings to the objects that the core takes: the one place where their words are read.

Solvers and schedules of equal settings are equal objects, so that they share compiled functions.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..core.layout.choose import Layout
from ..core.schedule import Slack, Steps
from ..core.setup import Procedure
from ..core.solvers import ADAM, DESCENT, Backtrack, LineSearch, Penalty
from ..core.space import FullSpace, InputSpace, LowRankSpace, Space, SubsetSpace, TailSpace
from ..memory import budget
from .schema import ExecutionConfig, SearchConfig
from .sizes import bytes_in


def build_procedure(config: SearchConfig, network: Any) -> Procedure:
    """How the settings search a network; ValueError for a space or cut that it does not have, or an unknown optimiser."""
    return Procedure(
        space=build_space(config.space, network),
        solver=build_solver(config),
        schedule=build_schedule(config),
        slack=Slack(config.slack, config.slack_unit == "relative"),
        learning_rate=config.learning_rate,
        train=config.mode == "train",
        record_after=config.record == "after",
        stop=config.stop == "flipped",
        fit_points=config.fit_points,
        fit_patches=config.fit_patches,
        compute=config.compute,
        precision=config.precision,
    )


def build_layout(execution: ExecutionConfig) -> Layout:
    """How members and steps run together, within the memory that is asked for or a share of what is free."""
    return Layout(
        members=execution.member_plan,
        steps=execution.step_plan,
        chunk=execution.chunk,
        together=execution.together,
        devices=execution.devices,
        memory=budget(bytes_in(execution.memory)),
        micro=execution.micro,
        recompute=execution.recompute,
    )


def build_space(text: str, network: Any) -> Space:
    """A space from its name: full, subset:REGEX, last_block, head, low_rank:R or input:EPS; ValueError otherwise."""
    kind, _, argument = text.partition(":")
    try:
        if kind == "full" and not argument:
            return FullSpace()
        if kind == "subset" and argument:
            network.select(argument)
            return SubsetSpace(argument)
        if kind in ("last_block", "head") and not argument:
            network.tail_names(kind)
            return TailSpace(kind)
        if kind == "low_rank" and int(argument) >= 1:
            return LowRankSpace(int(argument))
        if kind == "input" and float(argument) > 0:
            return InputSpace(float(argument))
    except ValueError as error:
        if kind in ("subset", "last_block", "head"):
            raise ValueError(f"space: {error}") from None
    raise ValueError(f"space: expected full, subset:REGEX, last_block, head, low_rank:R or input:EPS, got {text!r}")


def build_solver(config: SearchConfig) -> Penalty | Backtrack | LineSearch:
    """The solver with its optimiser; ValueError for an optimiser that optax lacks or that needs more than gradients."""
    optimizer = build_optimizer(config.optimizer)
    if config.solver == "line_search":
        return LineSearch(config.damping)
    return Penalty(optimizer, config.penalty == "hinge") if config.solver == "penalty" else Backtrack(optimizer)


@functools.cache
def build_optimizer(name: str) -> optax.GradientTransformation:
    """adam, sgd, or what optax calls scale_by_NAME, with its own defaults."""
    if name in ("adam", "sgd"):
        return ADAM if name == "adam" else DESCENT
    found = _optimizer(name)
    if found is None:
        known = [n.removeprefix("scale_by_") for n in dir(optax) if n.startswith("scale_by_")]
        usable = ", ".join(sorted(n for n in known if _optimizer(n) is not None))
        why = "needs more than gradients and its defaults" if name in known else "is not known"
        raise ValueError(f"optimizer: expected sgd or one of {usable}, got {name!r}, which {why}")
    return found


def _optimizer(name: str) -> optax.GradientTransformation | None:
    """The transformation, or None where there is none that runs on gradients alone; some need losses or a line search."""
    make = getattr(optax, f"scale_by_{name}", None)
    if make is None:
        return None
    z = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    try:
        transformation = make()
        jax.eval_shape(lambda z: transformation.update(z, transformation.init(z), z), z)
    except (TypeError, ValueError):
        return None
    return transformation


def build_schedule(config: SearchConfig) -> Steps:
    """The steps, and the schedule of the penalty coefficient (in float64, as the published procedure computes it)."""
    start, rate, every = config.schedule_start, config.schedule_rate, config.schedule_every
    values: dict[str, Any] = {
        "constant": config.coefficient,
        "linear": lambda count: start + rate * (count // every),
        "exponential": lambda count: start * rate ** (count // every),
    }
    return Steps(config.steps, values[config.schedule], config.coefficient, config.epochs, config.batch_stride)
