"""The pieces of the report: outlines, colour scales, slices, plots, regions and text tables."""

import math
import re

import numpy as np
import pytest

from quam_jax.report import format_table, method_table, overview
from quam_jax.report.figures import (
    LEVELS,
    LOWEST,
    Scale,
    colour_table,
    display_range,
    make_sheet,
    map_levels,
    outline,
    sheet_layout,
    shrink,
    shrink_labels,
    to_bytes,
)
from quam_jax.report.layers import rater_entropy
from quam_jax.report.overview_page import bound_words
from quam_jax.report.planes import choose_slices, orthogonal_planes
from quam_jax.report.plots import Strip, course, member_class, strips_data
from quam_jax.report.tables import headline_metrics, metric_label, show, show_seconds


def loops(path: str) -> list[list[tuple[int, int]]]:
    """The closed polygons of a path of M, h, v and z, as (column, row) corners."""
    found = []
    for part in path.split("z")[:-1]:
        start, *moves = re.findall(r"M\d+ \d+|[hv]-?\d+", part)
        x, y = map(int, start[1:].split())
        corners = [(x, y)]
        for move in moves:
            x, y = (x + int(move[1:]), y) if move[0] == "h" else (x, y + int(move[1:]))
            corners.append((x, y))
        found.append(corners)
    return found


def signed_area(corners: list[tuple[int, int]]) -> float:
    shifted = corners[1:] + corners[:1]
    return 0.5 * sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(corners, shifted, strict=True))


def test_outline_of_small_masks_by_hand() -> None:
    assert outline(np.array([[1]])) == "M0 0h1v1h-1z"
    assert outline(np.zeros((3, 3), int)) == ""
    # two pixels that touch at a corner stay two squares
    assert outline(np.eye(2, dtype=int)) == "M0 0h1v1h-1zM1 1h1v1h-1z"
    assert outline(np.array([[0, 2], [0, 2]])) == "M1 0h1v2h-1z"


@pytest.mark.parametrize("seed", range(6))
def test_outlines_enclose_exactly_the_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((9, 13)) < 0.2 + 0.1 * seed
    path = outline(mask.astype(int))
    polygons = loops(path)
    # shoelace: outer loops count positive, holes negative
    assert sum(signed_area(p) for p in polygons) == mask.sum()
    # every pixel centre is inside an odd number of polygons exactly where the mask is set
    for row, column in np.ndindex(mask.shape):
        crossings = 0
        for polygon in polygons:
            for (x0, y0), (x1, y1) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
                if x0 == x1 and x0 > column + 0.5 and min(y0, y1) <= row < max(y0, y1):
                    crossings += 1
        assert crossings % 2 == mask[row, column], (row, column)


def test_labels_are_outlined_one_by_one() -> None:
    labels = np.array([[1, 1, 2], [1, 1, 2]])
    assert sorted(outline(labels).split("z")[:-1]) == sorted(["M0 0h2v2h-2", "M2 0h1v2h-1"])


def test_map_levels() -> None:
    values = np.array([0.0, 0.5, 1.0, 2.0, -1.0, np.nan])
    np.testing.assert_array_equal(map_levels(values, Scale(1.0, "magma")), [0, 64, 127, 127, 0, LEVELS])
    np.testing.assert_array_equal(map_levels(np.zeros(2), Scale(0.0, "magma")), [0, 0])
    # costs fall from the brightest at 0 (and below) to LOWEST at the top; where nothing flipped or nobody asked it is clear
    costs = np.array([-0.1, 0.0, 0.5, 1.0, np.inf, np.nan])
    levels = map_levels(costs, Scale(1.0, "magma", falling=True))
    np.testing.assert_array_equal(levels, [127, 127, round(127 * (1 + LOWEST) / 2), round(127 * LOWEST), 0, 0])


