"""The audit of a search: which step of every adversarial model is kept, and whether it held the constraint."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..core.types import Trajectory
from ..core.weighting import counted, finite


@dataclass(frozen=True)
class MemberAudit:
    """Whether one adversarial model kept the constraint, and how far it came. Losses are in nats a labelled pixel.

    Of pixels and regions a row stands for the same member of all targets: `searched` of them, of which `kept` held; the
    numbers of steps are sums, the losses means over targets. `fit_loss` and `bound` belong to the kept iterate: the
    feasible one of smallest objective, or the last where none is feasible (`held` is false, and it has no weight unless the
    weighting takes infeasible samples too).
    """

    target: int
    member: int
    wanted: str
    held: bool
    nan: bool
    fit_loss: float
    bound: float
    reference_loss: float
    steps: int
    feasible_steps: int
    objective_first: float
    objective_last: float
    changed_pixels: int
    searched: int = 1
    kept: int = 0
    slice: int | None = None


Kind = TypeVar("Kind", bound=MemberAudit)


def models_held(audit: Sequence[MemberAudit]) -> tuple[int, int]:
    """How many adversarial models kept the constraint in some step, and how many were searched."""
    return sum(row.kept for row in audit), sum(row.searched for row in audit)


def kept_steps(trajectory: Trajectory, counts: Bool[np.ndarray, "t m s"]) -> Int[np.ndarray, "t m"]:
    """The step of smallest objective among those that count, or the last where none does."""
    best = np.argmin(np.where(counts, np.asarray(trajectory.objective), np.inf), -1)
    return np.where(counts.any(-1), best, counts.shape[-1] - 1)


def kept_probs(trajectory: Trajectory, kept: Int[np.ndarray, "t m"]) -> Float[np.ndarray, "t m p c"]:
    """The predictions of the kept steps."""
    return np.asarray(_take(trajectory.probs, kept))


@jax.jit
def _take(probs: Float[Array, "t m s p c"], kept: Int[Array, "t m"]) -> Float[Array, "t m p c"]:
    return jnp.take_along_axis(probs, kept[:, :, None, None, None], 2)[:, :, 0]


class TargetFacts(NamedTuple):
    """What the audit of many targets of one search needs of it, without the predictions; axes as in a trajectory.

    `counts` are the records that keep the constraint, `usable` those that are finite, `kept` the kept step of each member.
    """

    counts: Bool[np.ndarray, "t m s"]
    usable: Bool[np.ndarray, "t m s"]
    kept: Int[np.ndarray, "t m"]
    objective: Float[np.ndarray, "t m s"]
    fit_loss: Float[np.ndarray, "t m s"]
    bound: Float[np.ndarray, "t m s"]
    penalty: Float[np.ndarray, "t m s"]
    reference_loss: Float[np.ndarray, "t m s"]

    @staticmethod
    def of(trajectory: Trajectory) -> "TargetFacts":
        """The facts of a trajectory."""
        counts = np.asarray(counted(trajectory))
        losses = {n: np.asarray(getattr(trajectory, n)) for n in ("objective", "fit_loss", "bound", "penalty", "reference_loss")}
        return TargetFacts(
            counts,
            np.asarray(finite(trajectory)),
            kept_steps(trajectory, counts),
            **losses,
        )

    def means(self) -> dict[str, Float[np.ndarray, "m s"]]:
        """The recorded losses by name, means over targets."""
        return {
            n: np.nanmean(np.asarray(getattr(self, n), np.float64), 0).astype(np.float32)
            for n in ("objective", "fit_loss", "bound", "penalty")
        }


def audit_targets(
    kind: type[Kind], facts: TargetFacts, *, names: Sequence[str], changed: Int[np.ndarray, " m"], **place: Any
) -> list[Kind]:
    """One row a member over all targets of a search, `changed` pixels each; `place` is what the kind adds."""
    rows = np.arange(len(facts.kept))
    audit = []
    for m, name in enumerate(names):
        kept, counts, objective = facts.kept[:, m], facts.counts[:, m], facts.objective[:, m]
        fit_loss, held = facts.fit_loss[:, m], int(counts.any(1).sum())
        audit.append(
            kind(
                target=-1,
                member=m,
                wanted=name,
                held=held > 0,
                nan=not bool(facts.usable[:, m].all()),
                fit_loss=float(np.nanmean(fit_loss[rows, kept])),
                bound=float(facts.bound[:, m][rows, kept].mean()),
                reference_loss=float(facts.reference_loss[:, m][rows, kept].mean()),
                steps=int(fit_loss.size),
                feasible_steps=int(counts.sum()),
                objective_first=float(np.nanmean(objective[:, 0])),
                objective_last=float(np.nanmean(objective[rows, kept])),
                changed_pixels=int(changed[m]),
                searched=len(rows),
                kept=held,
                **place,
            )
        )
    return audit


def audit_members(
    kind: type[Kind],
    trajectory: Trajectory,
    *,
    names: Sequence[str],
    changed: Int[np.ndarray, " m"],
    first: int = 0,
    **place: Any,
) -> list[Kind]:
    """One row a member of the trajectory's only target; `changed` pixels each, `place` what the kind adds.

    `first` is the number of the first member, where a target's members are searched in parts.
    """
    counts = np.asarray(counted(trajectory))
    kept = kept_steps(trajectory, counts)[0]
    counts, usable = counts[0], np.asarray(finite(trajectory))[0]
    fit_loss, bound, objective = (np.asarray(getattr(trajectory, n))[0] for n in ("fit_loss", "bound", "objective"))
    reference_loss = np.asarray(trajectory.reference_loss)[0]
    return [
        kind(
            target=0,
            member=first + m,
            wanted=name,
            held=bool(counts[m].any()),
            nan=not bool(usable[m].all()),
            fit_loss=float(fit_loss[m, k]),
            bound=float(bound[m, k]),
            reference_loss=float(reference_loss[m, k]),
            steps=counts.shape[1],
            feasible_steps=int(counts[m].sum()),
            objective_first=float(objective[m, 0]),
            objective_last=float(objective[m, k]),
            changed_pixels=int(changed[m]),
            kept=int(counts[m].any()),
            **place,
        )
        for m, (k, name) in enumerate(zip(kept, names, strict=True))
    ]
