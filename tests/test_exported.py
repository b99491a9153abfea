"""Imported torch.export graphs: conversion, saving and use without PyTorch, cuts, sizes, and what is refused."""

import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from converters.export import state_dict
from converters.exported import convert_exported, from_torch
from converters.exported.capture import select_output
from converters.mapping import to_flax
from quam_jax.config.build import build_space
from quam_jax.core.network import Mode
from quam_jax.core.space import TailSpace
from quam_jax.models.folder import restore_model, save_model
from quam_jax.models.loading import load_model
from quam_jax.models.model import Network, SegmentationModel
from tests.attention_twin import attention_unet
from tests.exported_networks import Coarse, Small, images, last, seeded

torch = pytest.importorskip("torch")
nn = torch.nn
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def small() -> Any:
    return seeded(Small())


@pytest.fixture(scope="module")
def model(small: Any) -> SegmentationModel:
    small.train()
    converted = from_torch(small, images(1, 2, 8, 12))
    assert small.training and small.first.training  # the caller's mode is kept
    small.eval()
    return converted


def test_logits_of_other_batches_and_sizes(small: Any, model: SegmentationModel) -> None:
    assert model.network.size_multiple == (2, 2)
    for shape in ((1, 2, 8, 12), (3, 2, 10, 6), (2, 2, 16, 16)):
        x = images(*shape, seed=1)
        with torch.no_grad():
            theirs = small(torch.as_tensor(x))["out"].numpy()
        np.testing.assert_allclose(np.asarray(model(last(x))), last(theirs), rtol=0, atol=1e-5 * np.ptp(theirs))
    parity = model.manifest["parity"]
    assert parity["verdict"] == "equal" and parity["kind"] == "live PyTorch" and parity["fixed_sizes"] == []
    assert parity["other_sizes"][0]["shape"] == [2, 2, 10, 14]


def test_weights_keep_their_names(small: Any, model: SegmentationModel) -> None:
    assert set(model.params) == {n for n, _ in small.named_parameters() if not n.startswith("aux")}
    assert set(model.stats) == {"first.1.running_mean", "first.1.running_var"}
    assert model.params["first.0.weight"].shape == (3, 3, 2, 4)  # channels last, as the other networks keep it
    back = state_dict(model)
    assert set(back) == set(small.state_dict())
    for name, value in small.state_dict().items():
        np.testing.assert_array_equal(back[name], value.numpy(), err_msg=name)


def test_cuts(model: SegmentationModel) -> None:
    network = model.network
    assert set(network.cuts) == {"head", "last_block"}
    assert network.tail_names("head") == ["head.bias", "head.weight"]
    assert set(network.tail_names("last_block")) == {"head.bias", "head.weight", "last.0.bias", "last.0.weight"}
    x = jnp.asarray(images(2, 8, 10, 2))
    whole = network.apply(model.params, model.stats, x)[0]
    for cut, channels in (("head", 4), ("last_block", 8)):
        activation = network.trunk(model.params, model.stats, x, cut=cut)
        assert activation.shape == (2, 8, 10, channels)
        np.testing.assert_array_equal(network.tail(model.params, model.stats, activation, cut=cut)[0], whole)
    assert build_space("head", network) == TailSpace("head")
    assert list(build_space("subset:deep", network).start(network, model.params, x[0])) == ["deep.1.bias", "deep.1.weight"]


def test_saved_model_needs_no_torch(model: SegmentationModel, tmp_path: Path) -> None:
    save_model(tmp_path / "model", model)
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    program = manifest["arguments"]["program"]
    assert program[0] == "image = input('b', 2, 'h', 'w')" and program[-1].startswith("return ")
    assert any(
        line.startswith("conv2d = conv2d(image, weight['first.0.weight'], weight['first.0.bias'], [1, 1], [1, 1])")
        and line.endswith("# first.0")
        for line in program
    )
    x = images(2, 6, 8, 2)
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np; from quam_jax.models.loading import load_model\n"
        f"m = load_model({str(tmp_path / 'model')!r})\n"
        f"np.save({str(tmp_path / 'y.npy')!r}, np.asarray(m(np.load({str(tmp_path / 'x.npy')!r}))))\n"
        "assert sys.modules['torch'] is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=300, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.asarray(model(x)))
    restored = restore_model(tmp_path / "model")
    assert restored.network == model.network and hash(restored.network) == hash(model.network)


