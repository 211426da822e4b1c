"""Generation: ours, all rows together, against Hugging Face's generate, batched with left padding and prompt by prompt.

    python benchmarks/generate.py [--prompts 16] [--samples 1] [--new-tokens 64] [--repeats 3]

The same prompts (of the shipped corpus, ragged, as turns of a chat), the same weights in float32, no adapters, and no
stop tokens, so that every side writes the same number of tokens. With one sample the prompts are questions and decoding
is greedy, and the tokens are compared; with more, the prompts ask for self-edits, decoding samples (temperature 1,
top-p 0.95), and the samples of a prompt share its prefill here as they do in HF with num_return_sequences.
Tokens are new tokens. FLOPs are 2 x weights x tokens, new ones and those of the prompts (each prompt once, and without
the head, which only its last token needs); padding and attention are not counted.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from measure import MatrixProduct, Row, load_both, print_compiled, print_ratio, print_table, weights_used

from seal_jax.domains.knowledge.corpus import load_passages
from seal_jax.domains.knowledge.knowledge import question_prompt
from seal_jax.domains.knowledge.prompts import edit_prompt
from seal_jax.engine.engine import Engine
from seal_jax.engine.generation import Generation
from seal_jax.engine.weights import Weights
from seal_jax.inner.sampling import Sampling
from seal_jax.model.tokenizer import Tokenizer

TOP_P = 0.95


def prompts_of(tokenizer: Tokenizer, count: int, samples: int) -> list[list[int]]:
    """Token ids of a question, or of the request for a self-edit, about each of the first passages."""
    passages = load_passages("shipped:test")[:count]
    if samples > 1:
        return [tokenizer.encode_prompt(edit_prompt(passage, "implications", chat=True)) for passage in passages]
    asked = [(passage, passage.questions[i % len(passage.questions)]) for i, passage in enumerate(passages)]
    return [tokenizer.encode_prompt(question_prompt(*pair, chat=True)) for pair in asked]


def ours(engine: Engine, base: dict, prompts: list[list[int]], samples: int, new: int) -> list[list[int]]:
    """New tokens of every row, the samples of a prompt side by side."""
    rules = Sampling(0.0, 1.0, 0, ()) if samples == 1 else Sampling(1.0, TOP_P, 0, ())
    seeds = [[[(prompt, sample) for sample in range(samples)] for prompt in range(len(prompts))]]
    out = engine.generate(Weights(base), [prompts], seeds, Generation(rules, new))
    return [sample.tokens for samples in out[0] for sample in samples]


def theirs(model, batches: list[list[list[int]]], pad_id: int, samples: int, new: int) -> list[list[int]]:
    """The same by generate, batch after batch, each padded on the left to its longest prompt."""
    how = {"do_sample": False} if samples == 1 else {"do_sample": True, "temperature": 1.0, "top_p": TOP_P, "top_k": 0}
    rows = []
    for batch in batches:
        length = max(map(len, batch))
        ids = torch.tensor([[pad_id] * (length - len(prompt)) + prompt for prompt in batch])
        mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in batch])
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=new, num_return_sequences=samples, **how
            )
        rows += out[:, length:].tolist()
    return rows


def agreement(ours: list[list[int]], other: list[list[int]]) -> str:
    """How many tokens and how many whole rows are the same."""
    same = sum(x == y for a, b in zip(ours, other, strict=True) for x, y in zip(a, b, strict=True))
    rows = sum(a == b for a, b in zip(ours, other, strict=True))
    return f"{same / sum(map(len, ours)):.1%} of tokens, {rows} of {len(ours)} rows whole"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=16, help="decoded together")
    parser.add_argument("--samples", type=int, default=1, help="of each prompt")
    parser.add_argument("--new-tokens", type=int, default=64, help="of each sample")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of passes")
    flags = parser.parse_args()
    new, samples = flags.new_tokens, flags.samples
    with tempfile.TemporaryDirectory() as folder:
        loaded, base, engine, model = load_both("smollm2-135m-instruct", Path(folder) / "model")
    model.generation_config.eos_token_id = None
    pad_id = model.generation_config.pad_token_id = loaded.tokenizer.pad_id
    prompts = prompts_of(loaded.tokenizer, flags.prompts, samples)
    lengths, rows = [len(prompt) for prompt in prompts], len(prompts) * samples
    layers, head = weights_used(base)
    work = rows * new, 2.0 * (layers * (sum(lengths) + rows * new) + head * rows * new)
    together = Row(f"ours, batch {rows}", *work)
    batched = Row(f"HF generate, batch {rows}, padded", *work)
    single = Row("HF generate, prompt by prompt", *work)
    ours(engine, base, prompts, samples, new)  # compiles
    theirs(model, [prompts], pad_id, samples, 2)  # warms up
    machine = MatrixProduct()
    for _ in range(flags.repeats):
        machine.measure()
        tokens = together.time(lambda: ours(engine, base, prompts, samples, new))
        batched_tokens = batched.time(lambda: theirs(model, [prompts], pad_id, samples, new))
        single_tokens = single.time(lambda: theirs(model, [[p] for p in prompts], pad_id, samples, new))
    print(f"{len(prompts)} prompts of {min(lengths)} to {max(lengths)} tokens, {samples} x {new} new tokens each")
    print_table([together, batched, single], machine)
    print_ratio(together, single)
    print_ratio(together, batched)
    if samples == 1:
        print(f"same greedy tokens as HF prompt by prompt: {agreement(tokens, single_tokens)}; "
              f"as HF padded: {agreement(tokens, batched_tokens)}")
    print_compiled(engine)


if __name__ == "__main__":
    main()
