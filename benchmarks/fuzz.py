"""Mutated files over every reader: each is read or refused by one ValueError of one line, in bounded memory and time.

Claim: of at least 20,000 files (NIfTI, PNG, JPEG, TIFF, BMP, GIF, PNM; .pth, safetensors, npz, HDF5; YAML settings; plans.json
and dataset.json of nnU-Net) none makes a reader raise anything else, allocate more than 64 MB beyond the file, or take more
than ten processor seconds; bombs are refused by their size. `python -m benchmarks.fuzz` writes benchmarks/results/fuzz.json; the
tests that run with every change take a part of the same mutations.
"""

import argparse
import collections
import contextlib
import copy
import gzip
import json
import random
import sys
import tempfile
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .record import write_result

MOST_BYTES = 64 << 20
MOST_SECONDS = 10.0
NUMBERS = (0, -1, 1, 3, 2**31, 2**63, 10**30, 1e308, 0.5)
THINGS: tuple[Any, ...] = (*NUMBERS, None, True, "", "x" * 900, [], {}, [[]], [0] * 50, {"0": {}}, "../../etc/passwd",
                           "\u202e\0")


class Tally:
    """What became of the mutants of one format, and the most that one of them cost."""

    def __init__(self, name: str) -> None:
        self.name, self.count = name, collections.Counter[str]()
        self.bytes, self.seconds = 0, 0.0

    def read(self, reader: Callable[[], Any]) -> None:
        """Call a reader on a mutant; what is neither a result nor one ValueError of one line ends the measurement."""
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        began = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pillow warns of odd metadata and goes on
                reader()
            self.count["read"] += 1
        except ValueError as error:
            if "\n" in str(error) or not str(error):
                raise AssertionError(f"{self.name}: an error of more than one line, or of none: {str(error)!r}") from error
            if len(str(error)) > 5000:
                raise AssertionError(f"{self.name}: an error of {len(str(error)):,} letters") from error
            self.count["refused"] += 1
        self.seconds = max(self.seconds, time.process_time() - began)
        self.bytes = max(self.bytes, tracemalloc.get_traced_memory()[1] - before)
        if self.bytes > MOST_BYTES or self.seconds > MOST_SECONDS:
            raise AssertionError(f"{self.name}: {self.bytes:,} bytes, {self.seconds:.1f} s")

    def row(self) -> dict[str, Any]:
        """Figures for the result."""
        return {"format": self.name, "files": sum(self.count.values()), "read": self.count["read"],
                "refused": self.count["refused"], "most_megabytes": self.bytes / 1e6, "most_seconds": self.seconds}


