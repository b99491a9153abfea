"""The parity figure: against stored logits anywhere, and against a live PyTorch twin where PyTorch is
installed.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from converters.mapping import to_flax
from converters.parity import check_parity, layer_differences, live_parity, record_parity
from quam_jax.models.model import Network, SegmentationModel
from tests.attention_twin import attention_unet


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    network = Network.create("att_unet", in_channels=1, n_classes=2, channels=2)
    return SegmentationModel(network, *network.initialise(jax.random.key(0)), {"source": {"file": "a.pth"}})


@pytest.fixture(scope="module")
def stored(model: SegmentationModel) -> dict[str, np.ndarray]:
    images = np.random.default_rng(0).standard_normal((1, 1, 8, 16)).astype(np.float32)
    logits = np.moveaxis(np.asarray(model(np.moveaxis(images, 1, -1))), -1, 1)
    return {"input": images, "logits": logits}


def test_own_logits_are_equal(model: SegmentationModel, stored: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "check.npz", **stored, other=np.zeros(2))
    parity = check_parity(model, reference=tmp_path / "check.npz")
    assert parity == {
        "kind": "stored logits of check.npz",
        "compared": "logits",
        "max_abs": pytest.approx(0, abs=1e-6),
        "relative": pytest.approx(0, abs=1e-5),
        "verdict": "equal",
    }
    kept = record_parity(model, parity)
    assert kept.manifest == {"source": {"file": "a.pth"}, "parity": parity} and "parity" not in model.manifest
    json.dumps(kept.manifest)


@pytest.mark.parametrize(("shift", "verdict"), [(0.5e-4, "equal"), (2e-4, "different")])
def test_verdict_follows_the_range_of_the_logits(
    model: SegmentationModel, stored: dict[str, np.ndarray], shift: float, verdict: str
) -> None:
    logits = stored["logits"].astype(np.float64)
    extent = logits.max() - logits.min()
    # an inner value is moved, so that the range stays
    place = np.unravel_index(np.argsort(logits, axis=None)[logits.size // 2], logits.shape)
    logits[place] += shift * extent
    parity = check_parity(model, reference={"input": stored["input"], "logits": logits})
    assert parity["verdict"] == verdict
    assert parity["relative"] == pytest.approx(shift, rel=0.02)
    assert parity["max_abs"] == pytest.approx(shift * extent, rel=0.02)


def test_probabilities_are_compared_with_the_softmax(model: SegmentationModel, stored: dict[str, np.ndarray]) -> None:
    exponents = np.exp(stored["logits"].astype(np.float64))
    probabilities = exponents / exponents.sum(1, keepdims=True)
    assert check_parity(model, reference={"input": stored["input"], "logits": probabilities})["verdict"] == "equal"
    swapped = {"input": stored["input"], "logits": probabilities[:, ::-1]}
    assert check_parity(model, reference=swapped)["verdict"] == "different"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": None}, "expected the arrays input and logits, got input"),
        ({"input": np.zeros((1, 3, 8, 16))}, "expected an input of 4 axes with 1 channels"),
        ({"logits": np.zeros((1, 3, 8, 16))}, r"expected logits \(1, 2, 8, 16\), got \(1, 3, 8, 16\)"),
        ({"logits": np.full((1, 2, 8, 16), np.nan)}, "reference logits are not finite"),
        ({"input": np.full((1, 1, 8, 16), np.inf)}, "converted logits are not finite"),
    ],
)
def test_unusable_references(
    model: SegmentationModel, stored: dict[str, np.ndarray], change: dict[str, Any], message: str
) -> None:
    reference = {name: value for name, value in {**stored, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        check_parity(model, reference=reference)


@pytest.mark.parametrize("content", [None, b"no archive", b""])
def test_unreadable_reference_files(model: SegmentationModel, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "check.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"check.npz: expected a .npz file with the arrays input and logits"):
        check_parity(model, reference=path)


def test_layers_are_compared_by_path() -> None:
    ours = {"a": np.asarray([[[1.0, 2.0]], [[3.0, 4.0]]]), "b": np.zeros((1, 3)), "c": np.ones((1, 4))}
    theirs = {
        "c": np.asarray([[1.0, 1.0, 3.0, 1.0]]),
        "a": np.asarray([[[1.0], [2.0]], [[3.0], [4.5]]]),
        "b": np.zeros((1, 2)),
        "d": np.zeros((1, 2)),
    }
    # c: off by 2 with a range of 2; a: off by 0.5 with a range of 3.5 once the channels are last; b and d
    # cannot be compared
    assert layer_differences(ours, theirs) == {"c": (2.0, 1.0), "a": (0.5, pytest.approx(0.5 / 3.5))}


def test_golden_logits(shared: Path) -> None:
    folder = shared / "golden" / "A_forward" / "attunet_bn1_deconv1_in3_cls3"
    network = Network.create("att_unet", **json.loads((folder / "meta.json").read_text())["kwargs"])
    with np.load(folder / "weights.npz") as weights:
        model = SegmentationModel(network, *to_flax(network, dict(weights), where=folder.name))
    parity = check_parity(model, reference=folder / "io.npz")
    assert parity["verdict"] == "equal" and parity["relative"] < 1e-5


@pytest.fixture(scope="module")
def twin() -> Any:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    return attention_unet(torch, 4, in_channels=2, n_classes=3)


def _converted(twin: Any) -> SegmentationModel:
    network = Network.create("att_unet", in_channels=2, n_classes=3, channels=4)
    tensors = {name: value.numpy() for name, value in twin.state_dict().items()}
    return SegmentationModel(network, *to_flax(network, tensors, where="twin"))


def test_live_twin_is_equal_layer_by_layer(twin: Any) -> None:
    example = np.random.default_rng(1).standard_normal((2, 2, 16, 24)).astype(np.float32)
    converted = _converted(twin)
    modes = {name: child.training for name, child in twin.named_modules()}
    parity = live_parity(converted, twin, example)
    assert parity["kind"] == "live PyTorch" and parity["verdict"] == "equal" and parity["relative"] < 1e-5
    # 7 triple blocks of 3 stages with BatchNorm, 3 up blocks with a triple block without, 3 gates of 3 pairs,
    # the head; the dropout that follows three stages is one module here and three there
    leaves = 7 * 3 * 2 + 3 * (3 + 1) + 3 * 3 * 2 + 1
    blocks = 7 + 3 * 2 + 3
    assert parity["layers"] == leaves + blocks
    assert parity["worst_layer"]["relative"] < 1e-5
    assert modes == {name: child.training for name, child in twin.named_modules()}
    assert "first_layer" not in parity
    assert live_parity(converted, twin, example) == parity, "the calls were not put back as they were"


def test_a_wrong_layer_is_named(twin: Any) -> None:
    example = np.random.default_rng(2).standard_normal((1, 2, 8, 8)).astype(np.float32)
    converted = _converted(twin)
    wrong = dataclasses.replace(
        converted, params={**converted.params, "Att4.psi.1.bias": converted.params["Att4.psi.1.bias"] + 3.0}
    )
    parity = live_parity(wrong, twin, example)
    assert parity["verdict"] == "different"
    # the first layer that differs is the one that was changed, and layers before it are equal
    assert parity["first_layer"]["path"] == "Att4.psi.1"
    assert parity["first_layer"]["max_abs"] == pytest.approx(3.0, rel=1e-3)
    with pytest.raises(ValueError, match="multiples of 8, 8, got"):
        live_parity(converted, twin, np.zeros((1, 2, 8, 12), np.float32))
