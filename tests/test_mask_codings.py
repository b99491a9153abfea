"""What masks mean is decided over all of them: labels, pairs, values nobody rated, colours, transparency, channels, segments."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from quam_jax.data import mask_values
from quam_jax.data.cases import read_case_files, settle_masks
from quam_jax.data.datasets import find_cases
from quam_jax.data.mask_settings import MaskSettings, parse_values
from quam_jax.data.mask_values import MaskValues, survey
from quam_jax.data.masks import settle
from quam_jax.data.volumes import read_labels
from tests.image_files import ramp, save_nifti, save_picture, tiff_bytes

SIZE = (6, 8)


def settled(*files: tuple[float, ...], classes: int = 2, ignore: str = "auto", values: str = "") -> dict[float, int]:
    """The table of masks that hold these values."""
    seen = [MaskValues(Path(f"m{n}.png"), values) for n, values in enumerate(files)]
    return dict(settle(seen, classes=classes, settings=MaskSettings(ignore, values), where="masks").table)


BINARY = {0.0: 0, 1.0: 1}


@pytest.mark.parametrize(
    ("files", "options", "table"),
    [
        ([(0, 1)], {}, BINARY),
        ([(0,), (1,)], {}, BINARY),
        ([(0, 255)], {}, {0.0: 0, 255.0: 1}),
        ([(0, 255), (0,), (255,)], {}, {0.0: 0, 255.0: 1}),
        ([(0, 128)], {}, {0.0: 0, 128.0: 1}),
        ([(0, 2), (0,)], {}, {0.0: 0, 2.0: 1}),
        ([(0, 1, 255)], {}, BINARY | {255.0: -1}),
        ([(0, 1, 255), (0, 255)], {}, BINARY | {255.0: -1}),  # what one mask shows holds for all
        ([(0, 255), (0, 1), (1, 255)], {}, BINARY | {255.0: -1}),
        ([(0, 1), (0, 255)], {}, BINARY),  # 255 is refused where it stands: nobody knows
        ([(0, 1), (0, 2)], {}, BINARY),
        ([(0, 1, 2)], {"classes": 3}, {0.0: 0, 1.0: 1, 2.0: 2}),
        ([(0, 1), (0, 2, 255)], {"classes": 3}, {0.0: 0, 1.0: 1, 2.0: 2, 255.0: -1}),
        ([(0, 255)], {"classes": 3}, {0.0: 0, 1.0: 1, 2.0: 2}),
        ([(0, 255)], {"classes": 256}, {float(n): n for n in range(256)}),
        ([(0, 1, 255)], {"classes": 256}, {float(n): n for n in range(256)}),
        ([(0, 1, 255)], {"ignore": "none"}, BINARY),
        ([(0, 255)], {"ignore": "255"}, BINARY | {255.0: -1}),
        ([(0, 1, 7)], {"ignore": "7"}, BINARY | {7.0: -1}),
        ([(0, 7, 255)], {"ignore": "7"}, {0.0: 0, 255.0: 1, 7.0: -1}),
        ([(-1, 0, 1)], {"ignore": "-1"}, BINARY | {-1.0: -1}),
        ([(0, 1, 2, 3)], {"classes": 3, "ignore": "3"}, {0.0: 0, 1.0: 1, 2.0: 2, 3.0: -1}),
        ([(0, 128, 255)], {"classes": 3, "values": "0,128,255"}, {0.0: 0, 128.0: 1, 255.0: 2}),
        ([(0, 1), (0, 255)], {"values": "0,1+255"}, BINARY | {255.0: 1}),
        ([(0, 1, 2, 9)], {"values": "0,1+2", "ignore": "9"}, BINARY | {2.0: 1, 9.0: -1}),
        ([], {}, BINARY),
    ],
)
def test_one_table_for_all_masks(files: list[tuple[float, ...]], options: dict, table: dict[float, int]) -> None:
    assert settled(*files, **options) == table
    assert settled(*files[::-1], **options) == table  # whatever comes first


def test_masks_that_contradict_each_other_and_settings_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"masks: masks of two codings: m0.png holds 2, m1.png 255 beside 0; .*--ignore-label 255"
    ):
        settled((0, 2), (0, 255))
    for options, says in (
        ({"values": "0,1,2"}, "--mask-values: expected the values of 2 labels, got 3"),
        ({"values": "0,0"}, "expected every value once"),
        ({"values": "0,9", "ignore": "9"}, "expected every value once"),
        ({"values": "0,#ff0000"}, "either numbers or colours"),
        ({"values": "a,b"}, "--mask-values: expected values such as 0,128,255"),
        ({"ignore": "many"}, "--ignore-label: expected values such as"),
        ({"ignore": "1,2"}, "--ignore-label: expected a number, a colour as #rrggbb, auto or none"),
    ):
        with pytest.raises(ValueError, match=says):
            settled((0, 1), **options)
    with pytest.raises(ValueError, match="expected one of them, got both"):
        MaskSettings(values="0,1", threshold=3.0)


def data_set(folder: Path, **masks: np.ndarray) -> Path:
    """A folder of images, and beside it one of masks."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for name, array in masks.items():
        save_picture(folder / "images" / f"{name}.png", np.zeros(array.shape[:2], np.uint8))
        save_picture(folder / "masks" / f"{name}.png", array)
    return folder


