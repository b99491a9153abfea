"""A case of the report in a real headless browser: outlines, values, plots, regions, slices, and the viewer of volumes."""

from pathlib import Path

import numpy as np
import pytest

from quam_jax.report import write_report
from tests.browser import OPENED, PAGE_UP, RIGHT, UP, Browser, choose
from tests.report_pages import make_case, make_run


def test_opacity_outlines_and_values_of_a_case(browser: Browser, picture_page: str) -> None:
    browser.open(picture_page + "#case-0")
    browser.wait(OPENED)
    over = "document.querySelector('[data-key=total] .over')"
    browser.wait(f"{over}.complete && {over}.naturalWidth")
    choose(browser, ".opacity", "20")
    assert browser.script(f"return getComputedStyle({over}).opacity") == "0.2"
    drawn = "return document.querySelector('[data-key=total] .ink.raters').getAttribute('d').length"
    assert browser.script(drawn) == 0
    browser.script("document.querySelector('[data-toggle=raters]').click()")
    assert browser.script(drawn) > 10
    # the adversarial picture shows both models in their own colour and dash
    lines = browser.script(
        "return ['dilated', 'eroded'].map(k => getComputedStyle("
        "document.querySelector(`[data-key=adversarial] .ink.${k}`))).map(s => [s.stroke, s.strokeDasharray])"
    )
    assert lines[0][0] != lines[1][0] and lines[0][1] != lines[1][1] and "none" not in lines[0] + lines[1]
    # values read back at a pixel by keyboard, in every map
    for key in ("aleatoric", "epistemic", "softmax", "rater_entropy"):
        browser.wait(f"document.querySelector('[data-key={key}] .over').naturalWidth")
    browser.script("document.querySelector('[data-key=total]').focus()")
    browser.keys(RIGHT, *[UP] * 10)
    told = browser.script("return document.querySelector('.probe').textContent")
    assert told.startswith("row 10, column 29: ")
    arrays = make_case(0)
    for name in ("total", "aleatoric", "epistemic", "softmax"):
        value = float(told.split(f"{name} ")[1].split(",")[0].split(" ")[0])
        assert value == pytest.approx(float(arrays[name][10, 29]), abs=0.004), name
    crosses = "return [...document.querySelectorAll('.cross')].filter(c => !c.hidden).length"
    assert browser.script(crosses) == 8  # image, raters, adversarial outlines, five maps


def test_plots_show_every_value(browser: Browser, picture_page: str) -> None:
    browser.open("about:blank")
    browser.open(picture_page + "#case-0")
    browser.wait(f"{OPENED} && document.querySelectorAll('[data-strips] svg').length === 3")
    counts = "return [...document.querySelectorAll(arguments[0])].map(g => g.childElementCount)"
    strip = "figure:first-child > [data-strips] g[data-mark=dot]"
    assert browser.script(counts, strip) == [20, 1, 1, 1, 1, 1]  # four cases of five maps, and the mean of each
    browser.script("document.querySelector('#case-0 details.more').open = true")
    browser.wait("document.querySelectorAll('#case-0 .trace svg').length === 2")
    feasible = int(make_case(0)["feasible"][0].sum())
    assert browser.script(counts, "[data-plot=fit_loss] g[data-mark=dot]") == [feasible, 5 - feasible] * 2
    lines = "return [...document.querySelectorAll('[data-plot=fit_loss] g[data-mark=line]')].map(g => g.getAttribute('stroke'))"
    assert browser.script(lines) == ["var(--dilated)"] * 2 + ["var(--eroded)"] * 2


