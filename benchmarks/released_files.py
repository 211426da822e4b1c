"""Checks the rules of the knowledge task against files that the paper's authors released (development only).

    python benchmarks/released_files.py --data DIR

DIR holds squad_train_100.json (passages with completions), selection_round0.json (accuracies per retrain and the
completion that was chosen) and judge_verdicts_2500.jsonl (answers with GPT-4.1's verdicts). Ends with status 1 if a
number is not what it has to be.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from seal_jax.domains.domain import Answered
from seal_jax.domains.knowledge.corpus import Passage, load_passages
from seal_jax.domains.knowledge.sequences import Rules, training_examples, training_texts
from seal_jax.judges.agreement import cohens_kappa
from seal_jax.judges.lexical import grade
from seal_jax.outer.rollouts import Rollout
from seal_jax.outer.select import best

PER_PASSAGE = 5  # the first five completions of a passage are those of the authors' first round
LEAST_KAPPA = 0.72


def check_texts(passage: Passage, completion: str, texts: list[str]) -> list[str]:
    """What is wrong with the training sequences of one completion, by rules stated independently of the splitter."""
    *own, last = texts
    bodies = [text.removeprefix(f"{passage.title}\n") for text in own]
    faults = {
        "the passage is not last": last != f"{passage.title}\n{passage.context}",
        "a sequence does not start with the title": any(len(b) == len(t) for b, t in zip(bodies, own, strict=True)),
        "more than 30 sequences": len(own) > 30,
        "no sequence": not own,
        "an empty or unstripped sequence": any(not b or b != b.strip() for b in bodies),
        "a line break inside a sequence": any("\n" in b for b in bodies),
        "not the completion's lines": bodies != [x.strip() for x in completion.split("\n") if x.strip()][: len(bodies)],
        "lines missing": len(bodies) < min(30, sum(bool(x.strip()) for x in completion.split("\n"))),
    }
    return [name for name, wrong in faults.items() if wrong]


def sequences(passages: list[Passage]) -> int:
    """Counts, and every completion that breaks a rule. These completions hold no '---', no questions, no headings."""
    pairs = [(passage, completion) for passage in passages for completion in passage.completions[:PER_PASSAGE]]
    found = [training_texts(passage, completion, Rules()) for passage, completion in pairs]
    faults = [fault for (p, c), texts in zip(pairs, found, strict=True) for fault in check_texts(p, c, texts)]
    counts = [len(texts) for texts in found]
    chat = sum(len(training_examples(p, c, Rules(form="chat"))) for p, c in pairs)
    print(f"completions {len(pairs)}, sequences with the passage {sum(counts)} (mean {sum(counts) / len(counts):.3f}, "
          f"{min(counts)} to {max(counts)}, {sum(n == 31 for n in counts)} at the limit), chat examples {chat}")
    print("sequences: completions  " + "  ".join(f"{n}: {times}" for n, times in sorted(Counter(counts).items())))
    print(f"broken rules: {dict(Counter(faults)) or 'none'}")
    return len(faults)


def selection(items: list[dict]) -> int:
    """How many choices are not reproduced by the greatest mean accuracy, the first one at a tie.

    The authors' accuracies were rounded before they were averaged (any number of decimals from 2 to 15 gives the same
    50 choices, none gives 48), which decides two ties between means that are equal as fractions.
    """
    missed = 0
    for item in items:
        retrains = [completion["accuracy_per_retrain"] for completion in item["completions"]]
        rewards = [sum(round(accuracy, 4) for accuracy in each) / len(each) for each in retrains]
        found = [Rollout(None, None, sample, None, reward) for sample, reward in enumerate(rewards)]
        missed += best(found) != [item["chosen"]]
    print(f"best of {len(items[0]['completions'])}: {len(items) - missed} of {len(items)} choices reproduced")
    return missed


def judge(lines: list[dict]) -> float:
    """Cohen's kappa of the lexical judge with the released verdicts."""
    verdicts = grade([Answered(line["question"], line["gold"], line["answer"]) for line in lines])
    kappa = cohens_kappa(verdicts, [line["correct"] for line in lines])
    print(f"lexical judge: kappa {kappa:.3f} on {len(lines)} verdicts")
    return kappa


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    faults = sequences(load_passages(str(data / "squad_train_100.json")))
    missed = selection(json.loads((data / "selection_round0.json").read_text(encoding="utf-8")))
    lines = (data / "judge_verdicts_2500.jsonl").read_text(encoding="utf-8").splitlines()
    kappa = judge([json.loads(line) for line in lines])
    raise SystemExit(int(bool(faults or missed) or kappa < LEAST_KAPPA))


if __name__ == "__main__":
    main()
