"""The report on paper: report.html printed to report.pdf by a browser that is on this machine."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge", "msedge")
SECONDS = 300  # a browser that takes longer hangs
UNPACKING = 60_000  # milliseconds of the page's own time until all its cases are there, which pass at once


def find_browser() -> str:
    """The first of BROWSERS on the path. ValueError where there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise ValueError("--pdf: expected Chromium, Chrome or Edge on the path, found none; open report.html and print it there")
    return found


def write_pdf(page: Path) -> Path:
    """Print a report with all its cases open beside it, REPORT.pdf, and return its path; an older one is replaced in one step.

    ValueError without a browser; OSError where the browser prints nothing, with what it said last.
    """
    browser, target = find_browser(), page.with_suffix(".pdf")
    with tempfile.TemporaryDirectory() as profile:
        printed = Path(profile) / target.name
        command = [browser, "--headless", "--disable-gpu", "--no-pdf-header-footer", f"--user-data-dir={profile}/profile"]
        command += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # it refuses to run as root else
        command += [f"--virtual-time-budget={UNPACKING}", f"--print-to-pdf={printed}", page.resolve().as_uri() + "#all"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
            said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        except subprocess.TimeoutExpired:
            said = f"nothing for {SECONDS} seconds"
        if not printed.is_file() or not printed.read_bytes().startswith(b"%PDF"):
            raise OSError(f"{target}: expected {Path(browser).name} to print it, got nothing; it said: {said}")
        part = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            shutil.copyfile(printed, part)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    return target
