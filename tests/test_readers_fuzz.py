"""Bombs and mutated weight files: reading never loops, and memory stays in proportion to the file."""

import io
import random
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.readers import Weights, keras_file, pickle_machine, read_weights
from converters.writers import write_safetensors

from .changed_bytes import mutate
from .checkpoints import SIX, call, integer, legacy, mapping, name, packed, seeds, tensor, text, zipped

QUICK_MUTANTS = 2_000
LONG_MUTANTS = 20_000
QUICK_HDF5_MUTANTS = 6
LONG_HDF5_MUTANTS = 300
BOUND = 64 << 20  # bytes that no small file may make the reader allocate


# Bombs


def doubled(depth: int) -> bytes:
    """A tuple of two of a tuple of two and so on: small in memory, 2^depth when walked."""
    return b"K\x01" + b"2\x86" * depth


def hashed(depth: int) -> bytes:
    return b"}" + doubled(depth) + b"K\x01s"


def zip_bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + mapping({"w": tensor(count=1 << 24)}) + b".")
        archive.writestr("archive/data/0", bytes(1 << 26))
    return stream.getvalue()


def npz_bomb() -> bytes:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
    return packed(**{"w.npy": b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(16)})


def with_rest(rest: bytes) -> bytes:
    return zipped(mapping({"state_dict": mapping({"w": tensor()}), "rest": rest}))


def overlapping() -> bytes:
    """Many strided views of one storage of 1 MiB, each nearly as large when dense."""
    views = {f"t{offset}": tensor(count=1 << 18, shape=(500, 500), strides=(1, 512), offset=offset) for offset in range(300)}
    return zipped(mapping(views), {"0": bytes(1 << 20)})


