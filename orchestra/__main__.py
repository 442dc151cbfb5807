"""``python -m orchestra`` is ``orchestra``."""

from orchestra.cli import main

if __name__ == "__main__":
    main()
