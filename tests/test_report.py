"""The report page as a file: complete, self-contained, escaped, lazy, and patient with what is missing."""

import base64
import csv
import html.parser
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from quam_jax.report import write_report
from quam_jax.report.figures import LEVELS, colour_table
from quam_jax.report.html import join_json, round_up, to_json

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
NASTY = "a\"><img src=x onerror=alert(1)></script><b>'&"


def make_case(seed: int = 0, space: tuple[int, ...] = (40, 56), raters: int = 3) -> dict[str, np.ndarray]:
    """Report data of a blob with a soft edge, dilated and eroded models, and shifted raters."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*[np.arange(n) - n / 2 for n in space], indexing="ij")
    distance = np.sqrt(sum(g**2 for g in grid)) - min(space) / 4 + seed
    labels = [distance < 0, distance < 2, distance < -2]
    probs = np.stack([1 / (1 + np.exp(np.clip(distance + d, -30, 30))) for d in (0, -2, 2)])
    entropy = lambda p: -(p * np.log(p) + (1 - p) * np.log1p(-p))  # noqa: E731
    probs = np.clip(probs, 1e-6, 1 - 1e-6)
    total, aleatoric = entropy(probs.mean(0)), entropy(probs).mean(0)
    arrays = {
        "image": (100 + 60 * labels[0] + 5 * rng.normal(size=space)).astype(np.float32),
        "segmentation": labels[0].astype(np.int32),
        "total": total.astype(np.float32),
        "aleatoric": aleatoric.astype(np.float32),
        "epistemic": (total - aleatoric).astype(np.float32),
        "softmax": entropy(probs[0]).astype(np.float32),
        "adversarial": np.stack(labels[1:]).astype(np.int8),
        "adversarial_names": np.array(["dilated", "eroded"]),
    }
    if raters:
        moved = [np.roll(labels[0], shift, axis=0) for shift in range(raters)]
        arrays["raters"] = np.stack(moved).astype(np.uint8)
        arrays["rater_names"] = np.array([f"rater {i}" for i in range(raters)])
    lead = (space[2],) if len(space) == 3 else ()
    steps = np.broadcast_to(np.linspace(0, 1, 5), (*lead, 2, 5))
    arrays["objective"] = (0.6 - 0.4 * steps).astype(np.float32)
    arrays["fit_loss"] = (0.10 + 0.04 * steps).astype(np.float32)
    arrays["bound"] = np.full_like(arrays["objective"], 0.125)
    arrays["penalty"] = np.zeros_like(arrays["objective"])
    arrays["feasible"] = arrays["fit_loss"] <= arrays["bound"]
    return arrays


def make_run(
    folder: Path,
    cases: int | list[str] = 2,
    *,
    space: tuple[int, ...] = (40, 56),
    raters: int = 3,
    failed: dict[str, str] | None = None,
    more: dict[str, Any] | None = None,
) -> Path:
    """A finished run folder of synthetic cases, as the pipeline writes it."""
    names = [f"case{i:03d}" for i in range(cases)] if isinstance(cases, int) else cases
    (folder / "report_data").mkdir(parents=True)
    metrics = [f"{m}/{k}" for m in ("total", "aleatoric", "epistemic", "softmax", "boundary") for k in METRICS]
    rows: list[dict[str, Any]] = []
    for index, name in enumerate(names):
        arrays = make_case(index % 3, space, raters)
        np.savez_compressed(folder / "report_data" / f"{name}.npz", **arrays)
        figures = {"dice": 0.9 - 0.001 * index}
        if raters:
            figures |= {key: round(0.8 - 0.01 * k - 0.001 * index, 6) for k, key in enumerate(metrics)}
        (folder / f"{name}_desc-total_uncertainty.nii.gz").write_bytes(b"map")
        entry = {
            "target": 0,
            "steps": 5,
            "bound": 0.125,
            "reference_loss": 0.1,
            "nan": False,
            "fit_loss": 0.12,
        }
        entry |= {"objective_first": 0.6, "objective_last": 0.2, "changed_pixels": 31, "held": True}
        record = {
            "case": name,
            "image": {"path": f"{name}.png", "shape": list(space), "spacing": [1.0] * len(space)},
            "outputs": {"total": f"{name}_desc-total_uncertainty.nii.gz", "flipcost": "absent.nii.gz"},
            "units": "nats",
            "audit": [{**entry, "member": m, "wanted": w} for m, w in enumerate(("dilated", "eroded"))],
            "metrics": figures,
            "seed": 0,
            "config_hash": "c0ffee",
        }
        (folder / f"{name}.json").write_text(json.dumps(record))
        rows.append({"case": name, "status": "ok", "members": 2, "held": 2, **figures})
    failed = failed or {}
    columns = ["case", "status", "members", "held", *([*rows[0]][4:] if rows else [])]
    (folder / "timing.csv").write_text("case,seconds\n" + "".join(f"{name},1.5\n" for name in names))
    rows += [{"case": name, "status": "failed"} for name in failed]
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    means = {}
    for column in columns[4:]:
        values = [row[column] for row in rows if column in row]
        mean = sum(values) / len(values)
        means[column] = {"mean": mean, "sd": 0.01, "low": mean - 0.02, "high": mean + 0.02}
        means[column] |= {"n": len(values), "n_nan": 0}
    summary = {"columns": means, "cases": len(names) + len(failed), "failed": len(failed)}
    (folder / "summary.json").write_text(json.dumps(summary))
    run = {
        "format": 1,
        "status": "finished",
        "command": "quam-jax run images --out out",
        "started": "2025-01-02T03:04:05Z",
        "seconds": 130,
        "versions": {"quam_jax": "0.1.0"},
        "device": "cpu",
        "model": {"path": "net.pth", "sha256": "ab" * 32, "architecture": "AttUNet", "parameters": 12345},
        "method": "quam",
        "setting": "default",
        "config": {"search": {"members": 2}, "samples": {"decomposition": "mutual_information"}},
        "seed": 0,
        "cases": [*names, *failed],
        "failed": failed,
        "units": "nats",
        "notes": ["Fit data: 8 of 20 cases."],
        **(more or {}),
    }
    (folder / "run.json").write_text(json.dumps(run))
    return folder


METRICS = ("pcc", "r2_pearson", "sdice_product_minmax", "auroc_image")


class Structure(html.parser.HTMLParser):
    """Elements in order, with a complaint for every end tag that does not match."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.faults: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if len(dict(attrs)) != len(attrs):
            self.faults.append(f"attribute twice in <{tag}>")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[self.elements[-1][1].get("id") or ""] = data
        elif not self.open or self.open[-1] != "style":
            self.text.append(data)


