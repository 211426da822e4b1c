"""One table over runs: columns by config, seeds pooled, paired differences, the paper's numbers beside them."""

import errno
import json
import shutil
import signal
import subprocess
import sys

import made_up_run
import numpy as np
import pytest
from etils import epath
from scipy import stats

from seal_jax.errors import UserError
from seal_jax.report import __main__ as entry
from seal_jax.report import compared, paper, tables
from seal_jax.report.compare import Row, columns, compare, difference, flat, over_runs, paired, pooled
from seal_jax.report.estimates import estimate
from seal_jax.report.recorded import load

SEAL_2 = Row("SEAL", 2, "SEAL, round 2")


def made(folder, records=0, items=6, **fields):
    """A run that never was; fields: of its config, as dotted names with two underscores."""
    made_up_run.write(folder, items=items, seed=records)
    values = json.loads((folder / "config.json").read_text())
    for name, value in fields.items():
        *groups, last = name.split("__")
        group = values
        for part in groups:
            group = group[part]
        group[last] = value
    (folder / "config.json").write_text(json.dumps(values))
    return str(folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three seeds of one config, one run of another."""
    home = tmp_path_factory.mktemp("runs")
    seeds = [made(home / f"mine{seed}", records=seed, seed=seed) for seed in (2, 0, 1)]
    return seeds, made(home / "faster", records=9, inner__learning_rate=2e-3, engine__candidates=3)


def accuracies(folder, row=SEAL_2):
    """{item: share of right answers}, without the code that is under test."""
    found = {}
    for line in (epath.Path(folder) / "trials.jsonl").read_text().splitlines():
        trial = json.loads(line)
        if (trial["split"], trial["arm"], trial["round"]) == ("evaluation", row.arm, row.round):
            known = [v for v in trial["correct"] or [] if v is not None]
            if known:
                found[trial["item"]] = sum(known) / len(known)
    return found


def test_runs_that_differ_in_their_seed_alone_are_one_column(runs):
    seeds, other = runs
    mine, faster = columns([*seeds, other, seeds[0]])
    assert (mine.names, mine.seeds, mine.name) == (["mine0", "mine1", "mine2"], [0, 1, 2], "mine0 (3 seeds)")
    assert (faster.names, faster.name, faster.judge) == (["faster"], "faster", "lexical")


def test_a_run_begun_before_a_field_existed_has_its_default(runs, tmp_path):
    seeds, _ = runs
    config = json.loads((epath.Path(seeds[0]) / "config.json").read_text())
    config["seed"] = 7
    del config["inner"]["targets"], config["knowledge"]["least_words"]
    older = epath.Path(made(tmp_path / "older", records=7))
    (older / "config.json").write_text(json.dumps(config))
    (mine,) = columns([*seeds, str(older)])
    assert mine.seeds == [0, 1, 2, 7]


def test_items_are_averaged_over_seeds_first(runs):
    seeds, other = runs
    found = compare([*seeds, other])
    cell = found.cells["accuracy"][SEAL_2, 0]
    each = [accuracies(folder) for folder in sorted(seeds)]
    items = np.array([[one[item] for item in each[0]] for one in each])
    assert cell.value.mean == pytest.approx(items.mean()) and cell.value.count == 6
    assert cell.runs == pytest.approx(items.mean(axis=1))
    assert cell.spread == pytest.approx(items.mean(axis=1).std(ddof=1))
    assert found.cells["accuracy"][SEAL_2, 1].spread is None
    assert list(found.cells) == ["accuracy", "log_likelihood"]
    names = [row.name for row in found.rows]
    assert names == [name for _, _, name, _, _ in made_up_run.ROWS]


def test_differences_are_paired_by_item(runs):
    seeds, other = runs
    cells = compare([*seeds, other]).cells["accuracy"]
    ours, theirs = accuracies(other), [accuracies(folder) for folder in seeds]
    gains = [ours[item] - np.mean([one[item] for one in theirs]) for item in ours]
    versus = cells[SEAL_2, 1].versus_first
    assert versus.mean == pytest.approx(np.mean(gains)) and versus.low < versus.mean < versus.high
    assert cells[SEAL_2, 0].versus_first is None
    base = accuracies(other, Row("base", 0, "base"))
    over = cells[SEAL_2, 1].over
    assert over[tables.OVER_UNTRAINED].mean == pytest.approx(np.mean([ours[item] - base[item] for item in ours]))
    assert set(over) == {tables.OVER_UNTRAINED, tables.OVER_NO_RL, tables.OVER_RANDOM}
    assert cells[Row("base", 0, "base"), 0].over == {}


def test_one_run_alone_has_the_numbers_of_its_own_table(runs):
    folder = runs[1]
    found = compare([folder])
    for line in tables.lines(load(epath.Path(folder))):
        cell = found.cells["accuracy"][Row(line.arm, line.round, line.name), 0]
        assert cell.value == line.measures["accuracy"]
        for name, value in line.over.items():
            assert cell.over[name].mean == pytest.approx(value["accuracy"].mean)


def test_a_bootstrap_interval_is_that_of_the_means_of_resampled_items():
    rng = np.random.default_rng(1)
    values = {str(i): float(v) for i, v in enumerate(rng.normal(1.0, 2.0, 400))}
    found = paired(values, dict.fromkeys(values, 0.0), None)
    error = np.std(list(values.values())) / 20
    assert found.mean == pytest.approx(np.mean(list(values.values())))
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.1 * error)
    assert paired(values, {"0": 0.0, "1": 0.0, "x": 5.0}, None).count == 2
    constant = paired({"a": 1.0, "b": 1.0}, {"a": 0.5, "b": 0.5}, (-1, 1))
    assert constant.mean == 0.5 and constant.low < 0.5 < constant.high  # equal values are no proof


def test_what_whole_runs_differ_by_is_part_of_the_interval(runs):
    """By the formula: variance over items plus variance over runs, Student's t by Satterthwaite."""
    seeds, other = runs
    found = compare([*seeds, other]).cells["accuracy"]
    each = [accuracies(folder) for folder in sorted(seeds)]
    items = np.array([[one[item] for item in each[0]] for one in each])
    parts = [items.mean(0).var(ddof=1) / 6, items.mean(1).var(ddof=1) / 3]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 5 + parts[1] ** 2 / 2)
    half = stats.t.ppf(0.975, freedom) * sum(parts) ** 0.5
    value = found[SEAL_2, 0].value
    assert (value.low, value.high) == pytest.approx((items.mean() - half, items.mean() + half))
    theirs = accuracies(other)
    gains = [theirs[item] - np.mean([one[item] for one in each]) for item in theirs]
    parts[0] = np.var(gains, ddof=1) / 6  # the other column has one run, of whose spread nothing is known
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 5 + parts[1] ** 2 / 2)
    versus = found[SEAL_2, 1].versus_first
    assert versus.high - versus.mean == pytest.approx(stats.t.ppf(0.975, freedom) * sum(parts) ** 0.5)


