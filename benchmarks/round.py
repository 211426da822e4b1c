"""One whole E-step: ours against the pipeline that people write with transformers and PEFT, an adapter at a time.

    python benchmarks/round.py [--passages 2] [--edits 2] [--retrains 1] [--epochs 4] [--questions 3] [--repeats 1]

For each passage of the shipped corpus self-edits are sampled, each is trained into an adapter (as often as there are
retrains), each adapter answers questions of its passage, and the answers are graded by their words. Settings are those
of configs/quickstart.py, weights the same, in float32. Both sides train on the self-edits that ours wrote.

The plain pipeline samples the self-edits of a passage with one generate, trains adapter after adapter with PEFT and
Trainer on unpadded sequences at batch 1, and answers the questions of an adapter with one generate, padded on the left.
So that both sample the same number of tokens, its generate makes for each passage as many as the longest of our
self-edits has, without a stop. Answers are greedy and end as they will; the tokens of both sides are printed.
Loading, and a first small step (theirs), come before the clock; the time that ours takes to compile is taken off.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import peft
import torch
import transformers
from inner_loop import torch_rows, trainer_for
from measure import Row

from seal_jax import lab
from seal_jax.authors.policy import Policy
from seal_jax.domains.domain import Answered
from seal_jax.domains.knowledge.corpus import Passage, load_passages
from seal_jax.engine.packing import Candidate
from seal_jax.engine.recipe import recipe
from seal_jax.judges import lexical
from seal_jax.model.pretrained import save_merged
from seal_jax.runs.keys import Stage
from seal_jax.student import train
from seal_jax.student.trials import Plan, Trial, lesson_of, run_trials

PARTS = ("sample", "train, ask and grade")


@dataclass(frozen=True)
class Work:
    """What both sides do: passages, how many self-edits of each, trainings of each, and the settings of ours."""

    model: lab.Model
    passages: list[Passage]
    edits: int
    retrains: int

    @property
    def plan(self) -> Plan:
        """Of ours, as a run has it in its first round."""
        config = self.model.config
        return Plan(Stage("train", "SEAL", 1), config.inner, config.evaluation.answer_tokens, (0, 1), likelihood=False)

    def trials(self, texts: dict[str, list[str]]) -> list[Trial]:
        """Every inner loop of the round."""
        return [
            Trial(passage, text, k, retrain)
            for passage in self.passages
            for k, text in enumerate(texts[passage.id])
            for retrain in range(self.retrains)
        ]


def our_samples(work: Work) -> dict[str, list]:
    """Self-edits of each passage."""
    author = Policy(work.model.actor, work.model.domain, work.model.config.sampling)
    found: dict[str, list] = {}
    for part in author.write(work.passages, work.edits, (0, 1)):
        found |= part
    return found


def our_trials(work: Work, texts: dict[str, list[str]]) -> list[dict]:
    """Records of all inner loops, with answers and verdicts."""
    model = work.model
    return [one for part in run_trials(model.actor, work.trials(texts), model.domain, work.plan) for one in part]


@dataclass(frozen=True)
class Plain:
    """The same model in transformers, and where its Trainer may write."""

    model: torch.nn.Module
    folder: str
    pad: int

    def generate(self, model, prompts: Sequence[list[int]], **how) -> list[list[int]]:
        """New tokens of each row, without padding at the end."""
        length = max(map(len, prompts))
        ids = torch.tensor([[self.pad] * (length - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            out = model.generate(input_ids=ids, attention_mask=mask, pad_token_id=self.pad, **how)
        return out[:, length:].tolist()

    def samples(self, work: Work, longest: dict[str, int]) -> int:
        """Sample self-edits of each passage, `longest` tokens each -> tokens made."""
        actor, sampling, made = work.model.actor, work.model.config.sampling, 0
        for passage in work.passages:
            prompt = actor.tokenizer.encode_prompt(work.model.domain.edit_prompt(passage, actor.chat))
            count = longest[passage.id]
            rows = self.generate(
                self.model, [prompt], do_sample=True, temperature=sampling.temperature, top_p=sampling.top_p, top_k=0,
                num_return_sequences=work.edits, min_new_tokens=count, max_new_tokens=count,
            )  # fmt: skip
            made += sum(map(len, rows))
        return made

    def trial(self, work: Work, trial: Trial, candidate: Candidate) -> dict:
        """Train an adapter and ask it -> steps, answers, verdicts, and tokens made."""
        actor, config = work.model.actor, work.model.config
        lora = recipe(config.inner).lora
        trainer = trainer_for(
            self.model, torch_rows(candidate), lora, self.folder, candidate.learning_rate, candidate.epochs
        )
        trainer.train()
        adapted = trainer.model.eval()
        quiz = work.model.domain.quiz(trial.item, actor.chat)
        prompts = [actor.tokenizer.encode_prompt(prompt) for prompt in quiz.prompts]
        stops = sorted(actor.tokenizer.stop_ids)
        rows = self.generate(
            adapted, prompts, do_sample=False, max_new_tokens=config.evaluation.answer_tokens, eos_token_id=stops
        )
        ends = [next((i for i, token in enumerate(row) if token in stops), len(row)) for row in rows]
        answers = [actor.tokenizer.decode(row[:end]).strip() for row, end in zip(rows, ends, strict=True)]
        pairs = zip(trial.item.questions, answers, strict=True)
        correct = lexical.grade([Answered(asked.question, asked.answer, answer) for asked, answer in pairs])
        adapted.unload()
        return {"answers": answers, "correct": correct, "made": sum(ends), "steps": trainer.state.global_step}

    def trials(self, work: Work, trials: Sequence[Trial], candidates: Sequence[Candidate]) -> list[dict]:
        """All inner loops that have something to train on, one after another."""
        pairs = zip(trials, candidates, strict=True)
        return [self.trial(work, trial, candidate) for trial, candidate in pairs if candidate.rows]


def without_compiling(work: Work, row: Row, run: Callable):
    """Run once, on the clock, which stands still while programs are compiled."""
    programs = work.model.actor.engine.programs
    before = programs.seconds
    result = row.time(run)
    row.seconds[-1] -= programs.seconds - before
    return result


def plain_side(work: Work, folder: str) -> Plain:
    """The model exported, and loaded by transformers."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    source = work.model.actor.source
    save_merged(folder, source.params, source.config, source.tokenizer, source.hf_config)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.generation_config = transformers.GenerationConfig(eos_token_id=sorted(source.tokenizer.stop_ids))
    return Plain(model, f"{folder}/trainer", source.tokenizer.pad_id)


