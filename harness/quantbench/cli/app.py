"""The ``quantbench`` command."""

from __future__ import annotations

import signal
import sys
from typing import Annotated, NoReturn

import typer

from quantbench import __version__
from quantbench.cli.commands import (
    advise,
    assemble,
    compare,
    diagnose,
    doctor,
    explain,
    export,
    list_names,
    probe,
    report,
    run,
    tune,
)
from quantbench.cli.consoles import err, out
from quantbench.errors import NotComparable, QuantbenchError

app = typer.Typer(
    name="quantbench",
    help="Quantize one model with every method of every framework, measure all of them under one "
    "protocol, and see which to deploy.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        out.print(f"quantbench {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


COMMANDS = (
    run.run,
    report.report,
    assemble.assemble,
    advise.advise,
    compare.compare,
    explain.explain,
    diagnose.diagnose,
    tune.tune,
    list_names.list_,
    doctor.doctor,
    probe.probe,
    export.export,
)
"""In the order in which ``--help`` shows them."""

for _function in COMMANDS:
    app.command(name=_function.__name__.rstrip("_"))(_function)


def _fail(text: str, code: int) -> NoReturn:
    for line in text.splitlines():
        err.print(f"error: {line}", markup=False, soft_wrap=True)
    sys.exit(code)


def main() -> None:
    """Entry point: the command with its exit codes (0 done, 1 failed, 2 usage, 3 not comparable)."""

    def terminate(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, terminate)
    try:
        app()
    except NotComparable as error:
        _fail(str(error), 3)
    except QuantbenchError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        err.print("interrupted; the same command continues where this stopped")
        sys.exit(130)
