"""Which members go together and how steps follow each other on this hardware."""

from typing import Any, NamedTuple

import jax

from ...config import ExecutionConfig

SHARE = 0.5  # of the memory that a chunk may take
PROBE = 8  # members that are compiled to see how much memory one takes
GROUPED = 2**22  # pixels, times members, of the images that are searched together: bounds what their records take
MOST_IMAGES = 64  # that are searched together


class Plan(NamedTuple):
    """How members and steps are laid out, how many members are in flight, and over how many devices they are split.

    A chunk of 0 is found when the step is compiled: as many as the memory takes.
    """

    members: str
    steps: str
    chunk: int
    devices: int = 1


def choose_plan(execution: ExecutionConfig, *, members: int, backend: str | None = None) -> Plan:
    """The plan for a backend; fields that are not `auto` are kept."""
    cpu = (backend or jax.default_backend()) == "cpu"
    member_plan = execution.member_plan if execution.member_plan != "auto" else ("loop" if cpu else "vmap")
    step_plan = execution.step_plan if execution.step_plan != "auto" else ("loop" if cpu else "scan")
    devices = (execution.devices or jax.local_device_count()) if member_plan == "vmap" else 1
    if member_plan == "vmap" and not execution.chunk:
        return Plan(member_plan, step_plan, 0, min(devices, members))
    # two in flight: on few cores a convolution of one image leaves room for another's small operations, and for Python
    chunk = execution.chunk or 2
    return Plan(member_plan, step_plan, min(chunk, members), min(devices, members))


def choose_group(execution: ExecutionConfig, *, members: int, pixels: int, backend: str | None = None) -> int:
    """How many images of so many pixels are searched together: small ones fill an accelerator only in company."""
    if execution.together:
        return execution.together
    if choose_plan(execution, members=members, backend=backend).members != "vmap":
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
