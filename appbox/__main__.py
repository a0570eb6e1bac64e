"""`python -m appbox`."""

from appbox.cli import main

main()
