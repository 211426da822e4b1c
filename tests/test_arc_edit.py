"""Self-edits of few-shot learning: what is valid comes back, what is not is told why, and nothing raises."""

import json
import random
import re

import pytest

from seal_jax.domains.arc.edit import (
    ORACLE,
    OUTPUT_TOKENS,
    STRATEGIES,
    Configuration,
    DataGeneration,
    TrainingChoice,
    canonical,
    edit_prompt,
    number_of_steps,
    parse,
    random_configuration,
)
from seal_jax.domains.arc.grids import ArcTask, Pair, make_grid
from seal_jax.domains.domain import Problem

GOOD = json.loads(canonical(ORACLE))


def changed(group: str, **values) -> str:
    """The oracle's text with some fields of a group replaced, or (Ellipsis) left out."""
    item = GOOD | {group: {k: v for k, v in (GOOD[group] | values).items() if v is not ...}}
    return json.dumps(item)


def test_canonical_text_and_back():
    assert canonical(ORACLE) == (
        '{"data_generation": {"use_basic_augmentations": true, "use_size_augmentations": true, '
        '"use_chain_augmentations": true, "use_repeat_augmentations": true}, "training": '
        '{"strategy": "train_using_output_tokens", "learning_rate": 0.0001, "num_train_epochs": 2}}'
    )
    assert parse(canonical(ORACLE)) == ORACLE
    edits = [random_configuration((0, i)) for i in range(200)]
    assert [parse(canonical(edit)) for edit in edits] == edits
    fine = Configuration(DataGeneration(True, False, False, True), TrainingChoice(OUTPUT_TOKENS, 1e-5, 1))
    assert parse(canonical(fine)) == fine


def test_the_object_may_stand_in_other_text_and_order():
    shuffled = json.dumps({key: dict(reversed(GOOD[key].items())) for key in reversed(GOOD)}, indent=2)
    for text in (
        f"Sure! {{not this}} here:\n```json\n{shuffled}\n```\nDone.",
        f"{canonical(ORACLE)} {{}}",
        f"[1, {canonical(ORACLE)}]",
        f'{{"note": {{"a": {{}}}}, broken}} {canonical(ORACLE)}',
    ):
        assert parse(text) == ORACLE
    assert parse(changed("training", learning_rate=1)).training.learning_rate == 1.0


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "I would train for two epochs.", "[1, 2]", '"data_generation"'),
        *(canonical(ORACLE)[:end] for end in (-1, -2, -20, 60, 205)),  # cut off: what is whole inside does not count
        canonical(ORACLE).replace("true", "True"),
        canonical(ORACLE).replace("2}}", "2},}"),
        canonical(ORACLE).replace('"train_using_output_tokens"', "train_using_output_tokens"),
    ],
)
def test_what_holds_no_json_object_is_to_be_sampled_again(text):
    assert parse(text) == Problem("there is no whole JSON object in the text", again=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "lacks data_generation, training"),
        ("{} " + canonical(ORACLE), "lacks data_generation, training"),
        (json.dumps(GOOD | {"note": 1}), 'the object has the unknown field "note"'),
        (json.dumps(GOOD | {"training": [1]}), r"training must be an object and is \[1\]"),
        (json.dumps(GOOD | {"data_generation": None}), "data_generation must be an object and is null"),
        (changed("data_generation", use_size_augmentations=...), "data_generation lacks use_size_augmentations"),
        (changed("data_generation", use_color=True), 'data_generation has the unknown field "use_color"'),
        (changed("data_generation", use_size_augmentations=1), "use_size_augmentations must be true or false and is 1"),
        (changed("data_generation", use_basic_augmentations="true"), 'true or false and is "true"'),
        (changed("training", strategy=...), "training lacks strategy"),
        (changed("training", strategy="all"), 'strategy must be .* and is "all"'),
        (changed("training", strategy=["x"]), r"strategy must be .* and is \[\"x\"\]"),
        (changed("training", learning_rate=0), r"learning_rate must be a number in \(0, 1\] and is 0"),
        (changed("training", learning_rate=1.01), "is 1.01"),
        (changed("training", learning_rate=float("nan")), "learning_rate .* is NaN"),
        (changed("training", learning_rate=float("inf")), "learning_rate .* is Infinity"),
        (changed("training", learning_rate="1e-4"), 'learning_rate .* is "1e-4"'),
        (changed("training", learning_rate=True), "learning_rate .* is true"),
        (changed("training", num_train_epochs=0), "num_train_epochs must be a whole number from 1 and is 0"),
        (changed("training", num_train_epochs=2.0), "num_train_epochs .* is 2.0"),
        (changed("training", num_train_epochs=True), "num_train_epochs .* is true"),
    ],
)
def test_an_object_that_is_not_valid_fails_and_says_why(text, words):
    found = parse(text)
    assert isinstance(found, Problem) and found.again is False
    assert re.search(words, found.reason), found.reason


