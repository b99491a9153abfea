"""Checkpoints as they lie about: what stands beside the weights, several networks in one file, and files of other tools."""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from converters.convert import convert
from converters.mapping import to_torch
from converters.parts import choose_part, find_parts
from converters.readers import read_weights
from converters.writers import write_safetensors, write_state_dict
from quam_jax.models.conversion import ConvertRequest, convert_model
from quam_jax.models.model import Network, SegmentationModel

Tensors = dict[str, np.ndarray]
ONE = np.ones(1, np.float32)


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    network = Network.create("att_unet", in_channels=1, n_classes=2, channels=2)
    return SegmentationModel(network, *network.initialise(jax.random.key(0)))


@pytest.fixture(scope="module")
def tensors(model: SegmentationModel) -> Tensors:
    return to_torch(model.network, model.params, model.stats)


@pytest.fixture(scope="module")
def others(model: SegmentationModel) -> Tensors:
    return to_torch(model.network, *model.network.initialise(jax.random.key(1)))


def under(prefix: str, tensors: Mapping[str, np.ndarray]) -> Tensors:
    return {prefix + name: value for name, value in tensors.items()}


def is_same(found: SegmentationModel, tensors: Tensors) -> bool:
    own = to_torch(found.network, found.params, found.stats)
    return own.keys() == tensors.keys() and all(np.array_equal(value, tensors[name]) for name, value in own.items())


BESIDE: dict[str, Tensors] = {
    "criterion": {"criterion.pos_weight": ONE},
    "loss": {"loss_fn.weight": ONE, "loss.ce.weight": ONE},
    "metric states": {"val_dice.total": ONE, "val_dice.count": ONE, "train_iou.confmat": np.ones((2, 2), np.float32)},
    "averaged model": {"n_averaged": np.asarray(7)},
}
CRITIC: Tensors = {"critic.0.weight": np.ones((2, 1, 3, 3), np.float32), "critic.0.bias": np.ones(2, np.float32)}
PREFIXES = ("", "module.", "net.", "model.module.", "_orig_mod.", "student.unet.", "netG.")


@pytest.mark.parametrize(
    ("prefix", "beside"),
    # without a prefix nobody can tell another network from a layer
    [(p, b) for p in PREFIXES for b in BESIDE.values()] + [(p, CRITIC) for p in PREFIXES if p],
)
def test_what_stands_beside_the_weights_is_left_out_and_named(
    tmp_path: Path, tensors: Tensors, prefix: str, beside: Tensors
) -> None:
    write_state_dict(tmp_path / "net.pth", {**under(prefix, tensors), **beside})
    found = convert(tmp_path / "net.pth")
    assert is_same(found, tensors) and found.manifest["source"]["prefix"] == prefix
    (note,) = found.manifest["notes"]
    assert note.startswith(f"{len(beside)} tensor") and all(name in note for name in list(beside)[:4])


@pytest.mark.parametrize("prefix", ["", "module."])
def test_counters_of_profilers_are_left_out_of_every_layer(tmp_path: Path, tensors: Tensors, prefix: str) -> None:
    layers = {name.rpartition(".")[0] for name in tensors}
    counters = {f"{prefix}{layer}.{kind}": np.zeros(1) for layer in layers for kind in ("total_ops", "total_params")}
    total = {f"{prefix}total_ops": np.zeros(1), f"{prefix}total_params": np.zeros(1)}
    write_safetensors(tmp_path / "net.safetensors", {**under(prefix, tensors), **counters, **total})
    found = convert(tmp_path / "net.safetensors")
    assert is_same(found, tensors) and "total_ops" in found.manifest["notes"][0]


def test_a_layer_that_the_network_does_not_have_is_refused(tmp_path: Path, tensors: Tensors) -> None:
    write_state_dict(tmp_path / "net.pth", {**tensors, "attention.weight": ONE})
    with pytest.raises(ValueError, match=r"1 unexpected \(attention.weight\)"):
        convert(tmp_path / "net.pth")


@pytest.mark.parametrize(("first", "second"), [("teacher.", "student."), ("stage1.net.", "stage2.net."), ("a.", "b.c.")])
def test_of_two_networks_one_must_be_chosen(tmp_path: Path, tensors: Tensors, others: Tensors, first: str, second: str) -> None:
    write_state_dict(tmp_path / "net.pth", {**under(first, tensors), **under(second, others)})
    names = sorted((first[:-1], second[:-1]), key=lambda name: (name.count("."), name))
    with pytest.raises(ValueError, match=rf"net.pth: holds 2 networks: {names[0]}, {names[1]}; .* --part {names[0]}"):
        convert(tmp_path / "net.pth")
    assert is_same(convert(tmp_path / "net.pth", part=first), tensors)
    assert is_same(convert(tmp_path / "net.pth", part=second[:-1]), others)
    with pytest.raises(ValueError, match=r"--part third: expected the beginning of some names, which begin with \w+ \(\d+\)"):
        convert(tmp_path / "net.pth", part="third")