def parse(markup: str) -> Structure:
    found = Structure()
    found.feed(markup)
    found.close()
    return found


def read_page(path: Path) -> tuple[str, Structure, list[dict[str, Any]]]:
    """The text of a page, its structure, and the decoded data of its cases in order."""
    text = path.read_text(encoding="utf-8")
    found = parse(text)
    count = len([k for k in found.scripts if k.startswith("data-")])
    return text, found, [json.loads(found.scripts[f"data-{i}"]) for i in range(count)]


def words(markup: str) -> str:
    return " ".join(" ".join(parse(markup).text).split())


def decode(uri: str) -> Image.Image:
    head, data = uri.split(",", 1)
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Structure, list[dict[str, Any]]]:
    folder = make_run(tmp_path_factory.mktemp("run") / "out", failed={"bad": "bad.png: no picture"})
    written = write_report(folder)
    assert written == folder / "report.html"
    assert not [p for p in folder.iterdir() if p.name.startswith(".")], "a temporary file was left behind"
    return read_page(written)


def test_markup_is_well_formed(page: tuple[str, Structure, list[dict[str, Any]]]) -> None:
    text, found, cases = page
    assert text.startswith("<!doctype html>") and not found.faults and not found.open
    assert len(cases) == 3
    ids = [attrs["id"] for _, attrs in found.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for case in cases:
        inner = parse(case["html"])
        assert not inner.faults and not inner.open
        for svgs in case["svgs"].values():
            for svg in svgs:
                assert not parse(svg).faults


def test_nothing_is_fetched(page: tuple[str, Structure, list[dict[str, Any]]]) -> None:
    text, found, cases = page
    elements = found.elements + [e for case in cases for e in parse(case["html"]).elements]
    for tag, attrs in elements:
        assert tag not in ("iframe", "object", "embed", "base")
        for name in ("src", "href", "srcset", "poster", "action", "data-src", "xlink:href"):
            value = attrs.get(name)
            if value:
                local = value.startswith("./") and tag == "a"
                assert value.startswith(("data:", "#")) or local, (tag, name, value)
    policy = next(a["content"] for t, a in found.elements if t == "meta" and "http-equiv" in a)
    assert policy and policy.startswith("default-src 'none'; img-src data:;")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert "@import" not in text and "url(" not in text and "fetch(" not in text


def test_pictures_are_not_decoded_before_they_are_needed(
    page: tuple[str, Structure, list[dict[str, Any]]],
) -> None:
    _, found, cases = page
    assert not [a for t, a in found.elements if t == "img" and "src" in a]
    thumbs = [a["data-src"] for t, a in found.elements if t == "img"]
    assert len(thumbs) == 2 and decode(str(thumbs[0])).size == (56, 40)
    assert not [a for case in cases for t, a in parse(case["html"]).elements if t == "img" and "src" in a]


def test_palette_pictures_hold_the_values_of_the_map(
    page: tuple[str, Structure, list[dict[str, Any]]],
) -> None:
    images = page[2][0]["planes"][0]["images"]
    arrays = make_case(0)
    for name, high in (("total", math.log(2)), ("epistemic", page[2][0]["highs"]["epistemic"])):
        picture = decode(images[name])
        assert picture.mode == "P"
        levels = np.asarray(picture)
        error = np.abs(levels / (LEVELS - 1) * high - arrays[name])
        assert error.max() <= 0.5 * high / (LEVELS - 1) * 1.001
        colours = np.asarray(picture.convert("RGBA"))
        table = colour_table("magma" if name == "epistemic" else "viridis")
        np.testing.assert_array_equal(colours, table[levels])
    assert np.asarray(decode(images["image"])).shape == (40, 56)


def test_captions_state_scale_and_units(page: tuple[str, Structure, list[dict[str, Any]]]) -> None:
    text, _, cases = page
    inner = words(cases[0]["html"])
    high = cases[0]["highs"]["epistemic"]
    largest = max(float(make_case(i)["epistemic"].max()) for i in range(2))
    assert largest <= high < largest * 1.1
    assert inner.count("ln 2 = 0.693 nats") == 4  # total, aleatoric, softmax, raters
    assert f"{high:.3g} nats" in inner and "the largest value of this run, rounded up" in inner
    assert "Mutual information" in inner
    assert "Entropy of the mean of 3 raters" in inner
    assert "dilated (orange, dashed), eroded (blue, dotted)" in inner
    assert "What these maps say and what they do not" in words(text)


def test_overview_table_holds_cases_means_and_failures(
    page: tuple[str, Structure, list[dict[str, Any]]],
) -> None:
    text, found, cases = page
    table = text[text.index('<table id="overview"') : text.index("</table>")]
    headings = [a["data-key"] for t, a in parse(table).elements if t == "th" and "data-key" in a]
    maps = ("total", "aleatoric", "epistemic", "softmax", "boundary")
    assert headings == ["dice", *(f"{m}/{k}" for k in METRICS[:3] for m in maps)]
    told = words(table)
    assert "bad.png: no picture" in told and "case001" in told
    assert "0.900" in told and "1.5 s" in told  # Dice and time of case000
    assert "0.88 to 0.92" in told  # its mean 0.8995 and interval
    assert "This case failed: bad.png: no picture" in words(cases[2]["html"])
    switch = json.loads(found.scripts["table-data"])
    assert switch["values"]["boundary/auroc_image"] == [0.61, 0.609, None]  # the third case failed
    assert set(switch["groups"]) == set(METRICS)


def test_audit_files_and_sizes_of_a_case(page: tuple[str, Structure, list[dict[str, Any]]]) -> None:
    inner = page[2][0]["html"]
    told = words(inner)
    links = [a["href"] for t, a in parse(inner).elements if t == "a" and str(a["href"]).startswith("./")]
    assert links == ["./case000_desc-total_uncertainty.nii.gz", "./case000.json"]
    assert "flipcost: absent.nii.gz (missing)" in told
    assert "dilated held 0.1200 0.1250 0.1000 0.600 → 0.200 5 31" in told
    arrays = make_case(0)
    counts = [int(arrays["segmentation"].sum()), *(int(a.sum()) for a in arrays["adversarial"])]
    assert f"prediction {counts[0]} adversarial: dilated {counts[1]}" in told
    assert f"range of the models {min(counts)} to {max(counts)}" in told


def test_names_from_files_cannot_become_markup(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 1, failed={NASTY: NASTY}, more={"device": NASTY, "command": NASTY})
    data = dict(np.load(folder / "report_data" / "case000.npz"))
    data["rater_names"] = np.array([NASTY, "b", "c"])
    data["adversarial_names"] = np.array([NASTY, "eroded"])
    np.savez(folder / "report_data" / "case000.npz", **data)
    record = json.loads((folder / "case000.json").read_text())
    record["audit"][0]["wanted"] = NASTY
    record["outputs"] = {NASTY: NASTY, "js": "javascript:alert(1)", "up": "../secret"}
    (tmp_path / "secret").write_text("not of this run")
    (folder / "case000.json").write_text(json.dumps(record))
    text, found, cases = read_page(write_report(folder))
    assert not found.faults and "<img src=x" not in text and "</script><b>" not in text
    assert cases[1]["name"] == NASTY and NASTY in " ".join(found.text)
    for case in cases:
        inner = parse(case["html"])
        assert not inner.faults and "<img src=x" not in case["html"]
        for tag, attrs in inner.elements:
            assert not [name for name in attrs if name.startswith("on")], tag
            assert not str(attrs.get("href", "")).startswith(("javascript:", "../", "./.."))
    assert any("onerror" in a.get("href", "") for t, a in parse(cases[0]["html"]).elements) is False


def test_json_in_a_script_cannot_end_it() -> None:
    value = {"a": "</script><!--<script>&\u2028"}
    joined = join_json({"name": "x"}, value)
    assert json.loads(to_json(value)) == value and json.loads(joined) == {"name": "x", **value}
    assert "<" not in to_json(value)
    assert not re.search(r"</|<!|<s", joined, re.IGNORECASE)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a run folder: expected run.json or results.csv"):
        write_report(tmp_path)
    with pytest.raises(ValueError, match="expected the folder of a run, got nothing"):
        write_report(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="expected the folder of a run, got a file"):
        write_report(tmp_path / "file")
    assert not (tmp_path / "report.html").exists()


def test_a_failure_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path / "out", 1)
    (folder / "report.html").write_text("old")

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr("quam_jax.report.html.build_case", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        write_report(folder)
    assert (folder / "report.html").read_text() == "old"
    assert not list(folder.glob(".report*"))


def damage_none(folder: Path) -> None:
    pass


def damage_results(folder: Path) -> None:
    (folder / "results.csv").unlink()


def damage_summary(folder: Path) -> None:
    (folder / "summary.json").write_text("{")


def damage_run(folder: Path) -> None:
    (folder / "run.json").unlink()


def damage_run_list(folder: Path) -> None:
    (folder / "run.json").write_text("[1, 2]")


def damage_record(folder: Path) -> None:
    (folder / "case000.json").write_text('{"audit": 3, "outputs": [], "image": 1, "metrics": []}')


def damage_no_record(folder: Path) -> None:
    (folder / "case000.json").unlink()


def damage_arrays(folder: Path) -> None:
    path = folder / "report_data" / "case000.npz"
    path.write_bytes(path.read_bytes()[:900])


def damage_no_arrays(folder: Path) -> None:
    (folder / "report_data" / "case000.npz").unlink()


def damage_shape(folder: Path) -> None:
    path = folder / "report_data" / "case000.npz"
    arrays = dict(np.load(path))
    np.savez(path, **(arrays | {"epistemic": arrays["epistemic"][:5], "raters": np.array(["x"])}))


def damage_only_maps(folder: Path) -> None:
    path = folder / "report_data" / "case000.npz"
    np.savez(path, total=np.load(path)["total"])


def damage_status(folder: Path) -> None:
    run = json.loads((folder / "run.json").read_text())
    run |= {"status": "running", "cases": ["case000", "case001", "later"]}
    (folder / "run.json").write_text(json.dumps(run))


def damage_format(folder: Path) -> None:
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | {"format": 9, "model": "net", "config": [], "notes": 1}))


