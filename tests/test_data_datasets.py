"""Cases from folders: matching of masks by name, order, refusals, unsafe names."""

from pathlib import Path

import pytest

from quam_jax.data.datasets import Case, check_cases, find_cases
from quam_jax.data.files import image_stem, image_suffix, natural_key


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")  # only names matter here
    return folder


def names(cases: list[Case]) -> dict[str, list[str]]:
    return {case.name: list(case.raters) for case in cases}


def test_suffixes_and_stems():
    for name, stem, suffix in (
        ("a.nii.gz", "a", ".nii.gz"),
        ("a.b.nii", "a.b", ".nii"),
        ("A.PNG", "A", ".png"),
        ("im0001.ah.ppm", "im0001.ah", ".ppm"),
        ("a.gz", "a.gz", ""),
        ("a.txt", "a.txt", ""),
    ):
        assert (image_stem(Path(name)), image_suffix(Path(name))) == (stem, suffix)


def test_natural_order():
    shuffled = ["case10", "case2", "Case1", "case2b", "case02", "10", "9", "case", "x1y10", "x1y9"]
    wanted = ["9", "10", "Case1", "case", "case02", "case2", "case2b", "case10", "x1y9", "x1y10"]
    assert sorted(shuffled, key=natural_key) == wanted


def test_masks_go_to_the_longest_case_name(tmp_path):
    images = make(tmp_path / "images", "image_1.png", "image_10.png", "image_1_b.png", "image_2.nii.gz", "Image_3.png")
    masks = make(
        tmp_path / "masks",
        *("image_1.png", "image_1_r1.png", "image_1_b_r1.png", "image_1_b.nii.gz", "image_10_r1.png"),
        *("image_2_person-1_tool.nii.gz", "image_3_r1.png", "image_22.png", "image_1_.png", "notes.txt"),
    )
    cases = find_cases(images, masks)
    assert names(cases) == {  # natural order; capitals come first
        "Image_3": [],
        "image_1": ["rater", "r1"],
        "image_1_b": ["rater", "r1"],
        "image_2": ["person-1_tool"],
        "image_10": ["r1"],
    }
    assert cases[1].raters["r1"] == masks / "image_1_r1.png" and cases[1].image == images / "image_1.png"


def test_images_without_masks_as_folder_glob_and_file(tmp_path):
    make(tmp_path, "b.png", "a.jpg", "c.PNG", ".hidden.png", "._a.png", "readme.md", "sub.png/d.png")
    assert names(find_cases(tmp_path)) == {"a": [], "b": [], "c": []}
    assert names(find_cases(str(tmp_path / "*.jpg"))) == {"a": []}
    assert names(find_cases(str(tmp_path / "**" / "d.png"))) == {"d": []}
    assert names(find_cases(tmp_path / "b.png")) == {"b": []}
    make(tmp_path / "odd", "[x].png")
    assert names(find_cases(tmp_path / "odd" / "[x].png")) == {"[x]": []}  # a file that looks like a glob


def test_one_image_and_one_mask_are_a_pair_whatever_their_names(tmp_path):
    make(tmp_path, "scan.png", "drawn.png", "scan_r2.png")
    assert names(find_cases(tmp_path / "scan.png", tmp_path / "drawn.png")) == {"scan": ["rater"]}
    assert names(find_cases(tmp_path / "scan.png", tmp_path / "scan_r2.png")) == {"scan": ["r2"]}


def test_images_and_masks_in_one_folder(tmp_path):
    make(tmp_path, "a.jpg", "b.jpg", "a_r1.png", "b_r1.png")
    assert names(find_cases(str(tmp_path / "*.jpg"), tmp_path)) == {"a": ["r1"], "b": ["r1"]}
    with pytest.raises(ValueError, match="share a folder"):
        find_cases(tmp_path, tmp_path)


def test_channel_files(tmp_path):
    images = make(tmp_path / "i", *(f"c{n}_000{k}.nii.gz" for n in (1, 2) for k in (0, 1)))
    masks = make(tmp_path / "m", "c1.nii.gz", "c2.nii.gz")
    cases = find_cases(images, masks, channel_files=True)
    assert names(cases) == {"c1": ["rater"], "c2": ["rater"]}
    assert [path.name for path in cases[0].files] == ["c1_0000.nii.gz", "c1_0001.nii.gz"]
    with pytest.raises(ValueError, match=r"none of 2 masks .* got c1\.nii\.gz; the images look like nnU-Net"):
        find_cases(images, masks)
    (images / "c2_0001.nii.gz").unlink()
    with pytest.raises(ValueError, match="case c2 has channels 0000; expected 0000 to 0001"):
        find_cases(images, masks, channel_files=True)
    with pytest.raises(ValueError, match="the same channel"):
        find_cases(make(tmp_path / "j", "a_0000.nii", "a_0000.nii.gz"), channel_files=True)
    with pytest.raises(ValueError, match="ending in a channel number"):
        find_cases(make(tmp_path / "k", "a.nii"), channel_files=True)


