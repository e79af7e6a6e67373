"""Stands in for train_net.py where the runner is tested: FOLDER CONFIG BEHAVIOUR; takes milliseconds.

Leaves what a run leaves. BEHAVIOUR: "good", "bad" (ends with status 3), "slow" (waits for a signal, saves a checkpoint,
and ends well when it is started again), "evaluate" (no training), "augmented" (the same, with test-time augmentation).
"""

import json
import os
import shutil
import signal
import sys
import time

folder, config, behaviour = sys.argv[1:]


def path(*names):
    return os.path.join(folder, *names)


def stop(*signal_and_frame):
    open(path("last_checkpoint"), "w").close()
    sys.exit(143)


signal.signal(signal.SIGTERM, stop)
if behaviour == "bad":
    print("it went", "wrong")
    sys.exit(3)
if behaviour == "slow" and not os.path.exists(path("last_checkpoint")):
    open(path("is_waiting"), "w").close()
    time.sleep(60)
if behaviour not in ("evaluate", "augmented"):
    shutil.copy(config, path("config.yaml"))
    open(path("model_final.pth"), "w").close()
with open(path("starts"), "a") as file:
    file.write("once\n")
seed = int(os.path.basename(folder)[len("seed"):])
if behaviour not in ("evaluate", "augmented"):
    with open(path("metrics.json"), "w") as file:
        for iteration in (119, 239):
            file.write(json.dumps({"iteration": iteration, "bbox/AP": iteration / 10 + seed}) + "\n")
by_iou = {f"AP{percent}": 100.0 - percent + seed for percent in range(50, 100, 5)}
for results, more in {"inference": 0.0, **({"inference_TTA": 10.0} if behaviour == "augmented" else {})}.items():
    os.makedirs(path(results, "generated_val"), exist_ok=True)
    with open(path(results, "generated_val", "metrics.json"), "w") as file:
        json.dump({"metrics": {"bbox": {"AP": 40.0 + seed + more, **by_iou}}}, file)
