"""``python -m beat``."""

from beat import main

if __name__ == "__main__":
    main()
