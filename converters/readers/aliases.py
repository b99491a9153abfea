"""Several names of one tensor: find them, check that they are equal, keep one.

Two names are one tensor if they view the same bytes in the same way, or if they follow one of nnU-Net's
habits: `decoder.encoder.X` is `encoder.X`, and `P.all_modules.N.X` is the N-th of the layers `P` registers
under their own names. The first name in file order is kept, but never one of nnU-Net's second names where the
first is there.
"""

import re
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from .records import quote

_INNER_ENCODER = re.compile(r"^((?:.*\.)?)decoder\.encoder\.(.+)$")
_ALL_MODULES = re.compile(r"^((?:.*\.)?)all_modules\.(\d+)\.(.+)$")


def same_bytes(identities: Mapping[str, Hashable | None]) -> dict[str, str]:
    """Return dropped name -> kept name for names of equal identity (None is equal to nothing)."""
    groups: dict[Hashable, list[str]] = {}
    for name, identity in identities.items():
        if identity is not None:
            groups.setdefault(identity, []).append(name)
    aliases: dict[str, str] = {}
    for names in groups.values():
        kept = min(names, key=lambda name: (_is_second_name(name), names.index(name)))
        aliases.update({name: kept for name in names if name != kept})
    return {name: aliases[name] for name in identities if name in aliases}


def nnunet_twins(tensors: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, str]:
    """Return dropped name -> kept name for nnU-Net's second names that hold values of their own in this file.

    Raises ValueError if a second name differs from its first: then nobody can say which is right.
    """
    twins = {**_inner_encoder(tensors), **_all_modules(tensors)}
    different = [name for name, first in twins.items() if not same_values(tensors[name], tensors[first])]
    if different:
        shown = ", ".join(f"{quote(name)} and {quote(twins[name])}" for name in different[:5])
        raise ValueError(f"expected equal values under the two names of one layer, got different ones in {shown}")
    return resolve_chains(twins)


def same_values(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    """Whether two arrays agree in dtype, shape and every bit."""
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def resolve_chains(aliases: Mapping[str, str]) -> dict[str, str]:
    """Return the same aliases, each pointing at a name that is no alias itself."""
    resolved: dict[str, str] = {}
    for name, first in aliases.items():
        while first in aliases:
            first = aliases[first]
        resolved[name] = first
    return resolved


def _is_second_name(name: str) -> bool:
    return bool(_INNER_ENCODER.match(name) or _ALL_MODULES.match(name))


def _inner_encoder(tensors: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in tensors:
        if match := _INNER_ENCODER.match(name):
            first = f"{match[1]}encoder.{match[2]}"
            if first in tensors:
                found[name] = first
    return found


def _all_modules(tensors: Mapping[str, Any]) -> dict[str, str]:
    """Match a block's numbered layers with its named ones, in order; where the counts differ, leave it."""
    numbered: dict[str, dict[int, list[str]]] = {}
    for name in tensors:
        if match := _ALL_MODULES.match(name):
            numbered.setdefault(match[1], {}).setdefault(int(match[2]), []).append(name)
    named: dict[str, list[str]] = {block: [] for block in numbered}
    for name in tensors:
        parts = name.split(".")
        for cut in range(len(parts) - 1):
            block = "".join(f"{part}." for part in parts[:cut])
            if block in named and parts[cut] != "all_modules" and parts[cut] not in named[block]:
                named[block].append(parts[cut])
    found: dict[str, str] = {}
    for block, layers in numbered.items():
        if len(layers) == len(named[block]):
            for child, index in zip(named[block], sorted(layers), strict=True):
                start = f"{block}all_modules.{index}."
                pairs = {name: f"{block}{child}.{name.removeprefix(start)}" for name in layers[index]}
                found.update({name: first for name, first in pairs.items() if first in tensors})
    return found
