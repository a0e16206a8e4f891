"""Entry point of `python -m kinema`."""

from kinema.cli.app import main

main()
