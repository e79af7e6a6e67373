"""A run: what a config becomes (``experiment``, ``open``), the trainer and its hooks, checkpoints, exact resume.

Models are built here and not known here: hooks talk to modules through small protocols such as ``end_iteration``.
"""
