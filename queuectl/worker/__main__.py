"""A worker as a process of its own."""

import sys

from queuectl.worker.fleet import main

sys.exit(main(sys.argv[1:]))
