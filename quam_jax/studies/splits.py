"""No case in two parts: checked by the bytes of the image, by the name of the case, and by the patient.

A patient is what a regular expression finds in the case's name (its first group, or the whole match); without one every
case is a patient of its own. Fit cases may be training cases, since both belong to what the network knows.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")
KNOWN = ("train", "fit")  # parts that may share cases with each other


class Identity(NamedTuple):
    """What tells a case from others: its name, its patient and the SHA-256 of its image files."""

    name: str
    patient: str
    sha256: str


def take_evenly(items: Sequence[T], most: int | None) -> list[T]:
    """At most so many items, the n-th of them at place floor(n * len / most); all where `most` is None or large enough."""
    if most is None or most >= len(items):
        return list(items)
    return [items[n * len(items) // most] for n in range(most)]


def check_disjoint(parts: Mapping[str, Sequence[Identity]]) -> None:
    """ValueError naming the first case of one part that another part has too, by image, name or patient."""
    names = list(parts)
    for index, one in enumerate(names):
        for other in names[index + 1 :]:
            if one in KNOWN and other in KNOWN:
                continue
            for field, what in (("sha256", "image"), ("name", "case name"), ("patient", "patient")):
                seen = {getattr(case, field): case.name for case in parts[one]}
                for case in parts[other]:
                    if getattr(case, field) in seen:
                        raise ValueError(
                            f"{one} and {other} cases: expected no overlap, got the same {what} in "
                            f"{seen[getattr(case, field)]} ({one}) and {case.name} ({other})"
                        )
