"""What the table lets through is a valid self-edit, whole and within the limit; no usual way to write it is lost."""

import itertools
import json
from dataclasses import asdict

import numpy as np
import pytest
from tiny_checkpoint import SPECIAL, tiny_tokenizer
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from seal_jax.domains.arc import grammar
from seal_jax.domains.arc.edit import (
    ORACLE,
    STRATEGIES,
    Configuration,
    DataGeneration,
    TrainingChoice,
    canonical,
    parse,
    random_configuration,
)
from seal_jax.domains.arc.grammar import compile_expression, self_edit_automaton, token_table
from seal_jax.errors import UserError
from seal_jax.model.tokenizer import Tokenizer

STYLES = ({}, {"indent": 2}, {"indent": 4}, {"separators": (",", ":")})
STOP = 7


def self_edit(rate="0.0001", epochs="2", flags=(True, False, True, False), strategy=STRATEGIES[0], style=()):
    """A self-edit as json.dumps writes it, its numbers as given."""
    edit = Configuration(DataGeneration(*flags), TrainingChoice(strategy, "RATE", "EPOCHS"))
    return json.dumps(asdict(edit), **dict(style)).replace('"RATE"', rate).replace('"EPOCHS"', epochs)


def is_valid(text: str) -> bool:
    """JSON from the first character to the last, and a self-edit, of at most 99 epochs, to those who will read it."""
    edit = parse(text)
    return isinstance(edit, Configuration) and asdict(edit) == json.loads(text) and edit.training.num_train_epochs <= 99


def texts_of(automaton, state=None) -> list[str]:
    """Every text of a small automaton."""
    state = len(automaton.edges) - 1 if state is None else state
    out = [""] if automaton.accepting[state] else []
    for byte, target in automaton.edges[state].items():
        out += [chr(byte) + rest for rest in texts_of(automaton, target)]
    return out


def accepts(automaton, text: str) -> bool:
    state = len(automaton.edges) - 1
    for byte in text.encode():
        if byte not in automaton.edges[state]:
            return False
        state = automaton.edges[state][byte]
    return automaton.accepting[state]


def walk(table, seed: int, max_new: int | None = None) -> list[int]:
    """Tokens drawn until the end, by turns any allowed token or any allowed next state, as decoding would."""
    rng = np.random.default_rng(seed)
    deadlines = table.deadlines(max_new or 10_000)
    state, out, ended = table.start, [], len(table.next_state) - 1
    while state != ended:
        target = table.next_state[state]
        allowed = np.flatnonzero((target >= 0) & (len(out) < deadlines[target]))
        assert len(allowed), "a dead end"
        if seed % 2:
            wanted = rng.choice(np.unique(target[allowed]))
            allowed = allowed[target[allowed] == wanted]
        out.append(int(rng.choice(allowed)))
        state = int(target[out[-1]])
    return out


@pytest.fixture(scope="module")
def vocabulary() -> list[bytes]:
    """256 bytes, one unused id, some pieces of self-edits, and some that are none."""
    rng = np.random.default_rng(0)
    texts = [self_edit(style=style.items()) for style in STYLES]
    cuts = [(str(rng.choice(texts)), rng.integers(0, 220), rng.integers(2, 9)) for _ in range(400)]
    pieces = {text[start : start + length].encode() for text, start, length in cuts}
    return [bytes([byte]) for byte in range(256)] + [b"", *sorted(pieces), b'{"x', b"}}}", b"00000000", "é".encode()]


@pytest.fixture(scope="module")
def table(vocabulary):
    return token_table(self_edit_automaton(), vocabulary, (STOP,))


# Automata


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("ab", {"ab"}),
        ("", {""}),
        (["ab", "ac", "a"], {"ab", "ac", "a"}),
        (("x", ["", "a", "ab"], ["b", ""]), {"x", "xa", "xab", "xb", "xabb"}),
        ((["a", "ab"], ["bc", "c"]), {"abc", "ac", "abbc"}),
        (grammar._up_to(2, ["0", "1"]), {"", *"01", "00", "01", "10", "11"}),
        ([["a", "b"], ("b", ["", "c"])], {"a", "b", "bc"}),
    ],
)
def test_languages_by_hand(expression, expected):
    texts = texts_of(compile_expression(expression))
    assert sorted(texts) == sorted(expected)  # as a list: deterministic, so each text has one way


def test_equal_states_are_one_and_edges_lead_to_lower_ones():
    automaton = compile_expression((["true", "false"], ["!", ("?", "!")]))
    assert len(automaton.edges) == 10  # the end, "!", "!" or "?!"; before it e, ue, rue, se, lse, alse; the start
    assert automaton.accepting == [True] + [False] * 9
    assert set(automaton.edges[-1]) == {ord("t"), ord("f")}
    for state, edges in enumerate(self_edit_automaton().edges):
        assert all(target < state for target in edges.values())
        assert edges or state == 0


