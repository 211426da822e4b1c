"""What models do on the shipped corpus: right answers without the passage, with it in the prompt, and after an inner
loop on its sentences.

    python benchmarks/models.py smollm2-135m-instruct gemma-3-270m-q4_k_m.gguf       # minutes each on 2 cores

A model is a folder, a .gguf file or a hub id. Those with a chat template are asked in chat form, as the quickstart
asks; `--plain` asks all in plain text. The judge is `lexical`. The inner loop is that of the quickstart, an adapter for
each passage, all trained together, at every learning rate of `--rates`.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

from seal_jax import lab
from seal_jax.domains.knowledge.corpus import Passage, load_passages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--passages", type=int, default=3)
    parser.add_argument("--skip", type=int, default=0, help="passages of the corpus to leave out")
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-3])
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--show", type=int, default=0, help="answers to print for each model")
    arguments = parser.parse_args()
    passages = load_passages("shipped:train")[arguments.skip : arguments.skip + arguments.passages]
    names = "untrained", "passage in the prompt", *(f"inner loop at {rate:g}" for rate in arguments.rates)
    head = "| model | form | questions | " + " | ".join(names) + " | seconds |"
    lines = [head, "|---|---" + "|---:" * (len(names) + 2) + "|"]
    for source in arguments.models:
        began = time.perf_counter()
        form, found = measure(source, passages, arguments)
        count = sum(len(passage.questions) for passage in passages)
        cells = [Path(source).name, form, str(count), *(f"{100 * right / count:.0f} %" for right in found)]
        lines.append(f"| {' | '.join(cells)} | {time.perf_counter() - began:.0f} |")
    print("\n".join(lines))


def measure(source: str, passages: list[Passage], arguments: argparse.Namespace) -> tuple[str, list[int]]:
    """(chat or plain, right answers of all passages in each of the ways)."""
    model, chat = load(source, arguments.plain)
    ways = [
        [lab.ask(model, None, passage, asked(passage), shown)[0] for passage in passages] for shown in (False, True)
    ]
    for rate in arguments.rates:
        domain = replace(model.domain, learning_rate=rate)
        learner = replace(model, domain=domain)
        trained = lab.train_on(learner, [[(passage, lab.split(passage))] for passage in passages])
        said = [lab.ask(learner, trained.adapters, passage, asked(passage)) for passage in passages]
        ways.append([each[number] for number, each in enumerate(said)])
    for i, question in enumerate(asked(passages[0])[: arguments.show]):
        print(source, repr(question), [way[0][i].strip()[:80] for way in ways], flush=True)
    right = [sum(map(sum, map(score, passages, way))) for way in ways]
    return ("chat" if chat else "plain"), right


def load(source: str, plain: bool) -> tuple[lab.Model, bool]:
    """The model, and whether it is asked in chat form."""
    model = lab.load(source, model={"chat": "no" if plain else "auto"})
    chat = model.actor.chat
    if not chat:
        model = replace(model, domain=replace(model.domain, rules=replace(model.domain.rules, form="plain")))
    return model, chat


def asked(passage: Passage) -> list[str]:
    return [question.question for question in passage.questions]


def score(passage: Passage, said: list[str]) -> list[bool]:
    return lab.score(asked(passage), [question.answer for question in passage.questions], [said])[0]


if __name__ == "__main__":
    main()
