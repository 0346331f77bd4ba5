"""The command line: its commands, and what becomes of errors.

Exit codes: 0 done, 1 failed (one line says why, and what to do), 2 wrong usage, 3 done, but a shard could not be read
to its end (``run --strict``).
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from typing import Annotated

import typer

from dedupkit.cli.apply import apply
from dedupkit.cli.audit import audit
from dedupkit.cli.calibrate import calibrate
from dedupkit.cli.demo import demo
from dedupkit.cli.metadata import metadata
from dedupkit.cli.prompts import prompts
from dedupkit.cli.report import report
from dedupkit.cli.risk import risk
from dedupkit.cli.run import run
from dedupkit.cli.search import search
from dedupkit.cli.terminal import ensure_streams, log_to_stderr, say
from dedupkit.cli.update import update
from dedupkit.errors import DedupkitError, RuleError

__all__ = ["app", "main"]

_INTERRUPTED = 130  # how typer exits on Ctrl-C
_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_PASSING = frozenset({errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT})

app = typer.Typer(
    help="De-duplicate image-caption shards before training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        from dedupkit import __version__

        typer.echo(f"dedupkit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


for _command in (run, update, apply, report, calibrate, metadata, prompts, risk, search, audit, demo):
    app.command()(_command)


def main() -> None:
    """Run the command line; an error that a user can act on becomes one line and an exit code."""
    ensure_streams()
    log_to_stderr()
    try:
        try:
            app()
        finally:
            _flush()
    except RuleError as error:
        say(f"dedupkit: {error}", err=True)
        sys.exit(2)
    except (DedupkitError, OSError, MemoryError) as error:
        say(f"dedupkit: {explain(error)}", err=True)
        sys.exit(1)
    except SystemExit as ending:
        if ending.code != _INTERRUPTED:
            raise
        say("dedupkit: stopped; run the same command again to go on from here", err=True)
        sys.exit(1)
    finally:
        gc.freeze()  # otherwise the interpreter walks through all that was loaded once more before it ends


def explain(error: Exception) -> str:
    """One line for the user: what failed, where, and what to do if anything helps."""
    if isinstance(error, DedupkitError):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "out of memory; what was done is kept, run the same command again with fewer --workers"
    if not isinstance(error, OSError) or error.errno is None:
        return " ".join(str(error).split()) or type(error).__name__
    text = error.strerror or os.strerror(error.errno)
    if error.filename:
        text += f": {os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename}"
    if error.errno in _ROOM:
        return f"{text}; what was done is kept, make room and run the same command again to go on"
    if error.errno in _PASSING:
        return f"{text}; what was done is kept, run the same command again to go on"
    return text


def _flush() -> None:
    """Write what is buffered while an error can still be reported; a reader that is gone is no error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _to_nowhere()
    except (OSError, ValueError):
        _to_nowhere()
        raise


def _to_nowhere() -> None:
    """Let the interpreter's last flush of standard output succeed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
