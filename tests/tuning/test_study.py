"""Which values come next: the same, however often the process ended in between."""

import pytest

pytest.importorskip("optuna", reason="Optuna is an extra: pip install 'd2_balanced[tune]'")

from d2_balanced.tuning.spaces import parse_space  # noqa: E402
from d2_balanced.tuning.study import Study, possible_trials  # noqa: E402
from d2_balanced.utils.errors import ConfigError  # noqa: E402

RANGES = {"lr": parse_space("lr", "0.01..1", log=True, real=True), "name": parse_space("name", "a,b")}
LISTS = {"lr": parse_space("lr", "1,2,3"), "name": parse_space("name", "a,b")}


def score(values):
    return -abs(values["lr"] - 0.2) + (values["name"] == "b")


def test_a_killed_study_goes_on_as_if_it_had_not_been(tmp_path):
    whole = Study(tmp_path / "whole", "arm", RANGES, {"lr": 0.1, "name": "a"}, 3, 6)
    values = []
    for number in range(6):
        trial = whole.ask()
        values.append(trial.values)
        whole.tell(trial.number, score(trial.values))
        # another process for each trial, and one that dies with its trial begun
        begun = Study(tmp_path / "parts", "arm", RANGES, {"lr": 0.1, "name": "a"}, 3, 6).ask()
        later = Study(tmp_path / "parts", "arm", RANGES, {"lr": 0.1, "name": "a"}, 3, 6)
        (left,) = [trial for trial in later.tried() if trial.score is None]
        assert left == begun and left.values == trial.values
        later.tell(left.number, score(left.values), "a note")
    assert values[0] == {"lr": 0.1, "name": "a"} and len({tuple(v.values()) for v in values}) == 6
    assert whole.tried() == [trial._replace(note="") for trial in later.tried()]
    assert {trial.note for trial in later.tried()} == {"a note"}


def test_a_process_that_dies_between_planning_and_asking_costs_no_point(tmp_path):
    plain = Study(tmp_path / "plain", "arm", LISTS, {}, 1, 6)
    died = Study(tmp_path / "died", "arm", LISTS, {}, 1, 6)
    died._study.enqueue_trial(died._planned(0))
    assert died.tried() == []
    assert [died.ask().values for _ in range(6)] == [plain.ask().values for _ in range(6)]


def test_arms_with_the_same_spaces_begin_with_the_same_points_and_others_differ(tmp_path):
    def points(arm, seed):
        study = Study(tmp_path / "studies", arm, RANGES, {}, seed, 8)
        return [study.ask().values for _ in range(4)]

    assert points("one", 3) == points("two", 3) != points("three", 4)


def test_points_cover_a_range(tmp_path):
    study = Study(tmp_path / "study", "arm", {"x": parse_space("x", "0.0..1.0")}, {}, 0, 16)
    assert sorted(int(8 * study.ask().values["x"]) for _ in range(8)) == list(range(8))


def test_every_combination_of_listed_values_comes_once(tmp_path):
    study = Study(tmp_path / "study", "arm", LISTS, {}, 1, 6)
    assert possible_trials(LISTS) == 6 and possible_trials(RANGES) == float("inf")
    assert len({tuple(study.ask().values.values()) for _ in range(6)}) == 6
    with pytest.raises(ConfigError, match="6 combinations"):
        study.ask()
