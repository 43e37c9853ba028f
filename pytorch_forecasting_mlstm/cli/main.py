"""Run the command line, and turn errors into exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..forecaster.errors import InputError
from .arguments import parse_arguments
from .console import keep_ctrl_c, one_thread, suppress_lightning_output


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
        # Imported late: a wrong option is reported at once.
        with suppress_lightning_output(), one_thread(), keep_ctrl_c():
            if arguments.table is None:
                from .run_demo import run_demo

                run_demo(arguments)
            else:
                from .run_forecast import run_forecast

                run_forecast(arguments)
    except InputError as error:
        print(f"error: {error.message(lambda name: f'--{name}')}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    return 0
