"""A finished run folder of synthetic cases, and its report page read back: markup, cases, words and pictures."""

import base64
import csv
import gzip
import html.parser
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

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
    return text, found, [unpack(found.scripts[f"data-{i}"]) for i in range(count)]


def unpack(packed: str) -> dict[str, Any]:
    """What the page unpacks of a case."""
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def words(markup: str) -> str:
    return " ".join(" ".join(parse(markup).text).split())


def decode(uri: str) -> Image.Image:
    head, data = uri.split(",", 1)
    assert head in ("data:image/png;base64", "data:image/jpeg;base64", "data:image/webp;base64")
    return Image.open(io.BytesIO(base64.b64decode(data)))
