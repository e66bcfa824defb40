"""``python -m quantbench``: the command, where no script is on the path."""

from quantbench.cli import main

main()
