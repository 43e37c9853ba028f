"""Tune in a process that a test kills: python tuning.py STORAGE."""

import sys

from helpers.forecasters import rich_stores, tiny


def main() -> None:
    """Search with far more trials than there is time for."""
    tiny().tune(rich_stores(20), trials=1000, storage=sys.argv[1])


if __name__ == "__main__":
    main()
