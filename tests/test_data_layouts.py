"""Each known layout, made from empty files under the names the data set is distributed with."""

import json
from pathlib import Path

import pytest

from quam_jax.data.layouts import LAYOUTS, bids, drive, nnunet, qubiq, refuge


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def table(cases, root: Path) -> dict[str, dict[str, str]]:
    """Case -> rater -> mask, with the image under the empty name."""
    return {
        case.name: {
            "": case.image.relative_to(root).as_posix(),
            **{rater: mask.relative_to(root).as_posix() for rater, mask in case.raters.items()},
        }
        for case in cases
    }


def test_refuge(tmp_path):
    for name in ("0002", "0010", "0001"):
        masks = [f"{name}/{name}_seg_{part}_{r}.png" for part in ("cup", "disc") for r in range(1, 8)]
        make(tmp_path, f"{name}/{name}.jpg", f"{name}/{name}_cup.bmp", *masks)
    make(tmp_path, "0003/0003.jpg", "notes/readme.txt")  # without masks: left out
    cups = refuge(tmp_path)
    assert [case.name for case in cups] == ["0001", "0002", "0010"]
    assert list(cups[0].raters) == list("1234567")
    assert table(cups, tmp_path)["0010"]["3"] == "0010/0010_seg_cup_3.png"
    assert table(cups, tmp_path)["0010"][""] == "0010/0010.jpg"
    assert refuge(tmp_path, structure="disc")[0].raters["7"].name == "0001_seg_disc_7.png"
    with pytest.raises(ValueError, match="cup or disc"):
        refuge(tmp_path, structure="lens")


def test_qubiq(tmp_path):
    for case in ("case01", "case02", "case10"):
        make(tmp_path, f"Training/{case}/image.nii.gz")
        make(tmp_path, *(f"Training/{case}/task0{t}_seg0{r}.nii.gz" for t in (1, 2) for r in range(1, 4 + t)))
    cases = qubiq(tmp_path)
    assert [case.name for case in cases] == ["case01", "case02", "case10"]
    assert list(cases[0].raters) == ["1", "2", "3", "4"]
    assert cases[0].raters["2"] == tmp_path / "Training" / "case01" / "task01_seg02.nii.gz"
    assert len(qubiq(tmp_path, task=2)[0].raters) == 5
    with pytest.raises(ValueError, match="expected caseNN/image.nii.gz with caseNN/task03_seg01.nii.gz"):
        qubiq(tmp_path, task=3)
    with pytest.raises(ValueError, match="Validation: no such folder"):
        qubiq(tmp_path, split="Validation")


def test_drive(tmp_path):
    make(tmp_path, "test/images/01_test.tif", "test/images/02_test.tif", "test/mask/01_test_mask.gif")
    make(tmp_path, "test/1st_manual/01_manual1.gif", "test/1st_manual/02_manual1.gif")
    make(tmp_path, "test/2nd_manual/01_manual2.gif")
    make(tmp_path, "training/images/21_training.tif", "training/1st_manual/21_manual1.gif")
    assert table(drive(tmp_path), tmp_path) == {
        "01_test": {
            "": "test/images/01_test.tif",
            "manual1": "test/1st_manual/01_manual1.gif",
            "manual2": "test/2nd_manual/01_manual2.gif",
        },
        "02_test": {"": "test/images/02_test.tif", "manual1": "test/1st_manual/02_manual1.gif"},
    }
    assert list(drive(tmp_path, split="training")[0].raters) == ["manual1"]


@pytest.mark.parametrize("folder", ["stare-images", "images"])
def test_stare(tmp_path, folder):
    make(tmp_path, *(f"{folder}/im000{n}.ppm" for n in (1, 2, 3)))
    make(tmp_path, "labels-ah/im0001.ah.ppm", "labels-ah/im0002.ah.ppm", "labels-vk/im0001.vk.ppm")
    assert table(LAYOUTS["stare"](tmp_path), tmp_path) == {
        "im0001": {
            "": f"{folder}/im0001.ppm",
            "ah": "labels-ah/im0001.ah.ppm",
            "vk": "labels-vk/im0001.vk.ppm",
        },
        "im0002": {"": f"{folder}/im0002.ppm", "ah": "labels-ah/im0002.ah.ppm"},
    }


def test_chase(tmp_path):
    for eye in ("01L", "01R", "14L"):
        make(tmp_path, *(f"Image_{eye}{end}" for end in (".jpg", "_1stHO.png", "_2ndHO.png")))
    cases = LAYOUTS["chase"](tmp_path)
    assert [case.name for case in cases] == ["Image_01L", "Image_01R", "Image_14L"]
    assert table(cases, tmp_path)["Image_01R"] == {
        "": "Image_01R.jpg",
        "1stHO": "Image_01R_1stHO.png",
        "2ndHO": "Image_01R_2ndHO.png",
    }


def test_folders_and_lidc_crops(tmp_path):
    make(tmp_path, "images/image_2.png", "images/image_10.png")
    make(tmp_path, *(f"masks/image_{n}_rater{r}.png" for n in (2, 10) for r in (1, 2, 3, 4)))
    for name in ("folders", "lidc_crops"):
        cases = LAYOUTS[name](tmp_path)
        assert [case.name for case in cases] == ["image_2", "image_10"]
        assert list(cases[0].raters) == ["rater1", "rater2", "rater3", "rater4"]


