"""Stands in for train_net.py where the tuning is tested: the learning rate decides what happens; takes milliseconds.

Up to 0.1 the AP is 100 times the rate; 1: the loss diverges; 2: the weights do; 3: refused; 4: a fault at first; else a
fault.
"""

import json
import os
import sys

words = sys.argv[1:]
folder = words[words.index("--output-dir") + 1]
rate = float(words[words.index("SOLVER.BASE_LR") + 1])


def write(name, text=""):
    os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
    with open(os.path.join(folder, name), "a", encoding="utf-8") as file:
        file.write(text + "\n")


write("starts")
again = len(open(os.path.join(folder, "starts"), encoding="utf-8").readlines()) > 1
if rate == 1:
    write("nonfinite_loss.json", json.dumps({"iteration": 7}))
    sys.exit(1)
if rate == 2:
    print("train_net.py: error: stopped by the FloatingPointError above, in iteration 3.")
    sys.exit(1)
if rate == 3:
    print("train_net.py: error: SOLVER.BASE_LR 3.0 is refused.")
    sys.exit(2)
if rate > 0.1 and not (rate == 4 and again):
    print("train_net.py: error: stopped by the ValueError above, at work.")
    sys.exit(1)
write("config.yaml")
write("model_final.pth")
write("model_best.pth")
write("metrics.json", json.dumps({"iteration": 1, "bbox/AP": min(100 * rate, 10.0)}))
write("inference/own_val/metrics.json", "{}")
