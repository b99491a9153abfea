"""Raster pictures of every mode: values, channels and orientation kept, and what would lose depth or pages refused."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image as PillowImage

from quam_jax.data.volumes import read_image
from tests.image_files import save_picture


@pytest.mark.parametrize(
    ("mode", "suffix", "channels"),
    [
        *[("1", s, 1) for s in (".png", ".bmp", ".tif", ".pbm", ".ppm")],
        *[("L", s, 1) for s in (".png", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".PNG")],
        *[("LA", s, 1) for s in (".png", ".tif")],
        *[("RGB", s, 3) for s in (".png", ".bmp", ".tif", ".ppm")],
        *[("RGBA", s, 3) for s in (".png", ".tif")],
        *[("P", s, 3) for s in (".png", ".bmp", ".tif", ".gif")],
        *[("I;16", s, 1) for s in (".png", ".tif", ".pgm")],
        *[("I", s, 1) for s in (".tif",)],
        *[("F", s, 1) for s in (".tif",)],
    ],
)
def test_every_raster_mode_keeps_its_values(tmp_path, mode, suffix, channels):
    rng = np.random.default_rng(3)
    size = (6, 9)
    if mode == "1":
        wanted = rng.integers(0, 2, (*size, 1))
        picture = PillowImage.fromarray(wanted[..., 0].astype(bool))
    elif mode == "P":
        table = rng.integers(0, 255, (200, 3)).astype(np.uint8)
        indices = rng.integers(0, 200, size).astype(np.uint8)
        wanted = table[indices]
        picture = PillowImage.fromarray(indices).convert("L")
        picture.putpalette(table.tobytes())
    elif mode in ("I;16", "I", "F"):
        top = {"I;16": 65535, "I": 2_000_000, "F": 0.5}[mode]
        dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        wanted = (rng.random((*size, 1)) * top).astype(dtype)
        picture = PillowImage.fromarray(wanted[..., 0])
    else:
        planes = rng.integers(0, 256, (*size, len(mode))).astype(np.uint8)
        picture = PillowImage.fromarray(planes[..., 0] if mode == "L" else planes)
        wanted = planes[..., :channels]
    assert picture.mode == mode
    picture.save(tmp_path / f"a{suffix}")
    image = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(image.array, wanted.astype(np.float32))
    assert image.array.shape == (*size, channels) and image.array.dtype == np.float32
    assert image.geometry.kind == "raster" and image.geometry.size == size
    assert image.geometry.spacing == (1.0, 1.0) and image.geometry.suffix == suffix.lower()


def test_a_palette_of_greys_is_one_channel(tmp_path):
    picture = PillowImage.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert("L")
    picture.putpalette([10, 10, 10, 50, 50, 50, 90, 90, 90])
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").array[..., 0], [[10, 50], [90, 50]])


def test_jpeg_is_read_near_its_values(tmp_path):
    smooth = np.add.outer(np.arange(32), np.arange(48)).astype(np.uint8)
    for name, array in (("grey.jpg", smooth), ("colour.jpeg", np.stack([smooth, smooth, smooth], -1))):
        got = read_image(save_picture(tmp_path / name, array, quality=95)).array
        assert got.shape == (32, 48, array.ndim * 2 - 3)
        assert np.abs(got[..., 0] - smooth).max() <= 4


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_exif_orientation_is_applied(tmp_path, suffix):
    wide = np.tile(np.arange(0, 240, 10, dtype=np.uint8), (16, 1))  # 16 rows, brighter to the right
    exif = PillowImage.Exif()
    exif[0x0112] = 6  # the picture is to be turned a quarter to the right
    image = read_image(save_picture(tmp_path / f"a{suffix}", wide, exif=exif))
    assert image.geometry.size == (24, 16)
    np.testing.assert_allclose(image.array[..., 0], np.rot90(wide, -1), atol=3)


def test_pictures_that_would_lose_depth_or_pages_are_refused(tmp_path):
    def png(depth: int, colour: int, row: bytes) -> bytes:
        chunks = b""
        for name, body in (
            (b"IHDR", struct.pack(">IIBBBBB", 1, 1, depth, colour, 0, 0, 0)),
            (b"IDAT", zlib.compress(b"\0" + row)),
            (b"IEND", b""),
        ):
            chunks += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        return b"\x89PNG\r\n\x1a\n" + chunks

    (tmp_path / "ok.png").write_bytes(png(16, 0, b"\x12\x34"))
    assert read_image(tmp_path / "ok.png").array.item() == 0x1234
    (tmp_path / "deep.png").write_bytes(png(16, 2, b"\x12\x34" * 3))
    with pytest.raises(ValueError, match="16 bits a channel"):
        read_image(tmp_path / "deep.png")
    for head in (b"P5 2 1 200\n\x05\x06", b"P2 2 1 200\n5 6\n", b"P6 1 1 100\n\x05\x06\x07"):
        (tmp_path / "a.ppm").write_bytes(head)
        with pytest.raises(ValueError, match="PNM file with maximum"):
            read_image(tmp_path / "a.ppm")
    (tmp_path / "a.ppm").write_bytes(b"P2 2 1 255\n5 6\n")
    np.testing.assert_array_equal(read_image(tmp_path / "a.ppm").array[..., 0], [[5, 6]])
    page = PillowImage.new("L", (5, 4))
    for suffix in (".tif", ".gif", ".png"):
        other = PillowImage.new("L", (5, 4), 9)
        page.save(tmp_path / f"b{suffix}", save_all=True, append_images=[other])
        with pytest.raises(ValueError, match="it has 2 pages"):
            read_image(tmp_path / f"b{suffix}")
    PillowImage.new("CMYK", (4, 4)).save(tmp_path / "c.jpg")
    with pytest.raises(ValueError, match="mode CMYK"):
        read_image(tmp_path / "c.jpg")
