"""Mutants of binary files, each given to its reader: images and masks, weights, DICOM series, exported graphs; and bombs."""

import contextlib
import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .mutants import MOST_SECONDS, Tally, map_bomb, nifti_bomb, png_bomb


def images(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """Images and masks of every format."""
    import nibabel as nib
    import numpy as np
    from PIL import Image

    from quam_jax.data.volumes import read_image, read_labels
    from tests.changed_bytes import mutate_head
    from tests.image_files import FORMATS

    itk = ()
    with contextlib.suppress(ImportError):
        import SimpleITK

        itk = (".mha", ".nrrd")
    for suffix in (*FORMATS, *itk):
        rng = np.random.default_rng(zlib.crc32(suffix.encode()) + 1)
        values = rng.integers(0, 2, (12, 15)).astype(np.uint8)
        path = folder / f"a{suffix}"
        if suffix in itk:
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(path))
        elif "nii" in suffix:
            nib.save(nib.Nifti1Image(values, np.eye(4)), path)
        else:
            Image.fromarray(values).save(path)
        sound, tally = path.read_bytes(), Tally(suffix)
        for number in range(count):
            path.write_bytes(mutate_head(sound, rng))
            as_labels = number % 3 == 0
            tally.read(
                lambda p=path, m=as_labels: (
                    read_labels(p, classes=2, like=None, limit=10**6) if m else read_image(p, limit=10**6)
                ),
                path,
            )
        yield tally.row()


def weights(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """Weight files: pickles in zip archives and old ones, safetensors, npz."""
    from converters.readers import read_weights
    from tests.changed_bytes import mutate
    from tests.checkpoints import seeds

    for kind, content in seeds(folder).items():
        tally, path = Tally(f"weights, {kind}"), folder / "mutant"
        for index in range(count):
            path.write_bytes(mutate(content, random.Random(f"{kind} {index}")))
            tally.read(lambda p=path: read_weights(p), path)
        yield tally.row()


def hdf5(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """HDF5 files; each is read in a process of its own."""
    try:
        import h5py
    except ImportError:
        return
    import numpy as np

    from converters.readers import keras_file, read_weights
    from tests.changed_bytes import mutate

    path = folder / "mutant"
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.4.0"
        file["conv/kernel:0"] = np.arange(18, dtype=np.float32).reshape(3, 3, 1, 2)
        file.create_dataset("conv/bias:0", data=np.ones(64), compression="gzip", chunks=(16,))
    sound, usual = path.read_bytes(), keras_file.SECONDS
    keras_file.SECONDS = MOST_SECONDS
    tally = Tally("weights, HDF5")
    for index in range(count):
        path.write_bytes(mutate(sound, random.Random(f"h5 {index}")))
        tally.read(lambda: read_weights(path), path)
    keras_file.SECONDS = usual
    yield tally.row()


def series(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """DICOM series of two images, one of which is changed."""
    try:
        from pydicom.uid import generate_uid  # noqa: F401
    except ImportError:
        return
    from quam_jax.data.dicom import read_series
    from tests.changed_bytes import mutate
    from tests.dicom_series import stored_values, write_slices

    write_slices(folder, stored_values((4, 5, 2)))
    path = sorted(p for p in folder.rglob("*") if p.is_file())[0]
    tally, sound = Tally("DICOM series"), path.read_bytes()
    for index in range(count):
        path.write_bytes(mutate(sound, random.Random(index)))
        tally.read(lambda: read_series(folder), path)
    yield tally.row()


def graphs(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """Exported graphs (.pt2): bytes of the archive changed."""
    try:
        import torch
    except ImportError:
        return
    from converters.exported.archive import load_exported
    from tests.changed_bytes import mutate

    path = folder / "net.pt2"
    torch.export.save(torch.export.export(torch.nn.Conv2d(1, 2, 3).eval(), (torch.zeros(1, 1, 8, 8),)), path)
    tally, sound = Tally("exported graph, .pt2"), path.read_bytes()
    for index in range(count):
        path.write_bytes(mutate(sound, random.Random(index)))
        tally.read(lambda: load_exported(path), path)
    yield tally.row()


def bombs(folder: Path) -> Iterator[dict[str, Any]]:
    """Small files that announce or unpack to a great deal: refused by a message that names the size."""
    from quam_jax.config import load_config
    from quam_jax.data.maps import read_map
    from quam_jax.data.volumes import read_image

    def write(name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)

    yaml_bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(20)
    )
    write("bomb.nii.gz", nifti_bomb())
    write("long.nii.gz", nifti_bomb(announced=8))
    write("bomb.png", png_bomb())
    write("map.npz", map_bomb())
    write("bomb.yaml", yaml_bomb.encode())
    cases = {
        "gzip NIfTI": lambda: read_image(folder / "bomb.nii.gz"),
        "NIfTI that unpacks to more than it announces": lambda: read_image(folder / "long.nii.gz"),
        "PNG": lambda: read_image(folder / "bomb.png"),
        "npz of a map": lambda: read_map(folder / "map"),
        "YAML": lambda: load_config(folder / "bomb.yaml"),
    }
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
