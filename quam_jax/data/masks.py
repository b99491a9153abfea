"""What the values of a data set's masks mean: decided over all of its files, and then the same for every one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Num

from .decoding import Decoded
from .mask_settings import AUTO, MaskSettings, hex_colour, parse_values
from .mask_values import SHOWN, MaskValues, colours_of, found, shown
from .preprocess import IGNORED

HABIT = 255  # the value that masks commonly have where nobody rated
TOLERANCE = 1e-3  # of labels stored as scaled or float values
IMAGE_LIKE = 16  # values, or twice the labels: from there on a mask looks like an image


@dataclass(frozen=True)
class MaskCoding:
    """Which label every stored value stands for, -1 where nobody rated; `notes` say what was concluded, `where` from which files.

    `by_label` says that some of them hold labels, not 0 and one other value. With `drawn` what is opaque of a mask with
    transparency is label 1, whatever its colour.
    """

    classes: int
    table: Mapping[float, int]
    colours: bool = False
    drawn: bool = False
    by_label: bool = False
    threshold: float | None = None
    where: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def not_rated(self) -> tuple[float, ...]:
        """The values that nobody rated."""
        return tuple(value for value, label in self.table.items() if label == IGNORED)

    def to_dict(self) -> dict[str, Any]:
        """What run.json says of it."""
        table = {shown(value, colours=self.colours): label for value, label in self.table.items()}
        return {"labels": table, "drawn": self.drawn, "threshold": self.threshold}

    def labels(self, mask: Decoded, path: Path) -> Int[np.ndarray, "*space"]:
        """The labels of a mask, int32; ValueError, naming `path`, for values that stand for none."""
        if mask.values.shape[-1] > 1 and not mask.is_colour:
            return _one_hot(mask.values, path, classes=self.classes)
        if mask.alpha is not None and self.drawn:
            return _opaque(mask, path, threshold=self.threshold)
        values = colours_of(mask) if self.colours else _greys_of(mask, path)
        if self.threshold is not None:
            if values.dtype.kind == "f" and np.isnan(values).any():
                raise ValueError(f"{path}: expected numbers to compare with {self.threshold:g}, found NaN")
            labels = (values > self.threshold).astype(np.int32)
        else:
            labels = self._look_up(values, path, clear=mask.alpha)
        if mask.alpha is not None:
            _require_hard(mask.alpha, path)
            if (labels[mask.alpha > 0] == 0).any():
                raise ValueError(f"{path}: transparent pixels beside visible ones of label 0; store labels without transparency")
            labels[mask.alpha == 0] = 0
        return labels

    def _look_up(self, values: Num[np.ndarray, "*space"], path: Path, *, clear: np.ndarray | None) -> Int[np.ndarray, "*space"]:
        labels = np.full(values.shape, self.classes, np.int32)
        for value, label in self.table.items():
            same = values == value if values.dtype.kind in "ui" else np.abs(values - value) <= TOLERANCE
            labels[same] = label
        unknown = labels == self.classes
        if clear is not None:
            unknown &= clear > 0
        if unknown.any():
            shown = values if clear is None else values[clear > 0]
            raise ValueError(f"{path}: expected {self.expected}, found {found(shown, colours=self.colours)}{self._hint(shown)}")
        return labels

    @property
    def expected(self) -> str:
        """In words, what a mask may hold."""
        known = [(value, label) for value, label in self.table.items() if label != IGNORED]
        if self.colours or any(value != label for value, label in known):
            named = [f"{shown(value, colours=self.colours)} (label {label})" for value, label in known]
            text = "values " + ", ".join(named)
        else:
            text = "labels 0 and 1, or 0 and one other value" if self.classes == 2 else f"labels 0 to {self.classes - 1}"
            if self.by_label and self.where and self.classes == 2:
                text = f"labels 0 and 1 as other masks of {self.where} have"
        ignored = [f"{shown(value, colours=self.colours)} (not rated)" for value in self.not_rated]
        return text + (f", or {', '.join(ignored)}" if ignored else "")

    def _hint(self, values: np.ndarray) -> str:
        count = len(np.unique(values))
        if count > max(IMAGE_LIKE, 2 * self.classes):
            return "; are images and masks swapped? (--mask-threshold makes two labels of soft masks)"
        return "; --ignore-label and --mask-values say what values mean" if self.where else ""


def settle(seen: Sequence[MaskValues], *, classes: int, settings: MaskSettings, where: str = "") -> MaskCoding:
    """The one coding of these masks; ValueError for masks that contradict each other, or settings that do not fit the classes."""
    if classes < 2:
        raise ValueError(f"classes: expected 2 or more, got {classes}")
    if settings.threshold is not None:
        if classes != 2:
            raise ValueError(f"a threshold makes two classes, got classes={classes}")
        return MaskCoding(2, {}, drawn=True, threshold=settings.threshold, where=where)
    ignored = {} if settings.ignored is None else {float(settings.ignored.value): IGNORED}
    if settings.values:
        return _listed(settings, ignored, classes=classes, where=where)
    drawn = classes == 2 and any(mask.clear and len(mask.values) <= 1 for mask in seen)
    told = (f"of masks of {where} what is opaque is label 1, and what is transparent label 0",) if drawn and where else ()
    judged = [mask for mask in seen if not (drawn and mask.clear) and mask.values and not mask.many]
    if any(mask.colours for mask in judged) and not any(mask.values != (0,) for mask in judged if not mask.colours):
        coding = _coloured(judged, ignored, classes=classes, where=where)
    else:
        coding = _grey(judged, ignored, classes=classes, where=where, habit=settings.ignore_label == AUTO)
    notes = (*told, *coding.notes, *_hot(seen, where=where))
    return replace(coding, drawn=drawn, where=where, notes=notes)


def _hot(seen: Sequence[MaskValues], *, where: str) -> tuple[str, ...]:
    count = next((mask.channels for mask in seen if mask.channels > 1), 0)
    return (f"of the {count} channels of masks of {where} the one that is set is the label",) if count and where else ()


def _listed(settings: MaskSettings, ignored: Mapping[float, int], *, classes: int, where: str) -> MaskCoding:
    entries = parse_values(settings.values, what="--mask-values")
    if len(entries) > classes:
        raise ValueError(f"--mask-values: expected the values of {classes} labels, got {len(entries)}")
    kinds = {stored.colour for entry in entries for stored in entry}
    if len(kinds) > 1:
        raise ValueError(f"--mask-values: expected either numbers or colours, got both in {settings.values!r}")
    table = {float(stored.value): label for label, entry in enumerate(entries) for stored in entry}
    if len(table) != sum(map(len, entries)) or set(table) & set(ignored):
        raise ValueError(f"--mask-values: expected every value once, got {settings.values!r}")
    return MaskCoding(classes, {**table, **ignored}, colours=True in kinds, where=where)


def _coloured(seen: Sequence[MaskValues], ignored: Mapping[float, int], *, classes: int, where: str) -> MaskCoding:
    """Masks in colours that nobody explained: black and one colour are two labels."""
    everywhere = {value if mask.colours else value * 0x010101 for mask in seen for value in mask.values} - set(ignored)
    others = sorted(everywhere - {0})
    first = next(mask.path for mask in seen if mask.colours)
    if classes != 2 or len(others) != 1 or not where:
        listed = ",".join(hex_colour(int(value)) for value in [0, *others][:SHOWN])
        raise ValueError(
            f"{first}: a mask in colours, of {len(everywhere)} in all masks; expected labels, or what the colours mean, "
            f"such as --mask-values '{listed}' or the file of a colour table"
        )
    note = f"masks of {where} are in colours: {hex_colour(int(others[0]))} is label 1"
    return MaskCoding(2, {0.0: 0, others[0]: 1, **ignored}, colours=True, notes=(note,))


def _grey(seen: Sequence[MaskValues], ignored: Mapping[float, int], *, classes: int, where: str, habit: bool) -> MaskCoding:
    labels = set(range(classes))
    found_in = [(mask, {_whole(value) for value in mask.values} - set(ignored)) for mask in seen]
    habitual = habit and HABIT not in labels
    by_label = [values for _, values in found_in if values <= labels and values - {0}]
    by_habit = [values for _, values in found_in if HABIT in values and values - {HABIT} <= labels and values - {0, HABIT}]
    table: dict[float, int] = {float(label): label for label in range(classes)} | dict(ignored)
    if habitual and by_habit:
        note = f"of masks of {where} {HABIT} is taken as not rated; --ignore-label none says that it is a label"
        return MaskCoding(classes, table | {float(HABIT): IGNORED}, by_label=True, notes=(note,) if where else ())
    if classes > 2 or by_label:
        return MaskCoding(classes, table, by_label=bool(by_label))
    # two labels, none of which is 1: 0 and one other value
    pairs = [(mask, values) for mask, values in found_in if len(values - {0}) == 1 and (0 in values or values == {HABIT})]
    others = {value for _, values in pairs for value in values - {0} if value is not None}
    if not others or min(others) < 0:
        return MaskCoding(classes, table)
    if len(others) > 1:
        names = {next(iter(values - {0})): mask.path for mask, values in pairs}
        one, other = list(names)[:2]
        raise ValueError(
            f"{where or names[one].parent}: masks of two codings: {names[one].name} holds {one:g}, {names[other].name} "
            f"{other:g} beside 0; say what is what with --ignore-label {other:g}, or --mask-values 0,{one:g}+{other:g}"
        )
    return MaskCoding(2, {0.0: 0, others.pop(): 1, **ignored})


def _whole(value: float) -> float | None:
    """The whole number that a value is meant to be, None for what is none."""
    return float(round(value)) if np.isfinite(value) and abs(value - round(value)) <= TOLERANCE else None


def _greys_of(mask: Decoded, path: Path) -> Num[np.ndarray, "*space"]:
    if mask.is_colour:
        raise ValueError(f"{path}: a mask in colours; expected grey or a palette as the other masks, or --mask-values")
    return mask.values[..., 0]


def _opaque(mask: Decoded, path: Path, *, threshold: float | None) -> Int[np.ndarray, "*space"]:
    alpha = mask.alpha
    assert alpha is not None
    if threshold is None:
        _require_hard(alpha, path)
        values = colours_of(mask) if mask.is_colour else mask.values[..., 0]
        if len(np.unique(values[alpha > 0])) > 1:
            raise ValueError(
                f"{path}: transparent pixels beside visible ones of several values; store labels without transparency"
            )
    return (alpha > (threshold or 0)).astype(np.int32)


def _require_hard(alpha: np.ndarray, path: Path) -> None:
    if ((alpha > 0) & (alpha < 255)).any():
        raise ValueError(f"{path}: a mask with soft edges in its transparency; expected hard ones, or --mask-threshold 127")


def _one_hot(values: Num[np.ndarray, "*space c"], path: Path, *, classes: int) -> Int[np.ndarray, "*space"]:
    """Labels of a mask with a channel a class, or one a class but the background."""
    channels = values.shape[-1]
    if channels not in (classes, classes - 1):
        raise ValueError(
            f"{path}: a mask of {channels} channels; expected one channel of labels, or one a class ({classes}, or "
            f"{classes - 1} without the background)"
        )
    on = values != 0
    set_ = on.sum(-1)
    if len(np.unique(values)) > 2 or set_.max() > 1 or (channels == classes and set_.min() == 0):
        raise ValueError(f"{path}: a mask of {channels} channels that overlap or leave gaps; expected one label a pixel")
    return np.where(set_ > 0, on.argmax(-1) + (channels < classes), 0).astype(np.int32)
