"""Writing maps: the header copied to the bit, exact numbers, viewable pictures, atomic repeatable files."""

import gzip
import itertools
import os
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as PillowImage

from quam_jax.data import files
from quam_jax.data.colours import sequential_colours
from quam_jax.data.maps import read_map, write_map
from quam_jax.data.volumes import read_image, read_labels

GEOMETRY_FIELDS = (
    *("sform_code", "qform_code", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("pixdim", "dim_info", "xyzt_units", "slice_code", "slice_start", "slice_end", "toffset"),
)
QFORM = np.array([[0, -2.0, 0, 5], [3.0, 0, 0, 6], [0, 0, -4.0, 7], [0, 0, 0, 1]])  # flipped: qfac -1
AFFINES = {
    "ras": np.diag([1.0, 1.0, 1.0, 1.0]),
    "lps": np.array([[-1.0, 0, 0, 90], [0, -1.0, 0, 126], [0, 0, 1.0, -72], [0, 0, 0, 1]]),
    "anisotropic": np.diag([0.4, 0.5, 6.0, 1.0]),
    "oblique": np.array([[0.8, -0.3, 0.1, -12.5], [0.35, 1.9, -0.2, 30.25], [-0.1, 0.25, 3.1, 7.0], [0, 0, 0, 1]]),
    "axes": np.array([[0, 0, 2.0, 1], [-1.5, 0, 0, 2], [0, 3.0, 0, 3], [0, 0, 0, 1]]),
}


def nifti(
    path: Path,
    shape: tuple[int, ...],
    affine: np.ndarray,
    *,
    sform: int = 1,
    qform: int = 1,
    kind=nib.Nifti1Image,
):
    picture = kind(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), None)
    picture.set_sform(affine, sform)
    picture.set_qform(QFORM, qform)
    header = picture.header
    header.set_dim_info(1, 0, 2)
    header.set_xyzt_units("mm", "sec")
    header["slice_code"], header["toffset"], header["descrip"] = 1, 2.5, b"Surname^Name"
    nib.save(picture, path)
    return read_image(path)


def stored_header(path: Path) -> nib.Nifti1Header:
    """The header as it stands in the file, before nibabel mends or resets a field."""
    return nib.Nifti1Header(gzip.decompress(path.read_bytes())[:348], check=False)


def same_geometry(one: nib.Nifti1Header, other: nib.Nifti1Header) -> None:
    for field in GEOMETRY_FIELDS:
        assert one[field].tobytes() == other[field].astype(one[field].dtype).tobytes(), field


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize(("sform", "qform"), list(itertools.product((0, 1, 4), (0, 1, 3))))
def test_geometry_returns_to_the_bit_with_both_codes(tmp_path, affine, sform, qform):
    image = nifti(tmp_path / "i.nii.gz", (5, 4, 3), AFFINES[affine], sform=sform, qform=qform)
    field = np.random.default_rng(0).random((5, 4, 3)).astype(np.float32)
    (path,) = write_map(tmp_path / "m", field, image.geometry, kind="uncertainty", vmax=0.7)
    source, written = nib.load(tmp_path / "i.nii.gz"), nib.load(path)
    same_geometry(written.header, source.header)
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (sform, qform)
    np.testing.assert_array_equal(written.affine, source.affine)
    np.testing.assert_array_equal(written.get_fdata(dtype=np.float32), field)
    np.testing.assert_array_equal(read_map(tmp_path / "m"), field)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 3), (5, 4, 3, 1), (5, 4, 3, 2), (5, 4, 1, 2)])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_rank_of_the_file_is_kept_and_classes_stand_on_axis_four(tmp_path, shape, kind):
    image = nifti(tmp_path / "i.nii", shape, AFFINES["oblique"], kind=kind)
    size = image.geometry.size
    one_channel = shape if np.prod(shape) == np.prod(size) else (*size, 1)[:3]
    probabilities = np.random.default_rng(1).random((*size, 3)).astype(np.float32)
    (path,) = write_map(tmp_path / "p", probabilities, image.geometry, kind="probability")
    assert nib.load(path).shape == (*size, 1)[:3] + (3,)
    np.testing.assert_array_equal(read_map(tmp_path / "p"), probabilities)
    for single in (probabilities[..., 1], probabilities.argmax(-1)):
        label = single.dtype.kind == "i"
        (path,) = write_map(tmp_path / "s", single, image.geometry, kind="label" if label else "probability")
        written = nib.load(path)
        assert type(written) is kind and written.shape == one_channel
        same_geometry(written.header, nib.load(tmp_path / "i.nii").header)
        np.testing.assert_array_equal(read_map(tmp_path / "s"), single)
        if label:
            np.testing.assert_array_equal(read_labels(path, classes=3, like=image.geometry), single)


