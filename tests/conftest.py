import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import d2_balanced  # noqa: F401, E402  (first: it makes detectron2 importable)
import torch  # noqa: E402

torch.set_num_threads(1)
