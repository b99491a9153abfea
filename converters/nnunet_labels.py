"""What dataset.json says of channels and labels, as leniently as nnU-Net: numbers as text, names counted."""

import reprlib
from collections.abc import Mapping
from typing import Any


def read_channel_names(dataset: Mapping[str, Any], *, where: str) -> list[str]:
    """The names of the image's channels in order, by their keys where these are numbers; there are as many as names."""
    given = dataset.get("modality", dataset.get("channel_names"))
    if isinstance(given, list):
        return [str(name) for name in given]
    if not isinstance(given, Mapping) or not given:
        raise ValueError(f'{where}: expected "channel_names", such as {{"0": "CT"}}, got {reprlib.repr(given)}')
    keys = list(given)
    return [str(given[key]) for key in (sorted(keys, key=int) if all(str(key).isdecimal() for key in keys) else keys)]


def describe_labels(dataset: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """What the output channels are: one class each, or, where a label is a set of several values, one region each.

    ValueError for labels that are no numbers, classes that are not counted from 0, an ignored label that is one of the others,
    and regions without the labels that they write.
    """
    stated = dataset.get("labels")
    if not isinstance(stated, Mapping) or not stated:
        raise ValueError(f'{where}: expected "labels", such as {{"background": 0, "organ": 1}}, got {reprlib.repr(stated)}')
    if all(str(name).isdecimal() for name in stated) and not any(_is_number(value) for value in stated.values()):
        raise ValueError(
            f'{where}: expected "labels" from names to numbers, got those of nnU-Net v1; write {{"background": 0, "organ": 1}} '
            'for {"0": "background", "1": "organ"}'
        )
    given = {str(name): _values(value, name, where) for name, value in stated.items()}
    labels = {name: values if isinstance(stated[name], list | tuple) else values[0] for name, values in given.items()}
    ignored = given.pop("ignore", None)
    if ignored is not None and (len(ignored) > 1 or any(ignored[0] in values for values in given.values())):
        got = reprlib.repr(stated["ignore"])
        raise ValueError(f"{where}: expected the ignored label to be one number that no other label has, got {got}")
    record: dict[str, Any] = {"labels": labels, "ignore_label": ignored[0] if ignored else None}
    if all(len(values) == 1 for values in given.values()):
        names: dict[int, str] = {}
        for name, (value,) in given.items():
            names[value] = f"{names[value]} or {name}" if value in names else name
        if sorted(names) != list(range(len(names))):
            got = ", ".join(map(str, sorted(names)))
            raise ValueError(
                f"{where}: expected the labels 0 to {len(names) - 1}, as many as the network has channels, got {got}"
            )
        return {**record, "class_names": [names[value] for value in sorted(names)], "regions": None, "regions_class_order": None}
    regions = {name: values for name, values in given.items() if set(values) != {0}}
    order = dataset.get("regions_class_order")
    if not isinstance(order, list) or len(order) != len(regions) or not all(_is_number(label) for label in order):
        raise ValueError(
            f"{where}: expected regions_class_order with a label for each of the {len(regions)} regions "
            f"({', '.join(regions)}), got {order}"
        )
    return {
        **record,
        "class_names": list(regions),
        "regions": list(regions.values()),
        "regions_class_order": [int(label) for label in order],
    }


def _is_number(value: Any) -> bool:
    """Whether nnU-Net takes it for a label."""
    if isinstance(value, str):
        return value.strip().isdecimal()
    return not isinstance(value, bool) and isinstance(value, int | float) and value >= 0 and float(value).is_integer()


def _values(value: Any, name: Any, where: str) -> list[int]:
    values = value if isinstance(value, list | tuple) else [value]
    if not values or not all(_is_number(one) for one in values):
        raise ValueError(f"{where}: expected a whole number or several as label {name}, got {reprlib.repr(value)}")
    return [int(one) for one in values]
