"""`python -m convmodel_cli` is `convmodel`."""

from convmodel_cli.cli.main import main

if __name__ == "__main__":
    main()
