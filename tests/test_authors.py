"""Who writes self-edits: the policy, a file, a rule."""

import copy
from dataclasses import replace

import jax
import numpy as np
import pytest
import tiny_run
from plain_engine import TOKENIZER, PlainEngine, Thing, Things, plain_actor, speaks

from seal_jax import config, seeds
from seal_jax.authors.author import SelfEdit
from seal_jax.authors.file import File
from seal_jax.authors.fixed import Fixed
from seal_jax.authors.policy import Policy
from seal_jax.domains.domain import Prompt
from seal_jax.engine.programs import enable_cache
from seal_jax.errors import UserError
from seal_jax.model.transformer import Transformer

SAMPLING = config.Sampling(max_new_tokens=64, temperature=0.7, top_p=0.9, top_k=5)
SEED = 7, 2
# Prompts of different lengths, the longest first.
ITEMS = [Thing(name, title) for name, title in zip("abcd", ("Ferry of Arlo " * 3, "One", "Ferry", "It"), strict=True)]


def collected(author, items=ITEMS, samples=2):
    """({item id: self-edits}, how many groups they came in)."""
    groups = list(author.write(items, samples, SEED))
    return {item: edits for group in groups for item, edits in group.items()}, len(groups)


def author(says=speaks, attempts=1, sampling=SAMPLING, domain=None, **settings):
    actor = plain_actor(PlainEngine(says, **settings))
    return Policy(actor, domain or Things(), sampling, attempts)


def generations(policy):
    return [call[1:] for call in policy.actor.engine.calls if call[0] == "generate"]


def test_the_policy_is_asked_for_each_sample_with_a_key_of_its_own():
    found, _ = collected(policy := author())
    for item in ITEMS:
        for k in (0, 1):
            said = speaks(1.0, f"Write about {item.title}:", seeds.sample(*SEED, item, k))
            assert found[item.id][k].text == said and found[item.id][k].finished
    assert list(sorted(found)) == list("abcd") and len({edit.text for edits in found.values() for edit in edits}) == 8
    assert policy.prompt(ITEMS[1]) == TOKENIZER.encode_prompt(Prompt("Write about One:", False))


def test_what_was_sampled_is_kept_with_the_end_token_and_rounded_log_probs():
    edit = collected(author())[0]["b"][0]
    assert edit.tokens == (*TOKENIZER.encode(edit.text), TOKENIZER.stop_ids and min(TOKENIZER.stop_ids))
    assert edit.log_probs == tuple(round(-(1 + place) / 3, 5) for place in range(len(edit.tokens)))
    assert edit.attempts == 1 and edit.problem is None


def test_a_self_edit_that_was_cut_off_has_no_end_token():
    edit = collected(author(sampling=replace(SAMPLING, max_new_tokens=3)))[0]["b"][0]
    assert not edit.finished and len(edit.tokens) == len(edit.log_probs) == 3
    assert edit.text == TOKENIZER.decode(list(edit.tokens))


def test_a_text_ends_at_the_first_stop_string_and_is_finished():
    sampling = replace(SAMPLING, stop_strings=("END", "STOP"))
    edit = collected(author(lambda *_: "one END two STOP three END", sampling=sampling))[0]["b"][0]
    assert edit.text == "one " and edit.finished
    assert edit.tokens == tuple(TOKENIZER.encode("one END two STOP three END"))
    other = collected(author(lambda *_: "one STOP two END", sampling=sampling))[0]["b"][0]
    assert other.text == "one " and author().actor.stopper(()) is None


def test_the_sampling_rules_are_those_of_the_config():
    policy = replace(author(), grammar="a grammar")
    collected(policy)
    for _, generation in generations(policy):
        rules = generation.rules
        assert (rules.temperature, rules.top_p, rules.top_k) == (0.7, 0.9, 5)
        assert set(rules.stop_ids) == TOKENIZER.stop_ids and generation.max_new == 64
        assert generation.grammar == "a grammar" and generation.stopped is None


@pytest.mark.parametrize("rows, sizes", [(4, [4, 4]), (6, [6, 2]), (7, [6, 2]), (100, [8]), (1, [2] * 4)])
def test_decode_rows_bounds_how_many_are_written_together(rows, sizes):
    found, groups = collected(policy := author(decode_rows=rows))
    assert [count for count, _ in generations(policy)] == sizes and groups == len(sizes)
    assert found == collected(author())[0]


def test_prompts_of_like_length_are_decoded_together():
    groups = [list(group) for group in author(decode_rows=4).write(ITEMS, 2, SEED)]
    assert groups == [list(group) for group in author(decode_rows=4).write(ITEMS[::-1], 2, SEED)]
    lengths = [len(author().prompt(item)) for group in groups for item in ITEMS if item.id in group]
    assert sorted(lengths[:2]) + sorted(lengths[2:]) == sorted(lengths)


def test_which_items_are_asked_for_together_changes_nothing():
    whole = collected(author())[0]
    assert all(collected(author(), [item])[0][item.id] == whole[item.id] for item in ITEMS)


# ---------------------------------------------------------------- sampled again


FIRST_READABLE = {(seeds.sample(*SEED, item, k)): place * 2 % 4 + k for place, item in enumerate(ITEMS) for k in (0, 1)}


def unreadable(weight, prompt, seed):
    """Unreadable up to an attempt of 0 to 3, which item and sample decide; sample 1 of 'a' is invalid instead."""
    *key, attempt = seed
    if tuple(key) == seeds.sample(*SEED, ITEMS[0], 1)[:-1]:
        return "invalid"
    return f"read {seed}" if attempt >= FIRST_READABLE[*key, 0] else f"again {seed}"


