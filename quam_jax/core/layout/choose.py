"""Which members go together and how steps follow each other on this hardware: asked for, and chosen."""

from dataclasses import dataclass
from typing import Any, Literal

import jax

SHARE = 0.5  # of the memory that a chunk may take
PROBE = 8  # members that are compiled to see how much memory one takes
GROUPED = 2**22  # pixels, times members, of the images that are searched together: bounds what their records take
MOST_IMAGES = 64  # that are searched together


@dataclass(frozen=True)
class Layout:
    """How members and steps run together; no number but rounding depends on it.

    `members` of a search are mapped, unrolled into one program or looped over; so are `steps` (scan, unroll, loop). `chunk`
    members are in flight (0: as many as the memory takes), over `devices` of this machine (0: all). `together` images of one
    size are searched together (0: small ones, where members are mapped).
    """

    members: Literal["auto", "vmap", "unroll", "loop"] = "auto"
    steps: Literal["auto", "scan", "unroll", "loop"] = "auto"
    chunk: int = 0
    together: int = 0
    devices: int = 0


AUTO = Layout()


def choose_layout(layout: Layout, *, members: int, backend: str | None = None) -> Layout:
    """The layout for so many members on a backend; fields that are not `auto` or 0 are kept.

    A chunk of 0 is left where members are mapped: it is found when the step is compiled.
    """
    cpu = (backend or jax.default_backend()) == "cpu"
    together: Literal["vmap", "unroll", "loop"] = layout.members if layout.members != "auto" else ("loop" if cpu else "vmap")
    steps: Literal["scan", "unroll", "loop"] = layout.steps if layout.steps != "auto" else ("loop" if cpu else "scan")
    devices = min((layout.devices or jax.local_device_count()) if together == "vmap" else 1, members)
    # two in flight: on few cores a convolution of one image leaves room for another's small operations, and for Python
    chunk = layout.chunk or (0 if together == "vmap" else 2)
    return Layout(together, steps, min(chunk, members), layout.together, devices)


def choose_group(layout: Layout, *, members: int, pixels: int, backend: str | None = None) -> int:
    """How many images of so many pixels are searched together: small ones fill an accelerator only in company."""
    if layout.together:
        return layout.together
    if choose_layout(layout, members=members, backend=backend).members != "vmap":
        return 1
    return max(1, min(MOST_IMAGES, GROUPED // (members * pixels)))


def memory_budget() -> int:
    """Bytes that the temporary arrays of a chunk may take: half of what the device has left, 1 GiB on a CPU."""
    device = jax.local_devices()[0]
    statistics: dict[str, Any] = (device.memory_stats() or {}) if device.platform != "cpu" else {}
    if "bytes_limit" in statistics:
        return int(SHARE * (statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)))
    return 2**30


def backend_name() -> str:
    """The backend that a search runs on, with its device kind: for reports."""
    device = jax.devices()[0]
    return f"{device.platform} ({device.device_kind})" if device.platform != "cpu" else "cpu"
