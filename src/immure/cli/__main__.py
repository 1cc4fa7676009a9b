"""`python -m immure.cli`."""

from immure.cli.main import run_and_exit

run_and_exit()
