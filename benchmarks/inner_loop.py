"""Inner loops: ours, several adapters trained together, against PEFT and Hugging Face's Trainer, one after another.

    python benchmarks/inner_loop.py [--candidates 8] [--repeats 3] [--rank 16] [--sequences 6] [--form chat]
    python benchmarks/inner_loop.py --edits squad_train.json --sequences 30     # ragged: real self-edits, `completions`
    python benchmarks/inner_loop.py --before PATH   # a checkout of earlier code, now and then in processes of their own

All sides train the same number of adapters on the same sequences (of one self-edit of each passage, or the sentences of
a passage of the shipped corpus and the passage itself; as turns of a chat or as plain text), at batch 1, in float32,
from the same weights: all seven projections, AdamW, linear decay, clipping at norm 1. Ours runs with each step as one
call, and split into groups of like length. HF gets each sequence unpadded, all cores, and a Trainer that
neither logs, saves nor evaluates; its clock stops while the next adapter is made. Ours pays for padding and for making
the adapters.
Tokens are real tokens. FLOPs are 4 x weights x tokens: forward, and backward to the activations only, as the weights
are frozen (attention, adapters and optimizer come on top and are not counted).
"""

import argparse
import functools
import tempfile
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import peft
import torch
import transformers
from checkout import PRESENT, SOURCE, Side
from measure import MatrixProduct, Row, load_both, print_compiled, print_ratio, print_table, weights_used

from seal_jax.config import ALL_PROJECTIONS, EngineConfig
from seal_jax.domains.knowledge.corpus import Passage, load_passages
from seal_jax.domains.knowledge.sequences import Rules, sentences, training_examples
from seal_jax.engine import packing
from seal_jax.engine.engine import Engine
from seal_jax.engine.packing import Candidate
from seal_jax.engine.recipe import Recipe
from seal_jax.inner.sft import Optimizer
from seal_jax.model.lora import LoraConfig
from seal_jax.model.tokenizer import Tokenizer

RATE = 1e-3


def candidates_of(passages: list[Passage], tokenizer: Tokenizer, rules: Rules) -> list[Candidate]:
    """One candidate a passage: its first self-edit, or its sentences where it has none."""
    made = []
    for number, passage in enumerate(passages):
        lines = passage.completions[0] if passage.completions else "\n".join(sentences(passage.context))
        encoded = (tokenizer.encode_example(example) for example in training_examples(passage, lines, rules))
        rows = tuple(packing.Row(tuple(ids), tuple(weights)) for ids, weights in encoded)
        made.append(Candidate(rows, RATE, epochs=1, warmup_steps=0, seed=(0, number), order=(0,)))
    return made


def ours(engine: Engine, base: dict, groups: list[list[Candidate]], recipe: Recipe) -> float:
    """Train group after group -> mean loss."""
    losses = []
    for group in groups:
        adapters, of_group = engine.finetune(base, group, recipe)
        jax.block_until_ready(adapters)
        losses += of_group
    return float(np.mean(np.concatenate(losses)))


def torch_rows(candidate: Candidate) -> list[dict]:
    """The candidate's sequences as Trainer takes them; tokens without loss are labelled -100."""
    labels = [[t if w else -100 for t, w in zip(r.tokens, r.weights, strict=True)] for r in candidate.rows]
    return [{"input_ids": list(r.tokens), "labels": label} for r, label in zip(candidate.rows, labels, strict=True)]


