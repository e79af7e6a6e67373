"""The papers' tables as commands: ``python -m d2_balanced.tables`` runs the rows of ``projects/*/tables.yaml``.

``files`` reads them, ``plan`` turns rows into runs, ``identity`` says which runs are the same, ``state`` what a folder
holds, ``execute`` starts ``train_net.py``, ``measure``, ``results`` and ``figures`` make the results. See docs/TABLES.md.
"""