def share(records: Sequence[dict]) -> str:
    """Right answers of all."""
    verdicts = [verdict for record in records for verdict in record["correct"]]
    return f"{sum(map(bool, verdicts))} of {len(verdicts)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=2)
    parser.add_argument("--edits", type=int, default=2, help="self-edits of each passage")
    parser.add_argument("--retrains", type=int, default=1, help="adapters of each self-edit")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--questions", type=int, default=3, help="of each passage")
    parser.add_argument("--new-tokens", type=int, default=128, help="of a self-edit, at most")
    parser.add_argument("--repeats", type=int, default=1, help="pairs of passes")
    parser.add_argument("--candidates", type=int, default=8, help="adapters that ours trains together")
    flags = parser.parse_args()
    model = lab.load(
        inner={"epochs": flags.epochs}, evaluation={"answer_tokens": 32}, engine={"candidates": flags.candidates},
        sampling={"temperature": 0.85, "max_new_tokens": flags.new_tokens},
    )  # fmt: skip
    passages = load_passages("shipped:train")[: flags.passages]
    passages = [replace(passage, questions=passage.questions[: flags.questions]) for passage in passages]
    work = Work(model, passages, flags.edits, flags.retrains)
    with tempfile.TemporaryDirectory() as folder:
        plain, usage = plain_side(work, folder), model.actor.engine.usage
        ours, theirs = ([Row(part, 0, 0.0) for part in PARTS] for _ in range(2))
        for number in range(flags.repeats):
            edits = without_compiling(work, ours[0], partial(our_samples, work))
            texts = {item: [edit.text for edit in found] for item, found in edits.items()}
            trials = work.trials(texts)
            lessons = [lesson_of(model.actor, trial, model.domain, work.plan) for trial in trials]
            loops = [train.Loop(lesson, (0,), (0,)) for lesson in lessons]
            candidates = [train.candidate(model.actor, loop, model.config.inner) for loop in loops]
            longest = {item: max(len(edit.tokens) for edit in found) for item, found in edits.items()}
            before = replace(usage)
            records = without_compiling(work, ours[1], partial(our_trials, work, texts))
            if number == 0:  # warms up
                plain.trial(work, trials[0], replace(candidates[0], rows=candidates[0].rows[:1], epochs=1))
            made = theirs[0].time(partial(plain.samples, work, longest))
            found = theirs[1].time(partial(plain.trials, work, trials, candidates))
    real = sum(one.epochs * len(row.tokens) for one in candidates for row in one.rows)
    slots, answered = usage.slots - before.slots, usage.generated - before.generated
    written = sum(len(edit.tokens) for found_edits in edits.values() for edit in found_edits)
    print(f"{flags.passages} passages x {flags.edits} self-edits x {flags.retrains} retrains, {flags.epochs} epochs, "
          f"{flags.questions} questions; means of {flags.repeats}, {len(os.sched_getaffinity(0))} cores")  # fmt: skip
    print(f"sampled: ours {written} tokens (the longest of each passage: {sum(longest.values())}), plain {made}")
    print(f"trained: {real} tokens, {sum(len(one.rows) * one.epochs for one in candidates)} sequences; plain in "
          f"{sum(one['steps'] for one in found)} steps; real tokens are {real / slots:.0%} of ours")  # fmt: skip
    print(f"answered: ours {answered} tokens, plain {sum(one['made'] for one in found)}; right: ours {share(records)}, "
          f"plain {share(found)} (other initial adapters and orders)")  # fmt: skip
    for name, rows in (("ours", ours), ("plain", theirs)):
        parts = ", ".join(f"{row.name} {sum(row.seconds) / len(row.seconds):.1f}" for row in rows)
        whole = sum(sum(row.seconds) for row in rows) / flags.repeats
        print(f"{name}: {whole:.1f} s ({parts})")
    ratios = sorted(
        sum(row.seconds[i] for row in theirs) / sum(row.seconds[i] for row in ours) for i in range(flags.repeats)
    )
    print(f"plain / ours: {ratios[len(ratios) // 2]:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) times")
    engine = model.actor.engine
    print(f"compiled, not on the clock: {engine.programs.count} programs in {engine.programs.seconds:.0f} s (kept for "
          f"later processes); PEFT {peft.__version__}, transformers {transformers.__version__}")  # fmt: skip


if __name__ == "__main__":
    main()
