"""What the channels of a run's model mean, in run.json, and read from there again by what is done with finished runs."""

from collections.abc import Mapping
from typing import Any

from ..models.coding import Coding


def coding_record(coding: Coding) -> dict[str, Any]:
    """The table of labels and regions as run.json has it."""
    return {
        "labels": coding.labels,
        "names": list(coding.channel_names),
        "regions": None if coding.channel_regions is None else [list(region) for region in coding.channel_regions],
        "regions_class_order": None if coding.order is None else list(coding.order),
        "overlapping": coding.overlapping,
    }


def run_coding(info: Mapping[str, Any], *, where: object) -> Coding:
    """The coding of a run by its run.json; ValueError, saying `where`, for one that does not tell."""
    found, record = coding_in(info), info.get("coding")
    if found is not None:
        return found
    if not isinstance(record, Mapping) or not isinstance(record.get("labels"), int) or record.get("regions") is not None:
        raise ValueError(f"{where}: expected the run.json of a run of this version, got none")
    names = record.get("names")
    return Coding.exclusive(record["labels"], [str(name) for name in names] if isinstance(names, list) else ())


def coding_in(info: Mapping[str, Any]) -> Coding | None:
    """The table of a run whose model has regions, by its run.json; None for other models, and where there is none."""
    record = info.get("coding")
    try:
        return Coding(
            int(record["labels"]),  # type: ignore[index]
            tuple(tuple(int(label) for label in region) for region in record["regions"]),  # type: ignore[index]
            tuple(int(label) for label in record["regions_class_order"]),  # type: ignore[index]
            tuple(str(name) for name in record["names"]),  # type: ignore[index]
            bool(record["overlapping"]),  # type: ignore[index]
        )
    except (KeyError, TypeError, ValueError):
        return None
