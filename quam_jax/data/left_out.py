"""What of the folders that were given is not used, so that it can be said: nothing is left out without a word."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from .datasets import Case, split_stem
from .files import companions, image_stem, image_suffix, natural_key

SHOWN = 8  # names in a note


class LeftOut(NamedTuple):
    """Files and folders that no case uses, and notes that name them, and masks that could be of two cases."""

    files: tuple[Path, ...]
    notes: tuple[str, ...]


def find_left_out(cases: Sequence[Case], images: Path | str, masks: Path | str | None, *, others: Sequence[Case] = ()) -> LeftOut:
    """What lies in the folders of images and masks and is neither used nor hidden; globs and single files say what they want.

    What `others` use, cases of other folders or of the same ones, is not left out. Images without a mask are told
    too, and images of several formats: a picture beside volumes is seldom one of them.
    """
    taken = [file for case in (*cases, *others) for file in (*case.files, *case.raters.values())]
    used = {part for file in taken for part in (file, *companions(file))}
    files: list[Path] = []
    notes: list[str] = []
    for source, what in ((images, "images"), (masks, "masks")):
        if source is None or not Path(source).is_dir() or (what == "masks" and Path(source) == Path(images)):
            continue
        rest = [child for child in _visible(Path(source)) if child not in used]
        orphans = [child for child in rest if what == "masks" and child.is_file() and image_suffix(child)]
        unread = [child for child in rest if child not in orphans]
        if orphans:
            notes.append(
                f"{_count(orphans, 'mask')} of {source} {_are(orphans, 'belongs', 'belong')} to no case: {named(orphans)}"
            )
        if unread:
            notes.append(f"{_count(unread, 'entry')} of {source} {_are(unread, 'is', 'are')} not read: {named(unread)}")
        files += rest
    formats = Counter(image_suffix(file) for case in cases for file in case.files)
    if len(formats) > 1 and Path(images).is_dir():
        notes.append(
            f"images of {images} are of {len(formats)} formats: " + ", ".join(f"{n} {s}" for s, n in formats.most_common())
        )
    unmasked = [case.image for case in cases if not case.raters]
    if masks is not None and unmasked:
        notes.append(f"{_count(unmasked, 'image')} of {images} {_are(unmasked, 'has', 'have')} no mask: {named(unmasked)}")
    names = {case.name for case in cases}
    unsure = [
        f"{mask.name} ({case.name}, not {shorter[0]})"
        for case in cases
        for mask in case.raters.values()
        if image_stem(mask) != case.name and (shorter := split_stem(case.name, names - {case.name}))
    ]
    if unsure:
        more = f" and {len(unsure) - SHOWN} more" if len(unsure) > SHOWN else ""
        notes.append(f"masks whose names begin with those of two cases go to the longer: {', '.join(unsure[:SHOWN])}{more}")
    return LeftOut(tuple(files), tuple(notes))


def named(files: Sequence[Path]) -> str:
    """The names of some files, folders with a slash."""
    shown = ", ".join(file.name + "/" * file.is_dir() for file in files[:SHOWN])
    return shown + (f" and {len(files) - SHOWN} more" if len(files) > SHOWN else "")


def _visible(folder: Path) -> Iterable[Path]:
    children = (child for child in folder.iterdir() if not child.name.startswith("."))
    return sorted(children, key=lambda child: natural_key(child.name))


def _count(files: Sequence[Path], noun: str) -> str:
    return f"{len(files)} {noun if len(files) == 1 else noun[:-1] + 'ies' if noun.endswith('y') else noun + 's'}"


def _are(files: Sequence[Path], one: str, many: str) -> str:
    return one if len(files) == 1 else many