BOMBS: dict[str, Callable[[], bytes]] = {
    "declared storage": lambda: zipped(mapping({"w": tensor(count=1 << 50, shape=(1 << 50,), strides=(1,))})),
    "declared legacy storage": lambda: legacy(mapping({"w": tensor(count=1 << 50)}), {"0": (1 << 50, SIX)}),
    "expanded tensor": lambda: zipped(mapping({"w": tensor(shape=(1 << 40, 6), strides=(0, 1))})),
    "huge empty tensor": lambda: zipped(mapping({"w": tensor(shape=(0, 1 << 61), strides=(1, 1))})),
    "declared text": lambda: with_rest(b"\x8d" + struct.pack("<Q", 1 << 50) + b"x"),
    "declared bytes": lambda: with_rest(b"\x8e" + struct.pack("<Q", 1 << 62) + b"x"),
    "bytes by number": lambda: with_rest(call(name("builtins", "bytearray"), integer(1 << 40))),
    "range": lambda: with_rest(call(name("builtins", "list"), call(name("builtins", "range"), integer(1 << 40)))),
    "copied text": lambda: with_rest(
        text("x" * (1 << 20)) + b"q\x00" + b"".join(call(name("_codecs", "encode"), b"h\x00") for _ in range(9999))
    ),
    "copied list": lambda: with_rest(
        b"](" + b"N" * 100_000 + b"eq\x00" + b"".join(call(name("builtins", "list"), b"h\x00") for _ in range(9999))
    ),
    "hashed tuple": lambda: with_rest(hashed(60)),
    "cyclic wrapper": lambda: zipped(b"}q\x00" + text("model") + b"h\x00s" + text("w") + tensor() + b"s"),
    "doubled names": lambda: zipped(
        mapping({"w": tensor()})
        + b"q\x00"
        + b"0}("
        + text("a")
        + b"h\x00"
        + text("b")
        + b"h\x00u"
        + b"".join(b"q\x00" + b"0}(" + text("a") + b"h\x00" + text("b") + b"h\x00u" for _ in range(40))
    ),
    "names in a cycle": lambda: zipped(b"}q\x00(" + text("a") + b"h\x00" + text("b") + b"h\x00" + text("w") + tensor() + b"u"),
    "zip bomb": zip_bomb,
    "npz header": npz_bomb,
    "safetensors header": lambda: struct.pack("<Q", 1 << 40) + b"{" + bytes(100),
    "deep json": lambda: struct.pack("<Q", 200_000) + b'{"a":' + b"[" * 199_995,
    "overlapping views": overlapping,
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_do_not_go_off(read: Callable[..., Weights], kind: str) -> None:
    content = BOMBS[kind]()
    began = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            read(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < BOUND + 60 * len(content), f"{peak:,} bytes"
    assert time.process_time() - began < 20


DUDS: dict[str, tuple[bytes, Any]] = {
    "memo index": (b"K\x01r\xff\xff\xff\xff", 1),
    "cycle": (b"]q\x00h\x00a", ["<list>"]),
    "walked tuple": (doubled(60), None),
    "deep lists": (b"]" * 20_000 + b"a" * 19_999, None),
}


@pytest.mark.parametrize("kind", DUDS)
def test_odd_extras_are_cut_short(read: Callable[..., Weights], kind: str) -> None:
    rest, expected = DUDS[kind]
    tracemalloc.start()
    try:
        found = read(with_rest(rest)).metadata["rest"]
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert expected is None or found == expected
    size, waiting = 0, [found]
    while waiting:
        size += 1
        assert size < 3_000_000
        value = waiting.pop()
        waiting.extend(value if isinstance(value, list | tuple) else ())


def test_opcodes_are_counted(read: Callable[..., Weights], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_machine, "FREE_OPCODES", 10_000)
    assert read(with_rest(b"(" + b"]" * 5_000 + b"t")).tensors
    with pytest.raises(ValueError, match="more opcodes"):
        read(with_rest(b"(" + b"]" * 11_000 + b"t"))


@pytest.mark.parametrize("form", ["zip", "legacy", "strided", "optimiser", "safetensors", "npz"])
def test_memory_stays_near_the_size_of_the_tensors(tmp_path: Path, form: str) -> None:
    values = np.random.default_rng(0).standard_normal((8, 256, 1024)).astype(np.float32)  # 8 MiB
    path, size = tmp_path / "w.pth", values.nbytes
    count = values.size // 8
    whole = {"count": count, "shape": (count,), "strides": (1,)}
    if form in ("zip", "legacy", "strided", "optimiser"):
        if form == "strided":
            whole |= {"shape": (1024, 256), "strides": (1, 1024)}
        weights = mapping({f"w{key}": tensor(str(key), **whole) for key in range(8 if form != "optimiser" else 2)})
        root = mapping({"model": weights, "optimizer": mapping({f"m{k}": tensor(str(k), **whole) for k in range(8)})})
        raw = {str(key): values[key].tobytes() for key in range(8)}
        path.write_bytes(
            legacy(root, {key: (count, content) for key, content in raw.items()}) if form == "legacy" else zipped(root, raw)
        )
        del raw
    elif form == "safetensors":
        write_safetensors(path, {f"w{key}": values[key] for key in range(8)})
    else:
        np.savez(path.with_suffix(".npz"), **{f"w{key}": values[key] for key in range(8)})
        path = path.with_suffix(".npz")
    # what the format needs: the tensors, and one more of them or, in old files, the file
    allowed = {"optimiser": 0.5 * size, "legacy": 2.2 * size}.get(form, 1.3 * size)
    tracemalloc.start()
    try:
        found = read_weights(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    expected = values[0].T.reshape(-1) if form == "strided" else values[0].reshape(-1)
    np.testing.assert_array_equal(found.tensors["w0"].reshape(-1), expected[: found.tensors["w0"].size])
    assert peak < allowed, f"{peak:,} bytes for a file of {path.stat().st_size:,}"


# Mutations


def read_mutants(folder: Path, sound: Mapping[str, bytes], count: int, *, bound: int) -> dict[str, int]:
    """Read `count` mutants of each file in turn; how many were read, and how many refused, of each."""
    outcome: dict[str, int] = {}
    path = folder / "mutant"
    for index in range(count):
        kind = list(sound)[index % len(sound)]
        path.write_bytes(mutate(sound[kind], random.Random(index)))
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        began = time.process_time()
        try:
            found = read_weights(path)
            assert all(isinstance(values, np.ndarray) for values in found.tensors.values())
            result = "read"
        except ValueError as error:
            assert "\n" not in str(error)
            result = "refused"
        peak = tracemalloc.get_traced_memory()[1] - before
        assert peak < bound, f"mutant {index} ({kind}) took {peak:,} bytes"
        assert time.process_time() - began < 60, f"mutant {index} ({kind})"
        outcome[f"{kind} {result}"] = outcome.get(f"{kind} {result}", 0) + 1
    return outcome


@pytest.mark.parametrize("count", [QUICK_MUTANTS, pytest.param(LONG_MUTANTS, marks=pytest.mark.long)])
def test_mutated_files_are_read_or_refused(tmp_path: Path, count: int) -> None:
    sound = seeds(tmp_path)
    for kind, content in sound.items():
        (tmp_path / "sound").write_bytes(content)
        assert read_weights(tmp_path / "sound").tensors, kind
    tracemalloc.start()
    try:
        outcome = read_mutants(tmp_path, sound, count, bound=BOUND)
    finally:
        tracemalloc.stop()
    # the mutations reach both ends: some files survive them, in every format some do not
    assert sum(outcome.values()) == count
    assert all(outcome.get(f"{kind} refused", 0) > count / len(sound) / 4 for kind in sound), outcome
    assert outcome.get("zip without checksums read", 0) > 0 and outcome.get("legacy read", 0) > 0, outcome


@pytest.mark.parametrize("count", [QUICK_HDF5_MUTANTS, pytest.param(LONG_HDF5_MUTANTS, marks=pytest.mark.long)])
def test_mutated_hdf5_files_are_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    h5py = pytest.importorskip("h5py")
    monkeypatch.setattr(keras_file, "SECONDS", 10.0)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["keras_version"] = "2.4.0"
        file["conv/kernel:0"] = np.arange(18, dtype=np.float32).reshape(3, 3, 1, 2)
        file.create_dataset("conv/bias:0", data=np.ones(64), compression="gzip", chunks=(16,))
    outcome = read_mutants(tmp_path, {"h5": (tmp_path / "w.h5").read_bytes()}, count, bound=BOUND)
    assert sum(outcome.values()) == count
