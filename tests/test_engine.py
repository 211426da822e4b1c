"""Candidates trained, scored and decoded together get what each gets alone."""

import functools
import os
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_training import VOCAB, random_adapter, random_rows, stack, steps_by_hand, tiny_engine, tiny_model

from seal_jax.config import Training
from seal_jax.engine import generation, groups, packing, room
from seal_jax.engine.generation import Generation
from seal_jax.engine.packing import Candidate, Lanes, Row
from seal_jax.engine.recipe import Recipe, recipe
from seal_jax.engine.weights import Weights, first_adapter
from seal_jax.inner import sft
from seal_jax.inner.sampling import Sampling
from seal_jax.inner.sft import Batch, Hyper, Optimizer, Program
from seal_jax.model.lora import LoraConfig, init_adapter
from seal_jax.model.transformer import Transformer

LORA = LoraConfig(3, 7.5, ("q_proj", "down_proj"))
RECIPE = Recipe(LORA, 1, 1, Optimizer("cosine", weight_decay=0.1))
ORDER = (11, 12)
# They differ in everything that a candidate has of its own; the rows of each are of one length, so that the plain loop
# needs no padding.
CANDIDATES = (
    Candidate(random_rows((12,) * 3, 1), 2e-2, 2, 0, seed=(1, 5, 0), order=ORDER),
    Candidate(random_rows((16,) * 2, 2, prompt=5), 5e-3, 3, 2, seed=(1, 5, 1), order=ORDER),
    Candidate(random_rows((12,) * 4, 3), 1e-2, 1, 1, seed=(1, 6, 0), order=ORDER),
)
GREEDY = Sampling(0.0, 1.0, 0, ())
RANDOM = Sampling(1.0, 0.9, 0, ())
STOPPING = Sampling(1.7, 0.8, 30, tuple(range(3, 40)))


@pytest.fixture(scope="module")
def base():
    return tiny_model("qwen2")[1]


@pytest.fixture(scope="module")
def engine():
    return tiny_engine(tiny_model("qwen2")[0], segment=3)


@pytest.fixture(scope="module")
def together(engine, base):
    return engine.finetune(base, CANDIDATES, RECIPE)


@pytest.fixture(scope="module")
def adapters(base):
    return [random_adapter(base, LORA, seed, 0.3) for seed in range(3)]


def lane(tree, index):
    return jax.tree.map(lambda leaf: np.asarray(leaf[index]), tree)


def same_bits(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def close(left, right, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance), left, right)


@functools.cache
def jitted_full(model):
    return jax.jit(functools.partial(model.apply, method="full"))


def full_logits(config, base, adapter, tokens):
    """Logits [T, V] of one row, padded on the right to a common length."""
    variables = {"params": base} if adapter is None else {"params": base, "lora": adapter}
    padded = np.pad(np.array(tokens, np.int32), (0, 40 - len(tokens)))[None]
    return np.asarray(jitted_full(Transformer(config, LORA.scale))(variables, padded))[0, : len(tokens)]


# Training


def test_together_equals_one_at_a_time(engine, base, together, monkeypatch):
    """By the plain loop of inner/sft.py, from an adapter drawn here and batches put together here."""
    monkeypatch.setattr(sft, "sft_step", jax.jit(sft.sft_step, static_argnums=0))
    program = Program(Transformer(engine.config, LORA.scale), RECIPE.optimizer, 8)
    for index, candidate in enumerate(CANDIDATES):
        key = jax.random.key(0)
        for number in candidate.seed:
            key = jax.random.fold_in(key, number)
        adapter = init_adapter(key, base, LORA)
        steps = steps_by_hand(candidate, 1)
        tokens = np.array([[[row.tokens for row in rows]] for rows in steps], np.int32)
        weights = np.array([[[row.weights for row in rows]] for rows in steps], np.float32)
        assert tokens.shape == (len(steps), 1, 1, len(candidate.rows[0].tokens))
        batches = Batch(tokens, weights, np.ones(len(steps), bool))
        hyper = Hyper(*map(jnp.asarray, (candidate.learning_rate, len(steps), candidate.warmup_steps)))
        trained, losses = sft.finetune(program, {"params": base}, {"lora": adapter}, batches, hyper)
        close(trained["lora"], lane(together[0], index), 1e-5)
        np.testing.assert_allclose(together[1][index], losses, rtol=1e-5)
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), trained["lora"], adapter)
        assert min(jax.tree.leaves(moved)) > 1e-3


