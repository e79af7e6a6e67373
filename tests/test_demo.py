"""The demo's order of steps and its last page; the commands themselves are tested where they live."""

import os
import subprocess
import sys

import pytest
from paths import ROOT

sys.path.insert(0, os.path.join(ROOT, "tools"))
import demo  # noqa: E402

from d2_balanced.__main__ import COMMANDS  # noqa: E402
from d2_balanced.utils.shipped import shipped_file  # noqa: E402


@pytest.fixture
def commands(monkeypatch):
    """Runs ``demo.main`` with commands that are only written down; returns them as strings."""
    ran = []
    monkeypatch.setattr(demo, "run", lambda *command: ran.append(" ".join(command)))

    def main(*arguments):
        monkeypatch.setattr(sys, "argv", ["demo.py", *map(str, arguments)])
        ran.clear()
        demo.main()
        return list(ran)

    return main


def finish(output):
    """Write what a finished run leaves, as far as the demo reads it."""
    evaluation = output / demo.WHERE["evaluation"]
    evaluation.mkdir(parents=True)
    (output / "model_final.pth").touch()
    names = ["AP", "AP50", "AP75", "AP90"]
    rows = [f"bbox,{name},{value}" for name, value in zip(names, (41.25, 70, 43, 9))] + ["bbox,APs,"]
    (evaluation / "metrics.csv").write_text("\n".join(["task,metric,value", *rows]))
    (evaluation / "per_class.csv").write_text("task,class,objects," + ",".join(names) + "\nbbox,star,7,40,69,42,8\n")


def test_steps_of_a_new_run(commands, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "show", lambda output: None)
    data, train, pictures, predictions = commands("--output", tmp_path, "SOLVER.MAX_ITER", "2")
    assert data == "-m d2_balanced.data.generated"
    assert train.startswith(f"train_net.py --config-file {demo.CONFIG} --resume --output-dir {tmp_path}")
    assert train.endswith("SOLVER.MAX_ITER 2")
    assert f"{tmp_path}/inference/generated_val/coco_instances_results.json" in pictures
    assert predictions.startswith(f"-m d2_balanced predict --run {tmp_path} --input ")
    assert os.path.exists(os.path.join(ROOT, demo.CONFIG))


def test_how_to_go_on_names_what_is_there():
    for command in demo.GO_ON.values():
        words = command.split()
        assert words[0] == "d2_balanced" and words[1] in COMMANDS
        for option in ("--config-file", "--add"):
            if option in words:
                assert shipped_file(words[words.index(option) + 1])


def test_a_finished_run_is_shown_and_not_repeated(commands, tmp_path, capsys):
    finish(tmp_path)
    assert not any(command.startswith("train_net.py") for command in commands("--output", tmp_path))
    printed = capsys.readouterr().out
    assert "Trained and evaluated already" in printed
    table = {line.split("  ")[0]: line.split()[-4:] for line in printed.splitlines() if "." in line}
    assert table["all classes"] == ["41.2", "70.0", "43.0", "9.0"]
    assert table["star"] == ["40.0", "69.0", "42.0", "8.0"]
    assert os.path.join(tmp_path, "results.csv") in printed


def test_an_unfinished_run_is_continued(commands, tmp_path):
    finish(tmp_path)
    os.remove(tmp_path / "model_final.pth")
    assert any(command.startswith("train_net.py") for command in commands("--output", tmp_path))


def test_a_failing_step_ends_the_demo():
    code = "import sys; sys.path.insert(0, 'tools'); import demo; demo.run('-c', 'import sys; sys.exit(3)')"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1 and "this step ended with status 3" in result.stderr
