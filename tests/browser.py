"""A headless browser for the tests, driven over WebDriver with nothing but the standard library."""

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.ray_nodes import offspring

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]  # fmt: skip


ENTER, PAGE_UP, UP, RIGHT = "\ue007", "\ue00e", "\ue013", "\ue014"
SHEET = "document.querySelectorAll('.card-case').length && document.getElementById('count').textContent"
OPENED = "document.querySelector('details.case[open] .stage .base')?.complete"


class Browser:
    """One browser session; `script` runs JavaScript in the page and returns its value."""

    def __init__(self, driver: int, port: int, profile: Path, flags: list[str]) -> None:
        self.driver = driver  # its process
        self.base = f"http://127.0.0.1:{port}/session"
        options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={profile}", *flags]}
        capabilities = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        made = self.call("POST", "", {"capabilities": {"alwaysMatch": capabilities}})
        self.base += "/" + made["sessionId"]

    def call(self, verb: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if verb == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=verb)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()[:600]) from None

    def open(self, address: str) -> None:
        self.call("POST", "/url", {"url": address})

    def script(self, text: str, *args: Any) -> Any:
        return self.call("POST", "/execute/sync", {"script": text, "args": list(args)})

    def wait(self, condition: str, seconds: float = 10) -> None:
        """Until an expression in the page is true; AssertionError with the expression after that time."""
        end = time.monotonic() + seconds
        while not self.script(f"return Boolean({condition})"):
            assert time.monotonic() < end, f"never true in the page: {condition}"
            time.sleep(0.05)

    def keys(self, *names: str) -> None:
        """Press and release keys in turn, on whatever has the focus."""
        actions = [{"type": kind, "value": name} for name in names for kind in ("keyDown", "keyUp")]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """The size of the page itself, and whether it is asked for dark colours."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", media="", features=[scheme])

    def command(self, name: str, **params: Any) -> Any:
        return self.call("POST", "/goog/cdp/execute", {"cmd": name, "params": params})

    def log(self, kind: str) -> list[dict[str, Any]]:
        return self.call("POST", "/se/log", {"type": kind})

    def busy(self) -> float:
        """Processor seconds of the browser so far, all of its processes together, which other programs do not change."""
        ticks = 0
        for pid in offspring(self.driver):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:15]))  # of those too that have ended
        return ticks / os.sysconf("SC_CLK_TCK")

    def requests(self) -> list[str]:
        """Addresses asked for since the last call, the page's own data URIs left out."""
        messages = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [address for address in asked if not address.startswith("data:")]

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))

    def close(self) -> None:
        self.call("DELETE", "")


def start_driver() -> tuple[subprocess.Popen[bytes], int]:
    """chromedriver on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([str(DRIVER), f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=1):
                return process, port
        except OSError:
            time.sleep(0.05)
    process.kill()
    raise AssertionError("chromedriver did not answer within 10 s")


def choose(browser: Browser, selector: str, value: str) -> None:
    """Set a field as a user would: the value, then the events."""
    browser.script(
        "const field = document.querySelector(arguments[0]); field.value = arguments[1];"
        "field.dispatchEvent(new Event('input', {bubbles: true}));"
        "field.dispatchEvent(new Event('change', {bubbles: true}))",
        selector,
        value,
    )