def damage_mixed(folder: Path) -> None:
    record = json.loads((folder / "case001.json").read_text())
    (folder / "case001.json").write_text(json.dumps(record | {"config_hash": "other"}))
    (folder / "stranger.json").write_text(json.dumps(record | {"case": "stranger"}))


DAMAGES = [
    (damage_none, ""),
    (damage_results, "results.csv is missing"),
    (damage_summary, "summary.json cannot be read"),
    (damage_run, "run.json is missing"),
    (damage_run_list, "run.json holds list instead of named values"),
    (damage_record, ""),
    (damage_no_record, "case000.json is missing or cannot be read"),
    (damage_arrays, "case000.npz cannot be read"),
    (damage_no_arrays, "report_data/case000.npz is missing: no pictures of this case"),
    (damage_shape, "epistemic has shape 5 x 56, which does not fit 40 x 56"),
    (damage_only_maps, "Not in the report data: image, segmentation, aleatoric, epistemic."),
    (damage_status, "The run is not finished (status 'running'): 2 of 3 cases are here."),
    (damage_format, "The run has format 9; this report is made for format 1"),
    (damage_mixed, "Computed with another configuration than the rest: case001"),
]


@pytest.mark.parametrize(("damage", "sentence"), DAMAGES, ids=[d.__name__ for d, _ in DAMAGES])
def test_what_is_missing_is_said_and_the_rest_shown(tmp_path: Path, damage: Any, sentence: str) -> None:
    folder = make_run(tmp_path / "out", 2)
    damage(folder)
    text, found, cases = read_page(write_report(folder))
    told = words(text) + " ".join(words(case["html"]) for case in cases)
    assert sentence in told
    assert not found.faults and not [f for case in cases for f in parse(case["html"]).faults]
    # case001 is whole whatever happened to the rest
    assert [c for c in cases if c["name"] == "case001"][0]["planes"][0]["images"].keys() >= {"image", "total"}


