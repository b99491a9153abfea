"""What stands in a picture is what arrives: every depth, type and transparency, written by hand, as image and as mask."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from quam_jax.data.decoding import decode
from quam_jax.data.volumes import read_image, read_labels
from tests.image_files import png_bytes, save_picture, tiff_bytes

SIZE = (5, 11)  # rows whose last byte is not full


def drawn(dtype: str, bits: int) -> np.ndarray:
    """Values over the whole range of a type, its ends among them."""
    rng = np.random.default_rng(bits)
    if dtype == "f":
        return (rng.standard_normal(SIZE) * 100).astype(np.float32 if bits == 32 else np.float64)
    kind = np.dtype(f"{dtype}{max(8, bits) // 8}")
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dtype == "i" else (0, 2**bits - 1)
    values = rng.integers(low, high, SIZE, endpoint=True).astype(kind)
    values[0, :2] = low, high
    return values


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_png_of_every_depth(tmp_path: Path, depth: int) -> None:
    values = drawn("u", depth)
    (tmp_path / "a.png").write_bytes(png_bytes(values, depth=depth))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").array[..., 0], values)
    np.testing.assert_array_equal(decode(tmp_path / "a.png", mask=True).values[..., 0], values)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize(
    ("dtype", "bits"), [*[("u", b) for b in (1, 2, 4, 8, 16, 32)], ("i", 8), ("i", 16), ("i", 32), ("f", 32)]
)
def test_grey_tiff_of_every_type(tmp_path: Path, dtype: str, bits: int, white_is_zero: bool, order: str) -> None:
    """As stored, or refused: pillow knows few types of WhiteIsZero, and some in one order of bytes only."""
    values = drawn(dtype, bits)
    (tmp_path / "a.tif").write_bytes(tiff_bytes(values, bits=bits, white_is_zero=white_is_zero, order=order))
    readable = (dtype, bits) in (("u", 1), ("u", 2), ("u", 4), ("u", 8), ("f", 32)) or not white_is_zero
    try:
        image = read_image(tmp_path / "a.tif")
    except ValueError as error:
        assert not readable or (dtype, bits, order) == ("u", 32, ">")
        assert "samples of a type that pillow does not read; store 8- or 16-bit grey" in str(error)
        return
    np.testing.assert_array_equal(image.array[..., 0], values.astype(np.float32))
    np.testing.assert_array_equal(decode(tmp_path / "a.tif", mask=True).values[..., 0], values)
    assert any("WhiteIsZero" in note for note in image.notes) == white_is_zero


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_transparent_grey_is_no_label(tmp_path: Path, depth: int) -> None:
    values = drawn("u", depth)
    (tmp_path / "a.png").write_bytes(png_bytes(values, depth=depth, transparent=int(values[0, 0])))
    mask = decode(tmp_path / "a.png", mask=True)
    np.testing.assert_array_equal(mask.alpha == 0, values == values[0, 0])
    assert any("transparency" in note for note in read_image(tmp_path / "a.png").notes)


def test_an_opaque_picture_says_nothing_of_transparency(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (4, 6, 4)).astype(np.uint8)
    for alpha in (255, 90):  # the same everywhere
        colours[..., 3] = alpha
        image = read_image(save_picture(tmp_path / "a.png", colours))
        np.testing.assert_array_equal(image.array, colours[..., :3])
        assert image.notes == ()


@pytest.mark.parametrize(("suffix", "options"), [(".webp", {"lossless": True}), (".jp2", {"irreversible": False})])
def test_lossless_pictures_of_newer_formats(tmp_path: Path, suffix: str, options: dict) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (16, 24, 3)).astype(np.uint8)
    image = read_image(save_picture(tmp_path / f"a{suffix}", colours, **options))
    np.testing.assert_array_equal(image.array, colours)
    assert image.is_colour
    mask = np.where(colours[..., :1] > 99, 255, 0).astype(np.uint8).repeat(3, -1)
    labels = read_labels(save_picture(tmp_path / f"m{suffix}", mask, **options), classes=2, like=image.geometry)
    np.testing.assert_array_equal(labels, mask[..., 0] > 0)


def test_jpeg_2000_of_16_bits_and_of_depths_that_would_be_scaled(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2**16, (16, 24)).astype(np.uint16)
    path = save_picture(tmp_path / "a.jp2", values, irreversible=False)
    np.testing.assert_array_equal(read_image(path).array[..., 0], values)
    raw = bytearray(path.read_bytes())
    place = raw.find(b"\xff\x4f\xff\x51") + 42
    assert raw[place] == 15
    for depth in (11, 0x8F):  # 12 bits, and 16 with sign
        raw[place] = depth
        path.write_bytes(raw)
        with pytest.raises(ValueError, match="a depth other than 8 or 16 bits without sign"):
            read_image(path)


def test_palettes_of_labels_of_drawings_and_of_greys(tmp_path: Path) -> None:
    indices = np.array([[0, 1, 2], [2, 2, 0]], np.uint8)

    def save(table: list[int], clear: bytes | None = None) -> Path:
        picture = PillowImage.fromarray(indices).convert("L")
        picture.putpalette(table)
        picture.save(tmp_path / "a.png", **({} if clear is None else {"transparency": clear}))
        return tmp_path / "a.png"

    colours = [0, 0, 0, 200, 0, 0, 0, 200, 0]
    for clear in (None, b"\0"):  # a transparent background is the background
        np.testing.assert_array_equal(read_labels(save(colours, clear), classes=3, like=None), indices)
    drawing = decode(save(colours, b"\xff\0\xff"), mask=True)  # not the background is transparent: colours count
    assert drawing.palette is None and drawing.values.shape[-1] == 3
    np.testing.assert_array_equal(drawing.alpha == 0, indices == 1)
    white = save([255] * 9, b"\0\xff\xff")  # all of one colour: only the transparency tells them apart
    np.testing.assert_array_equal(read_labels(white, classes=2, like=None), indices > 0)
