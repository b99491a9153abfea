"""What `evaluate` holds side by side: of every case its maps, its segmentation and the masks of its raters, as files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..data.datasets import list_images, match_masks
from ..data.files import companions, image_stem, image_suffix, natural_key
from ..data.left_out import named
from ..data.records import mapping, read_json

KINDS = ("total", "aleatoric", "epistemic")


class Item(NamedTuple):
    """One case: the files of its maps, its segmentation and its probabilities, and of its raters' masks.

    `labelled` says that the segmentation holds labels, as a run writes them. Of a model of regions there are their probabilities.
    """

    name: str
    maps: dict[str, Path]
    segmentation: Path | None
    probabilities: Path | None
    raters: dict[str, Path]
    labelled: bool = False
    regions: Path | None = None


def run_items(run: Path, masks: Path | None) -> tuple[list[Item], list[str]]:
    """The finished cases of a run, and notes; ValueError for a folder without any."""
    found = sorted(run.glob("*.json"), key=lambda p: natural_key(p.name)) if run.is_dir() else []
    read = {path.stem: read_json(path) for path in found if path.name not in ("run.json", "summary.json")}
    sidecars = {name: about for name, about in read.items() if mapping(about, "outputs")}
    if not sidecars:
        raise ValueError(f"{run}: expected the folder of a run with finished cases, got none")
    drawn, notes = _drawn(masks, sidecars) if masks is not None else ({}, [])
    if masks is None:
        drawn = {
            name: {rater: Path(str(path)) for rater, path in mapping(about, "raters").items()} for name, about in sidecars.items()
        }
    items = []
    for name, about in sidecars.items():
        files = {
            kind: run / file
            for kind, file in mapping(about, "outputs").items()
            if kind in (*KINDS, "segmentation", "reference", "regions") and isinstance(file, str)
        }
        maps = {kind: files[kind] for kind in KINDS if kind in files}
        item = Item(name, maps, files.get("segmentation"), files.get("reference"), drawn[name], labelled=True)
        items.append(item._replace(regions=files.get("regions")))
    return items, notes


def file_items(maps: Sequence[str], segmentation: Path | None, masks: Path | None) -> tuple[list[Item], list[str]]:
    """The cases of folders of maps, and notes on what is not used; ValueError for folders without any."""
    folders: dict[str, Path] = {}
    for text in maps:
        kind, equals, place = text.partition("=")
        if not equals or not kind or not Path(place).is_dir():
            raise ValueError(f"--map: expected NAME=FOLDER, got {text!r}")
        folders[kind] = Path(place)
    if masks is None:
        raise ValueError("--masks: expected the raters' masks beside --map, got none")
    if segmentation is not None and not segmentation.is_dir():
        raise ValueError(f"{segmentation}: expected a folder of label maps (--segmentation)")
    found: dict[str, dict[str, Path]] = {}
    notes: list[str] = []
    for kind, folder in folders.items():
        found[kind], told = _map_files(folder)
        notes += told
    names = sorted({name for files in found.values() for name in files}, key=natural_key)
    if not names:
        raise ValueError(f"{next(iter(folders.values()))}: expected maps CASE.nii.gz or CASE.npz, got none")
    labels, told = _map_files(segmentation) if segmentation is not None else ({}, [])
    notes += told
    spare = [labels[name] for name in sorted(labels, key=natural_key) if name not in names]
    notes += [f"of {segmentation} without a map: {named(spare)}"] if spare else []
    drawn, told = _drawn(masks, names)
    items = [
        Item(
            name,
            {kind: files.get(name, folders[kind] / name) for kind, files in found.items()},
            None if segmentation is None else labels.get(name, segmentation / name),
            None,
            drawn[name],
        )
        for name in names
    ]
    return items, notes + told


def _map_files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The map files of a folder by case; of two of one name the .npz, whose picture the other is, or ValueError."""
    found: dict[str, Path] = {}
    rest: list[Path] = []
    children = sorted((c for c in folder.iterdir() if not c.name.startswith(".")), key=lambda c: (c.suffix != ".npz", c.name))
    parts = {other for child in children for other in companions(child) if image_suffix(child) != ".hdr"}
    for child in children:
        name = child.stem if child.suffix == ".npz" else image_stem(child) if image_suffix(child) else ""
        if child in parts:
            continue
        if not name or not child.is_file():
            rest.append(child)
        elif name not in found:
            found[name] = child
        elif found[name].suffix != ".npz":
            raise ValueError(f"{child}: case {name} has a map there already: {found[name].name}")
    return found, [f"of {folder} not read: {named(rest)}"] if rest else []


def _drawn(masks: Path, names: Sequence[str] | Mapping[str, Any]) -> tuple[dict[str, dict[str, Path]], list[str]]:
    files = list_images(masks, what="masks")
    drawn = match_masks(files, names)
    used = {path for raters in drawn.values() for path in raters.values()}
    spare = [file for file in files if file not in used]
    return drawn, [f"masks of {masks} without a case: {named(spare)}"] if spare else []