def test_what_cannot_be_read_is_sampled_again_and_nothing_else():
    found, _ = collected(policy := author(unreadable, attempts=3, decode_rows=100))
    needed = []
    for item in ITEMS:
        for k in (0, 1):
            edit, key = found[item.id][k], seeds.sample(*SEED, item, k)
            if (item.id, k) == ("a", 1):
                assert edit.problem == "not allowed" and edit.attempts == 1
                continue
            at = FIRST_READABLE[key]
            needed.append(at)
            assert edit.attempts == min(at, 2) + 1
            assert edit.problem == ("cannot be read" if at > 2 else None)
            assert edit.text == unreadable(1.0, "", (*key[:-1], min(at, 2)))
    assert sorted(needed) == [0, 0, 1, 2, 2, 3, 3]
    assert [count for count, _ in generations(policy)] == [8, 5, 4]


def test_one_attempt_is_one_attempt():
    policy = Policy(plain_actor(PlainEngine(lambda *_: "again")), Things(), SAMPLING)
    found, _ = collected(policy)
    assert {edit.problem for edits in found.values() for edit in edits} == {"cannot be read"}
    assert sum(count for count, _ in generations(policy)) == 8


def test_nothing_is_sampled_again_where_all_can_be_read():
    policy = author(attempts=4, decode_rows=100)
    collected(policy)
    assert policy.actor.engine.count("generate") == 1


# ---------------------------------------------------------------- the model itself


def test_log_probs_and_tokens_are_those_of_the_model(home, actors):
    settings = config.from_dict(tiny_run.tiny_values(home, engine={"decode_rows": 3}))
    enable_cache(settings.engine.cache)
    actor = actors(settings.model.policy, settings)
    sampling = config.Sampling(max_new_tokens=8, temperature=1.5, top_p=0.9)
    stops = frozenset(range(3, 80)) | actor.tokenizer.stop_ids
    tokenizer = copy.copy(actor.tokenizer)
    tokenizer.stop_ids = stops  # a random model seldom ends by itself
    policy = Policy(replace(actor, tokenizer=tokenizer), Things(), sampling)
    found, _ = collected(policy, ITEMS[1:3], 3)
    model = Transformer(actor.source.config)
    full = jax.jit(lambda tokens: model.apply({"params": actor.base}, tokens, method="full"))
    edits = [(item, edit) for item in ITEMS[1:3] for edit in found[item.id]]
    assert {edit.finished for _, edit in edits} == {True, False}
    for item, edit in edits:
        prompt = policy.prompt(item)
        tokens = [*prompt, *edit.tokens]
        padded = np.array([tokens + [0] * (32 - len(tokens))], np.int32)
        logits = np.asarray(full(padded), np.float64)[0]
        logits = logits[len(prompt) - 1 : len(tokens) - 1]
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        picked = log_probs[np.arange(len(edit.tokens)), list(edit.tokens)]
        np.testing.assert_allclose(edit.log_probs, picked, atol=3e-5)
        assert (edit.tokens[-1] in stops) == edit.finished and not set(edit.tokens[:-1]) & stops
        assert edit.text == actor.tokenizer.decode(list(edit.tokens[: len(edit.tokens) - edit.finished]))
    assert all(len(edit.tokens) == 8 for _, edit in edits if not edit.finished)


# ---------------------------------------------------------------- files and rules


def test_a_file_gives_the_first_completions_of_each_item():
    items = [Thing("x", "One", completions=("a", "b", "c")), Thing("y", "Two", completions=("d", "e"))]
    assert collected(File("train.json"), items) == (
        {"x": [SelfEdit("a"), SelfEdit("b")], "y": [SelfEdit("d"), SelfEdit("e")]}, 1,
    )  # fmt: skip


def test_fewer_completions_than_samples_is_an_error_that_names_the_item():
    items = [Thing("x", "One", completions=("a", "b", "c")), Thing("y", "Two", completions=("d", "e"))]
    with pytest.raises(UserError, match="train.json: 'Two' has 2 completions and 3 are asked for; .*outer.samples"):
        collected(File("train.json"), items, 3)


def test_one_of_which_the_file_has_nothing_is_missing_and_none_at_all_is_an_error():
    items = [Thing("x", "One", completions=("a",)), Thing("y", "Two")]
    found, _ = collected(File("train.json"), items, 1)
    assert found == {"x": [SelfEdit("a")], "y": [SelfEdit(None, problem="the file has none")]}
    with pytest.raises(UserError, match="'One' has 1 completions and 2 are asked for"):
        collected(File("train.json"), items, 2)
    with pytest.raises(UserError, match="train.json has no completions of any of the 1 items, such as 'Two'"):
        collected(File("train.json"), items[1:], 1)


def test_a_rule_writes_from_item_and_sample():
    rule = Fixed(lambda item, k: f"{item.title} {k}" if item.id != "d" else None)
    found, _ = collected(rule)
    assert found["b"] == [SelfEdit("One 0"), SelfEdit("One 1")] and found["d"] == [SelfEdit(None)] * 2
    assert list(found) == list("abcd")


def test_only_what_nobody_wrote_is_missing():
    invalid, nothing, lost = SelfEdit("a", problem="not allowed"), SelfEdit(None), SelfEdit(None, problem="HTTP 500")
    assert [edit.missing for edit in (SelfEdit("a"), invalid, nothing, lost)] == [False, False, False, True]
