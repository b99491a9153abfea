"""A small oblique CT series, written by pydicom."""

from pathlib import Path
from typing import Any

import numpy as np

SPACING = (0.7, 0.9, 2.5)  # columns, rows, slices
ANGLE = 0.3
TURN = np.array([[np.cos(ANGLE), np.sin(ANGLE), 0], [-np.sin(ANGLE), np.cos(ANGLE), 0]])
ORIGIN = np.array([-30.0, 12.0, 100.0])


def write_slices(folder: Path, stored: np.ndarray, *, uid: str | None = None, **changes: Any) -> None:
    """A CT series [i j k] whose files are in no order; rescaled by slope 2 and intercept -1000."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    series, study, frame = uid or generate_uid(), generate_uid(), generate_uid()
    for k in range(stored.shape[2]):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
        data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, study, frame
        data.PatientID, data.PatientName, data.Modality, data.SeriesNumber = "1", "A^B", "CT", 3
        data.PatientBirthDate = data.PatientSex = data.StudyDate = data.StudyTime = data.AccessionNumber = data.StudyID = ""
        data.ReferringPhysicianName = data.Manufacturer = data.PositionReferenceIndicator = ""
        data.InstanceNumber = 100 - k
        data.ImageOrientationPatient = [float(v) for v in TURN.reshape(-1)]
        data.ImagePositionPatient = [float(v) for v in ORIGIN + np.cross(*TURN) * SPACING[2] * k]
        data.PixelSpacing, data.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
        data.Rows, data.Columns, data.SamplesPerPixel = stored.shape[1], stored.shape[0], 1
        data.PhotometricInterpretation = "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.RescaleSlope, data.RescaleIntercept = 2, -1000
        data.PixelData = np.ascontiguousarray(stored[:, :, k].T).astype("<i2").tobytes()
        for name, value in changes.items():
            setattr(data, name, value)
        data.save_as(folder / f"{(k * 7) % 11:02d}.dcm", enforce_file_format=True)


def stored_values(size: tuple[int, int, int] = (6, 5, 4)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1000, size)
