"""Which of the tensors of a checkpoint are the network: training code keeps others beside it, under names of their own.

A part is what stands under a prefix such as `net.` or `teacher.`. It is found by the one name that tells an architecture. Inside
a part every tensor must be used; only counters of profilers and trainers, which no forward pass reads, are known by their names.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from quam_jax.networks import NETWORKS

from .mapping import shorten

_COUNTERS = re.compile(r"^(.*\.)?(total_ops|total_params|n_averaged)$|^(epoch|step|global_step|iteration)$")
_BESIDE = re.compile(r"^(criterions?|loss(es|_\w+)?|\w*_loss|metrics?|(train|val|valid|test)_\w+|log_vars)(\.|$)")
_AVERAGED = re.compile(r"(^|[._])(ema|swa|averaged?)([._]|$)")
DEPTH = 3  # names in a prefix that is tried where nothing tells the architecture


class Part(NamedTuple):
    """Tensors under a prefix, by the rest of their names, and the names of those that are no part of it."""

    prefix: str
    tensors: dict[str, np.ndarray]
    beside: list[str]

    @property
    def is_averaged(self) -> bool:
        """Whether it is called an average of the weights of a training."""
        return _AVERAGED.search(self.prefix) is not None


def find_parts(tensors: Mapping[str, np.ndarray], *, arch: str | None, prefix: str | None = None) -> list[Part]:
    """The parts that may be a network, shortest prefix first; the only one is that of the `prefix` where it is given.

    ValueError for a prefix that no name has.
    """
    if prefix is not None:
        given = prefix if not prefix or prefix.endswith(".") else f"{prefix}."
        part = take_part(tensors, given)
        if not part.tensors:
            raise ValueError(f"--part {prefix}: expected the beginning of some names, which begin with {beginnings(tensors)}")
        return [part]
    tellings = {known.telling for known in NETWORKS.values() if known.telling and arch in (None, known.name)}
    found = {name.removesuffix(telling) for name in tensors for telling in tellings if name.endswith(telling)}
    prefixes = {p for p in found if not p or p.endswith(".")}
    if arch is not None and not tellings:
        prefixes = {".".join([*name.split(".")[:n], ""]) for name in tensors for n in range(DEPTH) if name.count(".") >= n}
    return [take_part(tensors, p) for p in sorted(prefixes or {""}, key=lambda p: (p.count("."), p))]


def take_part(tensors: Mapping[str, np.ndarray], prefix: str) -> Part:
    """The tensors under a prefix, without those that are known to be no weights."""
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    strange = {name for name in own if _COUNTERS.search(name) or (not prefix and _BESIDE.search(name))}
    beside = [name for name in tensors if not name.startswith(prefix) or name.removeprefix(prefix) in strange]
    return Part(prefix, {name: value for name, value in own.items() if name not in strange}, beside)


def choose_part(parts: Sequence[Part]) -> tuple[Part, str]:
    """The one of several parts, all of which are a network, and what is told of the others.

    Averages of a training come last, and what stands inside another part does not count. ValueError, with the names, where two
    are left whose weights differ.
    """
    outer = [p for p in parts if not any(q is not p and p.prefix.startswith(q.prefix) for q in parts)]
    plain = [p for p in outer if not p.is_averaged] or outer
    first = plain[0]
    if any(not _are_equal(first, other) for other in plain[1:]):
        raise ValueError(
            f"holds {len(plain)} networks: {', '.join(_said(p) for p in plain)}; expected a choice of one: "
            f"quam-jax convert --part {_said(first)}"
        )
    others = [p for p in outer if p is not first]
    note = f"{', '.join(_said(p) for p in others)} would fit too; {_said(first)} is taken (another: --part)" if others else ""
    return first, note


def left_out(part: Part, *, others: Sequence[Part] = ()) -> str:
    """What is told of the tensors beside a part, but for those of `others`; empty where there are none."""
    names = [n for n in part.beside if not any(n.startswith(other.prefix) for other in others)]
    if not names:
        return ""
    was = "tensor was" if len(names) == 1 else "tensors were"
    where = f" of {_said(part)}" if part.prefix else ""
    return f"{len(names)} {was} left out, beside the weights{where}: {shorten(names)}"


def beginnings(names: Iterable[str]) -> str:
    """What names begin with, and how many of them."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name.split(".")[0]] = counts.get(name.split(".")[0], 0) + 1
    return shorten(f"{first} ({count})" for first, count in sorted(counts.items(), key=lambda item: -item[1]))


def _said(part: Part) -> str:
    return part.prefix.removesuffix(".") or "the names without a prefix"


def _are_equal(one: Part, other: Part) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        value.dtype == other.tensors[name].dtype and np.array_equal(value, other.tensors[name])
        for name, value in one.tensors.items()
    )