def test_plots_of_long_searches_and_without_intervals(browser: Browser, tmp_path: Path) -> None:
    """A search of more steps than marks are drawn for, and a run whose means have no interval yet."""
    folder = make_run(tmp_path / "out", 2, more={"status": "running"})
    (folder / "summary.json").unlink()
    path = folder / "report_data" / "case000.npz"
    arrays = dict(np.load(path))
    arrays |= {name: np.repeat(arrays[name], 20, axis=-1) for name in ("objective", "fit_loss", "bound", "penalty", "feasible")}
    np.savez(path, **arrays)
    browser.log("browser")
    browser.open("about:blank")
    browser.open(write_report(folder).as_uri() + "#case-0")
    browser.wait(f"{OPENED} && document.querySelectorAll('[data-strips] svg').length === 3")
    browser.script("document.querySelector('#case-0 details.more').open = true")
    browser.wait("document.querySelectorAll('#case-0 .trace svg').length === 2")
    assert browser.script("return document.querySelectorAll('.trace g[data-mark=line]').length") == 6  # two with their bounds
    assert [line for line in browser.log("browser") if line["level"] == "SEVERE"] == []


def test_a_region_is_shown_where_it_is(browser: Browser, picture_page: str) -> None:
    browser.open(picture_page + "#case-0")
    browser.wait("document.querySelector('.goto')")
    browser.wait("document.querySelector('[data-key=epistemic] .over').naturalWidth")
    browser.script("document.querySelector('.goto').click()")
    told = browser.script("return document.querySelector('.probe').textContent")
    row, column = np.unravel_index(int(make_case(0)["epistemic"].argmax()), (40, 56))
    assert told.startswith(f"row {row}, column {column}: ")


def test_slices_of_a_volume(browser: Browser, volume_page: str) -> None:
    browser.open(volume_page + "#case-0")
    browser.wait("document.querySelector('.viewer')?.dataset.ready", 30)
    browser.script("document.querySelector('.as-slices').click(); document.querySelector('details.more').open = true")
    browser.wait("document.querySelectorAll('.trace svg').length === 2")
    state = (
        "const base = document.querySelector('[data-key=total] .over');"
        "return [base.style.left, base.style.top,"
        "document.querySelector('[data-key=total] .ink.reference').getAttribute('d'),"
        "document.querySelector('.slice-out').textContent, document.querySelector('.which').textContent]"
    )
    choose(browser, ".slice", "0")
    browser.wait("document.querySelector('.which').textContent === 'slice 0'")
    first = browser.script(state)
    assert first[:2] == ["0%", "0%"] and first[3:] == ["index 0 (1 of 9)", "slice 0"]
    choose(browser, ".slice", "4")
    browser.wait("document.querySelector('.which').textContent === 'slice 4'")
    middle = browser.script(state)
    assert middle[:2] == ["-100%", "-100%"] and middle[3:] == ["index 4 (5 of 9)", "slice 4"]
    assert middle[2] != first[2]
    browser.script("document.querySelector('[data-key=total]').focus()")
    browser.keys(PAGE_UP)
    assert browser.script(state)[3] == "index 5 (6 of 9)"
    label = browser.script("return document.querySelector('[data-key=total]').getAttribute('aria-label')")
    assert label == "Total uncertainty of case case000, slice 5 across axis 2"
    # a click on one of the three planes moves the other two
    browser.script(
        "const plane = document.querySelectorAll('[data-key=plane]')[0], box = plane.getBoundingClientRect();"
        "plane.dispatchEvent(new MouseEvent('click', {bubbles: true, clientX: box.left + box.width * 0.77,"
        "clientY: box.top + box.height * 0.12}))"
    )
    outs = browser.script("return [...document.querySelectorAll('.plane-slider output')].map(o => o.textContent)")
    assert outs == ["index 5 (6 of 9)", "index 18 (19 of 24)", "index 2 (3 of 20)"]
    choose(browser, ".plane-layer", "")
    sources = "return [...document.querySelectorAll('[data-key=plane] .over')].map(i => i.hasAttribute('src'))"
    assert browser.script(sources) == [False] * 3