def read_all(folder: Path, *, classes: int = 2, **settings) -> tuple[dict[str, np.ndarray], list[str]]:
    """The labels of every case whose mask can be read, by the coding of all, the reasons of the others, and the notes."""
    found = find_cases(folder / "images", folder / "masks")
    cases, coding = settle_masks(found, classes=classes, settings=MaskSettings(**settings), where="masks")
    labels, told = {}, list(coding.notes)
    for case in cases:
        try:
            labels[case.name] = read_case_files(case, classes=classes)[1]["rater"]
        except ValueError as error:
            told.append(str(error))
    return labels, told


def test_nobody_rated_255_where_labels_stand_beside_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    both, only = (rng.choice(np.array(values, np.uint8), SIZE) for values in ((0, 1, 255), (0, 255)))
    labels, told = read_all(data_set(tmp_path, both=both, only=only, odd=rng.choice(np.array([0, 2], np.uint8), SIZE)))
    np.testing.assert_array_equal(labels["both"], np.where(both == 255, -1, both.astype(int)))
    np.testing.assert_array_equal(labels["only"], np.where(only == 255, -1, 0))
    assert "of masks of masks 255 is taken as not rated" in told[0]
    assert "odd.png: expected labels 0 and 1 as other masks of masks have, or 255 (not rated), found 0, 2" in told[1]
    assert "--ignore-label and --mask-values say" in told[1]


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (200, 10, 30)])
def test_what_is_drawn_on_a_transparent_layer_is_label_1(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(SIZE) < 0.4
    picture = np.zeros((*SIZE, 4), np.uint8)
    picture[..., :3], picture[..., 3] = colour, 255 * truth
    picture[~truth, :3] = rng.integers(0, 255, ((~truth).sum(), 3))  # what nobody sees counts for nothing
    opaque = (255 * truth).astype(np.uint8)
    labels, told = read_all(data_set(tmp_path, layer=picture, opaque=opaque))
    for name in labels:
        np.testing.assert_array_equal(labels[name], truth)
    assert len(labels) == 2 and "what is opaque is label 1" in told[0]
    soft = picture.copy()
    soft[0, 0] = *colour, 90
    labels, told = read_all(data_set(tmp_path / "soft", layer=picture, soft=soft))
    assert list(labels) == ["layer"] and "soft edges in its transparency; expected hard ones, or --mask-threshold" in told[1]
    labels, _ = read_all(tmp_path / "soft", threshold=127.0)
    np.testing.assert_array_equal(labels["soft"], soft[..., 3] > 127)


def test_labels_on_a_transparent_layer(tmp_path: Path) -> None:
    truth = np.random.default_rng(0).integers(0, 3, SIZE).astype(np.uint8)
    picture = np.stack([truth, np.where(truth > 0, 255, 0).astype(np.uint8)], -1)
    picture[truth == 0, 0] = 77
    labels, _ = read_all(data_set(tmp_path, a=picture), classes=3)
    np.testing.assert_array_equal(labels["a"], truth)
    picture[0, 0] = 0, 255
    labels, told = read_all(data_set(tmp_path / "b", a=picture), classes=3)
    assert not labels and "transparent pixels beside visible ones of label 0" in told[0]
    layer = np.array([[[9, 255], [9, 255], [9, 0]]], np.uint8)
    labels, told = read_all(data_set(tmp_path / "c", layer=layer, two=np.array([[[9, 255], [8, 255], [9, 0]]], np.uint8)))
    assert list(labels) == ["layer"] and "two.png: transparent pixels beside visible ones of several values" in told[1]


def test_colours_are_labels_where_somebody_says_which(tmp_path: Path) -> None:
    table = np.array([[0, 0, 0], [255, 0, 0], [0, 128, 255], [9, 9, 9]], np.uint8)
    truth = np.random.default_rng(0).integers(0, 4, SIZE)
    truth[0, :4] = range(4)
    folder = data_set(tmp_path, a=table[truth], grey=table[np.where(truth == 3, 3, 0)])
    (folder / "masks" / "grey.png").rename(tmp_path / "grey.png")
    with pytest.raises(
        ValueError, match="in colours, of 4 in all masks; .*--mask-values '#000000,#0080ff,#090909,#ff0000' or the"
    ):
        read_all(folder, classes=3)
    (tmp_path / "grey.png").rename(folder / "masks" / "grey.png")
    labels, told = read_all(folder, classes=10)  # beside masks of labels, here 0 and 9, colours are one bad mask
    assert list(labels) == ["grey"] and "a.png: a mask in colours; expected grey or a palette as the other masks" in told[0]
    wanted = np.where(truth == 3, -1, truth)
    (tmp_path / "slicer.ctbl").write_text(
        "# Color table\n0 background 0 0 0 0\n1 organ 255 0 0 255\n2 big_tumour 0 128 255 255\n"
    )
    (tmp_path / "snap.txt").write_text(
        '# a\n  0 0 0 0 0 0 0 "Clear"\n 1 255 0 0 1 1 1 "organ"\n 2 0 128 255 1 1 1 "big tumour"\n'
    )
    (tmp_path / "plain.csv").write_text("label,r,g,b\n1,255,0,0\n2,0,128,255\n")
    (tmp_path / "hex.csv").write_text("label,colour\n2,#0080FF\n1,#ff0000,organ\n")
    for values in ("#000000,#ff0000,#0080ff", *(str(tmp_path / n) for n in ("slicer.ctbl", "snap.txt", "plain.csv", "hex.csv"))):
        labels, told = read_all(folder, classes=3, values=values, ignore_label="#090909")
        np.testing.assert_array_equal(labels["a"], wanted, err_msg=values)
        np.testing.assert_array_equal(labels["grey"], np.where(truth == 3, -1, 0))
    _, told = read_all(folder, classes=3, values="#000000,#ff0000,#0080ff")
    assert "a.png: expected values #000000 (label 0), #ff0000 (label 1), #0080ff (label 2), found" in told[0]
    red = table[np.where(truth == 1, 1, 0)]
    labels, told = read_all(data_set(tmp_path / "two", a=red, b=np.zeros_like(red)))
    np.testing.assert_array_equal(labels["a"], truth == 1)
    assert told == ["masks of masks are in colours: #ff0000 is label 1"]


def test_palettes_count_by_their_colours_where_colours_are_given(tmp_path: Path) -> None:
    truth = np.random.default_rng(0).integers(0, 3, SIZE).astype(np.uint8)
    folder = data_set(tmp_path, a=truth)
    picture = PillowImage.fromarray(np.array([7, 3, 5], np.uint8)[truth]).convert("L")  # indices that mean nothing
    table = np.zeros((8, 3), np.uint8)
    table[[7, 3, 5]] = [[0, 0, 0], [255, 0, 0], [0, 0, 255]]
    picture.putpalette(table.tobytes())
    picture.save(folder / "masks" / "a.png")
    labels, _ = read_all(folder, classes=3, values="#000000,#ff0000,#0000ff")
    np.testing.assert_array_equal(labels["a"], truth)


@pytest.mark.parametrize(
    "text", ["1 2", "x,1,2,3", "1,300,0,0", "1,#12", "", "1,1,2,3\n2,1,2,3", "# only\n", "1,1,2,3\nlast line"]
)
def test_colour_tables_that_cannot_be_read_are_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=r"t\.csv") as error:
        parse_values(str(tmp_path / "t.csv"), what="--mask-values")
    assert "\n" not in str(error.value)


