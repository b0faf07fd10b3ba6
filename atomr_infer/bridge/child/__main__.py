"""Run the child."""

import sys

from atomr_infer.bridge.child.server import main

if __name__ == "__main__":
    main(sys.argv[1:])
