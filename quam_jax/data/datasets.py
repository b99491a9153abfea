"""Folders of images and masks to cases with their raters, in an order and under names a run can rely on.

A mask belongs to the case whose name it carries: `CASE.png` (one rater, called "rater") or `CASE_RATER.png`.
The layouts of particular data sets are in layouts.py.
"""

import glob
import re
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from .files import IMAGE_SUFFIXES, SEGMENT_SUFFIX, companions, image_stem, image_suffix, natural_key
from .masks import MaskCoding

ONLY_RATER = "rater"  # the rater's name where the mask's file name gives none
_RESERVED = ("run", "summary")  # a run writes run.json and summary.json beside CASE.json
_FORBIDDEN = set('/\\<>:"|?*')
_LONGEST = 200  # bytes; file systems allow 255, and the suffixes of the maps need some


class Case(NamedTuple):
    """An image to work on and the masks its raters drew.

    `raters` maps a rater's name to the mask file and may be empty; `channels` lists further files of the same
    image, one a channel, for data sets that store them apart. `coding` is what the masks' values mean, None where nobody looked.
    """

    name: str
    image: Path
    raters: dict[str, Path]
    channels: tuple[Path, ...] = ()
    coding: MaskCoding | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the image, in channel order."""
        return (self.image, *self.channels)


def find_cases(images: Path | str, masks: Path | str | None = None, *, channel_files: bool = False) -> list[Case]:
    """The cases of a folder, a glob or one file of images, with the masks found for them, in natural order.

    `images` and `masks` are each a folder (not searched deeper), a glob or a file; one image with one mask
    file are paired whatever their names. Where one case name begins another, a mask goes to the longest that
    fits. Names are case-sensitive and `.nii.gz` is one suffix. With `channel_files` an image is stored as
    nnU-Net does, one file a channel: `CASE_0000.ext`, `CASE_0001.ext`, ... ValueError for a missing or empty
    folder, no image in it, two images of one name, a name unfit for output files, two masks of one rater, or
    masks none of which fits a case; masks without a case are otherwise passed over, images without
    masks have no raters.
    """
    files = list_images(images, what="images")
    groups = _group_channels(files) if channel_files else [(image_stem(file), (file,)) for file in files]
    cases = check_cases(Case(name, group[0], {}, group[1:]) for name, group in groups)
    if masks is None:
        return cases
    found = _mask_files(masks, images, files)
    if len(cases) == 1 and _is_file(images) and _is_file(masks):
        name, image, _, channels, _ = cases[0]
        rater = split_stem(image_stem(found[0]), {name})
        return [Case(name, image, {rater[1] if rater else ONLY_RATER: found[0]}, channels)]
    raters = match_masks(found, [case.name for case in cases])
    if not any(raters.values()):
        hint = ""
        if not channel_files and all(re.search(r"_\d{4}$", case.name) for case in cases):
            hint = "; the images look like nnU-Net channels (CASE_0000), which channel_files reads"
        elif any(match_masks(files, [image_stem(file) for file in found]).values()):
            hint = "; the names of the images begin with those of the masks: are images and masks swapped?"
        raise ValueError(
            f"{masks}: none of {len(found)} masks belongs to a case; expected names such as "
            f"{cases[0].name}.png or {cases[0].name}_RATER.png, got {found[0].name}{hint}"
        )
    return [case._replace(raters=raters[case.name]) for case in cases]


def find_channel_cases(images: Path | str, masks: Path | str | None, *, channels: int) -> list[Case]:
    """The cases of a folder whose images may be stored as nnU-Net does, one file a channel.

    They are read so where every image ends in four digits below the number of channels (CASE_0000 and so on).
    """
    endings = [re.search(r"_(\d{4})$", image_stem(file)) for file in list_images(images, what="images")]
    return find_cases(images, masks, channel_files=all(e is not None and int(e[1]) < channels for e in endings))


def check_cases(cases: Iterable[Case]) -> list[Case]:
    """Cases in natural order of their names; ValueError for names that clash or cannot name output files.

    Names that differ only in capitals or in Unicode composition clash, since some file systems take them for
    one.
    """
    ordered = sorted(cases, key=lambda case: natural_key(case.name))
    seen: dict[str, Case] = {}
    for case in ordered:
        _require_safe(case)
        folded = unicodedata.normalize("NFC", case.name).casefold()
        if folded in seen:
            raise ValueError(
                f"{case.image}: the case name {case.name!r} is that of {seen[folded].image} (capitals do not tell names apart)"
            )
        seen[folded] = case
    return ordered


def list_images(source: Path | str, *, what: str) -> list[Path]:
    """Files with an image suffix in a folder, matching a glob, or the one file named, in natural order.

    Hidden files and folders are passed over, a .hdr/.img pair counts once, and among images are no segmentations of 3D Slicer.
    ValueError, naming `source`, where there is none.
    """
    path = Path(source)
    if path.is_dir():
        children = sorted(path.iterdir(), key=lambda child: natural_key(child.name))
        if not children:
            raise ValueError(f"{path}: expected a folder of {what}, got an empty one")
        candidates = [child for child in children if not child.name.startswith(".") and not child.is_dir()]
        lack = f"{path}: holds no {what}; expected files ending in {', '.join(IMAGE_SUFFIXES)}"
        if candidates:
            lack += f", got {len(candidates)} other files such as {candidates[0].name}"
            if any(child.suffix.lower() in (".dcm", ".ima") for child in candidates):
                lack += "; `quam-jax dicom import` makes NIfTI files of DICOM series"
    elif path.is_file():
        candidates = [path]
        lack = f"{path}: expected a file ending in {', '.join(IMAGE_SUFFIXES)}"
    elif glob.has_magic(str(source)):
        matches = sorted(glob.glob(str(source), recursive=True), key=natural_key)
        candidates = [Path(match) for match in matches if not Path(match).is_dir()]
        lack = f"{source}: no file of {what} matches"
    else:
        raise ValueError(f"{path}: no such file or folder ({what})")
    chosen = [file for file in candidates if image_suffix(file)]
    if len(chosen) > 1:
        halves = {file for file in chosen if image_suffix(file) == ".hdr" and companions(file)}
        chosen = [file for file in chosen if file not in halves and (what == "masks" or image_suffix(file) != SEGMENT_SUFFIX)]
    if not chosen:
        raise ValueError(lack)
    return chosen


def _is_file(source: Path | str) -> bool:
    return Path(source).is_file()


def _mask_files(masks: Path | str, images: Path | str, files: list[Path]) -> list[Path]:
    if Path(masks).is_dir() and Path(images).is_dir() and Path(masks).samefile(images):
        raise ValueError(f"{masks}: images and masks share a folder; give the images as a glob such as *.jpg")
    taken = {file.resolve() for file in files}
    found = [mask for mask in list_images(masks, what="masks") if mask.resolve() not in taken]
    if not found:
        raise ValueError(f"{masks}: every file there is one of the images; expected masks")
    return found


def match_masks(masks: Iterable[Path], names: Iterable[str]) -> dict[str, dict[str, Path]]:
    """The masks of every case by rater, going by their names (see find_cases); ValueError for two masks of one rater."""
    raters: dict[str, dict[str, Path]] = {name: {} for name in names}
    known = set(raters)
    for mask in masks:
        parts = split_stem(image_stem(mask), known)
        if parts is None:
            continue
        name, rater = parts
        if rater in raters[name]:
            raise ValueError(f"{mask}: case {name} has one of rater {rater!r} already: {raters[name][rater]}")
        raters[name][rater] = mask
    return raters


def split_stem(stem: str, names: Collection[str]) -> tuple[str, str] | None:
    """The longest case name that a mask's stem begins with, and the rater; None if there is none."""
    if stem in names:
        return stem, ONLY_RATER
    cut = len(stem)
    while (cut := stem.rfind("_", 0, cut)) > 0:
        if stem[:cut] in names and stem[cut + 1 :]:
            return stem[:cut], stem[cut + 1 :]
    return None


