"""The audit of a search: which step of every adversarial model is kept, and whether it held the constraint."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..core.types import Trajectory
from ..core.weighting import counted, finite

GRANTED = 0.01  # of the first objective, up to which a model has all that it was asked for
FLIPPED = 0.9  # of the pixels, from which on a model that changes them says nothing
LOSSES = ("objective", "fit_loss", "bound", "penalty")


@dataclass(frozen=True)
class MemberAudit:
    """Whether one adversarial model kept the constraint, and how far it came. Losses are in nats a labelled pixel.

    Of pixels and regions a row stands for the same member of all targets: `searched` of them, of which `kept` held; the
    numbers of steps are sums, the losses means over targets. `fit_loss` and `bound` belong to the kept iterate: the
    feasible one of smallest objective, or the last where none is feasible (`held` is false, and it has no weight unless the
    weighting takes infeasible samples too).

    Where the search had crops of the fit images, `whole_fit_loss` and `whole_bound` are those of the kept model on the whole
    images, and `whole_held` says whether it keeps the bound there too; else they are None.

    A row of a volume says where it was searched: in which `slice`, or in which `patch` (from the grid voxel `start`) and fold.
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
    patch: int | None = None
    start: tuple[int, ...] | None = None
    fold: str | None = None
    whole_fit_loss: float | None = None
    whole_bound: float | None = None
    whole_held: bool | None = None

    @property
    def moved(self) -> bool:
        """Whether the kept iterate is nearer to what was wanted than the given network."""
        return self.objective_last < self.objective_first


class OnWhole(NamedTuple):
    """What kept models lose on the whole fit images, in nats a pixel, and the bound there."""

    losses: list[float]
    bound: float

    def of(self, member: int) -> dict[str, Any]:
        """What the audit says of a member."""
        loss = self.losses[member]
        return {"whole_fit_loss": loss, "whole_bound": self.bound, "whole_held": bool(loss <= self.bound)}


class SearchFacts(NamedTuple):
    """What is told of a search when its predictions are gone; axes as in a trajectory.

    `counts` are the records that keep the constraint, `usable` those that are finite, `kept` the kept step of each member: the
    one of smallest objective among those that count, or the last where none does.
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
    def of(trajectory: Trajectory) -> "SearchFacts":
        """The facts of a trajectory."""
        counts = np.asarray(counted(trajectory))
        losses = {name: np.asarray(getattr(trajectory, name)) for name in (*LOSSES, "reference_loss")}
        best = np.argmin(np.where(counts, losses["objective"], np.inf), -1)
        kept = np.where(counts.any(-1), best, counts.shape[-1] - 1)
        return SearchFacts(counts, np.asarray(finite(trajectory)), kept, **losses)

    @staticmethod
    def joined(parts: Sequence["SearchFacts"]) -> "SearchFacts":
        """The facts of all targets of several searches as those of one."""
        return parts[0] if len(parts) == 1 else SearchFacts(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))

    def means(self) -> dict[str, Float[np.ndarray, "m s"]]:
        """The recorded losses by name, means over targets; NaN counts only where there is nothing else."""
        means = {}
        for name in LOSSES:
            values = np.asarray(getattr(self, name), np.float64)
            known = ~np.isnan(values)
            total, count = np.where(known, values, 0).sum(0), known.sum(0)
            means[name] = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
        return means


def models_held(audit: Sequence[MemberAudit]) -> tuple[int, int]:
    """How many adversarial models kept the constraint in some step, and how many were searched."""
    return sum(row.kept for row in audit), sum(row.searched for row in audit)


def models_moved(audit: Sequence[MemberAudit]) -> int:
    """How many adversarial models kept the constraint and came nearer to their targets."""
    return sum(row.kept for row in audit if row.moved)


def uninformative(audit: Sequence[MemberAudit], *, pixels: int) -> str:
    """Why the search of a case of so many pixels says nothing, and what to do; empty where it says something."""
    if not audit:
        return ""
    if not models_moved(audit):
        return (
            "no model that kept the bound came nearer to its target, so that the maps are those of the given network; a larger "
            "--learning-rate, more --steps or a larger --slack let them move"
        )
    kept = [row for row in audit if row.held]
    if all(row.target >= 0 and row.changed_pixels >= FLIPPED * pixels for row in kept):
        return (
            "every model that kept the bound labels nearly every pixel otherwise, so that the maps tell no pixel from another; "
            "less --slack, or fit data like this image, bind it"
        )
    if all(row.objective_last <= GRANTED * row.objective_first for row in kept):
        return (
            "every model that kept the bound got all that it was asked for, so that the maps show what was asked and not what is "
            "doubtful; less --slack, or a larger --radius, leaves something to refuse"
        )
    return ""


def models_broken_on_whole(audit: Sequence[MemberAudit]) -> tuple[int, int]:
    """How many models that kept the bound on crops break it on the whole fit images, and how many were looked at."""
    checked = [row for row in audit if row.held and row.whole_held is not None]
    return sum(not row.whole_held for row in checked), len(checked)


def kept_probs(trajectory: Trajectory, kept: Int[np.ndarray, "t m"]) -> Float[np.ndarray, "t m p c"]:
    """The predictions of the kept steps."""
    return np.asarray(_take(trajectory.probs, kept))


@jax.jit
def _take(probs: Float[Array, "t m s p c"], kept: Int[Array, "t m"]) -> Float[Array, "t m p c"]:
    return jnp.take_along_axis(probs, kept[:, :, None, None, None], 2)[:, :, 0]


def audit_members(
    facts: SearchFacts,
    *,
    names: Sequence[str],
    changed: Int[np.ndarray, " m"],
    target: int,
    whole: OnWhole | None = None,
    **place: Any,
) -> list[MemberAudit]:
    """One row a member over all targets of a search, `changed` pixels each.

    `target` is the number of the only target, or -1 for all of them; `whole` is what the kept models of the only target lose on
    whole fit images; `place` says where in a volume they lie.
    """
    rows = np.arange(len(facts.kept))
    audit = []
    for m, name in enumerate(names):
        kept, counts, objective, fit_loss = facts.kept[:, m], facts.counts[:, m], facts.objective[:, m], facts.fit_loss[:, m]
        held = int(counts.any(1).sum())
        audit.append(
            MemberAudit(
                target=target,
                member=m,
                wanted=name,
                held=held > 0,
                nan=not bool(facts.usable[:, m].all()),
                fit_loss=_mean(fit_loss[rows, kept]),
                bound=float(facts.bound[:, m][rows, kept].mean()),
                reference_loss=float(facts.reference_loss[:, m][rows, kept].mean()),
                steps=int(fit_loss.size),
                feasible_steps=int(counts.sum()),
                objective_first=_mean(objective[:, 0]),
                objective_last=_mean(objective[rows, kept]),
                changed_pixels=int(changed[m]),
                searched=len(rows),
                kept=held,
                **(whole.of(m) if whole is not None else {}),
                **place,
            )
        )
    return audit


def _mean(values: Float[np.ndarray, " t"]) -> float:
    return float("nan") if np.isnan(values).all() else float(np.nanmean(values))