def test_channels_that_are_on_or_off_are_labels(tmp_path: Path) -> None:
    truth = np.random.default_rng(0).integers(0, 3, (4, 5, 3))
    hot = (truth[..., None] == np.arange(3)).astype(np.uint8)
    for name, array in (("all.nii", hot), ("full.nii", hot * 255), ("front.nii.gz", hot[..., 1:])):
        np.testing.assert_array_equal(read_labels(save_nifti(tmp_path / name, array), classes=3, like=None), truth)
    overlapping = hot[..., 1:].copy()
    overlapping[0, 0, 0] = 1
    for array, says in (
        (overlapping, "overlap or leave gaps"),
        (hot * 0, "overlap or leave gaps"),
        (hot, "expected one channel"),
    ):
        with pytest.raises(ValueError, match=says):
            read_labels(save_nifti(tmp_path / "m.nii", array), classes=5 if says.endswith("channel") else 3, like=None)


def test_an_image_in_place_of_a_mask_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="are images and masks swapped"):
        read_labels(save_nifti(tmp_path / "m.nii", ramp(4, 5, 6)), classes=2, like=None)
    soft = np.linspace(0, 1, 48).reshape(SIZE).astype(np.float32)
    labels, told = read_all(data_set(tmp_path / "d", a=np.zeros(SIZE, np.uint8)))
    assert not told
    save_picture(tmp_path / "d" / "masks" / "a.tif", soft)
    (tmp_path / "d" / "masks" / "a.png").unlink()
    _, told = read_all(tmp_path / "d")
    assert "images and masks swapped? (--mask-threshold" in told[0]
    np.testing.assert_array_equal(read_all(tmp_path / "d", threshold=0.5)[0]["a"], soft > 0.5)


