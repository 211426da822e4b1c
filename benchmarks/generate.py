"""Generation: ours, all rows together, against Hugging Face's generate, batched with left padding and prompt by prompt.

    python benchmarks/generate.py [--prompts 16] [--samples 1] [--new-tokens 64] [--repeats 3]
    python benchmarks/generate.py --tail --prompts 64 --new-tokens 128 [--before PATH]

The same prompts (of the shipped corpus, ragged, as turns of a chat), the same weights in float32, no adapters, and no
stop tokens, so that every side writes the same number of tokens. With one sample the prompts are questions and decoding
is greedy, and the tokens are compared; with more, the prompts ask for self-edits, decoding samples (temperature 1,
top-p 0.95), and the samples of a prompt share its prefill here as they do in HF with num_return_sequences.

--tail: texts end early, three of four at a quarter of the limit, and one of sixteen reaches it; questions and requests
for self-edits take turns. Every side is told after the same tokens that a row is done; HF prompt by prompt is left out.
--before: a checkout of earlier code of this project, which does the same in a process of its own, as ours does.

Tokens are new tokens. FLOPs are 2 x weights x tokens, new ones and those of the prompts (each prompt once, and without
the head, which only its last token needs); padding and attention are not counted.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from checkout import PRESENT, SOURCE, TOP_P, Side
from measure import MatrixProduct, Row, load_both, print_ratio, print_table, weights_used

from seal_jax.domains.knowledge.corpus import load_passages
from seal_jax.domains.knowledge.prompts import edit_prompt
from seal_jax.domains.knowledge.sequences import question_prompt

QUARTERS = (1,) * 12 + (2, 2, 3, 4)  # of the limit: where the texts of sixteen rows end with --tail


def prompts_of(tokenizer, count: int, samples: int, tail: bool) -> list[list[int]]:
    """Token ids of a question, or of the request for a self-edit, about each of the first passages."""
    passages = load_passages("shipped:train") + load_passages("shipped:test")
    out = []
    for place in range(count):
        passage, turn = passages[place % len(passages)], place // len(passages)
        asked = passage.questions[(place + turn) % len(passage.questions)]
        edit = samples > 1 or tail and place % 2
        prompt = edit_prompt(passage, "implications", chat=True) if edit else question_prompt(passage, asked, chat=True)
        out.append(tokenizer.encode_prompt(prompt))
    return out


def ends_of(rows: int, new: int, segment: int) -> list[int]:
    """After how many tokens each row's text ends with --tail: where ours looks, once a segment, at its quarters."""
    looks = [min(new, -(-new * quarter // 4 // segment) * segment + 1) for quarter in QUARTERS]
    return [looks[place * 7 % len(looks)] for place in range(rows)]  # the long ones lie apart


def theirs(model, batches: list[list[list[int]]], task: dict, ends: list[int]) -> list[list[int]]:
    """The same by generate, batch after batch, each padded on the left to its longest prompt."""
    samples, new, pad_id = task["samples"], task["new"], model.generation_config.pad_token_id
    how = {"do_sample": False} if samples == 1 else {"do_sample": True, "temperature": 1.0, "top_p": TOP_P, "top_k": 0}
    rows = []
    for batch in batches:
        length = max(map(len, batch))
        ids = torch.tensor([[pad_id] * (length - len(prompt)) + prompt for prompt in batch])
        mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in batch])
        if ends:
            limits = torch.tensor(ends)
            how["stopping_criteria"] = [lambda ids, scores, **_: ids.shape[1] - length >= limits]  # noqa: B023
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=new, num_return_sequences=samples, **how
            )
        rows += out[:, length:].tolist()
    return [row[:end] for row, end in zip(rows, ends, strict=True)] if ends else rows


def agreement(ours: list[list[int]], other: list[list[int]]) -> str:
    """How many tokens and how many whole rows are the same."""
    same = sum(x == y for a, b in zip(ours, other, strict=True) for x, y in zip(a, b, strict=True))
    rows = sum(a == b for a, b in zip(ours, other, strict=True))
    return f"{same / sum(map(len, ours)):.1%} of tokens, {rows} of {len(ours)} rows whole"


def run(flags) -> None:
    new, samples = flags.new_tokens, flags.samples
    with tempfile.TemporaryDirectory() as folder:
        loaded, base, engine, model = load_both(SOURCE, Path(folder) / "model")
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = loaded.tokenizer.pad_id
    prompts = prompts_of(loaded.tokenizer, flags.prompts, samples, flags.tail)
    lengths, rows = [len(prompt) for prompt in prompts], len(prompts) * samples
    ends = ends_of(rows, new, engine.settings.segment) if flags.tail else []
    count = sum(ends) or rows * new
    layers, head = weights_used(base)
    del base
    work = count, 2.0 * (layers * (sum(lengths) + count) + head * count)
    sides = [Side("generating", PRESENT, Row(f"ours, batch {rows}", *work))]
    if flags.before:
        sides.append(Side("generating", flags.before, Row(f"ours before, batch {rows}", *work)))
    batched, single = Row(f"HF generate, batch {rows}, padded", *work), Row("HF generate, prompt by prompt", *work)
    task = {"prompts": prompts, "samples": samples, "new": new, "ends": []}
    if ends:
        whole = sides[-1].ask(task)["tokens"]
        task["ends"] = [tokens[:end] for tokens, end in zip(whole, ends, strict=True)]
    for side in sides:
        side.ask(task)  # compiles
    theirs(model, [prompts], task | {"new": 2}, [])  # warms up
    machine = MatrixProduct()
    for _ in range(flags.repeats):
        machine.measure()
        tokens = [side.time(task)["tokens"] for side in sides]
        batched_tokens = batched.time(lambda: theirs(model, [prompts], task, ends))
        for found in (*tokens, batched_tokens):
            if list(map(len, found)) != (ends or [new] * rows):
                raise SystemExit("a side did not write as many tokens as the others")
        if not ends:
            single_tokens = single.time(lambda: theirs(model, [[p] for p in prompts], task, []))
    said = f"{min(ends)} to {max(ends)} (mean {count / rows:.0f})" if ends else new
    print(f"{len(prompts)} prompts of {min(lengths)} to {max(lengths)} tokens, {samples} x {said} new tokens each")
    others = [side.row for side in sides[1:]] + [batched] + ([] if ends else [single])
    print_table([sides[0].row, *others], machine)
    for other in others:
        print_ratio(sides[0].row, other)
    if flags.before:
        print(f"same tokens as before: {agreement(*tokens)}")
    if samples == 1:
        print(f"same greedy tokens as HF padded: {agreement(tokens[0], batched_tokens)}"
              + ("" if ends else f"; prompt by prompt: {agreement(tokens[0], single_tokens)}"))  # fmt: skip
    for side in sides:
        side.print_compiled()
        side.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=16, help="decoded together")
    parser.add_argument("--samples", type=int, default=1, help="of each prompt")
    parser.add_argument("--new-tokens", type=int, default=64, help="of each sample, at most")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of passes")
    parser.add_argument("--tail", action="store_true", help="texts that end early, most at a quarter of the limit")
    parser.add_argument("--before", type=Path, help="a checkout of earlier code to compare with")
    run(parser.parse_args())
