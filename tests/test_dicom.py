"""A synthetic DICOM series in, and a case of a run out as Segmentation and Parametric Map."""

import contextlib
import json
import sys
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from quam_jax.cli.commands import cli
from quam_jax.data.dicom import read_series
from quam_jax.data.maps import write_map
from quam_jax.data.records import write_json
from quam_jax.models.coding import Coding
from quam_jax.results.comparison import Date
from quam_jax.runs.codings import coding_record
from tests.compared_runs import write_run
from tests.dicom_series import ORIGIN, SPACING, TURN, stored_values, write_slices

pydicom = pytest.importorskip("pydicom")


def test_a_series_is_sorted_rescaled_and_placed(tmp_path: Path) -> None:
    stored = stored_values()
    write_slices(tmp_path / "s", stored)
    (tmp_path / "s" / "notes.txt").write_text("not an image")
    series = read_series(tmp_path / "s")
    np.testing.assert_array_equal(series.array, stored * 2 - 1000)
    for voxel in ([0, 0, 0], [5, 4, 3], [1, 2, 3]):
        i, j, k = voxel
        place = ORIGIN + TURN[0] * SPACING[0] * i + TURN[1] * SPACING[1] * j + np.cross(*TURN) * SPACING[2] * k
        np.testing.assert_allclose((series.geometry.affine @ [*voxel, 1])[:3], place * [-1, -1, 1], atol=1e-4)
    np.testing.assert_allclose(series.geometry.spacing, SPACING, rtol=1e-6)
    out = tmp_path / "in" / "a_0000.nii.gz"
    done = CliRunner().invoke(cli, ["dicom", "import", str(tmp_path / "s"), "--out", str(out)], obj={})
    assert done.exit_code == 0, done.output
    image = nib.load(out)
    np.testing.assert_array_equal(image.get_fdata(), stored * 2 - 1000)
    np.testing.assert_allclose(image.affine, series.geometry.affine, atol=1e-4)


def test_as_simpleitk_places_it(tmp_path: Path) -> None:
    itk = pytest.importorskip("SimpleITK")
    write_slices(tmp_path / "s", stored_values())
    reader = itk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "s")))
    image = reader.Execute()
    series = read_series(tmp_path / "s")
    np.testing.assert_array_equal(itk.GetArrayFromImage(image).transpose(2, 1, 0), series.array)
    np.testing.assert_allclose(
        image.TransformIndexToPhysicalPoint((2, 3, 1)), (series.geometry.affine @ [2, 3, 1, 1])[:3] * [-1, -1, 1], atol=1e-4
    )


def test_a_case_goes_out_and_comes_back(tmp_path: Path) -> None:
    hd = pytest.importorskip("highdicom")
    rng = np.random.default_rng(1)
    stored = stored_values()
    write_slices(tmp_path / "s", stored)
    series = read_series(tmp_path / "s")
    labels = rng.integers(0, 3, stored.shape).astype(np.int32)
    labels[:, :, 2] = 0  # an empty slice
    probs = rng.dirichlet(np.ones(3), stored.shape).astype(np.float32)
    epistemic = rng.random(stored.shape).astype(np.float32)
    run = write_run(tmp_path / "run", Date(probs, labels, epistemic), affine=series.geometry.affine, names=("liver", "tumour"))
    record = json.loads((run / "p.json").read_text())
    record["outputs"] |= {"total": record["outputs"]["epistemic"], "aleatoric": record["outputs"]["epistemic"]}
    (run / "p.json").write_text(json.dumps(record))
    done = CliRunner().invoke(
        cli, ["dicom", "export", str(run), "p", "--series", str(tmp_path / "s"), "--out", str(tmp_path / "o")], obj={}
    )
    assert done.exit_code == 0, done.output
    names = sorted(p.name for p in (tmp_path / "o").iterdir())
    assert names == ["p_aleatoric.dcm", "p_epistemic.dcm", "p_seg.dcm", "p_total.dcm"]
    references = [str(data.SOPInstanceUID) for data in series.slices]
    seg = hd.seg.segread(tmp_path / "o" / "p_seg.dcm")
    frames = seg.get_pixels_by_source_instance(references, combine_segments=True)
    np.testing.assert_array_equal(frames.transpose(2, 1, 0), labels)
    assert [seg.get_segment_description(n).SegmentLabel for n in (1, 2)] == ["liver", "tumour"]
    assert seg.StudyInstanceUID == series.slices[0].StudyInstanceUID and seg.PatientID == "1"
    stored_map = pydicom.dcmread(tmp_path / "o" / "p_epistemic.dcm")
    values = np.frombuffer(stored_map.FloatPixelData, "<f4").reshape(4, 5, 6)
    by_frame = [
        np.array([float(v) for v in f.PlanePositionSequence[0].ImagePositionPatient])
        for f in stored_map.PerFrameFunctionalGroupsSequence
    ]
    order = np.argsort(np.array(by_frame) @ np.cross(*TURN))
    np.testing.assert_array_equal(values[order].transpose(2, 1, 0), epistemic)
    np.testing.assert_allclose(by_frame[order[0]], ORIGIN, atol=1e-4)
    assert stored_map.SOPClassUID.name == "Parametric Map Storage"


def finish(run: Path, **changes: object) -> None:
    """A case with all the maps that an export takes, and what else its JSON says."""
    record = json.loads((run / "p.json").read_text())
    outputs = record["outputs"] | dict.fromkeys(("total", "aleatoric"), record["outputs"]["epistemic"])
    (run / "p.json").write_text(json.dumps(record | {"outputs": outputs} | changes))


