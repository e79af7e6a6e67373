"""``python -m d2_balanced.inference.export``; see :mod:`.command`."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
