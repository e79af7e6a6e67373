"""``d2_balanced tune``: learning rate and named keys, tuned with the same budget in every arm. See docs/TUNING.md.

``spaces`` says what is tried, ``arms`` what the arms are, ``study`` which values come next, ``trial`` is one training,
``results`` writes what was found.
"""

BEGUN = "tuning.json"  # what a tuning was begun with, in its output folder
MAY_CHANGE = ("trials", "jobs", "num_gpus", "final_only")  # arguments, when it goes on
TRIALS, SEED = 8, 100  # unless they are given