def test_every_learning_rate_is_valid():
    rates = texts_of(compile_expression(grammar._learning_rate()))
    assert len(rates) == 1 + 6 * 9 * 1111 + 9 * 111 * 2 * 2 * 9
    values = [json.loads(rate) for rate in rates]
    assert all(type(value) is float for value in values)
    assert 0 < min(values) <= 1e-9 and max(values) == 1.0


@pytest.mark.parametrize("style", STYLES)
def test_usual_texts_are_accepted(style):
    automaton = self_edit_automaton()
    rates = [f"{10.0**-power:.{power}f}" for power in range(1, 7)]
    rates += [json.dumps(float(f"{number}e-{power}")) for number in (1, 2, 3, 5) for power in (3, 4, 5)]
    for rate in [*rates, "5e-4", "1E-04", "2.5e-05", "0.00025", "1.0", "0.0010"]:
        assert accepts(automaton, self_edit(rate, style=style.items())), rate
    for epochs in ("1", "2", "9", "10", "15", "99"):
        assert accepts(automaton, self_edit(epochs=epochs, style=style.items())), epochs
    for flags in itertools.product((True, False), repeat=4):
        assert accepts(automaton, self_edit(flags=flags, strategy=STRATEGIES[1], style=style.items()))


def test_what_the_program_writes_itself_is_accepted():
    automaton = self_edit_automaton()
    for edit in (ORACLE, *(random_configuration((seed,), (1e-9, 1.0), (1, 99)) for seed in range(200))):
        assert accepts(automaton, canonical(edit)), canonical(edit)


def test_invalid_texts_are_refused():
    automaton = self_edit_automaton()
    for rate in ("0", "0.0", "0.00000", "1.1", "2.0", "1", "-0.1", "1e-0", "1e-00", "1e4", "1e-", ".1", '"0.1"', "NaN"):
        assert not accepts(automaton, self_edit(rate)), rate
    for epochs in ("0", "100", "01", "1.0", "-1", "", "true", "٣"):
        assert not accepts(automaton, self_edit(epochs=epochs)), epochs
    good = self_edit()
    changed = [good.replace("true", word) for word in ("True", "1", "null", '"true"')]
    changed += [good.replace("basic", "size"), good.replace("all", "no"), good.replace('"training"', '"Training"')]
    changed += [good[:-1], good[1:], good + " ", good + "}", good.replace("}, ", "} "), "", good.replace(": ", ":  ")]
    for text in changed:
        assert not accepts(automaton, text), text


def test_the_largest_number_of_epochs_can_be_set():
    for largest in (1, 5, 10, 250):
        automaton = self_edit_automaton(largest)
        kept = [n for n in (0, 1, 2, 5, 6, 10, 11, 99, 249, 250, 251) if accepts(automaton, self_edit(epochs=str(n)))]
        assert kept == [n for n in (1, 2, 5, 6, 10, 11, 99, 249, 250) if n <= largest]
    with pytest.raises(UserError, match="num_train_epochs that the grammar may allow is 0"):
        self_edit_automaton(0)


def test_too_many_states_for_int16_are_refused():
    with pytest.raises(UserError, match="32767 states"):
        compile_expression("a" * 32_766)


# Tables


def test_a_table_by_hand():
    automaton = compile_expression(["abc", "abd", "a"])
    assert automaton.edges == [{}, {99: 0, 100: 0}, {98: 1}, {97: 2}]
    tokens = [b"a", b"ab", b"b", b"bc", b"", b"c", b"d", b"abd", b"b", b"ca", b"d"]
    table = token_table(automaton, tokens, (8, 4))
    assert table.next_state.dtype == np.int16 and table.distance.dtype == np.int32
    assert table.next_state.tolist() == [
        # a  ab   b  bc  stop c   d abd stop ca   d
        [-1, -1, -1, -1, 4, -1, -1, -1, 4, -1, -1],
        [-1, -1, -1, -1, -1, 0, 0, -1, -1, -1, 0],
        [-1, -1, 1, 0, 4, -1, -1, -1, 4, -1, -1],
        [2, 1, -1, -1, -1, -1, -1, 0, -1, -1, -1],
        [-1, -1, -1, -1, 4, -1, -1, -1, 4, -1, -1],
    ]
    assert (table.start, table.distance.tolist()) == (3, [1, 2, 1, 2, 0])
    assert table.deadlines(5).tolist() == [4, 3, 4, 3, 5] and table.deadlines(2).tolist() == [1, 0, 1, 0, 2]
    with pytest.raises(UserError, match=r"max_new_tokens is 1, .* takes 2 tokens"):
        table.deadlines(1)


