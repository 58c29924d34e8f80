"""`convmodel`, and `python -m convmodel_cli`."""

from __future__ import annotations

from convmodel_cli.signals import stop_request


def main() -> None:
    """The console script."""
    stop_request.install()  # before anything that takes time

    from convmodel_cli.cli.main import main

    main()


if __name__ == "__main__":
    main()
