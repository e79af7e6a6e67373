#!/usr/bin/env python
"""Train or evaluate a detector: ``train_net.py --config-file FILE [options] [overrides]``; see ``--help``."""

from d2_balanced.train import main

if __name__ == "__main__":
    main()