def test_differences_within_a_column_have_the_spread_of_each_run_s_own_difference():
    ours = [{"a": 0.5, "b": 0.7}, {"a": 0.9, "b": 0.9}]
    theirs = [{"a": 0.4, "b": 0.4}, {"a": 0.6, "b": 0.8}]  # gains: .1, .3 and .3, .1, in the mean the same
    same = difference(ours, theirs, (-1, 1), same_runs=True)
    assert same.mean == pytest.approx(0.2) and same == paired(pooled(ours), pooled(theirs), (-1, 1))
    apart = difference(ours, theirs, None, same_runs=False)
    variance = np.var([0.6, 0.9], ddof=1) / 2 + np.var([0.4, 0.7], ddof=1) / 2
    assert apart.high - apart.mean == pytest.approx(stats.t.ppf(0.975, 2) * variance**0.5)
    assert difference(ours[:1], theirs[:1], None, same_runs=True) == paired(ours[0], theirs[0], None)


def test_an_interval_over_runs_holds_the_truth_about_as_often_as_it_says():
    rng, held, narrow = np.random.default_rng(0), 0, 0
    for _ in range(400):
        values = 0.5 + rng.normal(0, 0.1, 40) + rng.normal(0, 0.05, 3)[:, None] + rng.normal(0, 0.1, (3, 40))
        items, runs_ = values.mean(0), values.mean(1)
        alone = estimate(items)
        found = over_runs(alone, items, [runs_.tolist()])
        held += found.low <= 0.5 <= found.high
        narrow += alone.low <= 0.5 <= alone.high
    assert 0.93 <= held / 400 <= 0.995 and narrow / 400 < 0.85


def test_items_that_some_seeds_lack_are_averaged_over_the_others():
    assert pooled([{"a": 1.0, "b": 0.0}, {"a": 0.0}]) == {"a": 0.5, "b": 0.0}


def test_what_differs_in_the_configs_without_machine_and_seed(runs):
    seeds, other = runs
    found = compare([*seeds, other])
    assert found.changes == [("inner.learning_rate", ["0.001", "0.002"])]
    assert "engine.candidates" not in flat(found.columns[0].config)