@pytest.mark.parametrize("name", ["viridis", "magma"])
def test_colour_tables_can_be_read_back(name: str) -> None:
    table = colour_table(name)
    assert table.shape == (LEVELS + 1, 4) and len(np.unique(table, axis=0)) == LEVELS + 1
    assert table[0, 3] == 0 and (table[LEVELS // 4 : LEVELS, 3] == 255).all()
    # lightness rises along the scale, so that it survives grey print and every colour vision
    light = table[:LEVELS, :3].astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > -1.0).all() and light[-1] > light[0] + 150


def test_shrink_is_the_mean_of_blocks() -> None:
    values = np.arange(2 * 5 * 7, dtype=float).reshape(2, 5, 7)
    small = shrink(values, 3)
    assert small.shape == (2, 2, 3)
    for tile, row, column in np.ndindex(small.shape):
        block = values[tile, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
        assert small[tile, row, column] == pytest.approx(block.mean(), rel=1e-6)
    colour = np.stack([values, 2 * values, 3 * values], axis=-1)
    np.testing.assert_allclose(shrink(colour, 3)[..., 1], 2 * small, rtol=1e-6)
    labels = np.arange(35).reshape(1, 5, 7)
    np.testing.assert_array_equal(shrink_labels(labels, 3)[0], [[8, 11, 13], [29, 32, 34]])


def test_sheets_hold_every_tile_once() -> None:
    tiles = np.arange(5 * 2 * 3).reshape(5, 2, 3)
    columns, rows = sheet_layout(5)
    sheet = make_sheet(tiles)
    assert (columns, rows) == (3, 2) and sheet.shape == (4, 9)
    for index in range(5):
        row, column = divmod(index, columns)
        np.testing.assert_array_equal(sheet[2 * row : 2 * row + 2, 3 * column : 3 * column + 3], tiles[index])


def test_display_range() -> None:
    assert display_range(np.array([0.0, 255.0, 3.0]), colour=True) == (0.0, 255.0)
    assert display_range(np.array([0.0, 1.0]), colour=True) == (0.0, 1.0)
    low, high = display_range(np.arange(1001.0), colour=False)
    assert (low, high) == (5.0, 995.0)
    assert display_range(np.full(4, np.nan), colour=False) == (0.0, 1.0)
    low, high = display_range(np.full(4, 7.0), colour=False)
    assert low == 7.0 < high
    np.testing.assert_array_equal(to_bytes(np.array([-1.0, 5.0, 10.0, np.nan]), (0.0, 10.0)), [0, 128, 255, 0])


def test_rater_entropy_by_hand() -> None:
    raters = np.array([[0, 1, 1, 2], [0, 1, 0, 1], [0, 1, 1, 0]])
    third = -(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3)  # 0.6365
    np.testing.assert_allclose(rater_entropy(raters), [0, 0, third, math.log(3)], atol=1e-12)
    # of those who rated: one, two who differ, none
    unrated = np.array([[-1, 1, -1], [1, 0, -1], [-1, -1, -1]])
    np.testing.assert_allclose(rater_entropy(unrated), [0, math.log(2), 0], atol=1e-12)


def test_choose_slices_keeps_the_ends_and_the_strongest() -> None:
    assert choose_slices(np.ones(4), 8) == (0, 1, 2, 3)
    mass = np.zeros(100)
    mass[37] = 1
    chosen = choose_slices(mass, 10)
    assert len(chosen) == 10 and chosen[0] == 0 and chosen[-1] == 99 and 37 in chosen
    assert list(chosen) == sorted(set(chosen))


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "LAS", "PIR", "ASL", "SRA"])
def test_planes_are_drawn_as_in_radiology_whatever_the_axes(orientation: str) -> None:
    """A body with one bright voxel at the left, posterior, superior corner, stored in any orientation."""
    body = np.zeros((3, 4, 5))  # right to left, anterior to posterior, inferior to superior
    body[2, 3, 4] = 1  # left, posterior, superior
    own = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}
    order = [own[letter][0] for letter in orientation]
    stored = np.transpose(body, order)
    stored = stored[tuple(slice(None, None, own[letter][1]) for letter in orientation)]
    for plane in orthogonal_planes(stored, orientation=orientation, limit=64, slices=64):
        tiles = plane.tiles(stored)
        assert plane.letters is not None
        top, right, bottom, left = plane.letters
        across_kind = order[plane.axis]
        expected = {2: ("A", "L", "P", "R"), 1: ("S", "L", "I", "R"), 0: ("S", "P", "I", "A")}[across_kind]
        assert (top, right, bottom, left) == expected
        _, row, column = np.argwhere(tiles == 1)[0]
        # the corner is left and posterior, thus at the right edge; superior is up, posterior (axial) is down
        assert column == tiles.shape[2] - 1
        assert row == (tiles.shape[1] - 1 if across_kind == 2 else 0)


