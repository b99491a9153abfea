"""The command line, run in the process of the test."""

import sys

import pytest

from quam_jax.cli import main


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run a command; what it prints is left to `capsys`."""
    monkeypatch.setattr(sys, "argv", ["quam-jax", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run a command; the exit code, stdout and stderr."""
    code = exit_code(monkeypatch, *arguments)
    printed = capsys.readouterr()
    return code, printed.out, printed.err