def test_mixed_runs_name_the_stranger(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 2)
    damage_mixed(folder)
    (folder / "ranking.json").write_text('{"order": []}')  # some other file of the folder is no case
    text, _, cases = read_page(write_report(folder))
    assert "In the folder but not in the run's list: stranger." in words(text)
    assert [case["name"] for case in cases] == ["case000", "case001", "stranger"]


def test_a_run_without_raters(tmp_path: Path) -> None:
    text, _, cases = read_page(write_report(make_run(tmp_path / "out", 1, raters=0)))
    assert "No agreement with raters is in results.csv" in words(text)
    assert "rater_entropy" not in cases[0]["planes"][0]["images"]
    assert "raters" not in cases[0]["planes"][0]["contours"]


def test_a_single_rater_has_outlines_but_no_entropy(tmp_path: Path) -> None:
    case = read_page(write_report(make_run(tmp_path / "out", 1, raters=1)))[2][0]
    assert "rater_entropy" not in case["planes"][0]["images"] and case["planes"][0]["contours"]["raters"][0]
    assert "outlines by one rater (rater 0)" in words(case["html"])


def test_a_run_with_means_only_shows_them_without_calling_them_agreement(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 1, raters=0)
    (folder / "results.csv").write_text("case,status,members,held,total/mean\ncase000,ok,2,1,0.125\n")
    (folder / "summary.json").unlink()
    text = read_page(write_report(folder))[0]
    assert "No agreement with raters" in words(text) and "of each map with the raters" not in words(text)
    assert "mean in nats" in words(text) and "0.125" in words(text) and "bound missed" in words(text)


