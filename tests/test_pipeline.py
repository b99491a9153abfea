"""A whole run on small real files: what is written, how it resumes, what one bad case does to the others."""

import csv
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import jax
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from quam_jax.case.fit import read_fit_images
from quam_jax.case.quantify import quantify
from quam_jax.config import Config, ExecutionConfig, SearchConfig, change
from quam_jax.data.datasets import find_cases
from quam_jax.data.volumes import read_image
from quam_jax.models.description import preprocessing_of
from quam_jax.models.loading import load_models
from quam_jax.models.predict import fit_data
from quam_jax.runs.quantifier import find_quantifier
from quam_jax.runs.request import RunRequest
from quam_jax.runs.run import run
from tests.small_run import disc, picture, prepare_folders, write_cases, write_nifti
from tests.tiny import NO_VIEWS, picture_model, tiny_network

CONFIG = Config(samples=NO_VIEWS, search=SearchConfig(steps=2, learning_rate=1e-2))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    with tiny_network():
        yield prepare_folders(tmp_path_factory.mktemp("run"), model=picture_model())


@pytest.fixture(scope="module")
def finished(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "run"
    result = run(RunRequest(**folders, out=out, config=CONFIG))
    assert not result.failed
    return out


def test_every_promised_file_is_there(finished: Path) -> None:
    for case in ("a", "b"):
        for stem in (
            "seg",
            "desc-reference_probseg",
            "desc-total_uncertainty",
            "desc-aleatoric_uncertainty",
            "desc-epistemic_uncertainty",
        ):
            assert (finished / f"{case}_{stem}.npz").is_file() and (finished / f"{case}_{stem}.png").is_file()
        sidecar = json.loads((finished / f"{case}.json").read_text())
        assert sidecar["units"] == "nats" and sidecar["seed"] == 0 and len(sidecar["audit"]) == 2
        for member in sidecar["audit"]:
            assert member["held"] == (member["feasible_steps"] > 0)
            if member["held"]:
                assert member["fit_loss"] <= member["bound"]
                assert member["bound"] == pytest.approx(2 * member["reference_loss"], rel=1e-5)
    info = json.loads((finished / "run.json").read_text())
    assert info["status"] == "finished" and info["failed"] == {} and info["config"]["search"]["steps"] == 2
    rows = list(csv.DictReader((finished / "results.csv").open()))
    assert [r["case"] for r in rows] == ["a", "b"] and all(float(r["dice"]) >= 0 for r in rows)
    assert "total/pcc" in rows[0] and "boundary/pcc" in rows[0] and "softmax/pcc" in rows[0]
    page = (finished / "report.html").read_text().replace("http://www.w3.org", "")
    assert "http://" not in page and "https://" not in page
    assert not (finished / ".staging" / "a").exists()


def test_maps_add_up_and_are_on_the_image_grid(finished: Path) -> None:
    parts = {n: np.load(finished / f"a_desc-{n}_uncertainty.npz")["data"] for n in ("total", "aleatoric", "epistemic")}
    assert parts["total"].shape == picture(0).shape and parts["total"].dtype == np.float32
    np.testing.assert_allclose(parts["total"], parts["aleatoric"] + parts["epistemic"], atol=1e-6)
    assert parts["epistemic"].min() >= 0 and parts["epistemic"].max() > 0


def test_zero_learning_rate_is_the_reference(folders: dict[str, Path], tmp_path: Path) -> None:
    run(RunRequest(**folders, out=tmp_path / "o", config=change(CONFIG, {"learning_rate": 0.0, "views": "none"})))
    epistemic = np.load(tmp_path / "o" / "a_desc-epistemic_uncertainty.npz")["data"]
    assert np.abs(epistemic).max() < 1e-6


def test_a_rerun_repeats_nothing_and_changes_nothing(
    folders: dict[str, Path], finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.name: p.read_bytes() for p in finished.iterdir() if p.suffix in (".npz", ".png", ".csv")}

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("a finished case was searched again")

    monkeypatch.setattr("quam_jax.runs.quantifier.quantify_images", never)
    run(RunRequest(**folders, out=finished, config=change(CONFIG, {"chunk": 1, "step_plan": "unroll"})))
    assert before == {p.name: p.read_bytes() for p in finished.iterdir() if p.suffix in (".npz", ".png", ".csv")}


def test_a_damaged_case_is_done_again(folders: dict[str, Path], finished: Path) -> None:
    path = finished / "b_desc-total_uncertainty.npz"
    kept = path.read_bytes()
    path.unlink()
    run(RunRequest(**folders, out=finished, config=CONFIG))
    assert path.read_bytes() == kept


def test_another_run_is_not_overwritten(folders: dict[str, Path], finished: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(CONFIG, seed=1)
    kept = (finished / "results.csv").read_bytes()
    with pytest.raises(ValueError, match="another run"):
        run(RunRequest(**folders, out=finished, config=other))
    assert (finished / "results.csv").read_bytes() == kept
    # another arithmetic makes other numbers, which do not mix with those that are there
    for arithmetic in ({"compute": "bfloat16"}, {"precision": "default"}):
        with pytest.raises(ValueError, match="another run"):
            run(RunRequest(**folders, out=finished, config=change(CONFIG, arithmetic)))
    assert (finished / "results.csv").read_bytes() == kept
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="other files"):
        run(RunRequest(**folders, out=tmp_path, config=CONFIG, overwrite=True))
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_one_bad_case_does_not_stop_the_others(folders: dict[str, Path], tmp_path: Path) -> None:
    write_cases(tmp_path, ["good", "small"])
    (tmp_path / "images" / "torn.png").write_bytes((tmp_path / "images" / "good.png").read_bytes()[:60])
    from PIL import Image

    Image.fromarray(disc(1, size=(8, 8)) * 255).save(tmp_path / "masks" / "small_r0.png")
    request = RunRequest(
        **{**folders, "images": tmp_path / "images", "masks": tmp_path / "masks"}, out=tmp_path / "o", config=CONFIG
    )
    result = run(request)
    assert set(result.failed) == {"small", "torn"}
    assert "8" in result.failed["small"] and "small_r0.png" in result.failed["small"]
    assert (tmp_path / "o" / "good.json").is_file()
    assert not list((tmp_path / "o").glob("small*")) and not list((tmp_path / "o").glob("torn*"))
    assert [r["status"] for r in csv.DictReader((tmp_path / "o" / "results.csv").open())] == ["ok", "failed", "failed"]


def test_when_every_case_is_bad_nothing_is_left(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="x.png"):
        run(RunRequest(**{**folders, "images": tmp_path / "images", "masks": None}, out=tmp_path / "o", config=CONFIG))
    assert not (tmp_path / "o").exists()


def test_a_volume_keeps_its_geometry(folders: dict[str, Path], tmp_path: Path) -> None:
    volume = np.stack([picture(s, (16, 16)) for s in range(3)], -1)
    (tmp_path / "images").mkdir()
    source = write_nifti(tmp_path / "images" / "v.nii.gz", volume)
    run(RunRequest(**{**folders, "images": tmp_path / "images", "masks": None}, out=tmp_path / "o", config=CONFIG))
    for name in ("seg", "desc-total_uncertainty", "desc-epistemic_uncertainty"):
        written = nib.load(tmp_path / "o" / f"v_{name}.nii.gz")
        assert written.shape == volume.shape
        for form in ("sform", "qform"):
            ours, code = getattr(written.header, f"get_{form}")(coded=True)
            theirs, wanted = getattr(source.header, f"get_{form}")(coded=True)
            assert code == wanted
            np.testing.assert_array_equal(ours, theirs)
    assert nib.load(tmp_path / "o" / "v_desc-reference_probseg.nii.gz").shape == (*volume.shape, 2)
    audit = json.loads((tmp_path / "o" / "v.json").read_text())["audit"]
    assert [a["slice"] for a in audit] == [0, 0, 1, 1, 2, 2]


def test_slices_equal_the_same_images_alone(folders: dict[str, Path]) -> None:
    model = picture_model()
    preparation = preprocessing_of(model)
    images, masks = folders["fit_images"], folders["fit_masks"]
    cases = find_cases(images, masks)
    known = read_fit_images(cases, masks, model=model, preprocessing=preparation, settings=CONFIG.fit)
    fit = fit_data(model, known.images, known.labels)
    flat = preparation.apply(picture(3, (16, 16))[..., None])
    config = change(CONFIG, {"views": "geometric"})  # every slice draws a noise of its own
    alone = quantify(model, flat, fit, config=config)
    stacked = quantify(model, np.stack([flat, flat], 2), fit, config=config, volume=True)
    with pytest.raises(ValueError, match=r"of a batch give one image.*volume=True"):
        quantify(model, flat[None], fit, config=config)
    np.testing.assert_allclose(stacked.total[..., 1], alone.total, atol=1e-6)


def test_cases_and_slices_that_are_searched_together_give_the_same_maps(folders: dict[str, Path], tmp_path: Path) -> None:
    """Seven cases of two sizes and one that cannot be read, four at a time; then the slices of a volume."""
    write_cases(tmp_path / "in", [f"c{n}" for n in range(6)])
    Image.fromarray(picture(7, (16, 18))).save(tmp_path / "in" / "images" / "c2b.png")
    (tmp_path / "in" / "images" / "c3b.png").write_bytes(b"torn")
    write_nifti(tmp_path / "in" / "images" / "v.nii", np.stack([picture(n, (16, 18)) for n in range(3)], 2))
    given = {**folders, "images": tmp_path / "in" / "images", "masks": None}
    together = ExecutionConfig(member_plan="vmap", step_plan="scan", together=4)
    for name, execution in (("alone", ExecutionConfig()), ("together", together)):
        config = dataclasses.replace(CONFIG, execution=execution)
        result = run(RunRequest(**given, out=tmp_path / name, config=config))
        assert list(result.failed) == ["c3b"]
    for path in (tmp_path / "alone").glob("*_uncertainty.npz"):
        np.testing.assert_allclose(np.load(tmp_path / "together" / path.name)["data"], np.load(path)["data"], atol=1e-6)
    maps = [nib.load(tmp_path / name / "v_desc-epistemic_uncertainty.nii.gz").get_fdata() for name in ("alone", "together")]
    np.testing.assert_allclose(*maps, atol=1e-6)
    assert maps[0].max() > 1e-3


def test_fit_data_are_read_once_for_all_devices(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = RunRequest(**folders, out=tmp_path / "o", config=CONFIG)
    quantifier = find_quantifier(load_models(request.model), request)
    image = read_image(quantifier.cases[0].image)
    prepared = quantifier.prepare(image)

    def never(*arguments: object) -> None:
        raise AssertionError("a fit image was read again")

    monkeypatch.setattr("quam_jax.case.fit.read_case_files", never)
    placed = quantifier.on_device(jax.devices()[0])
    assert placed.config.execution.devices == 1 and placed.known is quantifier.known
    (here,), (there,) = (one.quantify([image], [prepared]) for one in (quantifier, placed))
    np.testing.assert_array_equal(here.epistemic, there.epistemic)
    assert here.epistemic.max() > 0


def test_fit_data_without_masks_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a mask for every fit image"):
        (tmp_path / "masks").mkdir()
        for name in ("f1",):
            (tmp_path / "masks" / f"{name}.png").write_bytes((folders["fit_masks"] / f"{name}.png").read_bytes())
        run(RunRequest(**{**folders, "fit_masks": tmp_path / "masks"}, out=tmp_path / "o", config=CONFIG))
    assert not (tmp_path / "o").exists()