def test_the_papers_numbers_stand_beside_the_same_row(runs):
    seeds, other = runs
    text = compared.as_text(compare([*seeds, other]))
    row = next(line for line in text.splitlines() if line.startswith("SEAL, round 2"))
    assert row.endswith("47.0") and "paper" in text
    assert "Model, data, judge and settings differ" in " ".join(text.split())
    config = {"knowledge": {"prompt": "rewrite"}, "model": {"policy": "q"}}
    assert paper.numbers(config, 200)[1][("SEAL", 1)] == 55.3
    config["model"]["policy"] = "Qwen/Qwen2.5-3B"
    assert paper.numbers(config, 200)[1] == paper.THREE_BILLION
    assert paper.numbers({"experiment": "pretraining"}, 2067)[1][("SEAL", 2)] == 46.4
    own = {"experiment": "pretraining", "pretraining": {"author": "endpoint"}}
    assert paper.numbers(own, 200)[1][("own", 5)] == 59.4
    assert paper.numbers({"domain": "arc"}, 8)[1][("SEAL", 1)] == 72.5


def test_other_items_or_another_judge_pair_nothing_and_are_said(runs, tmp_path):
    fewer = made(tmp_path / "fewer", items=5)
    found = compare([runs[1], fewer])
    assert found.cells["accuracy"][SEAL_2, 1].versus_first is None
    assert "Other passages than in faster, so that nothing is paired: fewer." in compared.notes(found)
    shutil.copytree(runs[1], tmp_path / "judged")
    file = tmp_path / "judged" / "trials.jsonl"
    file.write_text(file.read_text().replace('"judge": "lexical"', '"judge": "remote:m"'))
    (tmp_path / "judged" / "config.json").write_text(
        (epath.Path(runs[1]) / "config.json").read_text().replace('"kind": "lexical"', '"kind": "remote"')
    )
    found = compare([runs[1], str(tmp_path / "judged")])
    assert found.cells["accuracy"][SEAL_2, 1].versus_first is None
    assert any("The judges differ (lexical in faster, remote:m in judged)" in note for note in compared.notes(found))


def test_every_format_says_the_same(runs, tmp_path, capsys):
    seeds, other = runs
    found = compare([*seeds, other])
    number = compared.all_tables(found)[0].rows[-2][1]
    assert entry.main(["--compare", *seeds, other]) == 0
    assert number in capsys.readouterr().out
    for kind in ("markdown", "html"):
        assert entry.main(["--compare", *seeds, other, "--format", kind, "--out", str(tmp_path / kind)]) == 0
        assert number in (tmp_path / kind).read_text() and "mine0 (3 seeds)" in (tmp_path / kind).read_text()
    assert "| row | mine0 (3 seeds) | faster | paper |" in (tmp_path / "markdown").read_text()
    assert entry.main(["--compare", *seeds, other, "--format", "json"]) == 0
    value = json.loads(capsys.readouterr().out)
    row = next(one for one in value["rows"] if one["name"] == SEAL_2.name)
    assert row["paper"] == 47.0 and len(row["cells"]) == 2 and len(row["cells"][0]["accuracy"]["runs"]) == 3
    assert row["cells"][0]["accuracy"]["mean"] == found.cells["accuracy"][SEAL_2, 0].value.mean


def released(file, articles):
    file.write_text(json.dumps(articles))
    return str(file)


WEIR = {"title": "Weir", "context": "Old.", "stats": {"baseline_accuracy": 0.2, "adapter_mean_accuracy": 0.9},
        "completions": [{"text": "a", "stats": {"adapter_mean": 0.4}}, {"text": "b", "stats": {"adapter_mean": 0.6}}]}
MILL = {"title": "Mill", "context": "Old.", "stats": {"baseline_accuracy": 0.4, "adapter_mean_accuracy": 0.8},
        "completions": [{"text": "c"}]}  # fmt: skip


def test_a_result_file_is_a_column_whose_row_may_be_that_of_a_run(runs, tmp_path):
    file = released(tmp_path / "iter2.json", {"overall": {}, "articles": [WEIR, MILL]})
    found = compare([runs[1], f"SEAL, round 2={file}", file])
    assert [column.name for column in found.columns] == ["faster", "iter2", "iter2"]
    cells = found.cells["accuracy"]
    assert cells[SEAL_2, 1].value.mean == pytest.approx((0.5 + 0.8) / 2) and cells[SEAL_2, 1].value.count == 2
    assert cells[Row("base", 0, "base"), 1].value.mean == pytest.approx(0.3)
    assert cells[Row("iter2", 0, "iter2"), 2].value == cells[SEAL_2, 1].value
    assert cells[SEAL_2, 1].over[tables.OVER_UNTRAINED].mean == pytest.approx((0.3 + 0.4) / 2)
    assert cells[SEAL_2, 1].versus_first is None and found.changes == []
    text = compared.as_text(found)
    row = next(line for line in text.splitlines() if line.startswith("SEAL, round 2"))
    assert "65.0" in row and row.endswith("47.0")
    assert "The judges differ (lexical in faster, as released in iter2" in " ".join(text.split())
    assert json.loads(compared.as_json(found))["columns"][1]["items"] == 2 and compared.as_html(found)


