"""Which reward agrees with right answers: reliability by retrains, and rank correlation with the accuracy of others.

    python benchmarks/rewards.py                    # 12 passages × 6 self-edits × 4 retrains; an hour on 2 cores
    python benchmarks/rewards.py --trials FILE...   # the table of trials that were written before

Self-edits are the first policy's own. What stands in --out already is not measured again. Each inner loop is asked
once, and from what it says and how likely it finds certain texts several rewards are computed:

    accuracy, F1                     of its answers
    gold phrase                      log-likelihood of the bare gold answer, in nats per token
    in-context answer                of what the same model answers with the passage in its prompt, where that is right,
                                     otherwise of the passage's sentence that holds the gold answer
    gold within it                   of the gold answer's tokens alone, at their place in that text

Reliability (ICC) of n retrains: the share of the variance of their mean, within a passage, that lies between
self-edits.
Agreement: Spearman's rank correlation within passages of n retrains with the mean accuracy of the others, and the
accuracy, by those others, of the self-edit that the reward selects; 95% intervals from passages drawn 1,000 times.
"""

import argparse
import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np

from seal_jax import config as configs
from seal_jax import seeds
from seal_jax.authors.policy import Policy
from seal_jax.domains.domain import Example, Graded
from seal_jax.domains.knowledge.corpus import Passage
from seal_jax.domains.knowledge.sequences import question_prompt, sentences
from seal_jax.engine.packing import Row
from seal_jax.engine.weights import Weights
from seal_jax.experiments import knowledge
from seal_jax.judges import lexical
from seal_jax.report.answers import token_f1
from seal_jax.student.actor import Actor, load_actor
from seal_jax.student.ask import Answers, ask
from seal_jax.student.train import Loop, candidate, chunks, train

REWARDS = ("accuracy", "F1", "gold phrase", "in-context answer", "gold within it")
SHARE = 0.2  # of "gold within it" that the last row of the table adds to accuracy, where that ties
COUNTS = (1, 3, 10)  # retrains whose mean is the reward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--passages", type=int, default=12)
    parser.add_argument("--edits", type=int, default=6)
    parser.add_argument("--retrains", type=int, default=4)
    parser.add_argument("--skip", type=int, default=8, help="passages of data.train to leave out, such as those in use")
    parser.add_argument("--trials", nargs="+", help="JSON lines of earlier runs, of different passages")
    parser.add_argument("--out", default="rewards.jsonl")
    arguments = parser.parse_args()
    if not arguments.trials:
        measure(arguments)
    files = arguments.trials or [arguments.out]
    print(table([json.loads(line) for file in files for line in Path(file).read_text().splitlines()]))


def measure(arguments: argparse.Namespace) -> None:
    """Writes a line for each inner loop: item, sample, retrain, and every reward."""
    values = runpy.run_path(arguments.config)["get_config"]()
    values.data.update(train_items=arguments.skip + arguments.passages)
    config = configs.from_dict(values.to_dict())
    world = knowledge.world(config)
    domain = world.domain(lexical.grade)
    student = load_actor(config.model.policy, config)
    items = world.train[arguments.skip :]
    author = Policy(student, domain, config.sampling, 1, None)
    edits = {}
    for written in author.write(items, arguments.edits, (config.seed, 1)):
        edits |= written
    opened = replace(domain, open_book=True)
    shown = ask(student, None, [opened.quiz(item, student.chat) for item in items], config.evaluation.answer_tokens)
    verdicts = domain.grade([(item, found.texts) for item, found in zip(items, shown, strict=True)])
    targets = {item.id: _targets(student, item, graded) for item, graded in zip(items, verdicts, strict=True)}
    out = Path(arguments.out)
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    done = {(line["item"], line["sample"], line["retrain"]) for line in lines}
    wanted = [(i, k, r) for r in range(arguments.retrains) for i in items for k in range(arguments.edits)]
    wanted = [(i, k, r) for i, k, r in wanted if (i.title, k, r) not in done]
    loops = []
    for item, k, r in wanted:
        lesson = domain.lesson(item, edits[item.id][k].text, (0,), len)
        loop = Loop(lesson, seeds.adapter(config.seed, 1, item, r), seeds.order(config.seed, 1, r))
        loops.append(candidate(student, loop, config.inner))
    with out.open("a") as file:
        for chunk in chunks(student, loops, config.inner):
            if not loops[chunk[0]].rows:
                continue
            trained = train(student, [loops[i] for i in chunk], config.inner)
            quizzes = [domain.quiz(wanted[i][0], student.chat) for i in chunk]
            answers = ask(student, trained, quizzes, config.reward.answer_tokens)
            lanes = [[row for pair in targets[wanted[chunk[c]][0].id] for row in pair] for c in trained.order]
            totals = student.engine.log_likelihood(Weights(student.base, trained.tree, trained.lora), lanes)
            likely = dict(zip(trained.order, zip(lanes, totals, strict=True), strict=True))
            graded = domain.grade([(wanted[i][0], found.texts) for i, found in zip(chunk, answers, strict=True)])
            for place, i in enumerate(chunk):
                file.write(json.dumps(_line(wanted[i], answers[place], graded[place], *likely[place])) + "\n")
            file.flush()
            print(f"{len(chunk)} inner loops", flush=True)