def test_nnunet(tmp_path):
    make(tmp_path, *(f"imagesTr/liver_{n}_000{k}.nii.gz" for n in (2, 10) for k in (0, 1)))
    make(tmp_path, "labelsTr/liver_2.nii.gz", "labelsTr/liver_10.nii.gz", "imagesTs/liver_3_0000.nii.gz")
    description = tmp_path / "dataset.json"
    with pytest.raises(ValueError, match=r"dataset\.json: expected nnU-Net's description"):
        nnunet(tmp_path)
    description.write_text(json.dumps({"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0}}))
    cases = nnunet(tmp_path)
    assert [case.name for case in cases] == ["liver_2", "liver_10"]
    assert [file.name for file in cases[1].files] == ["liver_10_0000.nii.gz", "liver_10_0001.nii.gz"]
    assert cases[1].raters == {"rater": tmp_path / "labelsTr" / "liver_10.nii.gz"}
    with pytest.raises(ValueError, match="case liver_3 has 1 channel files, dataset.json announces 2"):
        nnunet(tmp_path, split="Ts")
    description.write_text(json.dumps({"modality": {"0": "CT"}}))  # version 1
    assert nnunet(tmp_path, split="Ts")[0].raters == {}
    for broken in ("[]", "{", '{"labels": {}}', '{"modality": 3}'):
        description.write_text(broken)
        with pytest.raises(ValueError, match="expected nnU-Net's description"):
            nnunet(tmp_path)


def test_nnunet_files_lists(tmp_path, monkeypatch):
    make(tmp_path, "raw/a.nii.gz", "raw/a_pet.nii.gz", "seg/a.nii.gz", "raw/b.nii.gz", "raw/b_pet.nii.gz", "seg/b.nii.gz")
    monkeypatch.setenv("SCANS", str(tmp_path / "raw"))
    listed = {
        "case_b": {"images": ["$SCANS/b.nii.gz", str(tmp_path / "raw" / "b_pet.nii.gz")], "label": "seg/b.nii.gz"},
        "case_a": {"images": ["raw/a.nii.gz", "raw/a_pet.nii.gz"], "label": "seg/a.nii.gz"},
    }
    description = tmp_path / "dataset.json"
    description.write_text(json.dumps({"channel_names": {"0": "CT", "2": "PET"}, "dataset": listed}))
    cases = nnunet(tmp_path)
    assert table(cases, tmp_path) == {
        "case_a": {"": "raw/a.nii.gz", "rater": "seg/a.nii.gz"},
        "case_b": {"": "raw/b.nii.gz", "rater": "seg/b.nii.gz"},
    }
    assert [file.name for file in cases[1].files] == ["b.nii.gz", "b_pet.nii.gz"]
    for broken, says in (
        ({"images": ["raw/a.nii.gz"], "label": "seg/a.nii.gz"}, "expected files of 2 channels and a label, got 1 images"),
        ({"images": ["raw/a.nii.gz", "raw/no.nii.gz"], "label": "seg/a.nii.gz"}, "got nothing at .*no.nii.gz"),
        ({"images": ["raw/a.nii.gz"]}, "case x: expected images and a label"),
        (3, "case x: expected images and a label"),
    ):
        description.write_text(json.dumps({"channel_names": {"0": "CT", "1": "PET"}, "dataset": {"x": broken}}))
        with pytest.raises(ValueError, match=says):
            nnunet(tmp_path)


def test_bids(tmp_path):
    make(
        tmp_path,
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_T1w.json",
        "sub-01/anat/sub-01_T2w.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_run-2_T1w.nii.gz",
        "sub-02/ses-b/anat/sub-02_ses-b_T1w.nii.gz",
        "derivatives/annA/sub-01/anat/sub-01_dseg.nii.gz",
        "derivatives/annB/sub-01/anat/sub-01_desc-tumour_mask.nii.gz",
        "derivatives/annA/sub-02/ses-a/anat/sub-02_ses-a_dseg.nii.gz",
        "derivatives/annA/sub-02/ses-a/anat/sub-02_ses-a_run-2_dseg.nii.gz",
        "derivatives/labels/sub-02/ses-a/anat/sub-02_ses-a_T1w_lesion-manual.nii.gz",
        "derivatives/annA/sub-02/ses-b/anat/sub-02_ses-b_T1w.nii.gz",
    )
    found = {case.name: {rater: mask.name for rater, mask in case.raters.items()} for case in bids(tmp_path)}
    assert found == {
        "sub-01_T1w": {"annA": "sub-01_dseg.nii.gz", "annB-desc-tumour": "sub-01_desc-tumour_mask.nii.gz"},
        "sub-02_ses-a_T1w": {
            "annA": "sub-02_ses-a_dseg.nii.gz",
            "labels-lesion-manual": "sub-02_ses-a_T1w_lesion-manual.nii.gz",
        },
        "sub-02_ses-a_run-2_T1w": {"annA": "sub-02_ses-a_run-2_dseg.nii.gz"},
    }
    assert [case.name for case in bids(tmp_path, suffix="T2w")] == ["sub-01_T2w"]
    with pytest.raises(ValueError, match="no case found"):
        bids(tmp_path, suffix="FLAIR")


@pytest.mark.parametrize("name", LAYOUTS)
def test_other_folders_are_refused_in_one_line(tmp_path, name):
    make(tmp_path, "something/else.txt")
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=str(tmp_path)) as caught:
            LAYOUTS[name](root)
        assert "\n" not in str(caught.value)


def test_given_layouts(shared):
    for name, count in (("bubil", 24), ("lidc_crops", 19)):
        assert len(LAYOUTS["folders"](shared / "data" / name)) == count