def test_nothing_raises():
    rng = random.Random(0)
    pieces = [*'{}[]",: \n\\', "true", "null", "1e-4", "NaN", "1" * 30, '"strategy"', "é", "\ud800", "\x00"]
    pieces += [json.dumps(part) for part in (*GOOD, *GOOD["training"], *GOOD["data_generation"], *STRATEGIES, GOOD)]
    kinds = set()
    for i in range(10_000):
        if i % 2:
            text = "".join(rng.choices(pieces, k=rng.randint(0, 40)))
        else:  # the right text with some of it cut out, doubled or replaced
            text = canonical(random_configuration((i,)))
            for _ in range(rng.randint(1, 3)):
                at, length = rng.randrange(len(text)), rng.randint(0, 20)
                text = text[:at] + rng.choice(pieces) * rng.randint(0, 1) + text[at + length :] + " "
        kinds.add(type(parse(text)))
    assert kinds == {Configuration, Problem}
    for text in ('{"a":' * 3000, '{"a":' * 600 + "1" + "}" * 600, '{"a":' + "[" * 100_000, '{"a": ' + "9" * 5000 + "}"):
        assert isinstance(parse(text), Problem)
    assert isinstance(parse(changed("training", learning_rate=10**400)), Problem)


def test_random_edits_cover_their_ranges():
    edits = [random_configuration((7, i), rates=(1e-4, 1e-2), epochs=(2, 4)) for i in range(300)]
    rates = [edit.training.learning_rate for edit in edits]
    assert 1e-4 <= min(rates) < 2e-4 and 5e-3 < max(rates) <= 1e-2
    assert 0.35 < sum(rate < 1e-3 for rate in rates) / 300 < 0.65  # log-uniform: half lie below the middle decade
    assert {edit.training.num_train_epochs for edit in edits} == {2, 3, 4}
    assert {edit.training.strategy for edit in edits} == set(STRATEGIES)
    assert len({edit.data_generation for edit in edits}) == 16
    assert random_configuration((7, 5)) == random_configuration((7, 5)) != random_configuration((7, 6))


def test_number_of_steps():
    assert number_of_steps(ORACLE, 250, 2) == 250
    assert number_of_steps(ORACLE, 3, 2) == 4  # an epoch ends with a batch of one
    assert number_of_steps(ORACLE, 0, 2) == 0


def test_the_prompt_shows_the_demonstrations_and_not_the_test():
    shown = Pair(make_grid([[1, 2], [3, 4]]), make_grid([[5]]))
    task = ArcTask("t", (shown, shown), (Pair(make_grid([[9, 9], [9, 9]]), make_grid([[8]])),))
    prompt = edit_prompt(task)
    assert prompt.chat and prompt.system is None
    assert "Example 2\nInput:\n12\n34\nOutput:\n5\n" in prompt.text and "99" not in prompt.text
    names = [*GOOD, *GOOD["data_generation"], *GOOD["training"], *STRATEGIES]
    assert all(f'"{name}"' in prompt.text for name in names)
    assert parse(prompt.text).again  # an echo of the request is no answer
