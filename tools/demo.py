"""`make demo`: from nothing to AP on the CPU, in minutes, by the same commands that train on real data.

Draws a small data set, trains and evaluates a quick Faster R-CNN on it, draws detections beside the ground truth, finds
objects in images with the detector, and says where everything is and how to go on. Each step is a command of the project, printed before it runs. Interrupted, it goes on where
it stopped; finished, it says so and shows the result again.
"""

from __future__ import annotations

import argparse
import csv
import os
import shlex
import subprocess
import sys
import time

from tabulate import tabulate

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONFIG = "configs/quick/faster_rcnn_R_18_FPN.yaml"
DATASET = "generated_val"
FAST = ("MODEL.LAYERS.CHANNELS_LAST", "True")  # equal but for rounding

WHERE = {  # below the output folder
    "checkpoint": "model_final.pth",
    "best checkpoint": "model_best.pth",
    "training, as a table": "results.csv",
    "training, as curves": "results.png",
    "evaluation": f"inference/{DATASET}",
    "what it gets wrong, on one page": f"inference/{DATASET}/errors/errors.html",
    "detections beside ground truth": "pictures/contact_sheet.png",
    "predictions, with pictures": "found",
}
GO_ON = {
    "your images": "d2_balanced predict --run {output} --input my/images --output {output}/mine",
    "your data": "d2_balanced train --config-file quick/faster_rcnn_R_18_FPN --data my/folder --output-dir output/mine",
    "a treatment": "d2_balanced train --config-file quick/faster_rcnn_R_18_FPN --add RGA_PRM/prm --output-dir output/prm",
    "compare them": "d2_balanced compare {output} output/prm",
    "what is out of balance": "d2_balanced report {output}",
}


def say(text):
    print(f"\n== {text}", flush=True)


def run(*command):
    """Print and run a command of the project from its root; the demo ends with it where it fails."""
    print("   $ python " + " ".join(map(shlex.quote, command)), flush=True)
    status = subprocess.run([sys.executable, *command], cwd=ROOT).returncode
    if status:
        sys.exit(f"\nThe demo stopped: this step ended with status {status}, for the reason printed above.\n"
                 "Run the same command again when it is mended; what is finished is not repeated.")


def is_finished(output):
    return all(os.path.exists(os.path.join(output, WHERE[what])) for what in ("checkpoint", "evaluation"))


def train(output, overrides):
    run("train_net.py", "--config-file", CONFIG, "--resume", "--output-dir", output, *FAST, *overrides)


def draw_pictures(output):
    run("-m", "d2_balanced.analysis.pictures", "--dataset", DATASET,
        "--results", os.path.join(output, WHERE["evaluation"], "coco_instances_results.json"),
        "--output", os.path.join(output, "pictures"))


def predict(output):
    images = os.path.join(os.environ.get("DETECTRON2_DATASETS", "datasets"), "generated", "val")
    found = os.path.join(output, WHERE["predictions, with pictures"])
    run("-m", "d2_balanced", "predict", "--run", output, "--input", images, "--output", found, "--score", "0.5", "--overwrite")


def read_table(output, name):
    with open(os.path.join(ROOT, output, WHERE["evaluation"], name), newline="") as f:
        return list(csv.DictReader(f))


def show(output):
    """Print AP, per class and over all, and what lies where."""
    overall = {row["metric"]: row["value"] for row in read_table(output, "metrics.csv")}
    rows = read_table(output, "per_class.csv") + [{"class": "all classes", **overall}]
    columns = ["AP", "AP50", "AP75", "AP90"]
    cells = [[row["class"]] + [float(row[name] or "nan") for name in columns] for row in rows]  # empty: undefined
    print(tabulate(cells, headers=["class", *columns], floatfmt=".1f"), "\n")
    for what, path in WHERE.items():
        print(f"{what:<34}{os.path.join(output, path)}")
    print("\nTo go on (. .venv/bin/activate first):")
    for what, command in GO_ON.items():
        print(f"{what:<24}{command.format(output=output)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", default="output/demo", help="folder (default: output/demo)")
    parser.add_argument("overrides", nargs="*", help="config overrides, for instance SOLVER.MAX_ITER 20")
    args = parser.parse_args()
    start = time.time()
    say("1/5 Drawing the data set")
    run("-m", "d2_balanced.data.generated")
    if is_finished(os.path.join(ROOT, args.output)):
        say(f"2/5 Trained and evaluated already; delete {args.output} to start over")
    else:
        say("2/5 Training a quick Faster R-CNN on the CPU, then evaluating it (some minutes)")
        train(args.output, args.overrides)
    say("3/5 Drawing detections beside the ground truth")
    draw_pictures(args.output)
    say("4/5 Finding objects in images with it")
    predict(args.output)
    say(f"5/5 The result, after {time.time() - start:.0f} s")
    show(args.output)


if __name__ == "__main__":
    main()
