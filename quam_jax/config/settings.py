"""A setting as a field with a help text, and how a wrong value is said."""

import dataclasses
from collections.abc import Iterable
from typing import Any


def setting(default: Any, text: str, *, choices: Iterable[str] = ()) -> Any:
    """A dataclass field with a help text; `choices` are its values where a Literal cannot list them."""
    return dataclasses.field(default=default, metadata={"help": text, "choices": tuple(choices)})


def require(condition: bool, name: str, expected: str, got: Any) -> None:
    """ValueError, in the form of all settings, where the condition does not hold."""
    if not condition:
        raise ValueError(f"{name}: expected {expected}, got {got!r}")
