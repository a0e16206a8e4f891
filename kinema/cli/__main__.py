"""`python -m kinema.cli`, as torchrun starts it."""

from kinema.cli.app import main

main()
