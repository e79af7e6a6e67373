import logging
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import d2_balanced  # noqa: F401, E402  (first: it makes detectron2 importable)
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def logs_reach_caplog():
    """A test that starts a run sets up loggers, which then pass nothing on; the next test may want to read them."""
    for name in ("d2_balanced", "detectron2", "fvcore"):
        logging.getLogger(name).propagate = True
