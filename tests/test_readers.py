"""Weight files of PyTorch read without it: equal to torch.load, whatever wrapper, prefix and aliases."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.readers import Weights, aliases, read_weights, state


def everything(weights: Weights) -> dict[str, np.ndarray]:
    return {**weights.tensors, **{alias: weights.tensors[kept] for alias, kept in weights.aliases.items()}}


def assert_equal(torch: Any, found: Mapping[str, np.ndarray], expected: Mapping[str, Any]) -> None:
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert str(value.dtype) == f"torch.{found[key].dtype}"
        assert found[key].shape == tuple(value.shape)
        wanted = value.detach().resolve_conj().resolve_neg().contiguous()
        assert found[key].tobytes() == wanted.reshape(-1).view(torch.uint8).numpy().tobytes(), key


# Equal to torch.load


def given_checkpoints(shared: Path) -> list[Path]:
    folders = [shared / "golden", shared / "weights"]
    real = sorted(path for folder in folders for path in folder.rglob("*.pth"))
    generated = sorted(path for folder in folders for path in folder.rglob("*.pt"))
    if not real and not generated:
        pytest.skip(f"no checkpoints under {shared}")
    return real + generated[::5]


def test_equals_torch_on_given_checkpoints(shared: Path, torch: Any) -> None:
    for path in given_checkpoints(shared):
        found = read_weights(path)
        whole = torch.load(path, map_location="cpu", weights_only=False)
        expected = whole
        for part in found.wrapper.split("/") if found.wrapper else ():
            expected = expected[part]
        assert_equal(torch, {found.prefix + key: value for key, value in everything(found).items()}, expected)
        if "init_args" in whole:
            settings = {**whole["init_args"], "device": str(whole["init_args"]["device"])}
            assert found.metadata["init_args"] == settings
            assert found.metadata["logging"] == whole["logging"]
            assert not any(".all_modules." in key or "decoder.encoder." in key for key in found.tensors)


OPTIONS = [
    {},
    {"pickle_protocol": 1},
    {"pickle_protocol": 4},
    {"pickle_protocol": 5},
    {"_use_new_zipfile_serialization": False},
    {"_use_new_zipfile_serialization": False, "pickle_protocol": 1},
    {"_use_new_zipfile_serialization": False, "pickle_protocol": 4},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_kind_of_tensor(torch: Any, save: Callable[..., Path], options: dict[str, Any]) -> None:
    base = torch.arange(24.0)
    grid = base.reshape(2, 3, 4)
    tagged = torch.nn.Parameter(torch.ones(2))
    tagged.role = "tagged"
    kinds = ["float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "uint16", "bool"]
    kinds += ["uint32", "uint64", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2"]
    tensors = {f"kind.{kind}": (torch.arange(6) - 2).to(getattr(torch, kind)) for kind in kinds}
    tensors |= {
        "grid": grid,
        "transposed": grid.transpose(0, 2),
        "slice": grid[:, 1:, ::2],
        "one": base[7],
        "expanded": base[3:4].expand(5),
        "no_axes": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "tagged": tagged,
        "buffer": torch.nn.Buffer(torch.ones(3)),
        "conjugate": torch.tensor([1 + 2j, 3 - 1j]).conj(),
        "negative": torch.tensor([1 + 2j, 3 - 1j]).conj().imag,
    }
    found = read_weights(save(tensors, **options))
    assert found.aliases == {} and found.wrapper == "" and found.metadata == {}
    assert_equal(torch, found.tensors, tensors)
    assert all(values.flags.owndata or values.base is not None for values in found.tensors.values())
    found.tensors["grid"][:] = 0  # a caller's own memory: views of one storage are apart
    assert found.tensors["one"] == 7


# Wrappers, prefixes, metadata


def test_wrappers_and_prefixes(torch: Any, save: Callable[..., Path]) -> None:
    weights = {"a.weight": torch.ones(2), "a.bias": torch.zeros(2)}
    other = {"a.weight": torch.full((2,), 2.0), "a.bias": torch.zeros(2)}
    wrapped = {"module." + key: value for key, value in weights.items()}
    compiled = {"_orig_mod.module." + key: value for key, value in weights.items()}
    partly = {"model.w": torch.ones(1), "head.w": torch.ones(1)}
    adam = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    cases: list[tuple[Any, str, str, set[str]]] = [
        (weights, "", "", set(weights)),
        (wrapped, "", "module.", set(weights)),
        ({"network_weights": compiled, "epoch": 3}, "network_weights", "_orig_mod.module.", set(weights)),
        ({"state_dict": partly}, "state_dict", "", set(partly)),
        ({"model": weights, "ema": other, "optimizer": adam}, "model", "", set(weights)),
        ({"ema": {"shadow": weights, "decay": 0.9}}, "ema/shadow", "", set(weights)),
        ({"checkpoint": {"state_dict": weights}, "epoch": 1}, "checkpoint/state_dict", "", set(weights)),
        ({"generator": weights, "optim": adam}, "generator", "", set(weights)),
        ({"enc": {"w": torch.ones(1)}, "dec": {"w": torch.ones(2)}}, "", "", {"enc.w", "dec.w"}),
    ]
    for root, wrapper, prefix, names in cases:
        found = read_weights(save(root))
        assert (found.wrapper, found.prefix, set(everything(found))) == (wrapper, prefix, names)
    path = save({"model": weights, "ema": other, "optimizer": adam, "epoch": 5})
    assert read_weights(path).tensors["a.weight"].tolist() == [1, 1]
    assert read_weights(path, key="ema").tensors["a.weight"].tolist() == [2, 2]
    found = read_weights(path)
    assert found.metadata["epoch"] == 5
    assert found.metadata["optimizer"]["param_groups"] == [{"lr": 0.1}]
    assert found.metadata["ema"]["a.weight"] == "<tensor float32 [2]>"
    with pytest.raises(ValueError, match="no entry 'nothing'"):
        read_weights(path, key="nothing")
    with pytest.raises(ValueError, match="holds no tensors"):
        read_weights(path, key="epoch")


def test_only_an_optimizer_is_no_state_dict(torch: Any, save: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="holds no tensors"):
        read_weights(save({"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}))
    with pytest.raises(ValueError, match="holds no state_dict"):
        read_weights(save({"epoch": 3}))


def test_metadata_of_many_kinds(torch: Any, save: Callable[..., Path]) -> None:
    from argparse import Namespace
    from collections import OrderedDict, defaultdict
    from pathlib import PurePosixPath

    extra = {
        "scalar": np.float32(0.25),
        "array": np.arange(6, dtype=np.int16).reshape(2, 3),
        "objects": np.array([{}], dtype=object),
        "words": np.array(["one", "three"]),
        "size": torch.Size([2, 3]),
        "device": torch.device("cuda", 1),
        "dtype": torch.bfloat16,
        "groups": defaultdict(list, {"a": [1, 2.5]}),
        "order": OrderedDict(z=1, a=None),
        "options": Namespace(lr=0.1, nested=Namespace(depth=3)),
        "path": PurePosixPath("a/b"),
        "set": {1, 2},
        "big": 2**80,
        "complex": 1 - 2j,
        "bytes": b"\x00\xff",
        "flags": (True, None),
    }
    for options in OPTIONS:
        found = read_weights(save({"state_dict": {"w": torch.ones(2)}, **extra}, **options)).metadata
        assert found["scalar"] == 0.25 and isinstance(found["scalar"], float)
        assert found["array"] == [[0, 1, 2], [3, 4, 5]]
        assert found["objects"] == "<numpy array of objects>"
        assert found["words"] == ["one", "three"]
        assert found["size"] == (2, 3)
        assert (found["device"], found["dtype"]) == ("cuda:1", "torch.bfloat16")
        assert found["groups"] == {"a": [1, 2.5]}
        assert list(found["order"].items()) == [("z", 1), ("a", None)]
        assert found["options"]["class"] == "argparse.Namespace"
        assert found["options"]["state"]["nested"]["state"] == {"depth": 3}
        assert found["path"]["class"] == "pathlib.PurePosixPath"
        assert sorted(found["set"]) == [1, 2]
        assert (found["big"], found["complex"], found["bytes"]) == (2**80, 1 - 2j, b"\x00\xff")
        assert found["flags"] == (True, None)


def test_whole_modules(torch: Any, save: Callable[..., Path]) -> None:
    nn = torch.nn
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.BatchNorm2d(2), nn.PReLU()))
    module.register_buffer("scratch", torch.ones(1), persistent=False)
    for root, wrapper in ((module, ""), ({"model": module}, "model")):
        for options in OPTIONS[:1] + OPTIONS[4:5]:
            found = read_weights(save(root, **options))
            assert found.wrapper == wrapper
            assert_equal(torch, found.tensors, module.state_dict())


# Aliases


def test_shared_tensors_are_aliases(torch: Any, save: Callable[..., Path]) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    tensors = {"first": weight, "second": weight, "flat": weight.reshape(-1), "same": weight.clone()}
    for options in OPTIONS:
        found = read_weights(save(tensors, **options))
        assert found.aliases == {"second": "first"}
        assert_equal(torch, everything(found), tensors)
        found.tensors["first"][:] = 0  # other views of the storage are copies
        assert found.tensors["flat"].tolist() == [0, 1, 2, 3, 4, 5]


def test_nnunet_names_give_way_to_the_canonical_ones(torch: Any, save: Callable[..., Path]) -> None:
    conv, norm = torch.randn(2, 1, 3, 3), torch.randn(2)
    own = {"encoder.s.convs.0.conv.weight": conv, "encoder.s.convs.0.norm.weight": norm}
    second = {
        "encoder.s.convs.0.all_modules.0.weight": conv,
        "encoder.s.convs.0.all_modules.1.weight": norm,
        "decoder.encoder.s.convs.0.conv.weight": conv,
        "decoder.encoder.s.convs.0.norm.weight": norm,
        "decoder.encoder.s.convs.0.all_modules.0.weight": conv,
        "decoder.encoder.s.convs.0.all_modules.1.weight": norm,
    }
    # even where the second names come first in the file, and where every name has bytes of its own
    for tensors in ({**own, **second}, {**second, **own}):
        copies = {key: value.clone() for key, value in tensors.items()}
        for values in (tensors, copies):
            found = read_weights(save({"network_weights": values}))
            assert set(found.tensors) == set(own)
            assert set(found.aliases) == set(second)
            assert_equal(torch, everything(found), tensors)
    copies["decoder.encoder.s.convs.0.norm.weight"][0] += 1
    with pytest.raises(ValueError, match=r"decoder\.encoder\.s\.convs\.0\.norm\.weight"):
        read_weights(save(copies))


def test_all_modules_with_dropout_between() -> None:
    ones, twos = np.ones(2), np.full(2, 2.0)
    tensors = {"b.conv.weight": ones, "b.norm.weight": twos}
    numbered = {"b.all_modules.0.weight": ones.copy(), "b.all_modules.2.weight": twos.copy()}
    assert aliases.nnunet_twins({**tensors, **numbered}) == {
        "b.all_modules.0.weight": "b.conv.weight",
        "b.all_modules.2.weight": "b.norm.weight",
    }
    assert aliases.nnunet_twins(numbered) == {}  # nothing to be an alias of
    assert aliases.nnunet_twins({"b.conv.weight": ones, **numbered}) == {}  # which is which cannot be told
    with pytest.raises(ValueError, match="different"):
        aliases.nnunet_twins({**numbered, "b.conv.weight": twos, "b.norm.weight": ones})


def test_prefixes_need_every_name() -> None:
    assert state.strip_prefixes({"module.a": 1, "module.b": 2}) == ({"a": 1, "b": 2}, "module.")
    assert state.strip_prefixes({"module.a": 1, "b": 2}) == ({"module.a": 1, "b": 2}, "")
    assert state.strip_prefixes({"module.": 1}) == ({"module.": 1}, "")
    assert state.strip_prefixes({"model.module.a": 1}) == ({"a": 1}, "model.module.")