def test_a_flat_file_with_pixdim_zero_gives_a_valid_four_axis_map(tmp_path):
    nifti(tmp_path / "i.nii", (5, 4), AFFINES["anisotropic"], sform=0)
    content = bytearray((tmp_path / "i.nii").read_bytes())
    struct.pack_into("<f", content, 76 + 4 * 3, 0.0)
    (tmp_path / "i.nii").write_bytes(content)
    image = read_image(tmp_path / "i.nii")
    (path,) = write_map(tmp_path / "p", np.zeros((5, 4, 3)), image.geometry, kind="probability")
    assert stored_header(path)["pixdim"][1:5].tolist() == [3, 2, 1, 1]  # the column norms of QFORM, then 1


def test_scaling_of_the_source_does_not_reach_the_map(tmp_path):
    nifti(tmp_path / "i.nii", (5, 4, 3), AFFINES["ras"])
    content = bytearray((tmp_path / "i.nii").read_bytes())
    struct.pack_into("<ff", content, 112, 0.5, -7.0)
    (tmp_path / "i.nii").write_bytes(content)
    image = read_image(tmp_path / "i.nii")
    assert image.array[0, 0, 1, 0] == 1 * 0.5 - 7
    (path,) = write_map(tmp_path / "m", image.array[..., 0], image.geometry, kind="uncertainty")
    np.testing.assert_array_equal(nib.load(path).get_fdata(), image.array[..., 0])


def test_data_fields_of_the_header(tmp_path):
    image = nifti(tmp_path / "i.nii", (5, 4, 3), AFFINES["ras"])
    field = np.linspace(0, 0.5, 60).reshape(5, 4, 3)
    (path,) = write_map(tmp_path / "u", field, image.geometry, kind="uncertainty", vmax=np.log(2))
    header = nib.load(path).header
    assert header.get_data_dtype() == np.float32
    assert (header["cal_min"], header["cal_max"]) == (0, np.float32(np.log(2)))
    raw = files.read_bytes(path, limit=10**6)
    assert raw[:4] == b"\x1f\x8b\x08\x00"
    stored = stored_header(path)
    assert (stored["scl_slope"], stored["scl_inter"], stored["vox_offset"]) == (1, 0, 352)
    assert stored["descrip"] == b"quam_jax uncertainty (nats)" and stored["intent_code"] == 1001
    (path,) = write_map(tmp_path / "u", field, image.geometry, kind="uncertainty", units="bits")
    header = nib.load(path).header
    assert header["cal_max"] == 0.5 and header["descrip"] == b"quam_jax uncertainty (bits)"
    labels = np.zeros((5, 4, 3), int)
    for top, dtype in ((1, np.uint8), (255, np.uint8), (256, np.int16), (32767, np.int16)):
        labels[0, 0, 0] = top
        (path,) = write_map(tmp_path / "l", labels, image.geometry, kind="label")
        header = nib.load(path).header
        assert header.get_data_dtype() == dtype and header["cal_max"] == top
        assert header["intent_code"] == 1002
        np.testing.assert_array_equal(read_map(tmp_path / "l"), labels)


def test_big_endian_sources_give_equal_geometry_and_values(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">f4")
    picture = nib.Nifti1Image(np.ones((3, 4, 5), ">f4"), AFFINES["oblique"], header)
    nib.save(picture, tmp_path / "i.nii")
    assert (tmp_path / "i.nii").read_bytes()[:4] == (348).to_bytes(4, "big")
    image = read_image(tmp_path / "i.nii")
    field = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    (path,) = write_map(tmp_path / "m", field, image.geometry, kind="uncertainty")
    np.testing.assert_array_equal(nib.load(path).affine, nib.load(tmp_path / "i.nii").affine)
    np.testing.assert_array_equal(nib.load(path).get_fdata(), field)


