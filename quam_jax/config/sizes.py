"""Sizes of memory and sides of patches as people write them."""

import re


def bytes_in(text: str) -> int:
    """The bytes of a text such as 8GB, 500 MB, 7.5GiB or 2e9; 0 of an empty one. ValueError for any other."""
    if not text.strip():
        return 0
    found = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmgt]?)(i?)b?\s*", text.lower())
    try:
        assert found is not None
        size = int(float(found[1]) * (1024 if found[3] else 1000) ** " kmgt".index(found[2] or " "))
    except (AssertionError, ValueError):
        size = 0
    if size <= 0:
        raise ValueError(f"memory: expected a size such as 8GB, 500MB or 7.5GiB, got {text!r}")
    return size


def sides_in(text: str) -> tuple[int, ...]:
    """The sides of a text such as 512 or 512x640, (0,) of 0. ValueError for any other."""
    parts = text.split("x")
    sides = tuple(int(part) for part in parts if re.fullmatch(r"[0-9]{1,6}", part))
    if len(sides) != len(parts) or len(sides) > 3 or (min(sides) < 1 and sides != (0,)):
        raise ValueError(f"patch_size: expected auto, 0, or pixels such as 512 or 512x640, got {text!r}")
    return sides
