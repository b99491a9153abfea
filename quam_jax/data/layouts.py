"""The folder layouts of known multi-rater data sets, each as a function from its root folder to cases.

Every function returns cases in natural order with at least one rater each, unless it says otherwise, and
raises ValueError where the root does not look like its data set. `LAYOUTS` maps a name to its function.
"""

import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .datasets import ONLY_RATER, Case, check_cases, find_cases, list_images
from .files import image_stem, image_suffix, natural_key, one_line


def folders(root: Path) -> list[Case]:
    """`images/CASE.ext` with `masks/CASE.ext` or `masks/CASE_RATER.ext`."""
    return find_cases(_folder(root, "images"), _folder(root, "masks"))


def refuge(root: Path, *, structure: str = "cup") -> list[Case]:
    """REFUGE with several raters: `CASE/CASE.jpg`, `CASE/CASE_seg_cup_R.png`, `CASE/CASE_seg_disc_R.png`.

    `structure` is "cup" or "disc"; raters are named by their number. The masks are grey with soft edges: read
    them with a threshold.
    """
    if structure not in ("cup", "disc"):
        raise ValueError(f"structure: expected cup or disc, got {structure!r}")
    cases = []
    for folder in _subfolders(root):
        image = _first(folder / f"{folder.name}{suffix}" for suffix in (".jpg", ".jpeg", ".png"))
        raters = _numbered(folder, re.escape(folder.name) + rf"_seg_{structure}_(\d+)")
        if image and raters:
            cases.append(Case(folder.name, image, raters))
    return _some(cases, root, f"CASE/CASE.jpg with CASE/CASE_seg_{structure}_1.png")


def qubiq(root: Path, *, task: int = 1, split: str = "Training") -> list[Case]:
    """QUBIQ, one of its data sets: `Training/caseNN/image.nii.gz` and `taskNN_segRR.nii.gz` beside it."""
    cases = []
    for folder in _subfolders(_folder(root, split)):
        image = _first((folder / "image.nii.gz", folder / "image.nii"))
        raters = _numbered(folder, rf"task0*{task}_seg(\d+)")
        if image and raters:
            cases.append(Case(folder.name, image, raters))
    return _some(cases, Path(root) / split, f"caseNN/image.nii.gz with caseNN/task{task:02d}_seg01.nii.gz")


def drive(root: Path, *, split: str = "test") -> list[Case]:
    """DRIVE vessels: `test/images/01_test.tif`, `test/1st_manual/01_manual1.gif`, `test/2nd_manual/...`.

    Raters are manual1 and manual2; the training split has the first only. Fields of view (`mask/`) are not
    raters.
    """
    base = _folder(root, split)
    raters = {}
    for observer, name in (("1st_manual", "manual1"), ("2nd_manual", "manual2")):
        if (base / observer).is_dir():
            raters[name] = _by_stem(base / observer, rf"(.+)_{name}")
    return _paired(base, "images", r"(\d+)_\w+", raters, "images/01_test.tif with 1st_manual/01_manual1.gif")


def stare(root: Path) -> list[Case]:
    """STARE vessels: `stare-images/im0001.ppm` (or `images/`), `labels-ah/im0001.ah.ppm`, `labels-vk/...`.

    Raters are ah and vk; images without a label (most of the full collection) are left out. Unpack the
    distributed `.ppm.gz` files first.
    """
    base = Path(root)
    images = "stare-images" if (base / "stare-images").is_dir() else "images"
    raters = {
        name: _by_stem(base / f"labels-{name}", rf"(.+)\.{name}") for name in ("ah", "vk") if (base / f"labels-{name}").is_dir()
    }
    return _paired(base, images, r"(.+)", raters, "stare-images/im0001.ppm with labels-ah/im0001.ah.ppm")


def chase(root: Path) -> list[Case]:
    """CHASE_DB1 vessels: `Image_01L.jpg`, `Image_01L_1stHO.png`, `Image_01L_2ndHO.png` in one folder."""
    base = _folder(root)
    raters = {name: _by_stem(base, rf"(.+)_{name}") for name in ("1stHO", "2ndHO")}
    return _paired(base, ".", r"(Image_\d+[LR])", raters, "Image_01L.jpg with Image_01L_1stHO.png")


def lidc_crops(root: Path) -> list[Case]:
    """LIDC lung nodule crops: `images/image_N.png` with `masks/image_N_raterR.png`; a mask may be empty."""
    return folders(root)