def images(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """Images and masks of every format."""
    import nibabel as nib
    import numpy as np
    from PIL import Image

    from quam_jax.data.volumes import read_image, read_labels
    from tests.test_data_fuzz import FORMATS, mutate

    for suffix in FORMATS:
        rng = np.random.default_rng(zlib.crc32(suffix.encode()) + 1)
        values = rng.integers(0, 2, (12, 15)).astype(np.uint8)
        path = folder / f"a{suffix}"
        nib.save(nib.Nifti1Image(values, np.eye(4)), path) if "nii" in suffix else Image.fromarray(values).save(path)
        sound, tally = path.read_bytes(), Tally(suffix)
        for number in range(count):
            path.write_bytes(mutate(sound, rng))
            as_labels = number % 3 == 0
            tally.read(lambda p=path, m=as_labels: read_labels(p, classes=2, like=None, limit=10**6) if m else
                       read_image(p, limit=10**6))
        yield tally.row()


def weights(folder: Path, count: int, hdf5: int) -> Iterator[dict[str, Any]]:
    """Weight files: pickles in zip archives and old ones, safetensors, npz, HDF5."""
    import numpy as np

    from converters.readers import keras_file, read_weights
    from tests.test_readers_fuzz import mutate, seeds

    keras_file.SECONDS = MOST_SECONDS
    sound = {name: (content, count) for name, content in seeds(folder).items()}
    with contextlib.suppress(ImportError):
        import h5py

        with h5py.File(folder / "w.h5", "w") as file:
            file.attrs["keras_version"] = "2.4.0"
            file["conv/kernel:0"] = np.arange(18, dtype=np.float32).reshape(3, 3, 1, 2)
            file.create_dataset("conv/bias:0", data=np.ones(64), compression="gzip", chunks=(16,))
        sound["h5"] = ((folder / "w.h5").read_bytes(), hdf5)
    for kind, (content, number) in sound.items():
        tally, path = Tally(f"weights, {kind}"), folder / "mutant"
        for index in range(number):
            path.write_bytes(mutate(content, random.Random(f"{kind} {index}")))
            tally.read(lambda p=path: read_weights(p))
        yield tally.row()


def settings(folder: Path, count: int) -> dict[str, Any]:
    """YAML settings: bytes and values changed."""
    import yaml

    from quam_jax.config import Config, dump_config, load_config, to_dict
    from tests.test_readers_fuzz import mutate

    tally, path, sound = Tally("settings, YAML"), folder / "settings.yaml", dump_config(Config()).encode()
    for index in range(count):
        rng = random.Random(index)
        changed = changed_values(to_dict(Config()), rng) if index % 2 else None
        path.write_bytes(mutate(sound, rng) if changed is None else yaml.safe_dump(changed).encode())
        tally.read(lambda: load_config(path))
    return tally.row()


def plans(folder: Path, count: int) -> dict[str, Any]:
    """plans.json and dataset.json of an nnU-Net folder: values and bytes changed."""
    import numpy as np

    from converters.nnunet import read_nnunet
    from converters.writers import write_state_dict
    from quam_jax.model import Network
    from tests.test_converters_nnunet import DATASET, PLANS, torch_shapes
    from tests.test_readers_fuzz import mutate

    tally = Tally("nnU-Net, plans.json and dataset.json")
    network = Network.create("nnunet_plain", in_channels=2, n_classes=3, features_per_stage=(2, 4), rank=2,
                             n_conv_per_stage=(1, 2), n_conv_per_stage_decoder=(1,), kernel_sizes=((3, 3), (1, 3)),
                             strides=((1, 1), (1, 2)))
    (folder / "fold_0").mkdir()
    weights = {name: np.zeros(shape, np.float32) for name, shape in torch_shapes(network).items()}
    write_state_dict(folder / "fold_0" / "checkpoint_final.pth", weights)

    for index in range(count):
        rng = random.Random(index)
        contents = {"plans.json": json.dumps(PLANS), "dataset.json": json.dumps(DATASET)}
        name = rng.choice(list(contents))
        if index % 2:
            contents[name] = json.dumps(changed_values(json.loads(contents[name]), rng))
            raw = contents[name].encode()
        else:
            raw = mutate(contents[name].encode(), rng)
        for file, text in contents.items():
            (folder / file).write_bytes(raw if file == name else text.encode())
        tally.read(lambda: read_nnunet(folder))
    return tally.row()


def changed_values(tree: Any, rng: random.Random) -> Any:
    """A nested value with one to three of its leaves or branches replaced, removed or renamed."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.randint(1, 3)):
        places: list[tuple[Any, Any]] = []
        waiting = [tree]
        while waiting:
            value = waiting.pop()
            keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
            places += [(value, key) for key in keys]
            waiting += [value[key] for key in keys]
        if not places:
            break
        value, key = rng.choice(places)
        if rng.random() < 0.15:
            del value[key]
        elif rng.random() < 0.1 and isinstance(value, dict):
            value[rng.choice(("", "x", "0", "labels"))] = value.pop(key)
        else:
            value[key] = copy.deepcopy(rng.choice(THINGS))
    return tree


def bombs(folder: Path) -> Iterator[dict[str, Any]]:
    """Small files that announce or unpack to a great deal: refused by a message that names the size."""
    from quam_jax.config import load_config
    from quam_jax.data.maps import read_map
    from quam_jax.data.volumes import read_image

    def write(name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)

    yaml_bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(20))
    write("bomb.nii.gz", nifti_bomb())
    write("long.nii.gz", nifti_bomb(announced=8))
    write("bomb.png", png_bomb())
    write("map.npz", map_bomb())
    write("bomb.yaml", yaml_bomb.encode())
    cases = {"gzip NIfTI": lambda: read_image(folder / "bomb.nii.gz"),
             "NIfTI that unpacks to more than it announces": lambda: read_image(folder / "long.nii.gz"),
             "PNG": lambda: read_image(folder / "bomb.png"),
             "npz of a map": lambda: read_map(folder / "map"),
             "YAML": lambda: load_config(folder / "bomb.yaml")}
    for name, reader in cases.items():
        tally = Tally(f"bomb, {name}")
        said = ""

        def telling(read: Callable[[], Any] = reader) -> Any:
            nonlocal said
            try:
                return read()
            except ValueError as error:
                said = str(error)
                raise

        tally.read(telling)
        yield tally.row() | {"message": said.replace(str(folder), "")[:200]}


def nifti_bomb(*, announced: int = 4000) -> bytes:
    """A few hundred kilobytes of gzip: a header of `announced`^3 voxels in front of 200 MB of zeros."""
    import nibabel as nib

    header = nib.Nifti1Header()
    header.set_data_dtype("uint8")
    header.set_data_shape((announced,) * 3)
    header["magic"], header["vox_offset"] = b"n+1", 352
    header["sform_code"] = 0
    header["pixdim"][:4] = 1
    return gzip.compress(header.binaryblock + bytes(4) + bytes(200_000_000), mtime=0)


def map_bomb() -> bytes:
    """An archive whose array announces four terabytes."""
    import struct

    from tests.checkpoints import packed

    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
    return packed(**{"data.npy": b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(16)})


def png_bomb(*, side: int = 100_000) -> bytes:
    """A PNG of `side`^2 one-bit pixels, all zero."""
    import struct

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(side // 8 + 1)) for _ in range(1000)) + packer.flush()
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)) + chunk(b"IDAT", rows)
            + chunk(b"IEND", b""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1250, help="mutants of each image format")
    parser.add_argument("--weights", type=int, default=1000, help="mutants of each weight format")
    parser.add_argument("--hdf5", type=int, default=60, help="mutants of HDF5, each read in a process of its own")
    parser.add_argument("--settings", type=int, default=2500)
    parser.add_argument("--plans", type=int, default=1000)
    chosen = parser.parse_args()
    rows: list[dict[str, Any]] = []

    def parts(root: Path) -> Iterator[dict[str, Any]]:
        folders = [root / name for name in ("images", "weights", "settings", "plans", "bombs")]
        for folder in folders:
            folder.mkdir()
        yield from images(folders[0], chosen.images)
        yield from weights(folders[1], chosen.weights, chosen.hdf5)
        yield settings(folders[2], chosen.settings)
        yield plans(folders[3], chosen.plans)
        yield from bombs(folders[4])

    tracemalloc.start()
    with tempfile.TemporaryDirectory() as folder:
        for row in parts(Path(folder)):
            rows.append(row)
            sys.stderr.write(f"{row['format']}: {row['files']}\n")
    tracemalloc.stop()
    write_result("fuzz", rows, files=sum(row["files"] for row in rows))


if __name__ == "__main__":
    main()