def test_groups_by_length_train_as_one_call_does(engine, base, together, monkeypatch):
    """Three calls to a step, some with a lane that idles; one candidate has the lengths of another test's."""
    monkeypatch.setattr(groups, "PROGRAM", 0)
    monkeypatch.setattr(groups, "CALL", 1)
    chunk = [
        replace(CANDIDATES[0], rows=random_rows(lengths, seed, prompt=4), epochs=epochs, seed=(2, seed, 0))
        for seed, (lengths, epochs) in enumerate([((40, 30, 9), 1), ((12, 11), 2), ((70, 40, 37), 1), ((16,), 2)])
    ] + [CANDIDATES[2]]
    one, several = tiny_engine(engine.config, length_groups=1), tiny_engine(engine.config, length_groups=3)
    expected, found = (each.finetune(base, chunk, RECIPE) for each in (one, several))
    slotted = [packing.slots_of(candidate) for candidate in chunk]
    steps = packing.schedule_steps(chunk, 1)
    parts = groups.plan_parts(slotted, steps, Lanes(5, 1), 3)
    assert len(parts) > len(steps) + 3 and len({part.length for part in parts}) >= 3
    assert several.usage.slots == sum(part.width * part.length for part in parts) < 0.7 * one.usage.slots
    assert several.usage.real == one.usage.real == sum(c.epochs * sum(len(r.tokens) for r in c.rows) for c in chunk)
    for index in range(len(chunk)):
        close(lane(found[0], index), lane(expected[0], index), 1e-5)
        np.testing.assert_allclose(found[1][index], expected[1][index], rtol=1e-5)
    close(lane(found[0], 4), lane(together[0], 2), 1e-5)  # which equals the plain loop


def test_losses_are_those_of_a_candidates_own_steps(together):
    assert [losses.shape for losses in together[1]] == [(6,), (6,), (4,)]
    assert all(losses.dtype == np.float32 and np.isfinite(losses).all() for losses in together[1])


def test_a_loss_that_is_not_a_number_is_a_divergence(engine, base, together):
    """It is told from steps without data, and the other candidates keep theirs."""
    chunk = [CANDIDATES[0], replace(CANDIDATES[1], learning_rate=1e30), CANDIDATES[2]]
    _, losses = engine.finetune(base, chunk, RECIPE)
    assert len(losses[1]) == 6 and np.isfinite(losses[1][0]) and np.isnan(losses[1][-1])
    for index in (0, 2):
        np.testing.assert_array_equal(losses[index], together[1][index])


def test_the_same_again_bit_for_bit_and_nothing_is_compiled(engine, base, together):
    compiled, real, slots = engine.programs.count, engine.usage.real, engine.usage.slots
    again = engine.finetune(base, CANDIDATES, RECIPE)
    same_bits(again, together)
    assert engine.programs.count == compiled
    assert engine.usage.real - real == 2 * 3 * 12 + 3 * 2 * 16 + 4 * 12
    slotted = [packing.slots_of(candidate) for candidate in CANDIDATES]
    parts = groups.plan_parts(slotted, packing.schedule_steps(CANDIDATES, 1), Lanes(3, 1), 4)
    assert engine.usage.slots - slots == sum(part.width * part.length for part in parts)
    assert 0 < engine.usage.real_fraction < 1


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_what_one_candidate_does_leaves_the_others_bit_for_bit_alone(engine, base, together, changed):
    """Other tokens, weights, learning rate, warm-up and seed, of the same lengths."""
    old = CANDIDATES[changed]
    rows = random_rows([len(row.tokens) for row in old.rows], seed=77, prompt=3)
    new = replace(old, rows=rows, learning_rate=0.1, warmup_steps=3, seed=(9, 9, 9))
    chunk = [new if index == changed else candidate for index, candidate in enumerate(CANDIDATES)]
    trained, losses = engine.finetune(base, chunk, RECIPE)
    for index in range(3):
        if index != changed:
            same_bits(lane(trained, index), lane(together[0], index))
            np.testing.assert_array_equal(losses[index], together[1][index])
    assert np.abs(losses[changed] - together[1][changed]).max() > 0.1