def test_tokens_that_lead_nowhere_are_not_allowed():
    automaton = compile_expression(["ab", "cd"])
    table = token_table(automaton, [b"a", b"b", b"c", b""], (3,))
    assert table.next_state[table.start].tolist() == [1, -1, -1, -1]  # nothing goes on after c
    with pytest.raises(UserError, match="no text of the grammar"):
        token_table(automaton, [b"a", b"c", b""], (2,))
    with pytest.raises(UserError, match="no text of the grammar"):
        token_table(automaton, [b"a", b"b", b"c", b"d"], ())


def test_walks_end_in_valid_texts(table, vocabulary):
    texts, lengths = set(), set()
    for seed in range(120):
        *tokens, last = walk(table, seed)
        assert last == STOP and STOP not in tokens
        text = b"".join(vocabulary[token] for token in tokens).decode()
        assert is_valid(text), text
        texts.add(text)
        lengths.add(len(tokens))
    assert len(texts) == 120 and min(lengths) < 90 and max(lengths) > 120
    values = [json.loads(text) for text in texts]
    assert {v["training"]["strategy"] for v in values} == set(STRATEGIES)
    assert len({tuple(v["data_generation"].items()) for v in values}) == 16
    assert len({v["training"]["num_train_epochs"] for v in values}) > 30


def test_walks_keep_to_the_limit(table, vocabulary):
    least = int(table.distance[table.start])
    assert min(len(walk(table, seed)) for seed in range(40)) > least + 20  # they would not by themselves
    for more in (0, 1, 7, 20):
        for seed in range(15):
            *tokens, last = walk(table, seed, least + more)
            assert len(tokens) < least + more and last == STOP
            assert is_valid(b"".join(vocabulary[token] for token in tokens).decode())
    with pytest.raises(UserError, match=f"set max_new_tokens to {least} or more"):
        table.deadlines(least - 1)


def test_every_state_leads_nearer_to_the_end(table):
    """Every table row but the last: tokens lead to lower states, and one of them is a step nearer."""
    ended = len(table.next_state) - 1
    for state in range(ended):
        target = table.next_state[state]
        target = target[target >= 0]
        assert len(target) and np.all((target < state) | (target == ended))
        assert table.distance[target].min() == table.distance[state] - 1
    assert table.distance[ended] == 0 and set(table.next_state[ended]) == {-1, ended}


def test_tokens_are_allowed_where_the_automaton_takes_their_bytes(table, vocabulary):
    """A sample of states, every token."""
    automaton = self_edit_automaton()
    for state in range(0, len(automaton.edges), 7):
        for number, token in enumerate(vocabulary):
            at = state if token and number != STOP else -1
            for byte in token:
                at = automaton.edges[at].get(byte, -1) if at >= 0 else -1
            if number == STOP and automaton.accepting[state]:
                at = len(automaton.edges)
            assert table.next_state[state, number] == at


# Tokenizers


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def test_bytes_of_tokens(tokenizer):
    tokens = grammar.token_bytes(tokenizer, 450)
    assert len(tokens) == 450 and set(tokens[tokenizer.vocab_size :]) == {b""}
    special = {tokenizer.hf.convert_tokens_to_ids(token) for token in SPECIAL}
    assert {number for number, token in enumerate(tokens[: tokenizer.vocab_size]) if not token} == special
    assert {token for token in tokens if len(token) == 1} == {bytes([byte]) for byte in range(256)}
    for text in ('{"a": [true, 1e-5]}\n  x', "Übung\t日本語 — é\x00\x7f\xa0\xad"):
        assert b"".join(tokens[number] for number in tokenizer.encode(text)) == text.encode()


@pytest.mark.parametrize("style", STYLES)
def test_tokenized_texts_are_allowed_and_then_only_the_stop_token(tokenizer, style):
    table = token_table(self_edit_automaton(), grammar.token_bytes(tokenizer, 400), sorted(tokenizer.stop_ids))
    for rate in ("0.0001", "5e-05", "1.0"):
        state = table.start
        for token in tokenizer.encode(self_edit(rate, style=style.items())):
            assert not set(np.flatnonzero(table.next_state[state] >= 0)) & tokenizer.stop_ids
            state = table.next_state[state, token]
            assert state >= 0
        assert set(np.flatnonzero(table.next_state[state] >= 0)) == tokenizer.stop_ids
    assert is_valid(tokenizer.decode(walk(table, 1)))


def test_a_vocabulary_that_is_not_bytes_is_refused():
    backend = Backend(models.BPE({"\u2581a": 0, "</s>": 1}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    other = Tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>"), "other model")
    with pytest.raises(UserError, match="other model: its tokens are not bytes"):
        grammar.token_bytes(other, 2)