@pytest.mark.parametrize("own", [True, False])
def test_segmentations_of_slicer(tmp_path: Path, own: bool) -> None:
    """Values and layers of the header; a segmentation is cut to what was drawn, and its axes are its own."""
    itk = pytest.importorskip("SimpleITK")
    truth = np.zeros((7, 8, 9), np.uint8)  # z y x, as SimpleITK has it
    truth[2:4, 3:6, 2:5], truth[4, 5, 6:8] = 1, 2
    (tmp_path / "i").mkdir()
    (tmp_path / "m").mkdir()
    image = itk.GetImageFromArray(truth.astype(np.float32))
    image.SetSpacing((0.5, 0.6, 2.0))
    image.SetOrigin((1, 2, 3))
    itk.WriteImage(image, str(tmp_path / "i" / "rr.nii.gz"))
    values = (2, 1) if own else (1, 1)  # the file's own, which need not be in order, or numbers where two share one
    layers = np.stack([(truth == 1) * values[0], (truth == 2) * values[1]], -1).astype(np.uint8)
    drawn = itk.GetImageFromArray(layers[1:6, 2:7, 1:9], isVector=True)
    drawn.SetSpacing((0.5, 0.6, 2.0))
    drawn.SetOrigin((1 + 0.5, 2 + 2 * 0.6, 3 + 2.0))
    for number, name in enumerate(("tumour", "vessel")):
        drawn.SetMetaData(f"Segment{number}_Name", name)
        drawn.SetMetaData(f"Segment{number}_LabelValue", str(values[number]))
        drawn.SetMetaData(f"Segment{number}_Layer", str(number))
    itk.WriteImage(drawn, str(tmp_path / "m" / "rr.seg.nrrd"))
    cases, _ = settle_masks(find_cases(tmp_path / "i", tmp_path / "m"), classes=3, settings=MaskSettings(), where=tmp_path / "m")
    image, raters = read_case_files(cases[0], classes=3)
    np.testing.assert_array_equal(raters["rater"], np.array([0, 2, 1] if own else [0, 1, 2])[truth.T])
    assert "mask rr.seg.nrrd was brought to the image's grid" in image.notes[0]
    assert image.notes[1] == "segments of rr.seg.nrrd: " + ("vessel is 1, tumour is 2" if own else "tumour is 1, vessel is 2")
    layers = np.stack([truth == 1, truth > 0], -1).astype(np.uint8)
    drawn = itk.GetImageFromArray(layers, isVector=True)
    for number in range(2):
        drawn.SetMetaData(f"Segment{number}_LabelValue", "1")
        drawn.SetMetaData(f"Segment{number}_Layer", str(number))
    itk.WriteImage(drawn, str(tmp_path / "m" / "rr.seg.nrrd"))
    with pytest.raises(ValueError, match="segment 'segment 1' overlaps another"):
        read_case_files(cases[0], classes=3)


def test_of_many_or_large_masks_some_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [save_picture(tmp_path / f"{n}.png", np.full((4, 4), n, np.uint8)) for n in range(100)]
    paths[0].write_bytes(b"damaged")

    def looked_at() -> list[int]:
        return [int(mask.values[0]) for mask in survey(paths)]

    assert looked_at() == list(range(1, 100))
    monkeypatch.setattr(mask_values, "MOST_FILES", 12)
    assert len(looked_at()) == 12 and {1, 2, 99} <= set(looked_at())
    monkeypatch.setattr(mask_values, "MOST_NUMBERS", 16 * 7)
    monkeypatch.setattr(mask_values, "LEAST_FILES", 3)
    assert len(looked_at()) == 7
    monkeypatch.setattr(mask_values, "MOST_NUMBERS", 1)
    assert looked_at() == [1, 2, 99]


def test_a_mask_whose_0_is_shown_as_white_is_told(tmp_path: Path) -> None:
    truth = np.random.default_rng(0).integers(0, 2, SIZE).astype(np.uint8)
    for white in (True, False):
        folder = data_set(tmp_path / str(white), a=truth)
        (folder / "masks" / "a.png").unlink()
        (folder / "masks" / "a.tif").write_bytes(tiff_bytes(truth, bits=1, white_is_zero=white))
        cases, _ = settle_masks(
            find_cases(folder / "images", folder / "masks"), classes=2, settings=MaskSettings(), where="masks"
        )
        image, raters = read_case_files(cases[0], classes=2)
        np.testing.assert_array_equal(raters["rater"], truth)
        assert [note.split(":")[:2] for note in image.notes] == ([["mask a.tif", " WhiteIsZero"]] if white else [])