def test_two_result_files_are_paired_by_passage(tmp_path):
    one = {"title": "Weir", "prompt": "Write of Weir.", "completions": [{"text": "a", "accuracy_per_retrain": [0, 1]}]}
    each = [{"text": "a", "accuracy_per_retrain": [0.25, 0.75]}, {"text": "b", "accuracy_per_retrain": [1.0, 1.0]}]
    other = {"title": "Weir", "prompt": "Write of it.", "completions": each}
    first = released(tmp_path / "a.json", [one, other])
    better = [item | {"completions": [{"accuracy_per_retrain": [1.0]}]} for item in (one, other)]
    found = compare([first, released(tmp_path / "b.json", {"articles": better})])
    cells = found.cells["accuracy"]
    assert cells[Row("a", 0, "a"), 0].value.mean == pytest.approx((0.5 + 0.75) / 2)
    assert [row.name for row in found.rows] == ["a", "b"]  # no untrained row, where the file has none


def test_result_files_that_cannot_be_read(runs, tmp_path, capsys):
    file = tmp_path / "x.json"
    for content, said in (
        ("{", "is no JSON"), ('{"a": 1}', "is no result file"), ("[]", "holds no accuracies"),
        ('[{"completions": []}]', "article 0: 'title' must be a text"),
        ('[{"title": "a", "completions": 3}]', "'completions' must be a list"),
        ('[{"title": "a", "completions": ["text"]}]', "holds no accuracies"),
        ('[{"title": "a", "stats": []}]', "holds no accuracies"), ('[{"title": "a", "stats": 3}]', "must be an object"),
        ('[{"title": "a", "completions": [{"accuracy_per_retrain": [2]}]}]', "is 2 and must be a number from 0 to 1"),
        ('[{"title": "a", "completions": [{"accuracy_per_retrain": 1}]}]', "must be a list of numbers"),
    ):  # fmt: skip
        file.write_text(content)
        assert entry.main(["--compare", runs[1], str(file)]) == 2
        assert said in capsys.readouterr().err
    released(file, [WEIR])
    assert entry.main(["--compare", runs[1], f"SEAL, round 9={file}"]) == 2
    assert "no run has a row 'SEAL, round 9'; there are 'base'" in capsys.readouterr().err


def test_one_run_is_shown_as_it_is_at_its_end(runs, capsys):
    folder = epath.Path(runs[1])
    (folder / "report.html").unlink(missing_ok=True)
    assert entry.main([runs[1]]) == 0
    assert "SEAL, round 2" in capsys.readouterr().out and (folder / "report.html").exists()


def test_a_run_whose_page_cannot_be_written_is_one_sentence(runs, monkeypatch, capsys):
    def protected(_):
        raise OSError(errno.EROFS, "Read-only file system", "report.html.new")

    monkeypatch.setattr(entry.html, "write", protected)
    assert entry.main([runs[1]]) == 2
    assert "report.html.new cannot be written (Read-only file system)" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="this system has no SIGPIPE")
def test_a_reader_that_has_seen_enough_ends_it_without_a_word(runs):
    command = [sys.executable, "-m", "seal_jax.report", "--compare", *runs[0]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (-signal.SIGPIPE, b"")


def test_mistakes_are_one_sentence(runs, tmp_path, capsys):
    seeds, other = runs
    shutil.copytree(seeds[0], tmp_path / "copy")
    (tmp_path / "empty").mkdir()
    arc = made(tmp_path / "arc", domain="arc")
    for arguments, said in (
        (["--compare", str(tmp_path / "none")], "holds no run with a table"),
        (["--compare", seeds[0], str(tmp_path / "copy")], "have the same config and seed"),
        (["--compare", other, arc], "compare those of one kind"),
        ([str(tmp_path / "empty")], "holds no run; name the folder"),
        ([other, seeds[0]], "--compare"),
        ([other, "--format", "json"], "are of a comparison"),
        (["--compare", other, "--out", str(tmp_path / "no" / "x")], "cannot be written"),
    ):
        assert entry.main(arguments) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    with pytest.raises(UserError):
        compare([str(tmp_path / "empty")])
