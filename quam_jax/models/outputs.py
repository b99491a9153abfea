"""What the output channels of a network without a plan mean: asked once, at conversion, and kept in the model's manifest.

`softmax`: the channels are classes, of which a pixel has one. `sigmoid`: every channel answers yes or no by itself, for a region
of labels; one channel alone is the logit of a foreground, and its network one of the two classes [0, z]. Several channels make
one of exclusive classes too, the subsets of regions (see coding.py), so that `Network.sums` is all that a search needs to know.
"""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .coding import MOST_REGIONS, Coding
from .model import SegmentationModel

MEANINGS = ("softmax", "sigmoid")
BACKGROUND = "background"

Regions = Mapping[str, Any]  # from a name to one label or several


def declare_outputs(
    model: SegmentationModel,
    meaning: str | None = None,
    *,
    regions: Regions | None = None,
    names: Sequence[str] | None = None,
    inside: str = "",
) -> SegmentationModel:
    """The model with the meaning of its channels in the manifest, and with the logits of exclusive classes.

    Without a `meaning` it is `sigmoid` for one channel or where there are `regions`, else `softmax`. `regions` has the labels of
    masks that every channel stands for, in the channels' order; without it channel k stands for label k + 1, or, where the first
    of the `names` is "background", for label k. `names` are those of the channels, or of the classes; `inside` is the
    activation that the network itself had behind its logits. ValueError for what does not fit the channels, and for more regions
    than subsets of them can be searched.
    """
    count = model.network.out_channels
    meaning = meaning or ("sigmoid" if count == 1 or regions is not None else "softmax")
    if meaning not in MEANINGS:
        raise ValueError(f"outputs: expected one of {', '.join(MEANINGS)}, got {meaning!r}")
    if meaning == "softmax":
        if count == 1:
            raise ValueError("outputs: a softmax of one channel is 1 everywhere; expected sigmoid for a network of one channel")
        if regions is not None:
            raise ValueError("outputs: regions are those of independent channels (sigmoid); expected none with softmax")
        _check_names(names, (count,))
        record: dict[str, Any] = {"meaning": meaning}
    else:
        _check_names(names, (count, count + 1) if count == 1 else (count,))
        if count > MOST_REGIONS:
            raise ValueError(
                f"outputs: expected {MOST_REGIONS} independent channels at most, whose subsets can be searched, got {count}; "
                "where a pixel has one class alone, --outputs softmax takes the largest"
            )
        table = _table(count, regions, names)
        record = {"meaning": meaning, **_in_writing_order(table)}
        if count == 1 and names is not None:
            names = (*names,) if len(names) == 2 else (BACKGROUND, *names)
    manifest = {**model.manifest, "outputs": {**record, **({"inside": inside} if inside else {})}}
    if meaning == "sigmoid" and count > 1:
        manifest["class_names"] = None  # the regions have them
    elif names is not None:
        manifest["class_names"] = list(names)
    return read_outputs(replace(model, network=replace(model.network, sums=None), manifest=manifest))


def read_outputs(model: SegmentationModel) -> SegmentationModel:
    """A model with the logits that its manifest says its channels mean; those of a plan stay as they are.

    Without a word they are classes, one channel alone the logit of a foreground. ValueError for a record that does not fit.
    """
    count, record = model.network.out_channels, model.manifest.get("outputs")
    if "nnunet" in model.manifest or (record is None and count > 1):
        return model
    if record is None:
        return declare_outputs(model)
    if not isinstance(record, Mapping):
        raise ValueError(f"outputs of the model: expected an object, got {reprlib.repr(record)}")
    if record.get("meaning") == "softmax":
        return model
    table = _read_table(record, count)
    subsets = Coding(2, tuple(table.values())).subsets
    place = [record["channels"].index(k) for k in range(count)]  # of every channel among the regions
    sums = tuple(tuple(int(n) for n in row[place]) for row in subsets)
    return replace(model, network=replace(model.network, sums=sums))


