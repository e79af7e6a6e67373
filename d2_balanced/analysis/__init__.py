"""Commands and figures about a run or a checkpoint: they read recordings and open runs, and nothing else needs them."""