def collate(rows: list[dict]) -> dict:
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def trainer_for(
    model, rows: list[dict], lora: LoraConfig, folder: str, rate: float = RATE, epochs: int = 1
) -> transformers.Trainer:
    """A Trainer with a fresh adapter on the model."""
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), lora_dropout=0.0
    )
    arguments = transformers.TrainingArguments(
        folder,
        per_device_train_batch_size=1,
        num_train_epochs=epochs,
        learning_rate=rate,
        lr_scheduler_type="linear",
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch",
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    adapted = peft.get_peft_model(model, config)
    trainer = transformers.Trainer(adapted, arguments, train_dataset=rows, data_collator=collate)
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def theirs(row: Row, model, candidates: list[Candidate], lora: LoraConfig, folder: str) -> float:
    """Train adapter after adapter, on the row's clock all together -> mean loss."""
    clock, losses = Row("", 0, 0.0), []
    for candidate in candidates:
        trainer = trainer_for(model, torch_rows(candidate), lora, folder)
        losses += [clock.time(trainer.train).training_loss] * len(candidate.rows)
        model = trainer.model.unload()
    row.seconds.append(sum(clock.seconds))
    row.cpu += clock.cpu
    return float(np.mean(losses))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=8, help="adapters trained together")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of passes")
    parser.add_argument("--rank", type=int, default=16, help="of the adapters")
    parser.add_argument("--sequences", type=int, default=6, help="of each adapter, at most")
    parser.add_argument("--form", choices=("chat", "plain"), default="chat", help="of the sequences")
    parser.add_argument("--edits", metavar="FILE", help="passages with self-edits; without it the shipped corpus")
    parser.add_argument("--groups", type=int, default=4, help="into which steps are split at most")
    parser.add_argument("--before", type=Path, help="a checkout of earlier code to compare with")
    parser.add_argument("--alone", action="store_true", help="ours one adapter after another, too")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        loaded, base, _, model = load_both(SOURCE, Path(folder) / "model")
        lora = LoraConfig(flags.rank, 2.0 * flags.rank, ALL_PROJECTIONS)
        recipe = Recipe(lora, 1, 1, Optimizer("linear", clip_norm=1.0))
        passages = load_passages(flags.edits or "shipped:train")[: flags.candidates]
        rules = Rules(form=flags.form, closing=True, max_sequences=flags.sequences - 1)
        if flags.edits:  # as configs/quickstart.py has them
            rules = replace(rules, max_sequences=flags.sequences, split_sentences=True, include_passage=False)
        chosen = candidates_of(passages, loaded.tokenizer.with_system(""), rules)
        lengths = [len(row.tokens) for candidate in chosen for row in candidate.rows]
        work = sum(lengths), 4.0 * sum(weights_used(base)) * sum(lengths)
        together = f"ours, {len(chosen)} together"
        limits = () if flags.before else (1, flags.groups)  # beside earlier code all of ours runs in processes
        plans = [(f"{together}, groups: {limit}", limit, [chosen]) for limit in limits]
        if flags.alone and not flags.before:
            plans.append(("ours, one after another", 1, [[candidate] for candidate in chosen]))
        rows, engines = [], []
        for name, limit, groups in plans:
            rows.append(Row(name, *work))
            engines.append(Engine(loaded.config, EngineConfig(length_groups=limit)))
            ours(engines[-1], base, groups, recipe)  # compiles
            print(f"{name}: real tokens are {engines[-1].usage.real_fraction:.0%} of what is computed; ", end="")
            print_compiled(engines[-1])
        task = {"rank": flags.rank, "rate": RATE}
        task["candidates"] = [[(row.tokens, row.weights) for row in candidate.rows] for candidate in chosen]
        paths = {"before": flags.before, "now": PRESENT} if flags.before else {}
        sides = [Side("training", path, Row(f"{together}, {name}", *work)) for name, path in paths.items()]
        for side in sides:
            real = side.ask(task)["real"]  # compiles
            print(f"{side.row.name}: real tokens are {real:.0%} of what is computed")
            side.print_compiled()
        reference = Row("PEFT + Trainer, one after another", *work)
        theirs(Row("", *work), model, [replace(c, rows=c.rows[:1]) for c in chosen[:1]], lora, folder)  # warms up
        machine = MatrixProduct()
        for _ in range(flags.repeats):
            machine.measure()
            for row, engine, (_, _, groups) in zip(rows, engines, plans, strict=True):
                loss = row.time(functools.partial(ours, engine, base, groups, recipe))
            for side in sides:
                loss = side.time(task)["loss"]
            reference_loss = theirs(reference, model, chosen, lora, folder)
    print(f"{len(chosen)} adapters of rank {flags.rank}, {len(lengths)} sequences of {min(lengths)} to {max(lengths)} "
          f"tokens, one epoch")
    rows += [side.row for side in sides]
    print_table([*rows, reference], machine)
    for row in rows:
        print_ratio(row, reference)
    print_ratio(rows[1], rows[0])
    for side in sides:
        side.close()
    print(f"mean loss over the epoch: ours {loss:.3f}, theirs {reference_loss:.3f} (other initial adapters and orders)")


if __name__ == "__main__":
    main()
