"""What a detector gets wrong: an evaluation's boxes, matched once at IoU 0.5, counted, drawn, and put on one page.

``match`` pairs boxes with objects as COCO does, ``curves`` and ``tally`` count, ``confusion`` and ``tide`` ask two
libraries that may be missing, ``pictures`` draws, ``write`` makes the files, ``compare`` puts two runs side by side.
"""
