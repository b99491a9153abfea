"""What a notebook uses: the names of the package, the examples of its docstrings, and how a result shows itself."""

import doctest
import html.parser
import importlib
import math
import re
import subprocess
import sys

import nibabel
import numpy as np
import pytest

import quam_jax
from quam_jax.report.notebook import maps_html
from tests.report_pages import make_case

EXAMPLES = ("quam_jax", "quam_jax.evaluation.review")  # modules with examples in their docstrings


def test_every_public_name_is_there_and_documented() -> None:
    for name in quam_jax.__all__:
        value = getattr(quam_jax, name)
        assert name == "__version__" or (value.__doc__ and not value.__doc__.startswith(f"{name}(")), name
    with pytest.raises(AttributeError, match="no attribute 'quantifi'"):
        quam_jax.quantifi  # noqa: B018


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    found = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert found.attempted >= 3 and found.failed == 0


def test_the_package_says_that_it_has_types() -> None:
    from pathlib import Path

    assert (Path(quam_jax.__file__).parent / "py.typed").is_file()


class Checker(html.parser.HTMLParser):
    """Counts tags, and what a page asks others for."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.paths: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("img", "br"):
            self.open.append(tag)
        (self.images if tag == "img" else self.paths if tag == "path" else []).append(dict(attrs))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        (self.images if tag == "img" else self.paths if tag == "path" else []).append(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("space", [(40, 56), (30, 34, 9), (700, 640)])
def test_a_result_shows_itself(space: tuple[int, ...]) -> None:
    arrays = make_case(0, space)
    maps = {name: arrays[name] for name in ("total", "aleatoric", "epistemic", "softmax")}
    text = maps_html(
        maps,
        arrays["segmentation"],
        classes=2,
        adversarial=arrays["adversarial"],
        names=["<dilated>", "eroded"],
        facts="2 of 2 held",
    )
    checker = Checker()
    checker.feed(text)
    assert checker.open == [] and len(checker.images) == 4
    assert all((image["src"] or "").startswith("data:image/png;base64,") and image["alt"] for image in checker.images)
    assert "<dilated>" not in text and "&lt;dilated&gt;" in text and "2 of 2 held" in text
    assert len(text) < 1_000_000 and "http" not in text and "<script" not in text
    assert f"largest {arrays['epistemic'].max():.4f}" in text and "ln 2 = 0.693 nats" in text
    assert ("Slice 4 of 9" in text) == (len(space) == 3)
    outline = max((path["d"] or "" for path in checker.paths), key=len)
    if space == (40, 56):  # the corners of the outline lie on the rim of the predicted disc
        corners = {int(n) for n in re.match(r"M(\d+) (\d+)", outline).groups()}
        assert corners <= set(range(57)) and outline.endswith("z")


def test_nothing_to_show_is_shown() -> None:
    flat = {"epistemic": np.zeros((5, 6)), "total": np.full((5, 6), np.nan)}
    text = maps_html(flat, np.zeros((5, 6), np.int32), classes=3)
    assert "No adversarial model" in text and "0 to 1.1 nats" in text and "ln 3 = 1.099" in text and "no numbers" in text


def a_volume() -> quam_jax.Quantified:
    arrays = make_case(0, (30, 34, 9))
    names = ("segmentation", "total", "aleatoric", "epistemic", "softmax", "adversarial")
    steps = {name: arrays[name] for name in ("objective", "fit_loss", "bound", "penalty", "feasible")}
    reference = np.stack([1 - arrays["segmentation"], arrays["segmentation"]], -1).astype(np.float32)
    return quam_jax.Quantified(
        reference=reference, adversarial_names=("dilated", "eroded"), audit=(), **{n: arrays[n] for n in names}, **steps
    )


@pytest.mark.usefixtures("unchecked")
def test_a_volume_shows_itself_in_a_viewer() -> None:
    pytest.importorskip("ipyniivue")
    volume, affine = a_volume(), np.diag([0.5, 0.5, 2.0, 1.0])
    bundle = volume._repr_mimebundle_()
    assert {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"} <= set(bundle)
    image = np.random.default_rng(0).normal(size=(30, 34, 9))
    shown = {layer.name: layer for layer in volume.viewer(image, affine=affine).volumes}
    maps = ["total.nii", "aleatoric.nii", "epistemic.nii", "softmax.nii"]
    assert list(shown) == ["image.nii", *maps, "prediction.nii", "adversarial dilated.nii", "adversarial eroded.nii"]
    assert [name for name, layer in shown.items() if layer.opacity > 0] == ["image.nii", "epistemic.nii", "prediction.nii"]
    for name in (*maps, "prediction.nii"):
        stored = nibabel.Nifti1Image.from_bytes(shown[name].data)
        wanted = volume.maps.get(name.removesuffix(".nii"), volume.segmentation)
        np.testing.assert_allclose(stored.get_fdata(), wanted, atol=0.7 * math.log(2) / 254)
        np.testing.assert_array_equal(stored.affine, affine)
    assert shown["total.nii"].cal_max == math.log(2) and shown["epistemic.nii"].cal_max < math.log(2)


@pytest.mark.usefixtures("unchecked")
def test_a_large_volume_is_reduced_for_a_viewer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ipyniivue")
    monkeypatch.setattr("quam_jax.report.widget.MOST", 30 * 34 * 9 // 7)
    (first, *_) = a_volume().viewer(affine=np.diag([0.5, 0.5, 2.0, 1.0])).volumes
    stored = nibabel.Nifti1Image.from_bytes(first.data)
    assert stored.shape == (15, 17, 4) and stored.header.get_zooms() == (1, 1, 4)
    np.testing.assert_array_equal(stored.affine[:3, 3], [0.5, 0.5, 2.0])  # the voxel that is kept


@pytest.mark.usefixtures("unchecked")
def test_what_a_viewer_does_not_take_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = a_volume()
    flat = volume._replace(**{name: getattr(volume, name)[..., 0] for name in ("segmentation", "total", "epistemic")})
    with pytest.raises(ValueError, match="viewer: expected a volume, got maps of 2 axes"):
        flat.viewer()
    monkeypatch.setitem(sys.modules, "ipyniivue", None)
    with pytest.raises(ValueError, match=r"viewer: expected ipyniivue, got none installed; pip install 'quam_jax\[notebook\]'"):
        volume.viewer()


def test_figures_come_in_only_when_something_is_shown() -> None:
    code = (
        "import sys, quam_jax, quam_jax.case.quantify; quam_jax.quantify; quam_jax.Quantified\n"
        "assert not {'matplotlib', 'jinja2', 'PIL.Image'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
