"""``python -m pytorch_forecasting_mlstm``: the demo, or the forecast of a user's own table."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..forecaster.errors import UserError
from .arguments import parse
from .console import quiet


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Words after the program's name; default ``sys.argv[1:]``.

    Returns
    -------
    int
        Exit code: 0; 2 for input that cannot be used, after one line on stderr; 130 after Ctrl-C.
    """
    try:
        arguments = parse(argv)
        # Imported late: a wrong option is answered at once, and Ctrl-C is heeded meanwhile.
        with quiet():
            if arguments.table is None:
                from .run_demo import run_demo

                run_demo(arguments)
            else:
                from .run_forecast import run_forecast

                run_forecast(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    return 0
