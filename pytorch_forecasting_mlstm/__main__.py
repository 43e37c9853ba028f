"""``python -m pytorch_forecasting_mlstm``: the demo, or the forecast of a user's own table."""

import sys
from io import TextIOWrapper

from .cli.main import main

if __name__ == "__main__":
    if isinstance(sys.stdout, TextIOWrapper):  # the terminal may lack a character of a name
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(main())
