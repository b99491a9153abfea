"""The command group, and what every command shares: one line for an error, the exit code, quiet and verbose.

Exit codes: 0 done, 1 some cases failed (the others are finished), 2 nothing could be done.
"""

import importlib
import logging
import sys
import traceback
import warnings
from typing import Any

import click

_COMMANDS = {
    "demo": ("run", "Real cell images, eight human raters and a trained network: see what comes out."),
    "run": ("run", "Uncertainty maps of your own images with your own network."),
    "plan": ("plan", "Predict time, memory and cost of a large run from a short probe."),
    "convert": ("models", "Turn a PyTorch checkpoint into a model folder."),
    "export": ("models", "Write a model's weights back as a PyTorch or safetensors file."),
    "info": ("models", "Devices, versions and caches; or what a model is."),
    "train": ("train", "Train a small network on images with masks."),
    "evaluate": ("evaluate", "Score maps against the masks of several raters."),
    "calibrate": ("calibrate", "From cases with masks to statements with a guarantee: what to look at, volumes, Dice."),
    "tune": ("tune", "Choose settings for your own network on validation cases."),
    "rank": ("rank", "Which cases and regions of a run to look at or label next."),
    "collect": ("collect", "The images of a run under the file names of nnU-Net or MONAI."),
    "slicer": ("slicer", "Open a case of a run in 3D Slicer."),
    "compare": ("compare", "Which changes between two runs of one patient exceed what uncertainty explains?"),
    "dicom": ("dicom", "Read a DICOM series, and write results as DICOM objects."),
    "report": ("report", "Build report.html again from a run folder."),
    "benchmark": ("benchmark", "Measure speed against PyTorch, from a source checkout."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f".{_COMMANDS[cmd_name][0]}", __package__)
        return getattr(module, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = click.utils.make_str(args[0])
        if name not in _COMMANDS and not name.startswith("-"):
            ctx.fail(f"no command {name!r}; expected one of {', '.join(_COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="quam_jax")
@click.option("-q", "--quiet", is_flag=True, help="Print results and errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Print what is done, and the whole trace of an error.")
@click.pass_context
def cli(ctx: click.Context, quiet: bool, verbose: bool) -> None:
    """Where could a trained segmentation network as well have seen something else?

    Searches adversarial models (weights that may explain the known data somewhat worse than the given network, by default up to
    twice as badly, and disagree with it on chosen pixels) and splits the uncertainty of every pixel into aleatoric and epistemic.

    Example: quam-jax demo
    """
    ctx.obj = {"quiet": quiet, "verbose": verbose}


def main() -> None:
    """Entry point: a bad input is one line on stderr and exit code 2."""
    verbose = any(argument in ("-v", "--verbose") for argument in sys.argv[1:])
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax logs every step there
    if not verbose:
        warnings.showwarning = _note
    try:
        code = cli(standalone_mode=False, prog_name="quam-jax")
    except click.exceptions.Abort:
        sys.stderr.write("interrupted; the same command goes on where it stopped\n")
        code = 130
    except click.ClickException as error:
        _say(error.format_message())
        code = 2
    except (ValueError, OSError) as error:
        if verbose:
            traceback.print_exc()
        _say(str(error))
        code = 2
    except Exception as error:  # nobody foresaw it: still one line, and how to see more
        if verbose:
            traceback.print_exc()
        _say(f"{type(error).__name__}: {error}; nobody foresaw this: quam-jax -v shows where, please report it with the command")
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


def _note(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as people read it, without the place in the code."""
    sys.stderr.write(f"note: {' '.join(str(message).split())}\n")


def _say(message: str) -> None:
    text = " ".join(message.split())
    sys.stderr.write("quam-jax: error: " + (text if len(text) < 2000 else text[:2000] + " ...") + "\n")
