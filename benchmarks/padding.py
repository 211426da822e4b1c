"""The share of real tokens when steps are split into groups of like length: planned as the engine does, nothing is run.

    python benchmarks/padding.py --completions squad_train.json           # passages with self-edits in `completions`
    python benchmarks/padding.py --run runs/quickstart                    # the self-edits of a run, stage by stage

For each number of candidates that train together and each number of groups it prints the real tokens in all token
slots computed, steps and calls of the step program, and the distinct programs. Self-edits become sequences as in
configs/quickstart.py (turns of a chat, a sentence each, without the passage) or, with --form plain, by the paper's
defaults. Lengths are those of SmolLM2's tokenizer; where its package is not installed, a quarter of the bytes, and the
output says so.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from seal_jax.domains.knowledge.corpus import Passage, load_passages
from seal_jax.domains.knowledge.sequences import Rules, training_examples
from seal_jax.engine import groups
from seal_jax.engine.packing import Candidate, Row
from seal_jax.errors import UserError
from seal_jax.model import gguf_file
from seal_jax.model.gguf_tokenizer import tokenizer_from_gguf
from seal_jax.model.pretrained import locate

RULES = {
    "chat": Rules(form="chat", closing=True, split_sentences=True, include_passage=False),
    "plain": Rules(),
}


def encoder() -> tuple[Callable, str]:
    """(example -> token ids and loss weights, how lengths were had)."""
    try:
        path = locate("smollm2-135m-instruct")
    except UserError:

        def approximate(example):
            before = 0 if example.prompt is None else 12 + len(example.prompt.text.encode()) // 4
            after = 1 + len(example.text.encode()) // 4 + example.closing
            return [1] * (before + after), [0.0] * max(before, 1) + [1.0] * (before + after - max(before, 1))

        return approximate, "lengths are a quarter of the bytes, an approximation"
    tokenizer = tokenizer_from_gguf(gguf_file.read(path)[0], str(path)).with_system("")
    return tokenizer.encode_example, "lengths by SmolLM2's tokenizer"


def candidate(passage: Passage, text: str, rules: Rules, encode: Callable, epochs: int) -> Candidate:
    """The inner loop of a self-edit."""
    encoded = map(encode, training_examples(passage, text, rules))
    rows = tuple(Row(tuple(ids), tuple(weights)) for ids, weights in encoded)
    return Candidate(rows, 1e-3, epochs, 0, seed=(0,), order=(0,))


def of_run(folder: Path) -> Iterator[tuple[str, list[tuple[Passage, str]]]]:
    """(stage, self-edits) of a run's records: each stage is trained on its own."""

    def lines(name):
        return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]

    passages = {one["item"]: Passage(one["item"], one["title"], one["context"], ()) for one in lines("items.jsonl")}
    stages: dict[str, list] = {}
    for edit in lines("self_edits.jsonl"):
        if edit["text"].strip():
            stage = f"{edit['split']}, {edit['arm']}, round {edit['round']}"
            stages.setdefault(stage, []).append((passages[edit["item"]], edit["text"]))
    yield from stages.items()


def measure(candidates: list[Candidate], together: int, limit: int) -> tuple[int, int, int, set]:
    """(token slots, steps, calls, sizes of the programs) of all chunks on one device."""
    slots = dispatched = calls = 0
    programs: set[tuple[int, int]] = set()
    for steps, parts in groups.plan_all(candidates, together, 1, limit):
        slots += sum(part.width * part.length for part in parts)
        dispatched, calls = dispatched + steps, calls + len(parts)
        programs |= {part.size for part in parts}
    return slots, dispatched, calls, programs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--completions", metavar="FILE", help="passages with self-edits")
    source.add_argument("--run", type=Path, metavar="DIR", help="a run's folder")
    parser.add_argument("--form", choices=tuple(RULES), default="chat")
    parser.add_argument("--candidates", type=int, nargs="+", default=[8, 16, 64], help="trained together")
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--edits", type=int, default=256, help="of the file, at most")
    parser.add_argument("--epochs", type=int, default=4)
    flags = parser.parse_args()
    encode, how = encoder()
    if flags.run:
        stages = list(of_run(flags.run))
    else:
        passages = load_passages(flags.completions)
        most = max(len(passage.completions) for passage in passages)
        texts = [(p, p.completions[k]) for k in range(most) for p in passages if k < len(p.completions)]
        stages = [("all", texts[: flags.edits])]
    made = [[candidate(*pair, RULES[flags.form], encode, flags.epochs) for pair in pairs] for _, pairs in stages]
    made = [[one for one in found if one.rows] for found in made]
    lengths = sorted(len(row.tokens) for found in made for one in found for row in one.rows)
    print(f"{sum(map(len, made))} self-edits in {len(stages)} stages, {flags.form} form, {flags.epochs} epochs, "
          f"rows of {lengths[0]} to {lengths[-1]} tokens, median {lengths[len(lengths) // 2]}; {how}\n")  # fmt: skip
    print("| candidates | groups | real tokens | token slots | steps | calls | programs |")
    print("|---|---|---|---|---|---|---|")
    real = sum(one.epochs * len(row.tokens) for found in made for one in found for row in one.rows)
    for together in flags.candidates:
        for limit in flags.groups:
            slots, steps, calls, programs = 0, 0, 0, set()
            for found in made:
                more = measure(found, together, limit)
                slots, steps, calls, programs = slots + more[0], steps + more[1], calls + more[2], programs | more[3]
            print(f"| {together} | {limit} | {real / slots:.1%} | {slots} | {steps} | {calls} | {len(programs)} |")


if __name__ == "__main__":
    main()
