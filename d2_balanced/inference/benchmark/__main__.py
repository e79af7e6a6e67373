"""``python -m d2_balanced.inference.benchmark``; see :mod:`.command`."""

from .command import main

if __name__ == "__main__":
    main()
