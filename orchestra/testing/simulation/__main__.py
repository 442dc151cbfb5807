"""``python -m orchestra.testing.simulation``: play many seeds, or one of them again."""

import sys

from orchestra.testing.simulation.many import main

if __name__ == "__main__":
    sys.exit(main())