def test_neighbours_remat_and_chunks_change_rounding_at_most(engine, base, together):
    """A neighbour of other lengths, minimal recomputation, the head applied to five positions at a time."""
    longer = replace(CANDIDATES[0], rows=random_rows((24, 21, 18, 17), 8), epochs=1)
    other = tiny_engine(engine.config, remat="minimal", loss_chunk=5)
    trained, losses = other.finetune(base, [longer, CANDIDATES[2]], RECIPE)
    close(lane(trained, 1), lane(together[0], 2), 1e-5)
    np.testing.assert_allclose(losses[1], together[1][2], rtol=1e-5)


def test_a_candidate_without_data_keeps_its_first_adapter(engine, base, together):
    chunk = [CANDIDATES[0], replace(CANDIDATES[1], rows=()), CANDIDATES[2]]
    trained, losses = engine.finetune(base, chunk, RECIPE)
    idle = lane(trained, 1)
    assert all(not factors["B"].any() and factors["A"].all() for factors in idle["layers"].values())
    assert losses[1].shape == (0,)
    close(lane(trained, 0), lane(together[0], 0), 1e-5)
    alone, no_losses = engine.finetune(base, [chunk[1]], RECIPE)
    same_bits(lane(alone, 0), idle)
    assert len(no_losses) == 1 and no_losses[0].shape == (0,)


def test_joined_adapters_stand_in_the_order_of_their_chunks(engine, base):
    trees = [random_adapter(base, LORA, seed) for seed in range(12)]
    parts = [(stack(trees[:4]), 3), (stack(trees[4:10]), 6)]  # 9 in use: a lane or more idles in each, and in the whole
    joined = engine.join(parts)
    for place, index in enumerate([0, 1, 2, 4, 5, 6, 7, 8, 9]):
        same_bits(lane(joined, place), trees[index])
    assert {leaf.shape[0] for leaf in jax.tree.leaves(joined)} == {packing.count_bucket(9)}
    same_bits(first_adapter(joined), trees[0])


def test_the_recipe_of_a_config_group():
    sizes = {"rank": 4, "alpha": 2.0, "batch_size": 3, "accumulation": 5}
    training = Training(**sizes, schedule="cosine", weight_decay=0.2, clip_norm=7.0)
    optimizer = Optimizer("cosine", clip_norm=7.0, weight_decay=0.2)
    made = recipe(training)
    assert made == Recipe(LoraConfig(4, 2.0, training.targets), 3, 5, optimizer) and made.batch == 15
    assert recipe(replace(training, rank=0)) == replace(made, lora=None)


def test_adapters_without_their_scale_are_refused(base, adapters):
    with pytest.raises(ValueError, match="LoraConfig"):
        Weights(base, stack(adapters))


# Scoring


def test_log_likelihood_equals_a_plain_sum(engine, base, adapters):
    rows = [random_rows((7, 20, 11), 1, prompt=4), random_rows((15,), 2), random_rows((9, 10), 3, prompt=8)]
    rows[1] = (Row(rows[1][0].tokens, tuple(0.25 * i for i in range(15))),)
    got = engine.log_likelihood(Weights(base, stack(adapters), LORA), rows)
    assert [len(lane) for lane in got] == [3, 1, 2]
    bare = engine.log_likelihood(Weights(base), rows[:1])
    for adapter, lane_rows, values in [*zip(adapters, rows, got, strict=True), (None, rows[0], bare[0])]:
        for row, value in zip(lane_rows, values, strict=True):
            logits = full_logits(engine.config, base, adapter, row.tokens).astype(float)[:-1]
            log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            picked = log_probs[np.arange(len(logits)), row.tokens[1:]]
            np.testing.assert_allclose(value, (picked * row.weights[1:]).sum(), rtol=1e-5)


# Generation


def texts(engine, weights, asked, seeds, rules, max_new, **more):
    """The tokens [c][q][k] of what is generated."""
    out = engine.generate(weights, asked, seeds, Generation(rules, max_new, **more))
    return [[[sample.tokens for sample in samples] for samples in lane] for lane in out]


def prompts(*lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCAB, length).tolist() for length in lengths]


def seeds_for(lanes, samples=1, first=0):
    """Seeds of every sample, different for all."""
    numbers = iter(range(first, 10_000))
    return [[[(7, next(numbers)) for _ in range(samples)] for _ in lane] for lane in lanes]


def check_greedy(config, base, adapter, prompt, tokens):
    logits = full_logits(config, base, adapter, prompt + tokens)
    assert logits[len(prompt) - 1 : -1].argmax(-1).tolist() == tokens


