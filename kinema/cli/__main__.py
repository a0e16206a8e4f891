"""Entry point of `python -m kinema.cli`, which torchrun starts."""

from kinema.cli.app import main

main()