def test_regions_are_segments_that_may_overlap(tmp_path: Path) -> None:
    hd = pytest.importorskip("highdicom")
    from quam_jax.results.dicom_export import export_case

    stored = stored_values()
    write_slices(tmp_path / "s", stored)
    series = read_series(tmp_path / "s")
    channels = np.random.default_rng(2).random((*stored.shape, 2)).astype(np.float32)
    labels = np.where(channels[..., 1] > 0.5, 2, channels[..., 0] > 0.5).astype(np.int32)
    date = Date(np.eye(3, dtype=np.float32)[labels], labels, channels[..., 0])
    run = write_run(tmp_path / "run", date, affine=series.geometry.affine, names=("edge", "core"))
    regions = write_map(run / "p_desc-regions_probseg", channels, series.geometry, kind="probability")[0].name
    finish(run, structures={"names": ["whole", "core"]})
    record = json.loads((run / "p.json").read_text())
    write_json(run / "p.json", record | {"outputs": record["outputs"] | {"regions": regions}})
    for order in ((1, 2), (2, 1)):
        coding = Coding(3, ((1, 2), (2,)), order, ("whole", "core"))
        write_json(run / "run.json", {"digest": "r", "coding": coding_record(coding)})
        export_case(run, "p", series=tmp_path / "s", out=tmp_path / "o")
        seg = hd.seg.segread(tmp_path / "o" / "p_seg.dcm")
        assert [seg.get_segment_description(n).SegmentLabel for n in (1, 2)] == ["whole", "core"]
        frames = seg.get_pixels_by_source_instance([str(data.SOPInstanceUID) for data in series.slices])
        # core lies in whole, as it is written; where what is written says something else, each region is what it says itself
        expected = channels > 0.5 if coding.contradictions else np.stack([labels > 0, labels == 2], -1)
        np.testing.assert_array_equal(frames.transpose(2, 1, 0, 3), expected)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("missing", "expected slices at equal distances, got 2.5 to 5 mm"),
        ("two", "expected the images of one series, got"),
        ("none", "expected the images of one series, got none"),
        ("frames", "expected one frame of grey values a file"),
        ("sizes", "expected the size, orientation and pixel spacing"),
        ("place", "expected ImagePositionPatient, got none"),
        ("pixels", "its pixels cannot be decoded"),
        ("turn", "a damaged image: expected 6 numbers, got"),
        ("slope", "expected .* finite values"),
        ("size", "expected a size and spacing above 0"),
        ("tilt", "gantry tilt"),
        ("folder", "expected a folder"),
    ],
)
def test_bad_series_are_one_line(tmp_path: Path, fault: str, text: str) -> None:
    folder = tmp_path / "s"
    if fault == "none":
        folder.mkdir()
        (folder / "a.txt").write_text("x")
    elif fault != "folder":
        write_slices(folder, stored_values(), **({"NumberOfFrames": 2} if fault == "frames" else {}))
        files = sorted(folder.iterdir())
        data = pydicom.dcmread(files[1])
        if fault == "missing":
            by_place = sorted(files, key=lambda f: float(pydicom.dcmread(f).ImagePositionPatient[2]))
            by_place[1].unlink()
        elif fault == "two":
            write_slices(folder / "more", stored_values())
        elif fault == "sizes":
            data.PixelSpacing = [1, 1]
        elif fault == "place":
            del data.ImagePositionPatient
        elif fault == "turn":
            data.ImageOrientationPatient = [1, 0, 0, 0, 1]
        elif fault == "slope":
            data.RescaleSlope = 1e300
        elif fault == "size":
            data.Rows = 0
        elif fault == "pixels":
            data.PixelData = data.PixelData[:-8]
        elif fault == "tilt":
            for path in files:
                each = pydicom.dcmread(path)
                k = 100 - int(each.InstanceNumber)
                each.ImagePositionPatient = [float(v) for v in ORIGIN + np.cross(*TURN) * 2.5 * k + TURN[1] * k]
                each.save_as(path)
        if fault in ("sizes", "place", "pixels", "turn", "slope", "size"):
            data.save_as(files[1])
    with pytest.raises(ValueError, match=text) as error:
        read_series(folder)
    assert "\n" not in str(error.value)


def test_a_damaged_length_allocates_nothing(tmp_path: Path) -> None:
    write_slices(tmp_path, stored_values())
    path = sorted(tmp_path.iterdir())[0]
    path.write_bytes(path.read_bytes() + b"\xe1\x7f\x10\x00OB\0\0" + (2**30).to_bytes(4, "little"))
    tracemalloc.start()
    with contextlib.suppress(ValueError):
        read_series(tmp_path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**24
    with pytest.raises(ValueError, match="120 values are more than the 100 allowed"):
        write_slices(tmp_path / "small", stored_values())
        read_series(tmp_path / "small", limit=100)


def test_without_pydicom_a_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ValueError, match=r"pip install quam_jax\[dicom\]"):
        read_series(tmp_path)


def test_another_grid_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    write_slices(tmp_path / "s", stored_values())
    labels = np.zeros((6, 5, 4), np.int32)
    probs = np.zeros((6, 5, 4, 2), np.float32)
    probs[..., 0] = 1
    run = write_run(tmp_path / "run", Date(probs, labels, np.zeros(labels.shape)), affine=np.eye(4))
    from quam_jax.results.dicom_export import export_case

    with pytest.raises(ValueError, match="not on the grid of its image"):
        export_case(run, "p", series=tmp_path / "s", out=tmp_path / "o")
    with pytest.raises(ValueError, match="expected a finished case"):
        export_case(run, "q", series=tmp_path / "s", out=tmp_path / "o")
