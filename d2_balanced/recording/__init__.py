"""What a training step is made of, counted while it trains: the counts, their file, and the hook that writes it.

Figures and judgements of what was counted are in ``analysis/``.
"""