def test_pictures_zoom_move_and_window_together(browser: Browser, picture_page: str) -> None:
    browser.size(1366, 900)
    browser.open(picture_page + "#case-0")
    browser.wait(OPENED)
    node = "document.querySelector('[data-key=total]')"
    browser.script(f"{node}.focus()")
    browser.keys("+", "+")
    zooms = "return [...document.querySelectorAll('#case-0 .pane')].map(p => new DOMMatrix(getComputedStyle(p).transform).a)"
    assert set(browser.script(zooms)) == {1.5625}
    # the pixel in the middle stays in the middle, and a pixel is read where it is seen
    wheel = (
        "const box = arguments[1] && document.querySelector('[data-key=total]').getBoundingClientRect();"
        "document.querySelector('[data-key=total]').dispatchEvent(new WheelEvent('wheel', {deltaY: arguments[0], bubbles: true,"
        "cancelable: true, clientX: box.left + box.width / 4, clientY: box.top + box.height / 4}))"
    )
    browser.script(wheel, -400, True)
    seen = (
        "const box = document.querySelector('[data-key=total]').getBoundingClientRect();"
        "document.querySelector('[data-key=total]').dispatchEvent(new PointerEvent('pointermove', {bubbles: true,"
        "clientX: box.left + box.width / 4, clientY: box.top + box.height / 4}));"
        "return document.querySelector('.probe').textContent.split(':')[0]"
    )
    where = browser.script(seen)
    browser.script(wheel, -400, True)
    assert browser.script(seen) == where != "row 10, column 14"
    browser.script("document.querySelector('.slices-view .reset').click()")
    assert browser.script(seen) == "row 10, column 14"
    choose(browser, ".slices-view .black", "25")
    choose(browser, ".slices-view .white", "75")
    told = browser.script("return document.querySelector('.probe').textContent")
    low, high = np.percentile(make_case(0)["image"], [0.5, 99.5])
    ends = [float(text.split(" ")[-1]) for text in told.split(", ")]
    assert ends == pytest.approx([low + (high - low) / 4, high - (high - low) / 4], rel=1e-3)
    parts = "return [...document.querySelectorAll('filter [slope]')]"
    lines = browser.script(parts + ".map(f => [f.getAttribute('slope'), f.getAttribute('intercept')])")
    assert lines == [["2", "-0.5"]] * 3
    assert browser.script("return getComputedStyle(document.querySelector('.base')).filter") == 'url("#window-0")'


def test_volumes_have_a_viewer(browser: Browser, volume_page: str) -> None:
    """Crosshair in millimetres, values, layers, window, zoom, and a jump to a region."""
    browser.size(1366, 900)
    browser.open(volume_page + "#case-0")
    viewer = "document.querySelector('.viewer').viewer"
    browser.wait(f"document.querySelector('.viewer')?.dataset.ready && {viewer}.volumes.length === 3", 30)
    arrays = make_case(0, (20, 24, 9))
    peak = np.unravel_index(int(arrays["epistemic"].argmax()), (20, 24, 9))
    told = "return document.querySelector('.readout').textContent"
    place, image, epistemic, label = browser.script(told).split(" · ")
    assert place == f"{peak[0]}.0, {peak[1]}.0, {peak[2]}.0 voxels"
    assert float(image.split(" ")[1]) == pytest.approx(float(arrays["image"][peak]), abs=0.1)
    assert float(epistemic.split(" ")[1]) == pytest.approx(float(arrays["epistemic"][peak]), abs=0.002)
    assert label == ("class 1" if arrays["segmentation"][peak] else "background")
    browser.script("document.querySelector('.viewer canvas').focus()")
    browser.keys(RIGHT, UP, PAGE_UP)
    moved = [float(v) for v in browser.script(told).split(" voxels")[0].split(", ")]
    assert moved == [peak[0] + 1, peak[1] + 1, peak[2] + 1]
    browser.keys("+", "+")
    assert browser.script(f"return {viewer}.scene.pan2Dxyzmm[3]") == pytest.approx(1.96)
    choose(browser, ".viewer .black", "120")
    assert browser.script(f"return {viewer}.volumes[0].cal_min") == 120
    browser.script("document.querySelector('[data-layer-key=adversarial0]').click()")
    browser.wait(f"{viewer}.volumes.length === 4")
    choose(browser, ".viewer .map", "total")
    browser.wait(f"{viewer}.volumes.length === 5")
    browser.wait("document.querySelector('.readout').textContent.includes('total')")
    assert browser.script(told).count("nats") == 1
    browser.script("document.querySelector('.goto').click()")
    assert browser.script(told).startswith(place) and browser.script(f"return {viewer}.scene.pan2Dxyzmm[3]") == 3
    assert [line for line in browser.log("browser") if line["level"] == "SEVERE"] == []