def test_an_unknown_orientation_keeps_the_axes() -> None:
    volume = np.arange(24.0).reshape(2, 3, 4)
    for orientation in (None, "XYZ", "RL", "RRS"):
        planes = orthogonal_planes(volume, orientation=orientation, limit=64, slices=64)
        assert [p.letters for p in planes] == [None] * 3
        np.testing.assert_array_equal(planes[0].tiles(volume)[1], volume[:, :, 1])


def test_courses_keep_values_bounds_and_feasible_steps() -> None:
    values = np.array([[3.0, 2.0, np.nan, 1.0], [3.0, 2.5, 2.0, 1.5]])
    feasible = np.array([[True, True, True, False], [True, False, False, False]])
    found = course(values, np.full((2, 4), 2.2), feasible, members=["dilated", "<b>"])
    assert found["steps"] == [1, 2, 3, 4] and not found["logarithmic"] and not found["empty"]
    first, second = found["lines"]
    assert first["values"] == [3.0, 2.0, None, 1.0] and second["feasible"] == [True, False, False, False]
    assert second["bound"] == [2.2] * 4 and (first["style"], second["style"]) == ("dilated", "other1")
    assert first["name"] == "model 0 (dilated)"
    assert course(np.array([[0.01, 1.0, 100.0]]), members=[])["logarithmic"]
    assert not course(np.array([[0.0, 1.0, 100.0]]), members=[])["logarithmic"]
    assert course(np.full((1, 2), np.nan), members=[])["empty"] and course(np.zeros((1, 0)), members=[])["empty"]
    long = course(np.arange(1000.0)[None], members=[])
    assert len(long["steps"]) == 240 and long["steps"][-1] == 1000 and long["lines"][0]["values"][-1] == 999


def test_member_classes() -> None:
    assert [member_class(w, i) for i, w in enumerate(["dilate", "eroded", "random", ""])] == [
        "dilated", "eroded", "other2", "other0",
    ]  # fmt: skip


def test_strips_hold_every_known_case() -> None:
    strips = [
        Strip("total", [0.1, 0.5, math.nan], 0.3, 0.2, 0.4),
        Strip("boundary", [0.6], 0.6, math.nan, math.nan, control=True),
    ]
    found = strips_data(strips, name="PCC")
    assert [row["values"] for row in found["rows"]] == [[0.1, 0.5], [0.6]]
    assert [row["low"] for row in found["rows"]] == [0.2, None] and found["rows"][1]["control"]
    assert found["label"] == "PCC of every case by map: total mean 0.300; boundary mean 0.600"


ROWS = [
    {"case": "a", "status": "ok", "members": "2", "held": "1", "moved": "0", "dice": "0.91", "total/pcc": "0.5"},
    {"case": "bb", "status": "failed", "members": "", "held": "", "dice": "", "total/pcc": ""},
]
ROWS[0]["boundary/pcc"], ROWS[1]["boundary/pcc"] = "0.61", ""
SUMMARY = {
    "columns": {
        "dice": {"mean": 0.91, "low": 0.9, "high": 0.92},
        "total/pcc": {"mean": 0.5, "low": None, "high": None},
        "boundary/pcc": {"mean": 0.61, "low": 0.6, "high": 0.625},
    }
}


