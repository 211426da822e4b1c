"""Right answers by learning rate, epochs and objective of the inner loop, and what is forgotten.

    python benchmarks/inner_settings.py --rates 5e-4 1e-3 2e-3 --epochs 2 4 8        # half an hour on 2 cores
    python benchmarks/inner_settings.py --objectives sft distill --rates 2e-3 --epochs 4 --edits own

Trains an adapter on each passage's sentences (or on a self-edit of the model's own) for every setting, all passages at
once, asks the passage's questions, and prints for each setting: accuracy by the judge `lexical`, mean ± standard error
over passages, and the loss on texts about other things, in nats per token (that of the untrained model beside it).
--plot FILE draws accuracy by epochs, a line for each rate and objective. configs/grid_smollm2.py goes through rates and
epochs as a run, with records and a report.
"""

import argparse
import dataclasses

import numpy as np
from matplotlib.figure import Figure

from seal_jax import lab, seeds
from seal_jax.domains.knowledge.corpus import Passage, load_passages
from seal_jax.engine.packing import Row
from seal_jax.engine.weights import Weights
from seal_jax.student import train as training
from seal_jax.student.ask import ask
from seal_jax.student.train import Adapters, Loop

NEUTRAL = 4  # passages of another split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--data", default="shipped:train", help="passages as in config.data.train")
    parser.add_argument("--skip", type=int, default=8, help="passages to leave out, such as those in use")
    parser.add_argument("--passages", type=int, default=12)
    parser.add_argument("--edits", choices=("sentences", "own"), default="sentences")
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-4, 1e-3, 2e-3])
    parser.add_argument("--epochs", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--objectives", nargs="+", choices=("sft", "distill"), default=["sft"])
    parser.add_argument("--freeze-a", action="store_true", help="LoRA-FA: one A for all adapters, and B is trained")
    parser.add_argument("--plot", metavar="FILE")
    arguments = parser.parse_args()
    passages = load_passages(arguments.data)[arguments.skip :][: arguments.passages]
    neutral = load_passages("shipped:validation")[:NEUTRAL]
    found: dict[tuple[str, float], list[tuple[int, float, float]]] = {}
    print("| objective | learning rate | epochs | right, % | loss on other texts |\n|---|---|---|---|---|")
    for objective in arguments.objectives:
        model = lab.load(arguments.model, inner={"objective": objective, "freeze_a": arguments.freeze_a})
        texts = [lab.split(one) if arguments.edits == "sentences" else lab.write(model, one, 1)[0] for one in passages]
        before = np.mean(losses(model, None, neutral))
        for rate in arguments.rates:
            for epochs in arguments.epochs:
                adapters = train(model, list(zip(passages, texts, strict=True)), rate, epochs)
                right = accuracies(model, adapters, passages)
                after = np.mean(losses(model, adapters, neutral))
                error = np.std(right, ddof=1) / len(right) ** 0.5
                print(f"| {objective} | {rate:g} | {epochs} | {100 * np.mean(right):.1f} ± {100 * error:.1f} | "
                      f"{after:.2f} ({before:.2f}) |", flush=True)  # fmt: skip
                found.setdefault((objective, rate), []).append((epochs, float(np.mean(right)), float(error)))
    if arguments.plot:
        draw(found, arguments.plot)


def train(model: lab.Model, taught: list[tuple[Passage, str]], rate: float, epochs: int) -> Adapters:
    """An adapter on each passage's text, in the order of the passages."""
    loops = []
    for about, text in taught:
        lesson = model.domain.lesson(about, text, (), len)
        lesson = dataclasses.replace(lesson, learning_rate=rate, epochs=epochs)
        loop = Loop(lesson, seeds.adapter(0, 0, about, 0), seeds.order(0, 0, 0))
        loops.append(training.candidate(model.actor, loop, model.config.inner))
    return training.train(model.actor, loops, model.config.inner)


def accuracies(model: lab.Model, adapters: Adapters, passages: list[Passage]) -> list[float]:
    """Share of each passage's questions that its adapter answers right."""
    quizzes = [dataclasses.replace(model.domain.quiz(one, model.actor.chat), gold=()) for one in passages]
    found = ask(model.actor, adapters, quizzes, model.config.evaluation.answer_tokens)
    right = []
    for about, answers in zip(passages, found, strict=True):
        questions, gold = zip(*[(each.question, each.answer) for each in about.questions], strict=True)
        right.append(float(np.mean(lab.score(questions, gold, [answers.texts]))))
    return right


def losses(model: lab.Model, adapters: Adapters | None, texts: list[Passage]) -> list[float]:
    """Loss in nats per token of plain texts, under each adapter; under the untrained model without any."""
    rows = []
    for one in texts:
        ids = model.actor.tokenizer.encode(one.context)
        rows.append(Row(tuple(ids), (0.0, *[1.0] * (len(ids) - 1))))
    weights, lanes = Weights(model.actor.base), 1
    if adapters is not None:
        weights, lanes = Weights(model.actor.base, adapters.tree, adapters.lora), len(adapters.order)
    found = []
    for row in rows:  # one text at a time, under all adapters
        totals = model.actor.engine.log_likelihood(weights, [[row]] * lanes)
        found += [-total / (len(row.tokens) - 1) for [total] in totals]
    return found


def draw(found: dict[tuple[str, float], list[tuple[int, float, float]]], file: str) -> None:
    """Accuracy by epochs, a line for each objective and rate, with standard errors."""
    figure = Figure(figsize=(5, 3.4), dpi=160, layout="constrained")
    axes = figure.subplots()
    for (objective, rate), points in found.items():
        epochs, means, errors = (np.array(part) for part in zip(*points, strict=True))
        axes.errorbar(epochs, 100 * means, 100 * errors, fmt="o-", capsize=3, label=f"{objective}, {rate:g}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(epochs, [str(number) for number in epochs])
    axes.set_xlabel("epochs")
    axes.set_ylabel("right answers, %")
    axes.legend(frameon=False)
    figure.savefig(file)


if __name__ == "__main__":
    main()
