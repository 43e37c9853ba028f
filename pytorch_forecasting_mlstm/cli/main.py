"""Run the command line, and turn errors into exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..forecaster import InputError
from .arguments import PARAMETERS, parse_arguments
from .console import one_thread, print_notes


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Words after the program's name; default ``sys.argv[1:]``.

    Returns
    -------
    int
        Exit code: 0 on success, 2 for unusable input, with one line on stderr, 130 after Ctrl-C.
    """
    try:
        arguments = parse_arguments(argv)
        with print_notes((*PARAMETERS, "cutoffs")), one_thread():
            if arguments.table is None and arguments.model is None:
                from .run_demo import run_demo

                run_demo(arguments)
            else:
                from .run_forecast import run_forecast

                run_forecast(arguments)
    except InputError as error:
        print(f"error: {error.message(_name_option)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: nothing was written", file=sys.stderr)
        return 130
    return 0


def _name_option(argument: str) -> str:
    """Name an argument of the forecaster as the command line does."""
    is_option = argument in (*PARAMETERS, "cutoffs", "decimal", "future", "output", "save")
    return f"--{argument}" if is_option else argument