def _line(wanted: tuple, answers: Answers, graded: Graded, rows: list[Row], totals: list[float]) -> dict:
    item, sample, retrain = wanted
    each = [total / max(sum(row.weights), 1) for row, total in zip(rows, totals, strict=True)]
    f1 = [token_f1(question.answer, text) for question, text in zip(item.questions, answers.texts, strict=True)]
    found = graded.verdicts, f1, answers.log_likelihood, each[::2], each[1::2]
    named = dict(zip(REWARDS, (float(np.mean(values)) for values in found), strict=True))
    return {"item": item.title, "sample": sample, "retrain": retrain} | named


def _targets(student: Actor, item: Passage, shown: Graded) -> list[tuple[Row, Row]]:
    """For each question (the text that a good student says, and the gold answer's tokens within it)."""
    found = []
    for question, text, right in zip(item.questions, shown.answers, shown.verdicts, strict=True):
        if not right:
            holds = [s for s in sentences(item.context) if question.answer.lower() in s.lower()]
            text = holds[0] if holds else question.answer
        prompt = question_prompt(item, question, student.chat)
        whole = student.row(Example(prompt, text, closing=False))
        at = text.lower().find(question.answer.lower())
        before = text[:at].rstrip() if at > 0 else ""
        head = student.row(Example(prompt, before, closing=False)) if before else None
        length = len(head.tokens) if head else len(whole.tokens) - int(sum(whole.weights))
        answer = question.answer if at < 0 else text[at:][: len(question.answer)]
        gold = student.tokenizer.encode((" " if before else "") + answer)
        tokens = (head.tokens if head else whole.tokens[:length]) + tuple(gold)
        found.append((whole, Row(tokens, (0.0,) * length + (1.0,) * len(gold))))
    return found


def table(lines: list[dict]) -> str:
    """Reliability and agreement of every reward, as a Markdown table."""
    keys = [sorted({line[name] for line in lines}) for name in ("item", "sample", "retrain")]
    shape = tuple(map(len, keys))
    values = {name: np.full(shape, np.nan) for name in REWARDS}
    for line in lines:
        place = tuple(key.index(line[name]) for key, name in zip(keys, ("item", "sample", "retrain"), strict=True))
        for name in REWARDS:
            values[name][place] = line[name]
    complete = ~np.isnan(values["accuracy"]).any(axis=(1, 2))
    values = {name: value[complete] for name, value in values.items()}
    values[f"accuracy + {SHARE} × gold within it"] = values["accuracy"] + SHARE * values["gold within it"]
    named = " | ".join(f"ICC {n}" for n in COUNTS)
    head = f"| reward | {named} | rank correlation 1 | selected by 1, accuracy % |"
    rows = [head, "|---" * (len(COUNTS) + 3) + "|"]
    drawn = np.random.default_rng(0).integers(complete.sum(), size=(1000, complete.sum()))
    for name in values:
        icc = [f"{reliability(values[name], n):.2f}" for n in COUNTS]
        found = np.array([agreement(values[name][some], values["accuracy"][some]) for some in [slice(None), *drawn]])
        low, high = np.nanpercentile(found[1:], (2.5, 97.5), axis=0)
        rho, chosen = (
            f"{factor * found[0, i]:{form}} ({factor * low[i]:{form}} to {factor * high[i]:{form}})"
            for i, factor, form in ((0, 1, ".2f"), (1, 100, ".1f"))
        )
        rows.append(f"| {name} | " + " | ".join([*icc, rho, chosen]) + " |")
    mean, most = values["accuracy"].mean(), values["accuracy"].mean(2).max(1).mean()
    last = f"{complete.sum()} passages; accuracy of a random self-edit {mean:.1%}, of the best by all {most:.1%}"
    return "\n".join([*rows, last])


def reliability(values: np.ndarray, count: int) -> float:
    """The ICC of the mean of `count` retrains, values [passage, self-edit, retrain], within passages."""
    within = values.var(axis=2, ddof=1).mean()
    between = values.mean(axis=2).var(axis=1, ddof=1).mean() - within / values.shape[2]
    return float(max(between, 0.0) / (max(between, 0.0) + within / count))


def agreement(values: np.ndarray, accuracy: np.ndarray) -> tuple[float, float]:
    """(rank correlation of one retrain with the accuracy of the others, that accuracy where the reward is greatest)."""
    found = []
    for retrain in range(values.shape[2]):
        others = np.delete(accuracy, retrain, axis=2).mean(axis=2)
        ours = values[:, :, retrain]
        ranks = [_centred_ranks(array) for array in (ours, others)]
        rho = (ranks[0] * ranks[1]).sum() / np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
        found.append((rho, np.take_along_axis(others, ours.argmax(axis=1)[:, None], axis=1).mean()))
    return tuple(np.mean(found, axis=0))


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks within each row, equal ones averaged, less their mean."""
    less = (values[:, :, None] > values[:, None, :]).sum(axis=2)
    equal = (values[:, :, None] == values[:, None, :]).sum(axis=2)
    ranks = less + (equal - 1) / 2
    return ranks - ranks.mean(axis=1, keepdims=True)


if __name__ == "__main__":
    main()
