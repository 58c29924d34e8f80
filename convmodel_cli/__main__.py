"""`convmodel`, and `python -m convmodel_cli`."""

from __future__ import annotations

import sys

from convmodel_cli import collector
from convmodel_cli.signals import EXIT_CODES, stop_request


def main() -> None:
    """The console script."""
    stop_request.install()  # before anything that takes time
    collector.pause()

    try:
        from convmodel_cli.cli.main import main

        main()
    except KeyboardInterrupt:  # while things are being imported, or on the way out
        sys.exit(EXIT_CODES["SIGINT"])


if __name__ == "__main__":
    main()