def test_records_of_slices_and_notes(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 1)
    record = json.loads((folder / "case000.json").read_text())
    record["audit"] = [{**entry, "slice": 7, "feasible_steps": 3} for entry in record["audit"]]
    record["notes"] = ["case000: the image is also one of the fit cases"]
    (folder / "case000.json").write_text(json.dumps(record))
    data = dict(np.load(folder / "report_data" / "case000.npz"))
    data["adversarial_names"] = np.array(["dilate", "dilate"])
    np.savez(folder / "report_data" / "case000.npz", **data)
    told = words(read_page(write_report(folder))[2][0]["html"])
    assert "the image is also one of the fit cases" in told and "case000: the image" not in told
    assert "feasible steps" in told and "7 0 0 dilated held" in told and "3 of 5" in told
    assert "dilate 0 (orange, dashed), dilate 1 (orange, dashed)" in told


def test_an_empty_run_has_a_page(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "run.json").write_text('{"format": 1, "status": "running", "cases": []}')
    text, found, cases = read_page(write_report(folder))
    assert "The run has no cases yet." in words(text) and not cases and not found.faults


def test_volumes_have_three_planes_and_a_plot_a_slice(tmp_path: Path) -> None:
    space = (12, 18, 7)
    folder = make_run(tmp_path / "out", 1, space=space)
    record = json.loads((folder / "case000.json").read_text())
    record["image"] |= {"spacing": [1.0, 2.0, 3.0], "orientation": "RAS"}
    (folder / "case000.json").write_text(json.dumps(record))
    case = read_page(write_report(folder))[2][0]
    assert [p["axis"] for p in case["planes"]] == [2, 1, 0]
    assert [p["slices"] for p in case["planes"]] == [list(range(n)) for n in (7, 18, 12)]
    # RAS drawn as in radiology: axial rows run from anterior (top) to posterior, columns from right to left
    axial = case["planes"][0]
    assert (axial["down"], axial["across"], axial["letters"]) == (1, 0, ["A", "L", "P", "R"])
    assert axial["aspect"] == pytest.approx(12 * 1 / (18 * 2), abs=1e-5)
    values = make_case(0, space)["total"]
    sheet = np.asarray(decode(axial["images"]["total"]))
    assert (axial["columns"], axial["rows"]) == (3, 3) and sheet.shape == (3 * 18, 3 * 12)
    tile = sheet[18:36, 12:24]  # slice 4: second row, second column
    expected = values[:, :, 4].T[::-1, ::-1]
    error = np.abs(tile / (LEVELS - 1) * math.log(2) - expected)
    assert error.max() <= 0.5 * math.log(2) / (LEVELS - 1) * 1.001
    assert case["plots"][0] == {"key": "objective", "linked": True, "indices": list(range(7))}
    assert len(case["svgs"]["fit_loss"]) == 7
    mass = make_case(0, space)["epistemic"].sum(axis=(0, 1))
    assert case["start"][0] == int(mass.argmax())
    assert "ml" in words(case["html"]).split()


