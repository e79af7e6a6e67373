"""The imbalance report: one page, in pictures and words, of what a two-stage detector trains on (docs/GUIDE.md).

    python train_net.py --config-file CONFIG ... --imbalance-report
    python -m d2_balanced.analysis.report RUN_DIR
    python -m d2_balanced.analysis.report --config-file CONFIG --weights model_final.pth --output DIR

``gather.py`` collects what is known of a run, ``findings.py`` judges it, ``page_figures.py`` and ``rois.py`` draw, and
``page.py`` writes the page.
"""

from .write import report_of_checkpoint, report_of_folder, report_of_training

__all__ = ["report_of_checkpoint", "report_of_folder", "report_of_training"]