def nnunet(root: Path, *, split: str = "Tr") -> list[Case]:
    """nnU-Net raw data: `imagesTr/CASE_0000.nii.gz` (a file a channel), `labelsTr/CASE.nii.gz`, dataset.json.

    `split` is "Tr" or "Ts"; test images may come without a labels folder and then have no raters. The number
    of channels is checked against dataset.json (`channel_names`, or `modality` in version 1). Where dataset.json lists
    its training files (`dataset`: CASE to `images` and `label`, below the folder or anywhere) these are the cases of "Tr".
    """
    base = _folder(root)
    description = base / "dataset.json"
    try:
        content = json.loads(description.read_text(encoding="utf-8"))
        channels = len(content.get("channel_names") or content["modality"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{description}: expected nnU-Net's description ({one_line(error)})") from error
    if split == "Tr" and isinstance(listed := content.get("dataset"), dict):
        return _listed(listed, base, channels=channels)
    labels = base / f"labels{split}"
    cases = find_cases(_folder(base, f"images{split}"), labels if labels.is_dir() else None, channel_files=True)
    for case in cases:
        if len(case.files) != channels:
            raise ValueError(
                f"{case.image}: case {case.name} has {len(case.files)} channel files, dataset.json announces {channels}"
            )
    return cases


def _listed(listed: dict[str, Any], base: Path, *, channels: int) -> list[Case]:
    """The cases that nnU-Net's description lists, as nnU-Net finds them: variables of the environment count."""
    cases = []
    for name, files in listed.items():
        try:
            images = [base / os.path.expandvars(image) for image in files["images"]]
            mask = base / os.path.expandvars(files["label"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{base / 'dataset.json'}: case {name}: expected images and a label ({one_line(error)})") from error
        missing = [path for path in (*images, mask) if not path.is_file()]
        if missing or len(images) != channels:
            got = f"nothing at {missing[0]}" if missing else f"{len(images)} images"
            raise ValueError(
                f"{base / 'dataset.json'}: case {name}: expected files of {channels} channels and a label, got {got}"
            )
        cases.append(Case(str(name), images[0], {ONLY_RATER: mask}, tuple(images[1:])))
    return check_cases(cases)


def bids(root: Path, *, suffix: str = "T1w", datatype: str = "anat") -> list[Case]:
    """BIDS: `sub-*/[ses-*/]anat/*_T1w.nii.gz` with masks under `derivatives/NAME/`.

    A mask is `*_dseg` or `*_mask` whose entities (sub, ses, run, ...) include all those of the image, or a
    file named by the image's stem and `_MORE` (seg-manual and the like); it goes to the image with the most
    entities in common. The rater is NAME, with the mask's further entities or MORE behind a hyphen. Images
    without a mask are left out.
    """
    base = _folder(root)
    stems = {}
    for image in sorted(base.glob(f"sub-*/**/{datatype}/sub-*_{suffix}.nii*")):
        if image_suffix(image):
            stems[image_stem(image)] = image
    raters: dict[str, dict[str, Path]] = {stem: {} for stem in stems}
    entities = {stem: frozenset(stem.split("_")[:-1]) for stem in stems}
    by_subject: dict[str, list[str]] = {}
    for stem in sorted(stems, key=lambda stem: (-len(entities[stem]), stem)):
        by_subject.setdefault(stem.split("_")[0], []).append(stem)
    for mask in sorted(base.glob("derivatives/*/sub-*/**/*.nii*")):
        name = image_stem(mask)
        for stem in by_subject.get(name.split("_")[0], []):
            more = _bids_rest(name, stem, entities[stem])
            if more is None:
                continue
            rater = "-".join([mask.relative_to(base / "derivatives").parts[0], *more])
            if rater in raters[stem]:
                raise ValueError(f"{mask}: {stem} has another mask of rater {rater!r}: {raters[stem][rater]}")
            raters[stem][rater] = mask
            break
    cases = [Case(stem, image, raters[stem]) for stem, image in stems.items() if raters[stem]]
    return _some(cases, base, f"sub-XX/{datatype}/sub-XX_{suffix}.nii.gz with derivatives/NAME/sub-XX/...")


LAYOUTS: dict[str, Callable[..., list[Case]]] = {
    "folders": folders,
    "refuge": refuge,
    "qubiq": qubiq,
    "drive": drive,
    "stare": stare,
    "chase": chase,
    "lidc_crops": lidc_crops,
    "nnunet": nnunet,
    "bids": bids,
}


def _bids_rest(name: str, stem: str, entities: frozenset[str]) -> list[str] | None:
    """What a mask's name says beyond its image's, None if it is not a mask of that image."""
    if name.startswith(stem + "_"):
        return [name[len(stem) + 1 :]]
    *parts, kind = name.split("_")
    if kind in ("dseg", "mask") and entities <= set(parts):
        return [part for part in parts if part not in entities]
    return None


def _folder(root: Path, *parts: str) -> Path:
    path = Path(root, *parts)
    if not path.is_dir():
        raise ValueError(f"{path}: no such folder")
    return path


def _subfolders(root: Path) -> list[Path]:
    children = (child for child in _folder(root).iterdir() if child.is_dir() and not child.name.startswith("."))
    return sorted(children, key=lambda child: natural_key(child.name))


def _first(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _numbered(folder: Path, pattern: str) -> dict[str, Path]:
    """Raters by number (without leading zeros) from the files whose stem matches."""
    found = {str(int(number)): file for number, file in _by_stem(folder, pattern).items()}
    return {number: found[number] for number in sorted(found, key=int)}


def _by_stem(folder: Path, pattern: str) -> dict[str, Path]:
    """Image files whose stem matches, by the group of the pattern."""
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir(), key=lambda file: natural_key(file.name)):
        match = re.fullmatch(pattern, image_stem(file)) if image_suffix(file) else None
        if match is None or file.name.startswith("."):
            continue
        if match[1] in found:
            raise ValueError(f"{file}: stands for the same as {found[match[1]].name}; expected one of them")
        found[match[1]] = file
    return found


def _paired(base: Path, images: str, pattern: str, raters: dict[str, dict[str, Path]], expected: str) -> list[Case]:
    """Cases of the image files whose stem matches, with each rater's file under the group of the pattern."""
    cases = []
    for file in list_images(_folder(base, images), what="images"):
        match = re.fullmatch(pattern, image_stem(file))
        drawn = {name: masks[match[1]] for name, masks in raters.items() if match and match[1] in masks}
        if drawn:
            cases.append(Case(image_stem(file), file, drawn))
    return _some(cases, base, expected)


def _some(cases: list[Case], root: Path, expected: str) -> list[Case]:
    if not cases:
        raise ValueError(f"{root}: no case found; expected {expected}")
    return check_cases(cases)
