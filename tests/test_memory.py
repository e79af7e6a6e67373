"""The most memory that a process held is its own, whatever the process held that began it."""

import subprocess
import sys

import numpy as np
from paths import ROOT

from d2_balanced.utils.memory import peak_resident


def test_what_the_beginning_process_held_does_not_count():
    held = np.ones(50_000_000)  # 400 MB
    here = peak_resident()
    assert here > held.nbytes
    code = "from d2_balanced.utils.memory import peak_resident as p; a = p(); b = bytearray(30_000_000); print(a, p())"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    small, with_buffer = map(int, said.split())
    assert small < with_buffer < here and with_buffer - small > 20_000_000