def test_structures_have_their_names_and_intervals(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 1, space=(12, 18, 7))
    record = json.loads((folder / "case000.json").read_text())
    record["image"]["spacing"] = [10.0, 10.0, 10.0]  # a voxel is a millilitre
    record["volumes"] = {"left <lobe>": {"volume_ml": 1.0, "sample_interval": [12.5, 17.25]}}
    (folder / "case000.json").write_text(json.dumps(record))
    told = words(read_page(write_report(folder))[2][0]["html"])
    voxels = int((make_case(0, (12, 18, 7))["segmentation"] == 1).sum())
    assert f"ml left <lobe> prediction {voxels} " in told and "interval of the samples 12.5 to 17.25" in told
    record["volumes"] = {"a": {"sample_interval": "wide"}, "b": 3}  # damaged: named by number, no interval
    (folder / "case000.json").write_text(json.dumps(record))
    told = words(read_page(write_report(folder))[2][0]["html"])
    assert "ml class 1 prediction" in told and "interval of the samples" not in told


def test_higher_axes_are_cut_in_the_middle(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 1)
    path = folder / "report_data" / "case000.npz"
    arrays = dict(np.load(path))
    grid = {k: v for k, v in arrays.items() if v.shape[-2:] == (40, 56)}
    four = {k: np.stack([np.stack([v] * 3, -1)] * 4, -1) for k, v in grid.items()}
    np.savez(path, **(arrays | four))
    case = read_page(write_report(folder))[2][0]
    assert "The data have 4 axes; shown is axis 3 at index 2 of 4." in words(case["html"])
    assert [p["axis"] for p in case["planes"]] == [2, 1, 0]