def picture_geometry(tmp_path: Path, *size: int):
    PillowImage.fromarray(np.zeros(size, np.uint8)).save(tmp_path / "source.png")
    return read_image(tmp_path / "source.png").geometry


@pytest.mark.parametrize("classes", [2, 3, 8, 12, 256])
def test_label_pictures_are_seen_in_colours_and_read_back_as_labels(tmp_path, classes):
    geometry = picture_geometry(tmp_path, 16, 16)
    labels = np.arange(256).reshape(16, 16) % classes
    data, picture = write_map(tmp_path / "case.1_seg", labels, geometry, kind="label")
    assert (data.name, picture.name) == ("case.1_seg.npz", "case.1_seg.png")
    with np.load(data) as stored:
        np.testing.assert_array_equal(stored["data"], labels)
        assert stored["data"].dtype == np.uint8 and str(stored["units"]) == "label"
    np.testing.assert_array_equal(read_labels(picture, classes=classes, like=geometry), labels)
    with PillowImage.open(picture) as seen:
        colours = np.asarray(seen.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) == classes  # a person can tell every two labels apart


def test_map_pictures_show_the_range_they_state(tmp_path):
    geometry = picture_geometry(tmp_path, 4, 5)
    field = np.linspace(0, 1.0, 20).reshape(4, 5).astype(np.float32)
    field[0, 0], field[3, 4] = np.nan, np.inf
    data, picture = write_map(tmp_path / "u", field, geometry, kind="uncertainty", vmax=0.5)
    np.testing.assert_array_equal(read_map(tmp_path / "u"), field)
    with np.load(data) as stored:
        assert str(stored["units"]) == "nats" and stored["data"].dtype == np.float32
    with PillowImage.open(picture) as seen:
        index = np.asarray(seen)
        table = np.array(seen.getpalette()).reshape(-1, 3)
        assert seen.text["Title"] == "uncertainty"
        assert seen.text["Description"] == "0 to 0.5 nats; pixel index / 255 * 0.5"
    np.testing.assert_array_equal(table, sequential_colours())
    assert index[0, 0] == 0 and index[3, 4] == 255
    inside = np.isfinite(field) & (field <= 0.5)
    assert np.abs(index / 255 * 0.5 - field)[inside].max() <= 0.5 / 255 / 2 + 1e-6
    assert (index[np.isfinite(field) & (field > 0.5)] == 255).all()
    write_map(tmp_path / "v", np.zeros((4, 5)), geometry, kind="uncertainty")  # a constant map has a range too
    with PillowImage.open(tmp_path / "v.png") as seen:
        assert seen.text["Description"].startswith("0 to 1 nats") and not np.asarray(seen).any()


def test_probability_pictures_of_two_and_of_more_classes(tmp_path):
    geometry = picture_geometry(tmp_path, 4, 5)
    share = np.linspace(0, 1, 20).reshape(4, 5)
    written = write_map(tmp_path / "p", np.stack([1 - share, share], -1), geometry, kind="probability")
    assert [path.name for path in written] == ["p.npz", "p.png"]
    with PillowImage.open(tmp_path / "p.png") as seen:
        np.testing.assert_array_equal(np.asarray(seen), np.rint(255 * share.astype(np.float32)))
    thirds = np.stack([1 - share, share / 4, 3 * share / 4], -1)
    written = write_map(tmp_path / "q", thirds, geometry, kind="probability")
    assert [path.name for path in written] == ["q.npz", "q_class-1.png", "q_class-2.png"]
    assert read_map(tmp_path / "q").shape == (4, 5, 3)
    with PillowImage.open(tmp_path / "q_class-1.png") as seen:
        assert np.asarray(seen).max() == 64  # rint(255 / 4)