def test_greedy_continuations_are_those_of_the_full_forward_pass(engine, base, adapters):
    """Adapters per candidate, prompts of different lengths, and not the same number of them."""
    asked = [prompts(5, 13, 9), prompts(16), prompts(8, 3, seed=2)]
    out = texts(engine, Weights(base, stack(adapters), LORA), asked, seeds_for(asked), GREEDY, 8)
    assert [[len(samples) for samples in lane] for lane in out] == [[1, 1, 1], [1], [1, 1]]
    for adapter, lane_prompts, answers in zip(adapters, asked, out, strict=True):
        for prompt, (tokens,) in zip(lane_prompts, answers, strict=True):
            assert len(tokens) == 8
            check_greedy(engine.config, base, adapter, prompt, tokens)
    assert out[0][0] != texts(engine, Weights(base), [asked[0]], seeds_for(asked[:1]), GREEDY, 8)[0][0]


def test_a_candidate_may_have_no_prompt_and_no_row(engine, base, adapters):
    """As when questions are asked in parts, and another candidate has more of them."""
    weights, asked = Weights(base, stack(adapters), LORA), [[], prompts(16), []]
    out = texts(engine, weights, asked, seeds_for(asked), GREEDY, 8)
    assert [len(lane) for lane in out] == [0, 1, 0]
    check_greedy(engine.config, base, adapters[1], asked[1][0], out[1][0][0])
    rows = random_rows((15,), 2)
    scores = engine.log_likelihood(weights, [(), rows, ()])
    assert scores == [[], [pytest.approx(engine.log_likelihood(weights, [rows] * 3)[1][0], rel=1e-5)], []]


@pytest.fixture(scope="module")
def greedy(engine, base):
    """Three prompts and their greedy continuations by the base, 8 tokens each."""
    asked = prompts(6, 12, 9, seed=4)
    out = texts(engine, Weights(base), [asked], seeds_for([asked]), GREEDY, 8)[0]
    for prompt, (tokens,) in zip(asked, out, strict=True):
        check_greedy(engine.config, base, None, prompt, tokens)
    return asked, [samples[0] for samples in out]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7])
def test_no_more_tokens_than_asked_for(engine, base, greedy, limit):
    """Within, at and beyond the end of a segment of three."""
    asked, whole = greedy
    before = engine.usage.generated
    out = texts(engine, Weights(base), [asked], seeds_for([asked]), GREEDY, limit)[0]
    assert [samples[0] for samples in out] == [tokens[:limit] for tokens in whole]
    assert engine.usage.generated - before == 3 * limit


def test_rows_end_before_their_first_stop_token(engine, base, greedy):
    asked, whole = greedy
    stops = (whole[0][2], whole[1][5])
    rules = replace(GREEDY, stop_ids=stops)
    out = engine.generate(Weights(base), [asked], seeds_for([asked]), Generation(rules, 8))[0]

    def cut(tokens):
        return tokens[: next((i for i, token in enumerate(tokens) if token in stops), len(tokens))]

    assert [samples[0].tokens for samples in out] == [cut(tokens) for tokens in whole]
    assert len(out[0][0].tokens) <= 2 and len(out[1][0].tokens) <= 5
    for (sample,), tokens in zip(out, whole, strict=True):
        end = len(sample.tokens)
        assert sample.stop == (tokens[end] if end < 8 else None)
        assert sample.finished == (end < 8) and not sample.stopped
        assert len(sample.log_probs) == end + (end < 8)


def test_generation_ends_with_the_last_row(engine, base, greedy):
    """Once every row has stopped, no further segment is decoded."""
    asked, whole = greedy
    rules = replace(GREEDY, stop_ids=tuple({tokens[0] for tokens in whole}))
    looks = []
    texts(engine, Weights(base), [asked], seeds_for([asked]), rules, 8, stopped=looks.append)
    assert not looks


def test_a_row_can_be_stopped_by_what_it_says(engine, base, greedy):
    """It ends with the segment in which it said it (after 4, 7 or 8 tokens), whatever the other rows do."""
    asked, whole = greedy
    mark, looks = whole[1][3], []

    def stopped(tokens):
        looks.append(tokens)
        return mark in tokens

    def cut(tokens):
        return next((tokens[:end] for end in (4, 7, 8) if mark in tokens[:end]), tokens)

    out = engine.generate(Weights(base), [asked], seeds_for([asked]), Generation(GREEDY, 8, stopped))[0]
    assert [samples[0].tokens for samples in out] == [cut(tokens) for tokens in whole]
    assert [len(samples[0].tokens) for samples in out][1:] == [4, 8]
    for (sample,) in out:
        assert sample.stopped == sample.finished == (mark in sample.tokens) and sample.stop is None
        assert len(sample.log_probs) == len(sample.tokens)
    assert all(any(tokens[:n] == seen for tokens in whole for n in range(9)) for seen in looks)