def _group_channels(files: list[Path]) -> list[tuple[str, tuple[Path, ...]]]:
    groups: dict[str, dict[int, Path]] = {}
    for file in files:
        parts = re.fullmatch(r"(.+)_(\d{4})", image_stem(file))
        if parts is None:
            raise ValueError(f"{file}: expected a name ending in a channel number such as CASE_0000")
        group = groups.setdefault(parts[1], {})
        if int(parts[2]) in group:
            raise ValueError(f"{file}: the same channel of the same case as {group[int(parts[2])]}")
        group[int(parts[2])] = file
    count = max(len(group) for group in groups.values())
    for name, group in groups.items():
        if sorted(group) != list(range(count)):
            got = ", ".join(f"{channel:04d}" for channel in sorted(group))
            raise ValueError(
                f"{next(iter(group.values())).parent}: case {name} has channels {got}; expected 0000 to {count - 1:04d}"
            )
    return [(name, tuple(group[channel] for channel in range(count))) for name, group in groups.items()]


def _require_safe(case: Case) -> None:
    name = case.name
    fault = ""
    if not name or name in (".", "..") or name[0] in ". " or name[-1] in ". ":
        fault = "is empty or begins or ends with a dot or a space"
    elif any(letter in _FORBIDDEN or unicodedata.category(letter).startswith("C") for letter in name):
        fault = 'holds a control character or one of / \\ < > : " | ? *'
    elif name.casefold() in _RESERVED:
        fault = f"is reserved for the files of a run ({', '.join(_RESERVED)})"
    elif len(name.encode()) > _LONGEST:
        fault = f"is longer than {_LONGEST} bytes"
    if fault:
        raise ValueError(f"{str(case.image)!r}: the case name {name!r} {fault}; rename the file")