def test_own_colours(tmp_path):
    geometry = picture_geometry(tmp_path, 1, 3)
    labels = np.array([[0, 1, 2]])
    _, picture = write_map(tmp_path / "l", labels, geometry, kind="label", colours=[(1, 2, 3), (250, 0, 0), (0, 0, 250)])
    with PillowImage.open(picture) as seen:
        assert np.asarray(seen.convert("RGB")).tolist() == [[[1, 2, 3], [250, 0, 0], [0, 0, 250]]]
    for colours, says in (
        ([(0, 0, 0), (9, 0, 0)], "expected 3 to 256"),
        ([(0, 0, 0), (5, 5, 5), (9, 9, 9)], "greys alone"),
        ([(0, 0, 0), (5, 5, 300), (9, 9, 9)], "integers in 0..255"),
        ([(0, 0), (5, 5), (9, 9)], "RGB triples"),
    ):
        with pytest.raises(ValueError, match=says):
            write_map(tmp_path / "l", labels, geometry, kind="label", colours=colours)


@pytest.mark.usefixtures("unchecked")
def test_bad_maps_are_refused_and_leave_no_file(tmp_path):
    picture = picture_geometry(tmp_path, 4, 5)
    volume = nifti(tmp_path / "i.nii", (4, 5, 3), AFFINES["ras"]).geometry
    before = sorted(tmp_path.iterdir())
    for array, geometry, options, says in (
        (np.zeros((5, 4)), picture, {"kind": "uncertainty"}, r"shape \(5, 4\) for an image of size \(4, 5\)"),
        (np.zeros((4, 5, 3)), picture, {"kind": "uncertainty"}, "of shape"),
        (np.zeros((4, 5)), volume, {"kind": "label"}, "of shape"),
        (np.zeros((4, 5, 0)), picture, {"kind": "probability"}, "of shape"),
        (np.zeros((4, 5)), picture, {"kind": "label"}, "expected integers"),
        (np.full((4, 5), -1), picture, {"kind": "label"}, "expected integers"),
        (np.full((4, 5), 40000), picture, {"kind": "label"}, "expected integers"),
        (np.full((4, 5), 256), picture, {"kind": "label"}, "label 256 does not fit"),
        (np.zeros((4, 5)), picture, {"kind": "heat"}, "kind: expected one of label"),
        (np.zeros((4, 5)), picture, {"kind": "uncertainty", "vmax": 0.0}, "vmax: expected a positive"),
        (np.zeros((4, 5)), picture, {"kind": "uncertainty", "vmax": np.inf}, "vmax: expected a positive"),
    ):
        with pytest.raises(ValueError, match=says):
            write_map(tmp_path / "m", array, geometry, **options)
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(ValueError, match="no such file"):
        read_map(tmp_path / "m")
    (tmp_path / "m.npz").write_bytes(b"PK\3\4 not a zip")
    with pytest.raises(ValueError, match="not a readable map"):
        read_map(tmp_path / "m")


def test_equal_maps_give_equal_bytes_with_ordinary_permissions(tmp_path, monkeypatch):
    picture, volume = (
        picture_geometry(tmp_path, 4, 5),
        nifti(tmp_path / "i.nii", (4, 5, 3), AFFINES["axes"]).geometry,
    )
    field = np.random.default_rng(0).random((4, 5, 3)).astype(np.float32)
    first, again = tmp_path / "first", tmp_path / "again"
    for folder, seconds in ((first, 1_000_000_000), (again, 2_000_000_000)):
        folder.mkdir()
        monkeypatch.setattr("time.time", lambda now=seconds: now)
        write_map(folder / "v", field, volume, kind="uncertainty")
        write_map(folder / "l", (field * 3).astype(int), volume, kind="label")
        write_map(folder / "p", field[..., 0], picture, kind="uncertainty")
    names = [path.name for path in sorted(first.iterdir())]
    assert names == ["l.nii.gz", "p.npz", "p.png", "v.nii.gz"]
    for name in names:
        assert (first / name).read_bytes() == (again / name).read_bytes()
    mask = os.umask(0)
    os.umask(mask)
    assert (first / "p.png").stat().st_mode & 0o777 == 0o666 & ~mask


def test_an_interrupted_write_keeps_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = files.write_atomic(tmp_path / "a.json", b"old")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    files.write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