def test_samples_of_a_prompt_are_those_of_runs_of_their_own(engine, base, adapters):
    """Three samples each of two prompts share a prefill; then each runs alone."""
    asked, weights = prompts(5, 12, seed=6), Weights(base, stack(adapters[:1]), LORA)
    seeds = seeds_for([asked], samples=3)
    out = texts(engine, weights, [asked], seeds, RANDOM, 8)[0]
    assert [len(samples) for samples in out] == [3, 3]
    for prompt, numbers, samples in zip(asked, seeds[0], out, strict=True):
        for number, tokens in zip(numbers, samples, strict=True):
            alone = texts(engine, weights, [[prompt]], [[[number]]], RANDOM, 8)
            assert alone == [[[tokens]]]
    assert len({tuple(tokens) for samples in out for tokens in samples}) == 6


def test_a_row_does_not_depend_on_its_neighbours(engine, base, adapters):
    """The same prompt, seed and adapter: among other candidates, beside other prompts, in another place."""
    prompt, seed, first = prompts(10, seed=8)[0], [(7, 123456)], Weights(base, stack(adapters[:1]), LORA)
    alone = texts(engine, first, [[prompt]], [[seed]], RANDOM, 8)[0][0]
    others = prompts(4, 15, 7, seed=9)
    asked = [others, [others[1], others[0], prompt], others[:1]]
    seeds = seeds_for(asked, first=500)
    seeds[1][2] = seed
    order = stack([adapters[2], adapters[0], adapters[1]])
    assert texts(engine, Weights(base, order, LORA), asked, seeds, RANDOM, 8)[1][2] == alone
    for other in ([(7, 123457)], [(8, 123456)]):
        assert texts(engine, first, [[prompt]], [[other]], RANDOM, 8)[0][0] != alone


@pytest.mark.parametrize("rules", [replace(GREEDY, stop_ids=tuple(range(0, VOCAB, 9))), STOPPING])
@pytest.mark.parametrize("adapted", [True, False])
def test_rows_that_are_done_leave_and_slots_are_added(engine, base, adapters, adapted, rules, monkeypatch):
    """With a program for every change, and without any: all is the same, whatever ends the rows."""
    asked = [prompts(5, 12, 9, seed=6), prompts(7, seed=7)] if adapted else [prompts(5, 12, 9, 7, seed=6)]
    weights = Weights(base, stack(adapters[:2]), LORA) if adapted else Weights(base)
    how = Generation(rules, 30, lambda tokens: tokens[-1] % 11 == 0)
    seeds, changes, found = seeds_for(asked, samples=4), [], []
    for name in ("_leave", "_extend"):
        change = getattr(generation, name)
        monkeypatch.setattr(
            generation, name, lambda *args, name=name, change=change: changes.append(name) or change(*args)
        )
    for cost in (10**9, 0):
        monkeypatch.setattr(room, "PROGRAM", cost)
        out = engine.generate(weights, asked, seeds, how)
        found.append([sample for lane in out for samples in lane for sample in samples])
        assert bool(changes) == (cost == 0)
    random = rules is STOPPING
    assert {"_leave", "_extend"} == set(changes) if random else changes
    for left, right in zip(*found, strict=True):
        assert replace(left, log_probs=right.log_probs) == right
        np.testing.assert_allclose(left.log_probs, right.log_probs, atol=2e-5)
    assert len({len(sample.tokens) for sample in found[0]}) > (4 if random else 1)
    if random:
        assert {(sample.stop is None, sample.stopped) for sample in found[0]} >= {(True, True), (False, False)}


