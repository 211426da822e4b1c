"""The config: the paper's numbers by default, every mistake at once, and the files in configs/."""

import copy
import importlib.util
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from seal_jax.config import ALL_PROJECTIONS, Config, at_size, defaults, from_dict
from seal_jax.errors import UserError

FILES = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.py"))


def changed(**paths):
    """The defaults with values at dotted paths, written with two underscores: inner__rank=3."""
    values = defaults()
    for path, value in paths.items():
        *groups, name = path.split("__")
        group = values
        for part in groups:
            group = group[part]
        group[name] = value
    return values


def mistakes(values):
    with pytest.raises(UserError) as error:
        from_dict(values)
    return str(error.value)


def test_the_defaults_are_the_papers_and_come_back_unchanged():
    config = from_dict(defaults())
    assert config == Config() and hash(config) == hash(Config())
    inner, sft = config.inner, config.outer.sft
    assert (inner.rank, inner.alpha, inner.targets, inner.epochs) == (32, 64.0, ("q_proj", "v_proj"), 10)
    assert (inner.learning_rate, inner.batch_size, inner.accumulation, inner.schedule) == (1e-3, 1, 1, "linear")
    assert (sft.rank, sft.alpha, sft.targets, sft.epochs) == (64, 128.0, ALL_PROJECTIONS, 2)
    assert (sft.learning_rate, sft.batch_size * sft.accumulation) == (3e-4, 10)
    assert (config.outer.rounds, config.outer.samples, config.reward.retrains) == (2, 5, 3)
    assert (config.sampling.temperature, config.sampling.top_p, config.reward.answer_tokens) == (1.0, 0.95, 64)
    assert not config.outer.export and not config.outer.random_control


def test_lists_and_whole_numbers_are_taken_for_tuples_and_floats():
    config = from_dict(changed(inner__targets=["k_proj"], inner__alpha=8))
    assert config.inner.targets == ("k_proj",) and config.inner.alpha == 8.0 and isinstance(config.inner.alpha, float)


def test_missing_fields_keep_their_defaults():
    assert from_dict({}) == Config()
    assert from_dict({"outer": {"rounds": 1}}).outer.samples == 5


def test_every_mistake_is_named_at_once():
    text = mistakes(
        changed(inner__rnak=3, inner__rank=-1, outer__sft__schedule="wavy", data__heldout_fraction=0.95)
        | {"extra": 1, "sampling": 5}
    )
    for part in ("config.inner.rnak: no such field", "config.inner.rank: is -1 and must be at least 0",
                 "config.outer.sft.schedule: is 'wavy' and must be one of linear", "config.extra: no such field",
                 "config.data.heldout_fraction: is 0.95 and must be at most 0.9", "config.sampling: is 5"):  # fmt: skip
        assert part in text


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", -1), ("seed", 1.5), ("seed", True), ("seed", None), ("seed", float("nan")),
        ("inner__learning_rate", 0.0), ("inner__learning_rate", float("nan")), ("inner__learning_rate", "1e-3"),
        ("inner__targets", "q_proj"), ("inner__targets", 5), ("inner__targets", (5,)), ("inner__targets", ()),
        ("inner__targets", ("w_proj",)), ("sampling__top_p", 0.0), ("sampling__top_p", 1.5), ("outer__samples", 0),
        ("outer__selection", "worst"), ("outer__export", 1), ("task__closing", "yes"), ("model__policy", None),
        ("reward__judge", "oracle"), ("data__train_passages", 0),
    ],
)  # fmt: skip
def test_bad_values_are_refused_by_name(path, value):
    assert f"config.{path.replace('__', '.')}: " in mistakes(changed(**{path: value}))


def test_inner_loops_train_adapters_and_the_policy_may_train_all_weights():
    assert "config.inner.rank" in mistakes(changed(inner__rank=0))
    assert from_dict(changed(outer__sft__rank=0)).outer.sft.rank == 0


def test_a_reward_of_nothing_is_refused():
    assert "both 0" in mistakes(changed(reward__accuracy_weight=0.0, reward__likelihood_weight=0.0))


def test_defaults_are_a_copy():
    values = defaults()
    before = copy.deepcopy(values)
    values["inner"]["rank"] = 99
    assert defaults() == before


def test_sizes_of_config_files():
    full = ConfigDict(defaults())
    assert from_dict(at_size(full, "").to_dict()) == Config()
    assert from_dict(at_size(full, "smoke").to_dict()).data.train == "shipped:train"
    with pytest.raises(UserError, match="no version 'nonsense'; there is :smoke"):
        at_size(full, "nonsense")


def load(file: Path):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_config_files_are_valid_and_their_smoke_version_is_smaller(file):
    module = load(file)
    full, smoke = (from_dict(module.get_config(*size).to_dict()) for size in ((), ("smoke",)))
    assert smoke.model == full.model and smoke.task == full.task
    for config in (full, smoke):
        assert config.data.train_passages and config.outer.rounds
    work = [c.data.train_passages * c.outer.samples * c.reward.retrains * c.outer.rounds * c.inner.epochs
            for c in (smoke, full)]  # fmt: skip
    assert work[0] * 8 <= work[1]
    assert f"--config=configs/{file.name}" in module.__doc__


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_config_files_refuse_a_version_that_they_do_not_have(file):
    with pytest.raises(UserError, match="nonsense"):
        load(file).get_config("nonsense")