def test_folders_that_hold_no_cases(tmp_path):
    images, masks = make(tmp_path / "images", "a.png"), make(tmp_path / "masks", "z_r1.png")
    (tmp_path / "empty").mkdir()
    make(tmp_path / "text", "a.txt", "b.dcm")
    for given, says in (
        ((tmp_path / "nowhere",), "no such file or folder"),
        ((tmp_path / "empty",), "got an empty one"),
        ((tmp_path / "text",), r"files ending in \.nii, \.nii\.gz, \.png.* got 2 other files such as a\.txt"),
        ((tmp_path / "text" / "a.txt",), "expected a file ending in"),
        ((str(tmp_path / "*.tif"),), r"\*\.tif: no file of images matches"),
        ((images, tmp_path / "nowhere"), r"no such file or folder \(masks\)"),
        ((images, tmp_path / "empty"), "expected a folder of masks"),
        ((images, masks), r"none of 1 masks belongs to a case; .* a\.png or a_RATER\.png, got z_r1\.png"),
        ((str(tmp_path / "images" / "*.png"), images), "every file there is one of the images"),
    ):
        with pytest.raises(ValueError, match=says) as caught:
            find_cases(*given)
        assert "\n" not in str(caught.value)


def test_names_that_clash(tmp_path):
    with pytest.raises(ValueError, match=r"a\.png: the case name 'a' is that of .*a\.jpg"):
        find_cases(make(tmp_path / "one", "a.jpg", "a.png"))
    clash = [Case("Scan", Path("Scan.png"), {}), Case("scan", Path("scan.png"), {})]
    with pytest.raises(ValueError, match="capitals"):
        check_cases(clash)
    with pytest.raises(ValueError, match="capitals"):  # e with an accent, composed and not
        check_cases([Case("\u00e9", Path("1.png"), {}), Case("e\u0301", Path("2.png"), {})])
    images, masks = make(tmp_path / "i", "a.png"), make(tmp_path / "m", "a_r1.png", "a_r1.bmp")
    with pytest.raises(ValueError, match=r"case a has one of rater 'r1' already: .*a_r1\.bmp"):
        find_cases(images, masks)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "a/b",
        "a\\b",
        "../a",
        ".a",
        "a.",
        " a",
        "a ",
        "a\nb",
        "a\x1b[2J",
        "a\u202eb",
        "C:a",
        "a?",
        "a*",
    ]
    + ["run", "Summary", "x" * 201, "\udcff"],
)
def test_unsafe_names_are_refused_in_one_printable_line(name):
    with pytest.raises(ValueError, match="the case name") as caught:
        check_cases([Case(name, Path(f"{name}.png"), {})])
    assert str(caught.value).isprintable()


def test_cases_come_in_natural_order():
    cases = [Case(name, Path(f"{name}.png"), {}) for name in ("sub-10", "sub-9", "sub-1")]
    assert [case.name for case in check_cases(iter(cases))] == ["sub-1", "sub-9", "sub-10"]


@pytest.mark.parametrize("name", ["a", "Köln 1", "a.b-c_d", "001", "x" * 200, "日本", "runs", "a(1)", "-x"])
def test_ordinary_names_are_kept(name):
    assert check_cases([Case(name, Path(f"{name}.png"), {})])[0].name == name


def test_given_folders(shared):
    for folder, cases, raters in (("bubil", 24, 8), ("lidc_crops", 19, 4)):
        root = shared / "data" / folder
        found = find_cases(root / "images", root / "masks")
        assert len(found) == cases and {len(case.raters) for case in found} == {raters}
    assert [case.name for case in found[:4]] == ["image_1", "image_2", "image_3", "image_4"]
    assert list(found[0].raters) == ["rater1", "rater2", "rater3", "rater4"]
    root = shared / "data" / "hippocampus"
    assert {tuple(case.raters) for case in find_cases(root / "images", root / "labels")} == {("rater",)}