def test_a_slice_stored_as_a_volume_is_a_picture(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 1)
    path = folder / "report_data" / "case000.npz"
    arrays = dict(np.load(path))
    np.savez(path, **{k: v[..., None] if v.shape[-2:] == (40, 56) else v for k, v in arrays.items()})
    case = read_page(write_report(folder))[2][0]
    assert [p["axis"] for p in case["planes"]] == [None]
    assert "axes; shown is" not in words(case["html"])


def test_large_pictures_are_averaged_and_that_is_said(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 1, space=(300, 1030), raters=1)
    case = read_page(write_report(folder))[2][0]
    plane = case["planes"][0]
    assert (plane["block"], plane["height"], plane["width"]) == (3, 100, 344)
    assert "the mean of 3 × 3" in words(case["html"])
    mean = make_case(0, (300, 1030), 1)["total"][150:153, 510:513].mean()
    level = np.asarray(decode(plane["images"]["total"]))[50, 170]
    assert abs(level / (LEVELS - 1) * math.log(2) - mean) <= 0.51 * math.log(2) / (LEVELS - 1)


def test_not_a_number_and_values_above_the_scale_are_told(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 1)
    path = folder / "report_data" / "case000.npz"
    arrays = dict(np.load(path))
    arrays["total"][0, :4] = np.nan
    arrays["total"][1, 0] = 5.0
    np.savez(path, **arrays)
    case = read_page(write_report(folder))[2][0]
    levels = np.asarray(decode(case["planes"][0]["images"]["total"]))
    assert (levels[0, :4] == LEVELS).all() and levels[1, 0] == LEVELS - 1
    told = words(case["html"])
    assert "4 pixels are not a number (grey)." in told and "Largest value 5." in told


def test_the_page_does_not_depend_on_when_it_is_built(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 2)
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


def test_regions_are_the_connected_parts_of_the_map(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 1)
    path = folder / "report_data" / "case000.npz"
    arrays = dict(np.load(path))
    arrays["epistemic"] = np.zeros((40, 56), np.float32)
    arrays["epistemic"][5:7, 10:13] = 0.4  # mass 2.4
    arrays["epistemic"][20, 30] = 0.5  # mass 0.5, at the largest value of the run
    arrays["epistemic"][30, 30] = 0.1  # below a quarter of the scale 0 to 0.5
    np.savez(path, **arrays)
    case = read_page(write_report(folder))[2][0]
    assert ndimage.label(arrays["epistemic"] >= 0.125)[1] == 2
    told = words(case["html"])
    assert "at least 0.125 nats" in told
    assert re.search(r"1 5, 10 6 2\.40 .* 2 20, 30 1 0\.50", told)
    assert case["marks"][1] == {
        "tile": 0,
        "left": round(100 * 30.5 / 56, 2),
        "top": round(100 * 20.5 / 40, 2),
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.6931, 0.7), (0.0123, 0.013), (0.5, 0.5), (12.1, 13.0), (0.0, 0.0), (math.nan, 0.0), (math.inf, 0.0)],
)
def test_round_up(value: float, expected: float) -> None:
    assert round_up(value) == expected