def test_equal_networks_are_one(tmp_path: Path, tensors: Tensors) -> None:
    write_state_dict(tmp_path / "net.pth", {**under("a.", tensors), **under("b.", tensors)})
    found = convert(tmp_path / "net.pth")
    assert is_same(found, tensors) and "b would fit too; a is taken" in found.manifest["notes"][0]


@pytest.mark.parametrize("average", ["ema_model.", "model_ema.module.", "swa.", "averaged."])
def test_averages_come_last(tmp_path: Path, tensors: Tensors, others: Tensors, average: str) -> None:
    write_state_dict(tmp_path / "net.pth", {**under(average, others), **under("model.", tensors)})
    found = convert(tmp_path / "net.pth")
    assert (
        is_same(found, tensors) and f"{average[:-1]} would fit too; model is taken (another: --part)" in found.manifest["notes"]
    )
    assert is_same(convert(tmp_path / "net.pth", part=average), others)


def test_dictionaries_of_a_trainer(tmp_path: Path, tensors: Tensors, others: Tensors) -> None:
    torch = pytest.importorskip("torch")

    def tensor(values: Tensors) -> dict[str, Any]:
        return {name: torch.from_numpy(value.copy()) for name, value in values.items()}

    adam = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"model": tensor(tensors), "ema": tensor(others), "optimizer": adam, "epoch": 3}, tmp_path / "both.pth")
    found = convert(tmp_path / "both.pth")
    assert is_same(found, tensors) and found.manifest["notes"] == ["the file also holds ema; model is taken (another: --part)"]
    assert is_same(convert(tmp_path / "both.pth", part="ema"), others)
    critic = {"0.weight": torch.ones(3)}
    torch.save({"generator": tensor(tensors), "critic": critic, "optim_G": adam}, tmp_path / "gan.pth")
    found = convert(tmp_path / "gan.pth")
    assert is_same(found, tensors)
    assert found.manifest["notes"] == ["1 tensor was left out, beside the weights of generator: critic.0.weight"]
    torch.save({"teacher": tensor(tensors), "student": tensor(others)}, tmp_path / "two.pth")
    with pytest.raises(ValueError, match="holds 2 networks: student, teacher"):
        convert(tmp_path / "two.pth")
    assert is_same(convert(tmp_path / "two.pth", part="teacher"), tensors)


def test_a_part_comes_through_the_request(tmp_path: Path, tensors: Tensors, others: Tensors) -> None:
    write_state_dict(tmp_path / "net.pth", {**under("a.", tensors), **under("b.", others)})
    result = convert_model(ConvertRequest(tmp_path / "net.pth", tmp_path / "out", part="b"))
    assert is_same(result.model, others) and any("tensors were left out" in note for note in result.notes)
    with pytest.raises(ValueError, match="expected no part, got 'b'"):
        convert_model(ConvertRequest(tmp_path / "out", tmp_path / "again", part="b"))


def test_a_network_inside_another_does_not_count(tensors: Tensors) -> None:
    """The telling name of the inner network is that of the outer one too."""
    names = {"swin_unet.layers_up.0.expand.weight": ONE}
    parts = find_parts(names, arch=None)
    assert [part.prefix for part in parts] == ["", "swin_unet."] and choose_part(parts)[0].prefix == ""


@pytest.mark.parametrize("low", range(256))
def test_safetensors_of_any_header_length_are_read(tmp_path: Path, low: int) -> None:
    """The low byte of the length is any byte, among them those that other formats begin with."""
    header: dict[str, Any] = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    text += b" " * ((low - len(text)) % 256)
    (tmp_path / "net.bin").write_bytes(struct.pack("<Q", len(text)) + text + np.float32(3).tobytes())
    assert read_weights(tmp_path / "net.bin").tensors["a"].tolist() == [3.0]


def onnx() -> bytes:
    return b"\x08\x08\x12\x07pytorch\x1a\x052.3.0:\x10" + bytes(40)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (onnx, "is an ONNX graph, expected weights: .*torch.export"),
        (lambda: bytes(4) + b"TFL3" + bytes(20), "is a TensorFlow Lite graph, expected weights"),
        (lambda: b"\x80" + bytes(40), "is none of the known formats"),
        (lambda: b"\x80\x04K\x01." + bytes(40), "a pickle that torch.save did not write"),
    ],
    ids=["onnx", "tflite", "one byte of a pickle", "pickle"],
)
def test_files_of_other_tools_get_an_answer(tmp_path: Path, content: Callable[[], bytes], message: str) -> None:
    (tmp_path / "net.bin").write_bytes(content())
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "net.bin")


def test_foreign_networks_get_an_answer(tmp_path: Path) -> None:
    write_safetensors(
        tmp_path / "net.safetensors", {f"{n}.weight": np.ones(2, np.float32) for n in ("a.b", "a.c", "d", "e", "f")}
    )
    with pytest.raises(ValueError, match=r"whose names begin with a \(2\), d \(1\).*torch.export"):
        convert(tmp_path / "net.safetensors")
    np.savez(tmp_path / "keras.npz", **{"conv_1/kernel:0": np.ones((3, 3, 1, 2), np.float32)})
    with pytest.raises(ValueError, match=r"its names are those of Keras: build the network again"):
        convert(tmp_path / "keras.npz")