def test_file_of_torch_export(small: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    auto = torch.export.Dim.AUTO
    exported = torch.export.export(
        small.eval(), (torch.as_tensor(images(2, 2, 8, 12)),), dynamic_shapes=({0: auto, 2: auto, 3: auto},)
    )
    torch.export.save(exported, path)
    loaded = load_model(path)
    x = images(1, 2, 10, 8, seed=4)
    with torch.no_grad():
        theirs = small(torch.as_tensor(x))["out"].numpy()
    np.testing.assert_allclose(np.asarray(loaded(last(x))), last(theirs), rtol=0, atol=1e-5 * np.ptp(theirs))
    assert loaded.manifest["source"]["file"] == "net.pt2" and len(loaded.manifest["source"]["sha256"]) == 64
    assert load_model(path, output="aux", resize_logits=False).network.classes == 3
    with pytest.raises(ValueError, match="expected no arch, got 'unet'"):
        load_model(path, "unet")

    for name, content in (("short.pt2", path.read_bytes()[:2000]), ("text.pt2", b"no archive"), ("empty.pt2", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}: expected a file of torch.export.save"):
            convert_exported(tmp_path / name)


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def rewritten(path: Path, target: Path, change: Any) -> Path:
    """A copy of an archive with entries changed by name."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as result:
        for entry in source.infolist():
            result.writestr(entry.filename, change(entry.filename, source.read(entry.filename)))
    return target


def test_no_code_of_a_file_runs(tmp_path: Path) -> None:
    path, place = tmp_path / "net.pt2", tmp_path / "boom"
    torch.export.save(torch.export.export(nn.Conv2d(1, 2, 3, padding=1), (torch.zeros(1, 1, 8, 8),)), path)
    bomb = pickle.dumps(Bomb(place))
    pickled = rewritten(path, tmp_path / "bomb.pt2", lambda n, b: bomb if "sample_inputs" in n else b)
    with pytest.raises(ValueError, match=r"bomb.pt2: cannot be read as a torch.export archive"):
        convert_exported(pickled)

    def evil(name: str, content: bytes) -> bytes:
        if "/models/" not in name:
            return content
        document = json.loads(content)
        document["extra"] = {"expr_str": f"__import__('os').mkdir('{place}')"}
        return json.dumps(document).encode()

    with pytest.raises(ValueError, match="no arithmetic of sizes"):
        convert_exported(rewritten(path, tmp_path / "size.pt2", evil))

    def other(name: str, content: bytes) -> bytes:
        return content.replace(b"torch.ops.aten.conv2d.default", b"torch.hub.load") if "/models/" in name else content

    with pytest.raises(ValueError, match="'torch.hub.load', which is no operation of a network"):
        convert_exported(rewritten(path, tmp_path / "target.pt2", other))
    assert not place.exists()


def test_coarse_logits_are_resized() -> None:
    module = seeded(Coarse())
    x = images(1, 3, 16, 24)
    converted = from_torch(module, x)
    with torch.no_grad():
        coarse = module(torch.as_tensor(x))[0]
        wanted = nn.functional.interpolate(coarse, size=(16, 24), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(np.asarray(converted(last(x))), last(wanted), rtol=0, atol=1e-5)
    assert converted.manifest["resized_logits"]
    kept = from_torch(module, x, resize_logits=False, output=1, dynamic=False)
    np.testing.assert_allclose(np.asarray(kept(last(x))), -last(coarse), rtol=0, atol=1e-5)


def test_a_cut_in_front_of_a_resize_knows_the_image_size() -> None:
    module = seeded(Coarse(resize=True))
    converted = from_torch(module, images(1, 3, 16, 24))
    network, x = converted.network, jnp.asarray(images(1, 20, 12, 3))
    activation = network.trunk(converted.params, converted.stats, x, cut="head")
    assert activation.shape == (1, 5, 3, 4)
    logits = network.tail(converted.params, converted.stats, activation, cut="head")[0]
    assert logits.shape == (1, 20, 12, 2)
    np.testing.assert_array_equal(logits, network.apply(converted.params, converted.stats, x)[0])
    with pytest.raises(ValueError, match="the cut head needs image sides that are multiples of 4, 4, got 18, 12"):
        network.trunk(converted.params, converted.stats, jnp.zeros((1, 18, 12, 3)), cut="head")


def test_fixed_sizes() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position, self.head = nn.Parameter(torch.randn(1, 1, 6, 8)), nn.Conv2d(1, 2, 1)

        def forward(self, x: Any) -> Any:
            return self.head(x + self.position)

    converted = from_torch(Fixed(), images(1, 1, 6, 8))
    assert converted.network.size_multiple == (6, 8)
    assert converted.manifest["parity"]["fixed_sizes"] == [6, 8]
    assert converted(images(3, 5, 8, 1)).shape == (3, 5, 8, 2)  # padded to the one size and cropped
    with pytest.raises(ValueError, match=r"expected images \[b 1 6 8\] .* as the network was exported, got \[1, 1, 12, 8\]"):
        converted(images(1, 7, 8, 1))
    static = from_torch(nn.Conv2d(1, 2, 3, padding=1), images(2, 1, 6, 8), dynamic=False)
    with pytest.raises(ValueError, match=r"expected images \[2 1 6 8\].*got \[1, 1, 6, 8\]"):
        static(images(1, 6, 8, 1))


def test_train_mode_is_refused(model: SegmentationModel) -> None:
    with pytest.raises(ValueError, match="fixed in eval mode; expected mode eval, got train"):
        model.network.apply(model.params, model.stats, jnp.zeros((1, 8, 8, 2)), Mode(batch_statistics=True))


def test_unsupported_operations_are_named_with_their_place() -> None:
    class Inner(nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.fft.fft2(x).real + torch.linalg.inv(x)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spectrum, self.head = Inner(), nn.Conv2d(1, 2, 1)

        def forward(self, x: Any) -> Any:
            return self.head(self.spectrum(x))

    with pytest.raises(ValueError, match=r"Outer: \d of its operations are not supported: .*fft.* in spectrum.*linalg_inv") as e:
        from_torch(Outer(), images(1, 1, 8, 8), dynamic=False)
    assert "\n" not in str(e.value)


def test_bad_input() -> None:
    conv = nn.Conv2d(1, 2, 1)
    with pytest.raises(ValueError, match="expected a torch.nn.Module or an exported program, got function"):
        from_torch(lambda x: x, images(1, 1, 4, 4))
    with pytest.raises(ValueError, match=r"expected an example input \[b i h w\] .* got float32 of shape \[4, 4\]"):
        from_torch(conv, images(4, 4))
    with pytest.raises(ValueError, match="got int64"):
        from_torch(conv, np.zeros((1, 1, 4, 4), np.int64))
    with pytest.raises(ValueError, match="expected 2 class names, got 1: vessel"):
        from_torch(conv, images(1, 1, 4, 4), dynamic=False, class_names=["vessel"])
    with pytest.raises(ValueError, match="Conv2d: PyTorch cannot export it"):
        from_torch(conv, images(1, 3, 4, 4))
    with pytest.raises(ValueError, match="expected logits of 4 axes"):
        from_torch(nn.Flatten(), images(2, 1, 4, 4), dynamic=False)


def test_output_choice() -> None:
    a, b = torch.zeros(1), torch.ones(1)
    assert select_output(a, None) is a
    assert select_output({"aux": b, "out": a}, None) is a and select_output({"aux": b, "out": a}, "aux") is b
    assert select_output({"logits": a, "loss": b}, None) is a and select_output({"mask": b}, None) is b
    assert select_output([a, b], None) is a and select_output((a, b), 1) is b and select_output(({"out": a}, b), None) is a
    for structure, choice, message in (
        ({"x": a, "y": b}, None, "returns x, y; expected a choice"),
        ([a], 2, "returns 1 values"),
        (3, None, "got int"),
        ([], None, "got list"),
    ):
        with pytest.raises(ValueError, match=message):
            select_output(structure, choice)


def test_twin_of_the_hand_written_network() -> None:
    module = attention_unet(torch, 4, in_channels=3, n_classes=2)
    imported = from_torch(module, images(1, 3, 24, 16), dynamic=False)
    network = Network.create("att_unet", in_channels=3, n_classes=2, channels=4)
    values = {n: v.numpy() for n, v in module.state_dict().items()}
    own = SegmentationModel(network, *to_flax(network, values, where="twin"))
    for cut in ("head", "last_block"):
        assert set(imported.network.tail_names(cut)) == set(own.network.tail_names(cut))
    x = jnp.asarray(images(1, 24, 16, 3))
    labels = np.random.default_rng(0).integers(0, 2, (1, 24, 16))

    def compiled(model: SegmentationModel) -> Any:
        def loss(params: Any) -> Any:
            logits = model.network.apply(params, model.stats, x)[0]
            return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1).mean()

        return jax.jit(jax.value_and_grad(loss)).lower(model.params).compile()

    steps = [compiled(imported), compiled(own)]
    (loss, gradient), (own_loss, own_gradient) = steps[0](imported.params), steps[1](own.params)
    assert float(loss) == pytest.approx(float(own_loss), rel=1e-6)
    for name, value in own_gradient.items():
        np.testing.assert_allclose(gradient[name], value, rtol=0, atol=1e-5 * max(float(jnp.abs(value).max()), 1e-3))
    # the same work for XLA, so the same time: it was timed once at ratio 1, and counts do not jitter
    counts, own_counts = (step.cost_analysis() for step in steps)
    for kind in ("flops", "bytes accessed"):
        assert counts[kind] <= 1.1 * own_counts[kind]
