"""`python -m relay.cli`: the command `relay`, for programs that start it."""

from relay.cli import main

main()
