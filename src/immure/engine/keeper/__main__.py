"""`python -m immure.engine.keeper`: started by a client, of no use by hand."""

import sys

from immure.engine.keeper.server import main

main(sys.argv[1:])