@pytest.mark.parametrize("cost", [0, 64])
def test_a_batch_takes_the_course_that_its_lengths_tell(engine, base, cost, monkeypatch):
    """What `fit` makes of assumed lengths: the same steps, rows and slots as when the texts turn out to have them."""
    monkeypatch.setattr(room, "PROGRAM", cost)
    asked, calls, run = [prompts(5, 12, 9, 7, seed=6)], [], engine.programs.run
    monkeypatch.setattr(engine.programs, "run", lambda call: calls.append(call) or run(call))
    [lane] = engine.generate(Weights(base), asked, seeds_for(asked, samples=4), Generation(STOPPING, 30))
    decoded = [call.args for call in calls if call.static[0] == "decode"]
    steps = np.diff([1, *(int(until) for *_, until, _ in decoded)])
    taken = [(count, *args[2].tokens.shape[1:]) for count, args in zip(steps, decoded, strict=True)]
    lengths = np.array([[len(one.tokens) + (one.stop is not None) for samples in lane for one in samples]])
    assert taken == list(room.course(lengths, 4, packing.bucket(12), 30, engine.settings.segment))
    assert len({taken[0][1:], *(each[1:] for each in taken)}) > 1


@pytest.mark.parametrize("rules", [GREEDY, STOPPING, Sampling(0.5, 1.0, 0, ())])
@pytest.mark.parametrize("adapted", [True, False])
def test_log_probs_are_those_of_the_plain_forward_pass(engine, base, adapters, adapted, rules):
    """At temperature 1, over the whole vocabulary, whatever the rules; the stop token has one too."""
    asked = [prompts(5, 13, seed=3), prompts(9, 4, seed=5)] if adapted else [prompts(5, 13, 9, 4, seed=3)]
    weights = Weights(base, stack(adapters[:2]), LORA) if adapted else Weights(base)
    out = engine.generate(weights, asked, seeds_for(asked, samples=2), Generation(rules, 8))
    stopped = 0
    for c, (lane_prompts, lane) in enumerate(zip(asked, out, strict=True)):
        for prompt, samples in zip(lane_prompts, lane, strict=True):
            for sample in samples:
                sampled = sample.tokens + [sample.stop] * (sample.stop is not None)
                stopped += sample.stop is not None
                adapter = adapters[c] if adapted else None
                logits = full_logits(engine.config, base, adapter, prompt + sampled).astype(float)[len(prompt) - 1 : -1]
                log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
                picked = log_probs[np.arange(len(sampled)), sampled]
                np.testing.assert_allclose(sample.log_probs, picked, atol=2e-5)
                np.testing.assert_allclose(sum(sample.log_probs), picked.sum(), rtol=1e-5)
    assert (stopped > 0) == (rules is STOPPING)


# Compiled programs

_CACHED = """
import sys, jax
from jax import monitoring
hits = []
monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("/cache_hits") else None)
from seal_jax.engine.programs import Call, Programs, enable_cache
jax.numpy.zeros(3).sum()  # something may have been compiled before
enable_cache(sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
programs = Programs()
for size in (3, 3, 4):
    assert float(programs.run(Call("sum", lambda x: (x * 2).sum(), (jax.numpy.ones(size),)))) == 2 * size
assert programs.count == 2 and programs.seconds > 0
assert float(programs.run(Call("other", lambda x: (x * 3).sum(), (jax.numpy.ones(3),)))) == 9
print(len(hits))
"""


def test_a_second_process_finds_the_compiled_programs(tmp_path):
    folder = tmp_path / "deep" / "cache"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")} | {"JAX_PLATFORMS": "cpu"}
    run = functools.partial(subprocess.run, env=environment, capture_output=True, text=True, check=True)
    first, second = (int(run([sys.executable, "-c", _CACHED, str(folder)]).stdout) for _ in range(2))
    assert first == 0 and second >= 3


@pytest.mark.parametrize("remat", ["auto", "full"])
def test_all_programs_of_an_m_step_are_compiled_together_before_it_begins(base, remat, monkeypatch):
    """Its steps have sequences of 32, 64 and 96 slots, and the last one of each epoch holds one sequence, not two."""
    engine = tiny_engine(tiny_model("qwen2")[0], remat=remat)
    learner = Candidate(random_rows((20, 20, 50, 50, 90, 90, 20), 1), 1e-3, 3, 0, (1,), ORDER)
    events = []
    prepare, run = engine.programs.prepare, engine.programs.run
    monkeypatch.setattr(engine.programs, "prepare", lambda calls: (events.append(len(calls)), prepare(calls)))
    monkeypatch.setattr(engine.programs, "run", lambda call: (events.append(call.static[0]), run(call))[1])
    _, losses = engine.teach(base, learner, replace(RECIPE, batch_size=2))
    begin = events.index("teach")
    assert events[begin:].count("teach") == len(losses) == 12
    assert set(events[begin:]) == {"teach", 1}  # which asks for one, that is there
    assert events[begin - 1] == engine.programs.count - 1  # all but the start of the adapter
