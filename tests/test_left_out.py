"""Nothing is left out without a word: files that are not read, masks without a case, masks of two cases, and the last line."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from quam_jax.data.channels import LUMINANCE, REPEATED, require_channels
from quam_jax.data.datasets import find_cases
from quam_jax.data.files import companions
from quam_jax.data.left_out import find_left_out
from quam_jax.data.notes import gathered
from quam_jax.data.volumes import read_channels, read_image
from quam_jax.models.folder import save_model
from tests.command_line import call
from tests.image_files import OBLIQUE, ramp, save_nifti, save_picture
from tests.small_run import disc, little_model, picture, write_cases
from tests.test_data_datasets import make


def test_what_no_case_uses_is_named_once(tmp_path: Path) -> None:
    images = make(tmp_path / "i", "a.png", "b.nii", ".hidden", "notes.txt", "old/x.png", "c.hdr", "c.img", "d.mhd", "d.raw")
    (images / "d.mhd").write_text("NDims = 3\nElementDataFile = d.raw\n")
    masks = make(tmp_path / "m", "a.png", "a_r2.png", "z.png", "dataset.json")
    cases = find_cases(images, masks)
    assert [case.name for case in cases] == ["a", "b", "c", "d"] and cases[2].image.name == "c.img"
    left_out = find_left_out(cases, images, masks)
    assert left_out.notes == (
        f"2 entries of {images} are not read: notes.txt, old/",
        f"1 mask of {masks} belongs to no case: z.png",
        f"1 entry of {masks} is not read: dataset.json",
        f"images of {images} are of 4 formats: 1 .png, 1 .nii, 1 .img, 1 .mhd",
        f"3 images of {images} have no mask: b.nii, c.img, d.mhd",
    )
    assert [file.name for file in left_out.files] == ["notes.txt", "old", "dataset.json", "z.png"]
    assert find_left_out(cases, str(images / "*.png"), None) == ((), ())  # a glob says what it wants
    many = make(tmp_path / "many", "a.png", *(f"x{n}.txt" for n in range(11)))
    note = find_left_out(find_cases(many), many, None).notes[0]
    assert note.endswith("x0.txt, x1.txt, x2.txt, x3.txt, x4.txt, x5.txt, x6.txt, x7.txt and 3 more")


def test_folders_that_cases_and_fit_data_share(tmp_path: Path) -> None:
    images, fit = make(tmp_path / "i", "a.png"), make(tmp_path / "f", "b.png")
    masks = make(tmp_path / "m", "a.png", "b.png", "c.png")
    cases, others = find_cases(images, masks), find_cases(fit, masks)
    assert find_left_out(cases, images, masks, others=others).notes == (f"1 mask of {masks} belongs to no case: c.png",)


def test_a_mask_whose_name_fits_two_cases(tmp_path: Path) -> None:
    images = make(tmp_path / "i", "a.png", "a_b.png")
    masks = make(tmp_path / "m", "a_b_r1.png", "a_r1.png", "a_b.png")
    left_out = find_left_out(find_cases(images, masks), images, masks)
    assert left_out.notes == ("masks whose names begin with those of two cases go to the longer: a_b_r1.png (a_b, not a)",)


def test_segmentations_of_slicer_are_no_images_and_belong_to_their_case(tmp_path: Path) -> None:
    images = make(tmp_path / "i", "rr.nrrd", "rr.seg.nrrd", "ss.nrrd")
    masks = make(tmp_path / "m", "rr.seg.nrrd", "ss_r1.seg.nrrd")
    cases = find_cases(images, masks)
    assert {case.name: {rater: path.name for rater, path in case.raters.items()} for case in cases} == {
        "rr": {"rater": "rr.seg.nrrd"},
        "ss": {"r1": "ss_r1.seg.nrrd"},
    }
    assert find_left_out(cases, images, masks).notes == (f"1 entry of {images} is not read: rr.seg.nrrd",)


def test_pairs_headers_with_data_and_freesurfer_volumes_are_read(tmp_path: Path) -> None:
    array = ramp(4, 5, 6)
    plain = read_image(save_nifti(tmp_path / "a.nii", array, OBLIQUE))
    nib.save(nib.Nifti1Pair(array, OBLIQUE), tmp_path / "pair.img")
    nib.save(nib.MGHImage(array, OBLIQUE), tmp_path / "f.mgz")
    nib.save(nib.MGHImage(np.stack([array, -array], -1), OBLIQUE), tmp_path / "f.mgh")
    for name in ("pair.img", "pair.hdr", "f.mgz"):
        image = read_image(tmp_path / name)
        np.testing.assert_array_equal(image.array, plain.array)
        np.testing.assert_allclose(image.geometry.affine, OBLIQUE, atol=1e-5)
    np.testing.assert_array_equal(read_image(tmp_path / "f.mgh").array[..., 1], -array)
    before = read_image(tmp_path / "pair.img").sha256
    nib.save(nib.Nifti1Pair(array, OBLIQUE @ np.diag([1, 1, 2, 1])), tmp_path / "pair.img")
    assert read_image(tmp_path / "pair.img").sha256 != before  # the header belongs to the image
    (tmp_path / "pair.hdr").unlink()
    with pytest.raises(ValueError, match="half of a .hdr/.img pair; expected pair.hdr beside it"):
        read_image(tmp_path / "pair.img")
    nib.save(nib.AnalyzeImage(array, None), tmp_path / "old.img")
    with pytest.raises(ValueError, match="does not say left from right"):
        read_image(tmp_path / "old.img")


def test_headers_of_itk_with_their_data(tmp_path: Path) -> None:
    itk = pytest.importorskip("SimpleITK")
    itk.WriteImage(itk.GetImageFromArray(ramp(6, 5, 4)), str(tmp_path / "a.mha"))
    whole = read_image(tmp_path / "a.mha")
    for name, data in (("b.mhd", "b.raw"), ("c.nhdr", "c.raw")):
        itk.WriteImage(itk.GetImageFromArray(ramp(6, 5, 4)), str(tmp_path / name))
        assert [file.name for file in companions(tmp_path / name)] == [data]
        np.testing.assert_array_equal(read_image(tmp_path / name).array, whole.array)
        (tmp_path / data).unlink()
        with pytest.raises(ValueError, match=name):
            read_image(tmp_path / name)


def test_channels_have_names(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (4, 5, 3)).astype(np.uint8)
    rgb, grey = (
        read_image(save_picture(tmp_path / "c.png", colours)),
        read_image(save_picture(tmp_path / "g.png", colours[..., 0])),
    )
    assert require_channels(rgb, 1) == [LUMINANCE] and require_channels(rgb, 3) == [] and require_channels(grey, 3) == [REPEATED]
    stack = read_image(save_nifti(tmp_path / "t.nii", ramp(4, 5, 6, 3)))
    files = [save_picture(tmp_path / f"s_000{n}.png", colours[..., n]) for n in range(3)]
    voxels = np.zeros((4, 5, 6), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    assert require_channels(read_image(save_nifti(tmp_path / "rgb.nii", voxels)), 1) == [LUMINANCE]
    for image in (stack, read_channels(files)):
        with pytest.raises(ValueError, match="the network takes 1 channels, got 3 .*; contrasts or times are no colours"):
            require_channels(image, 1)
    clear = np.concatenate([colours, colours[..., :1]], -1)
    with pytest.raises(ValueError, match="the network takes 4 channels, got 3 in the file; transparency is no channel"):
        require_channels(read_image(save_picture(tmp_path / "a.png", clear)), 4)


def test_notes_of_many_cases_are_one() -> None:
    names = [f"c{n}" for n in range(7)]
    notes = [f"{name}: it is so" for name in names] + ["c1: else", "of all", "c1: else"]
    assert gathered(notes, names) == ["7 cases (c0, c1, c2, ...): it is so", "c1: else", "of all"]
    assert gathered(notes[:3], names) == notes[:3]


def quick_run(folder: Path, cases: Path) -> list[object]:
    """The options of a run of `cases` with the model and the fit data of `folder`, one step of the head, into `folder/run`."""
    paths = {"model": folder / "model", "images": cases / "images", "masks": cases / "masks", "out": folder / "run"}
    paths |= {f"fit-{kind}": folder / "fit" / kind for kind in ("images", "masks")}
    return [
        *(part for name, path in paths.items() for part in (f"--{name}", path)),
        "--steps",
        1,
        "--space",
        "head",
        "--views",
        "none",
    ]


def test_a_run_tells_of_them_and_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tmp_path / "model", little_model())
    write_cases(tmp_path / "test", ["a", "b"])
    write_cases(tmp_path / "fit", ["f1", "f2"], raters=1)
    colours = np.random.default_rng(0).integers(0, 255, (21, 26, 3)).astype(np.uint8)
    save_picture(tmp_path / "test" / "images" / "a.png", colours)
    (tmp_path / "test" / "images" / "scan.dcm").write_bytes(b"x")
    (tmp_path / "test" / "masks" / "z_r0.png").write_bytes(b"x")
    options = quick_run(tmp_path, tmp_path / "test")
    code, out, err = call(monkeypatch, capsys, "run", *options)
    assert code == 0
    assert out.splitlines()[-1] == "2 cases done, 2 files not used"
    for text in ("images is not read: scan.dcm", "masks belongs to no case: z_r0.png", f"note: a: {LUMINANCE}"):
        assert text in err
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [Path(file).name for file in told["unused"]] == ["scan.dcm", "z_r0.png"]
    assert told["masks"]["masks"]["labels"] == {"0": 0, "255": 1}
    assert told["masks"]["settings"]["ignore_label"] == "auto"


def test_one_slice_has_volumes_and_masks_turned_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mask with its first axis backwards, on a slice 8 mm thick."""
    save_model(tmp_path / "model", little_model())
    write_cases(tmp_path / "fit", ["f1", "f2"], raters=1)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    thick, back = np.diag([0.5, 0.5, 8.0, 1.0]), np.diag([-0.5, 0.5, 8.0, 1.0])
    back[0, 3] = 20 * 0.5
    save_nifti(tmp_path / "images" / "a.nii", picture(0)[..., None], thick)
    save_nifti(tmp_path / "masks" / "a.nii", np.ascontiguousarray(disc(0)[::-1, :, None]), back)
    options = quick_run(tmp_path, tmp_path)
    code, _, err = call(monkeypatch, capsys, "run", *options)
    assert code == 0 and "note: a: mask a.nii was brought to the image's grid: its axes run LAS, the other's RAS" in err
    told = json.loads((tmp_path / "run" / "a.json").read_text())
    assert told["volumes"]["class 1"]["raters_ml"]["rater"] == pytest.approx(disc(0).sum() * 0.5 * 0.5 * 8 / 1000)
    with np.load(tmp_path / "run" / "report_data" / "raters" / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["raters"][0], disc(0))