def coding_of(model: SegmentationModel) -> Coding:
    """What the logits of a model without a plan mean as labels; ValueError for a record that does not fit."""
    record, names = model.manifest.get("outputs") or {}, [str(name) for name in model.manifest.get("class_names") or ()]
    table = _read_table(record, model.network.out_channels) if record.get("meaning") == "sigmoid" else {}
    if list(table.values()) in ([], [(1,)]):
        return Coding.exclusive(model.network.classes, names)
    writes = tuple(record["writes"])
    labels = max(label for labels in (*table.values(), writes) for label in labels) + 1
    return Coding(labels, tuple(table.values()), writes, tuple(table), overlapping=True)


def _read_table(record: Mapping[str, Any], count: int) -> dict[str, tuple[int, ...]]:
    """The regions of a manifest; ValueError for what is no table of so many channels."""
    try:
        table = {str(name): _labels(name, labels) for name, labels in record["regions"].items()}
        channels, writes = record["channels"], record["writes"]
        if record["meaning"] != "sigmoid" or sorted(channels) != list(range(count)) or not len(table) == len(writes) == count:
            raise ValueError(f"expected a table of {count} channels")
        if not all(write in labels for write, labels in zip(writes, table.values(), strict=True)):
            raise ValueError("expected every region to write one of its labels")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"outputs of the model: cannot be read: {reprlib.repr(record)} ({error})") from error
    return table


def describe_outputs(model: SegmentationModel) -> str:
    """What the channels were taken for, in words; empty for one class a channel."""
    record = model.manifest.get("outputs", {})
    if record.get("meaning") != "sigmoid":
        return ""
    named = sorted(zip(record["channels"], record["regions"].items(), strict=True))
    said = [f"{name} is label {' or '.join(map(str, labels))}" for _, (name, labels) in named]
    if len(said) == 1:
        return f"one output channel, taken as the logit z of a sigmoid: two classes with the logits [0, z], {said[0]}"
    return (
        f"{len(said)} independent output channels (sigmoid), of which a pixel may have several or none: {', '.join(said)}; "
        "other labels: --channel-labels, or --class-names that begin with background; one class a pixel: --outputs softmax"
    )


def _check_names(names: Sequence[str] | None, counts: Sequence[int]) -> None:
    if names is not None and len(names) not in counts:
        raise ValueError(f"expected {' or '.join(map(str, counts))} class names, got {len(names)}: {', '.join(names)}")


def _labels(name: Any, labels: Any) -> tuple[int, ...]:
    values = (labels,) if isinstance(labels, int) and not isinstance(labels, bool) else tuple(labels)
    if not values or not all(type(value) is int and 0 <= value <= 255 for value in values):
        raise ValueError(f"region {name}: expected labels from 0 to 255, got {labels!r}")
    return tuple(sorted(set(values)))


def _table(count: int, regions: Regions | None, names: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """The labels of every channel by its name, in the channels' order."""
    if regions is None:
        own = tuple(names or ())[-count:] or (("foreground",) if count == 1 else tuple(f"region {k + 1}" for k in range(count)))
        first = 0 if count > 1 and own[0].lower() == BACKGROUND else 1
        return {name: (first + k,) for k, name in enumerate(own)}
    try:
        table = {str(name): _labels(name, labels) for name, labels in regions.items()}
    except TypeError:
        raise ValueError(f"regions: expected labels for every name, got {dict(regions)!r}") from None
    if len(table) != count:
        raise ValueError(f"regions: expected one for each of the {count} output channels, got {', '.join(table) or 'none'}")
    if len(set(table.values())) < count:
        raise ValueError(f"regions: expected other labels for every channel, got {dict(regions)!r}")
    return table


def _in_writing_order(table: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Regions with the largest first, so that what lies inside is written over it; each with its own channel and label."""
    names = list(table)
    order = sorted(range(len(names)), key=lambda k: (-len(table[names[k]]), k))
    covering = [label for labels in table.values() for label in labels]
    return {
        "regions": {names[k]: list(table[names[k]]) for k in order},
        "channels": order,
        "writes": [min(table[names[k]], key=lambda label: (covering.count(label), label)) for k in order],
    }
