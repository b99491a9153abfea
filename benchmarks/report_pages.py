"""How large report pages are and how soon a browser shows them: `python -m benchmarks.report_pages [--out FOLDER]`.

Two made-up runs: 200 pictures with two raters each, and one CT volume of 512 x 512 x 100 voxels with maps, adversarial models and
a rater. Each page is opened by a headless Chromium that draws WebGL in software, from an empty profile. Written down are the
page's size, the time until its first screen stands, and of a volume the time from a click on its card, or from its address, until
the crosshair has moved and the planes are drawn with it.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from quam_jax.report import write_report

from .record import ROOT, write_result

sys.path.insert(0, str(ROOT))
REPEATS = 5
CT = (512, 512, 100)
SHEET = "document.querySelector('.card-case img')?.naturalWidth && document.getElementById('count').textContent"
READY = "document.querySelector('.viewer')?.dataset.ready"
MOVE = (  # a pixel is read where all has been drawn
    "const nv = document.querySelector('.viewer').viewer; nv.moveCrosshairInVox(0, 0, 1); nv.drawScene();"
    "nv.gl.readPixels(0, 0, 1, 1, nv.gl.RGBA, nv.gl.UNSIGNED_BYTE, new Uint8Array(4))"
)


def made_ct(space: tuple[int, int, int] = CT, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Report data of a chest in Hounsfield units: fat, muscle, lungs with vessels, a spine, noise as a reconstruction has it, and
    a heart-sized structure with a soft edge, its maps in nats, two adversarial models and a rater."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in space], indexing="ij", sparse=True)
    inside = (x / 0.86) ** 2 + (y / 0.62) ** 2
    image = np.where(inside < 1, np.float32(-95), np.float32(-1000)) + 0 * z
    image[np.broadcast_to(inside < 0.8, space)] = 45
    lungs = (((np.abs(x) - 0.36) / 0.27) ** 2 + (y / 0.42) ** 2 + (z / 1.3) ** 2) < 1
    vessels = ndimage.gaussian_filter(rng.standard_normal(space, dtype=np.float32), 2.5)
    image[lungs] = -860
    image[lungs & (vessels > 2.3 * vessels.std())] = 30
    image[np.broadcast_to((x / 0.09) ** 2 + ((y - 0.42) / 0.1) ** 2 < 1, space)] = 380
    noise = ndimage.gaussian_filter(rng.standard_normal(space, dtype=np.float32), (0.8, 0.8, 0.4))
    uneven = ndimage.gaussian_filter(rng.standard_normal(space, dtype=np.float32), 12)
    radius = np.sqrt(((x + 0.08) / 0.24) ** 2 + (y / 0.26) ** 2 + (z / 0.8) ** 2) + 0.04 * uneven / uneven.std()
    distance = (90 * (radius - 1)).astype(np.float32)  # voxels, near the edge
    image[distance < 0] = 55
    image += 18 * noise / noise.std()
    soft = 2 + 1.5 * np.abs(vessels) / vessels.std()
    logits = [-(distance + shift) / soft for shift in (0.0, -1.5, 1.5)]
    probs = np.clip(1 / (1 + np.exp(np.stack(logits))), 1e-6, 1 - 1e-6)
    entropy = lambda p: -(p * np.log(p) + (1 - p) * np.log1p(-p))  # noqa: E731
    total, aleatoric = entropy(probs.mean(0)), entropy(probs).mean(0)
    return {
        "image": np.rint(image).astype(np.float32),
        "segmentation": (distance < 0).astype(np.int8),
        "total": total.astype(np.float32),
        "aleatoric": aleatoric.astype(np.float32),
        "epistemic": (total - aleatoric).astype(np.float32),
        "softmax": entropy(probs[0]).astype(np.float32),
        "adversarial": np.stack([distance < 1.5, distance < -1.5]).astype(np.int8),
        "adversarial_names": np.array(["dilated", "eroded"]),
        "raters": (distance < 1)[None].astype(np.int8),
        "rater_names": np.array(["reader"]),
    }


def volume_run(folder: Path, space: tuple[int, int, int] = CT) -> Path:
    """A finished run of one CT volume."""
    from tests.report_pages import make_run

    make_run(folder, 1, space=(8, 8, 4), raters=1)
    np.savez_compressed(folder / "report_data" / "case000.npz", **made_ct(space))
    path = folder / "case000.json"
    record = json.loads(path.read_text())
    record["image"] = {"path": "case000.nii.gz", "shape": list(space), "spacing": [0.75, 0.75, 2.5], "orientation": "LPS"}
    path.write_text(json.dumps(record))
    return folder


def measure(browser: Any, address: str, *, volume: bool) -> dict[str, float]:
    """Seconds, and those of the processor, until the sheet stands and, of a volume, its viewer answers: clicked, by address."""

    def until(name: str, action: Any, condition: str) -> dict[str, float]:
        start, busy = time.monotonic(), browser.busy()
        action()
        browser.wait(condition, 60)
        if condition == READY:
            browser.script(MOVE)
        return {f"{name}_s": time.monotonic() - start, f"{name}_processor_s": browser.busy() - busy}

    browser.open("about:blank")
    seconds = until("sheet", lambda: browser.open(address), SHEET)
    if volume:
        click = "document.querySelector('.card-case a').click()"
        seconds |= until("viewer", lambda: browser.script(click), READY)
        browser.open("about:blank")
        seconds |= until("by_address", lambda: browser.open(address + "#case-0"), READY)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="folder for the two runs, kept and taken up again; default: a temporary one")
    given = parser.parse_args()
    from tests.browser import Browser, start_driver
    from tests.report_pages import make_run

    with tempfile.TemporaryDirectory() as temporary:
        out = given.out or Path(temporary)
        runs = {
            "200 pictures of 96 x 128": lambda folder: make_run(folder, 200, space=(96, 128), raters=2),
            "a volume of 512 x 512 x 100": volume_run,
        }
        rows = []
        process, port = start_driver()
        try:
            for number, (name, make) in enumerate(runs.items()):
                folder = out / f"run{number}"
                if not (folder / "run.json").exists():
                    make(folder)
                start = time.monotonic()
                page = write_report(folder)
                row: dict[str, Any] = {
                    "page": name,
                    "megabytes": page.stat().st_size / 1e6,
                    "written_s": time.monotonic() - start,
                }
                found = []
                for repeat in range(REPEATS):
                    profile = Path(temporary) / f"profile{number}{repeat}"
                    browser = Browser(process.pid, port, profile, ["--enable-unsafe-swiftshader"])
                    browser.size(1366, 900)
                    found.append(measure(browser, page.as_uri(), volume=number == 1))
                    browser.close()
                for key in found[0]:
                    row |= {
                        key: float(np.median([one[key] for one in found])),
                        f"{key[:-2]}_worst_s": max(one[key] for one in found),
                    }
                rows.append(row)
        finally:
            process.kill()
            process.wait()
    write_result("report_pages", rows, shown=len(rows), repeats=REPEATS, load=os.getloadavg()[0])


if __name__ == "__main__":
    main()
