"""A DICOM series to a volume with its geometry, and a case's results as DICOM objects that refer to it.

Reading needs pydicom, writing highdicom; both are the extra `dicom`. Patient coordinates of DICOM are
left-posterior-superior, those of NIfTI right-anterior-superior. Array axes are column, row and slice (i, j, k), slices in the
order of their position.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from .files import one_line, read_bytes
from .geometry import Geometry
from .itk import LPS_TO_RAS, nifti_geometry

TOLERANCE = 1e-3  # of cosines, and of the distance of slices relative to itself times ten
MANUFACTURER = "quam_jax"
DEFAULT_LIMIT = 2**29  # values of a series: 2 GiB as float32
NEEDED = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "Rows", "Columns")


class Series(NamedTuple):
    """A series as a volume in the units of its rescale (HU for CT); `slices` are its datasets in the order of the third axis."""

    array: Float[np.ndarray, "i j k"]
    geometry: Geometry
    slices: tuple[Any, ...]


class _Slice(NamedTuple):
    """One image of a series: its file, its dataset and what places it."""

    path: Path
    data: Any
    uid: str
    turn: np.ndarray
    position: np.ndarray
    spacing: np.ndarray
    size: tuple[int, int]
    thickness: float


def read_series(folder: Path, *, limit: int = DEFAULT_LIMIT) -> Series:
    """The one series of single-frame images in a folder and the folders in it; other files are passed over.

    ValueError for no series or several, slices that are missing, tilted or not alike, colours, files that cannot be decoded, and
    more than `limit` values.
    """
    _need("pydicom", folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder with the files of a series, got none")
    found: dict[str, list[_Slice]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        image = _read_slice(path, limit=limit)
        if image is not None:
            found.setdefault(image.uid, []).append(image)
    if len(found) != 1:
        names = ", ".join(f"{_description(group[0])} ({len(group)} images)" for group in found.values())
        raise ValueError(f"{folder}: expected the images of one series, got {names or 'none'}")
    ((_, group),) = found.items()
    count = sum(math.prod(image.size) for image in group)
    if count > limit:
        raise ValueError(f"{folder}: {count:,} values are more than the {limit:,} allowed")
    return _volume(folder, group)


def _read_slice(path: Path, *, limit: int) -> _Slice | None:
    """An image and its place; None for a file that is no DICOM image."""
    try:
        # from memory: in a file pydicom would allocate whatever length a damaged element announces
        data = _need("pydicom", path).dcmread(io.BytesIO(read_bytes(path, limit=8 * limit + 2**20)))
        if "PixelData" not in data or "SeriesInstanceUID" not in data:
            return None
        uid = str(data.SeriesInstanceUID)
        absent = [n for n in NEEDED if n not in data]
    except Exception:  # pydicom passes on whatever its parts raise at other files and damaged ones
        return None
    if absent:
        raise ValueError(f"{path}: expected {', '.join(absent)}, got none")
    try:
        frames, samples = int(data.get("NumberOfFrames", 1)), int(data.get("SamplesPerPixel", 1))
        image = _Slice(
            path,
            data,
            uid,
            _floats(data.ImageOrientationPatient, 6).reshape(2, 3),
            _floats(data.ImagePositionPatient, 3),
            _floats(data.PixelSpacing, 2),
            (int(data.Rows), int(data.Columns)),
            float(data.get("SliceThickness") or 1.0),
        )
    except Exception as error:
        raise ValueError(f"{path}: a damaged image: {one_line(error)}") from error
    if frames != 1 or samples != 1:
        raise ValueError(f"{path}: expected one frame of grey values a file, got {frames} frames of {samples} values")
    if min(image.size) < 1 or not (image.spacing > 0).all() or not 0 < image.thickness < math.inf:
        raise ValueError(
            f"{path}: expected a size and spacing above 0, got {image.size} pixels, {image.spacing.tolist()} and "
            f"{image.thickness:g} mm"
        )
    return image


def _floats(values: Any, count: int) -> Float[np.ndarray, " n"]:
    numbers = np.array([float(v) for v in values])
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(f"expected {count} numbers, got {numbers.tolist()[:9]}")
    return numbers


def _description(image: _Slice) -> str:
    try:
        return str(image.data.get("SeriesDescription", image.uid))
    except Exception:  # a damaged element
        return image.uid


def _volume(folder: Path, group: Sequence[_Slice]) -> Series:
    first = group[0]
    turn = first.turn
    normal = np.cross(*turn)
    for image in group[1:]:
        if (
            image.size != first.size
            or not np.allclose(image.turn, turn, atol=TOLERANCE)
            or not np.allclose(image.spacing, first.spacing, rtol=TOLERANCE)
        ):
            raise ValueError(
                f"{image.path}: expected the size, orientation and pixel spacing of the series' first image, got others"
            )
    positions = np.array([image.position for image in group])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    slices = [group[i] for i in order]
    step = first.thickness * normal
    if len(slices) > 1:
        steps = np.diff(positions, axis=0)
        step = (positions[-1] - positions[0]) / (len(slices) - 1)
        length = float(np.linalg.norm(step))
        if length == 0 or np.abs(steps - step).max() > 10 * TOLERANCE * length:
            apart = steps @ normal
            raise ValueError(
                f"{folder}: expected slices at equal distances, got {apart.min():.4g} to {apart.max():.4g} mm; "
                "a slice is missing or doubled"
            )
        if abs(float(step @ normal)) < (1 - TOLERANCE) * length:
            raise ValueError(f"{folder}: expected slices straight above each other, got a tilted stack (gantry tilt)")
    planes = [_values(image) for image in slices]
    array = np.stack(planes, -1).transpose(1, 0, 2).astype(np.float32)
    rows, columns = first.spacing
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = turn[0] * columns, turn[1] * rows, step, positions[0]
    spacing = (float(columns), float(rows), float(np.linalg.norm(step)))
    geometry = nifti_geometry(array.shape, LPS_TO_RAS @ affine, spacing=spacing, suffix=".dcm", mode=str(planes[0].dtype))
    return Series(array, geometry, tuple(image.data for image in slices))


def _values(image: _Slice) -> Float[np.ndarray, "rows columns"]:
    try:
        stored = image.data.pixel_array
        values = stored * float(image.data.get("RescaleSlope", 1)) + float(image.data.get("RescaleIntercept", 0))
    except Exception as error:  # pydicom passes on whatever a decoder raises
        raise ValueError(f"{image.path}: its pixels cannot be decoded: {one_line(error)}") from error
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype(np.float32)).all()
    if values.shape != image.size or not finite:
        raise ValueError(f"{image.path}: expected {image.size} finite values, got an image of {values.shape} or NaN or infinity")
    return values


def write_segmentation(
    path: Path, labels: Shaped[np.ndarray, "i j k *s"], series: Series, *, names: Sequence[str], version: str
) -> Path:
    """Labels as a DICOM Segmentation with one binary segment a name; label k is segment k, or mask k - 1 of a last axis."""
    hd = _need("highdicom", path)
    codes = _need("pydicom.sr.codedict", path).codes
    algorithm = hd.AlgorithmIdentificationSequence(name=MANUFACTURER, version=version, family=codes.DCM.ArtificialIntelligence)
    segments = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:64],
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.AnatomicalStructure,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, name in enumerate(names, start=1)
    ]
    data = hd.seg.Segmentation(
        source_images=list(series.slices),
        pixel_array=_frames(labels.astype(np.uint8)),
        segment_descriptions=segments,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        series_description="segmentation",
        omit_empty_frames=False,
        **_identity(hd, series, 1, version),
    )
    data.save_as(path)
    return path


def write_parametric_map(
    path: Path, values: Float[np.ndarray, "i j k"], series: Series, *, name: str, number: int, version: str
) -> Path:
    """An uncertainty map in nats as a DICOM Parametric Map of 32-bit numbers; `number` is that of its series."""
    hd = _need("highdicom", path)
    codes = _need("pydicom.sr.codedict", path).codes
    low, high = float(values.min()), float(values.max())
    mapping = hd.pm.RealWorldValueMapping(
        lut_label=name[:16].upper(),
        lut_explanation=f"{name} uncertainty, nats"[:64],
        unit=codes.UCUM.NoUnits,
        value_range=(low, high),
        slope=1,
        intercept=0,
    )
    data = hd.pm.ParametricMap(
        source_images=list(series.slices),
        pixel_array=_frames(values.astype(np.float32)),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=(low + high) / 2, window_width=max(high - low, 1e-6))],
        content_label=name[:16].upper(),
        series_description=f"{name} uncertainty, nats",
        **_identity(hd, series, number, version),
    )
    data.save_as(path)
    return path


def _identity(hd: Any, series: Series, number: int, version: str) -> dict[str, Any]:
    taken = max((int(data.get("SeriesNumber") or 0) for data in series.slices), default=0)
    return {
        "series_instance_uid": hd.UID(),
        "series_number": taken + number,
        "sop_instance_uid": hd.UID(),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MANUFACTURER,
        "software_versions": version,
        "device_serial_number": version,
    }


def _frames(values: np.ndarray) -> np.ndarray:
    """From column, row, slice to the order of DICOM."""
    return np.ascontiguousarray(values.transpose(2, 1, 0, *range(3, values.ndim)))


def _need(module: str, where: Path) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(
            f"{where}: expected {module.split('.')[0]} for DICOM, got none; install it with `pip install quam_jax[dicom]`"
        ) from None