def test_overview_rows() -> None:
    header, rows = overview(ROWS, SUMMARY)
    assert header == ["case", "status", "kept the bound", "moved", "Dice", "PCC total", "PCC boundary"]
    assert rows[0] == ["a", "ok", "1/2", "0/2", "0.910", "0.500", "0.610"]
    assert rows[1] == ["bb", "failed", "–", "–", "–", "–", "–"]
    assert rows[2:] == [
        ["mean of 1", "", "", "", "0.910", "0.500", "0.610"],
        ["low end", "", "", "", "0.900", "–", "0.600"],
        ["high end", "", "", "", "0.920", "–", "0.625"],
    ]
    assert overview([], {}) == (["case", "status", "kept the bound", "moved"], [["mean of 0", "", "", ""]])


def test_method_table_has_a_row_a_map() -> None:
    header, rows = method_table(SUMMARY)
    assert header == ["map", "PCC"]
    assert rows == [["total", "0.500"], ["boundary (control)", "0.610 [0.600, 0.625]"]]
    assert method_table({}) == (["map"], [])


def test_format_table_aligns_words_left_and_figures_right() -> None:
    text = format_table(["case", "Dice"], [["a", "0.9"], ["longer", "–"], ["c", "12.0"]])
    assert text.splitlines() == [
        "case    Dice",
        "------  ----",
        "a        0.9",
        "longer     –",
        "c       12.0",
    ]
    assert format_table(["x"], []) == "x\n-"
    with pytest.raises(ValueError, match="row 1 of the table: expected 2 cells, got 1"):
        format_table(["a", "b"], [["1", "2"], ["3"]])


def test_figures_as_text() -> None:
    assert [show(v) for v in (0.12345, 0, -2, 1e-5, 123456, "", None, "nan", "x")] == [
        "0.123", "0.000", "-2.000", "1.00e-05", "1.23e+05", "–", "–", "–", "–",
    ]  # fmt: skip
    assert [show_seconds(v) for v in (1.44, 119, 412, 8000, "")] == [
        "1.44 s",
        "119 s",
        "7 min",
        "2 h 13 min",
        "–",
    ]


def test_metric_names() -> None:
    labels = [metric_label(m) for m in ("pcc_band", "sdice_product_minmax", "sdice_product_raw", "own_thing")]
    assert labels == ["PCC, band", "soft Dice", "soft Dice, product, raw", "own thing"]
    columns = ["dice", "total/auroc", "total/r2_pearson", "total/pcc", "total/sdice_squared_raw"]
    assert headline_metrics(columns) == ["pcc", "r2_pearson", "sdice_squared_raw"]
    assert headline_metrics(["total/a", "total/b", "total/c", "total/d"]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "search, words",
    [
        ({"slack": 1.0, "slack_unit": "relative"}, "up to twice as badly as the given network (slack 1; --slack)"),
        ({"slack": 0.2, "slack_unit": "relative"}, "up to 20 % worse than the given network (slack 0.2; --slack)"),
        ({"slack": 5, "slack_unit": "relative"}, "up to 6 times as badly as the given network (slack 5; --slack)"),
        ({"slack": 0, "slack_unit": "relative"}, "no worse than the given network (slack 0; --slack)"),
        (
            {"slack": 0.05, "slack_unit": "nats"},
            "worse than the given network by up to 0.05 nats a pixel (slack 0.05 nats; --slack)",
        ),
        ({}, "worse than the given network by a stated slack"),
    ],
)
def test_the_slack_in_words(search: dict[str, object], words: str) -> None:
    assert bound_words({"config": {"search": search}}) == words
    assert bound_words({}).endswith("a stated slack")
