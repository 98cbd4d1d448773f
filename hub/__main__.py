"""`python -m hub`: the same as the `mep-hub` program."""

from hub.cli import main

main()
