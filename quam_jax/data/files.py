"""File names and bytes: suffixes, stems, whole-file reads with one-line errors, and atomic writes."""

import errno
import os
import re
import secrets
from pathlib import Path

NIFTI_SUFFIXES = (".nii", ".nii.gz")
PAIR_SUFFIXES = (".img", ".hdr")
MGH_SUFFIXES = (".mgz", ".mgh")
RASTER_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".webp", ".jp2")
SEGMENT_SUFFIX = ".seg.nrrd"  # what 3D Slicer calls a segmentation
ITK_SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr", SEGMENT_SUFFIX)
IMAGE_SUFFIXES = NIFTI_SUFFIXES + RASTER_SUFFIXES + ITK_SUFFIXES + PAIR_SUFFIXES + MGH_SUFFIXES
_LONGEST_FIRST = sorted(IMAGE_SUFFIXES, key=len, reverse=True)
_DATA_FILE = re.compile(rb"^(?:ElementDataFile\s*=|data ?file:)\s*(.+?)\s*$", re.MULTILINE | re.IGNORECASE)
_HEADER = 2**16  # bytes in which a header names its data file


def image_suffix(path: Path) -> str:
    """The image suffix of a file name in lower case, `.nii.gz` counted as one; "" if it is not an image."""
    name = path.name.lower()
    return next((s for s in _LONGEST_FIRST if name.endswith(s)), "")


def companions(path: Path) -> list[Path]:
    """The other files that belong to an image file: the half of a .hdr/.img pair, the data of a .mhd or .nhdr header."""
    suffix = image_suffix(path)
    if suffix in PAIR_SUFFIXES:
        other = {".img": ".hdr", ".hdr": ".img"}[suffix]
        names = [path.name[: -len(suffix)] + ending for ending in (other, other.upper())]
        return [file for file in (path.with_name(name) for name in names) if file.is_file()][:1]
    if suffix not in (".mhd", ".nhdr"):
        return []
    try:
        with path.open("rb") as handle:
            named = _DATA_FILE.search(handle.read(_HEADER))
    except OSError:
        return []
    name = named[1].decode("utf-8", "replace") if named else "LOCAL"
    return [path.parent / name] if "\0" not in name and (path.parent / name).is_file() else []


def image_stem(path: Path) -> str:
    """The file name without its image suffix; other dots of the name stay."""
    suffix = image_suffix(path)
    return path.name[: len(path.name) - len(suffix)]


def natural_key(text: str) -> tuple[tuple[tuple[bool, int, str], ...], str]:
    """A sort key that puts `case2` before `case10`; equal keys are decided by the text itself."""
    parts = [part for part in re.split(r"(\d+)", text) if part]
    return tuple((not p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts), text


def one_line(error: BaseException) -> str:
    """The message of an exception on one line, with its type where the message is empty."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def read_bytes(path: Path, *, limit: int) -> bytes:
    """The content of a file; ValueError if it is missing, unreadable, empty or above `limit` bytes."""
    try:
        if not path.exists():
            raise ValueError(f"{path}: no such file")
        if not path.is_file():
            raise ValueError(f"{path}: expected a file, got a folder or device")
        size = path.stat().st_size
        if size > limit:
            raise ValueError(f"{path}: {size:,} bytes are more than the {limit:,} allowed")
        raw = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or one_line(error)})") from error
    if not raw:
        raise ValueError(f"{path}: the file is empty")
    return raw


def write_atomic(path: Path, content: bytes) -> Path:
    """Write a file so that a reader sees the old content or the new, never a part; returns the path.

    The temporary file stands in the same folder (a rename is atomic only inside one file system), is hidden,
    and is removed when writing fails.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"no such folder; make it first, or look at its name ({path.parent})", str(path))
    try:
        with open(temporary, "xb") as handle:
            handle.write(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def is_part(path: Path) -> bool:
    """Whether a file is a temporary one of `write_atomic`."""
    return re.fullmatch(r"\.[0-9a-f]{16}\.part", path.name) is not None


def remove_parts(folder: Path) -> None:
    """Remove the temporary files of `write_atomic` that killed processes have left in a folder."""
    for path in folder.glob(".*.part"):
        if is_part(path):
            path.unlink(missing_ok=True)