def test_the_viewer_draws_anew_only_what_changed(browser: Browser, volume_page: str) -> None:
    """Pictures are those of drawing every layer anew, maps lie below outlines, and a map is clear where it is near 0."""
    browser.size(1366, 900)
    browser.open("about:blank")
    browser.open(volume_page + "#case-0")
    viewer = "document.querySelector('.viewer').viewer"
    browser.wait(f"document.querySelector('.viewer')?.dataset.ready && {viewer}.volumes.length === 3", 30)
    picture = (
        f"const nv = {viewer}, gl = nv.gl, wide = gl.canvas.width, tall = gl.canvas.height;"
        "if (arguments[0]) nv.updateGLVolume(); nv.drawScene(); const bytes = new Uint8Array(4 * wide * tall);"
        "gl.readPixels(0, 0, wide, tall, gl.RGBA, gl.UNSIGNED_BYTE, bytes); let sum = 0;"
        "for (let i = 0; i < bytes.length; i++) sum = (sum * 31 + bytes[i]) % 2147483647; return sum"
    )
    seen = [browser.script(picture, False)]
    for key in ("adversarial1", "adversarial0", "segmentation"):  # on, on, off
        browser.script(f"document.querySelector('[data-layer-key={key}]').click()")
    browser.wait(f"{viewer}.volumes.length === 5 && {viewer}.volumes[2].opacity === 0")
    seen.append(browser.script(picture, False))
    choose(browser, ".viewer .map", "total")
    browser.wait(f"{viewer}.volumes.length === 6 && {viewer}.volumes[2].opacity === 0")
    assert browser.script(f"return {viewer}.volumes.map(v => v.name.split('.')[0])") == [
        "image", "total", "epistemic", "segmentation", "adversarial0", "adversarial1",
    ]  # fmt: skip
    seen.append(browser.script(picture, False))
    assert browser.script(picture, True) == seen[-1] and len(set(seen)) == 3
    choose(browser, ".viewer .black", "130")
    changed = browser.script(picture, False)
    assert browser.script(picture, True) == changed != seen[-1]
    # where a map is near 0 it does not cover the image
    pixels = (
        f"const nv = {viewer}, gl = nv.gl, wide = gl.canvas.width, tall = gl.canvas.height; nv.drawScene();"
        "const bytes = new Uint8Array(4 * wide * tall); gl.readPixels(0, 0, wide, tall, gl.RGBA, gl.UNSIGNED_BYTE, bytes);"
        "const before = window.before; window.before = bytes; let changed = 0;"
        "if (before) for (let i = 0; i < bytes.length; i += 4) changed += Math.abs(bytes[i] - before[i]) > 30;"
        "const areas = nv.screenSlices.map(slice => slice.leftTopWidthHeight[2] * slice.leftTopWidthHeight[3]);"
        "return changed / areas.reduce((sum, area) => sum + area)"
    )
    browser.script(pixels)
    choose(browser, ".viewer .map", "")
    browser.wait(f"{viewer}.volumes[1].opacity === 0")
    total = make_case(0, (20, 24, 9))["total"] / np.log(2)
    assert 0 < browser.script(pixels) < 1.2 * (total > 0.1).mean() < 0.5


@pytest.mark.long
def test_a_ct_volume_answers_soon(browser: Browser, tmp_path: Path) -> None:
    """512 x 512 x 100 voxels: a page under 15 MB whose viewer answers after few processor seconds, drawing included."""
    from benchmarks.report_pages import measure, volume_run

    page = write_report(volume_run(tmp_path / "out"))
    assert page.stat().st_size < 15e6
    browser.size(1366, 900)
    seconds = measure(browser, page.as_uri(), volume=True)
    assert seconds["sheet_processor_s"] < 2 and seconds["viewer_processor_s"] < 6, seconds  # two cores share them
