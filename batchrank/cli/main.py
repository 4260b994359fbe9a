"""
The command `batchrank`: its commands, and what an error looks like to a person.

Owns the exit codes' last step: an error of our tree is told in its own words, anything else is a
bug and says so, without the values of variables.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable
from functools import cache
from typing import Any

import typer

from batchrank import __version__
from batchrank.cli import (
    backfill,
    bill,
    export,
    init,
    plan,
    providers,
    prune,
    rehearse,
    run,
    serve,
    status,
    verify,
)
from batchrank.cli.saying import ready_streams, say
from batchrank.errors import BatchrankError, Exit, Signalled

EPILOG = (
    "Exit codes: 0 done · 1 finished, too many groups rejected · 2 the job file, source or command"
    " · 3 stopped and needs a person · 4 storage · 75 stopped early, run it again · 70 a bug"
)

app = typer.Typer(
    name="batchrank",
    help="Rerank millions of query-candidate groups through paid rerank APIs, paying for nothing"
    " twice.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(init.init)
app.command()(plan.plan)
app.command()(run.run)
app.command()(status.status)
app.command()(verify.verify)
app.command()(bill.bill)
app.command()(backfill.backfill)
app.command()(rehearse.rehearse)
app.command()(serve.serve)
app.command()(export.export)
app.command()(prune.prune)
app.command()(providers.providers)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"batchrank {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and leave."
    ),
) -> None:
    pass


def main() -> None:
    """
    Run the command line and leave with its exit code.
    """
    ready_streams()
    code: int = Exit.LATER
    try:
        _hear_signals()
        code = outcome(sys.argv[1:])
    except* Signalled:
        say("stopped by a signal; run it again to carry on", sys.stderr)
    sys.exit(code)


def _hear_signals() -> None:
    """
    Let signals end us with our own exit code; where they are ignored (nohup) they stay ignored.
    """

    def hear(number: int, _frame: object) -> None:
        raise Signalled(signal.Signals(number).name)

    if sys.platform != "win32":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, hear)


MISUSED: type[typer.BadParameter] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)
"""The root of click's errors, of whichever click typer has: newer ones bring their own."""


@cache
def _command() -> Callable[..., Any]:
    # Who runs several in one process (a script, a test) reads all signatures once.
    return typer.main.get_command(app)


def outcome(arguments: list[str]) -> int:
    """
    Run the command line; returns the exit code.
    """
    if sys.platform == "win32":
        say("batchrank runs on Linux and macOS; on Windows, use it in WSL.", sys.stderr)
        return Exit.USAGE
    try:
        code = _command()(arguments, prog_name="batchrank", standalone_mode=False)
    except MISUSED as error:
        error.show()
        return int(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return Exit.LATER
    except BatchrankError as error:
        say(f"error: {error}", sys.stderr)
        return error.exit_code
    except SystemExit as leaving:  # typer's own: completion scripts, and a pipe that was closed
        return int(leaving.code or 0)
    except Exception:  # noqa: BLE001 - a bug: said as one, then the process ends
        traceback.print_exc()
        say("error: this is a bug in batchrank; what was paid for is kept", sys.stderr)
        return Exit.BUG
    return int(code or 0)
