"""Generation: prefill once, then a decode loop over a cache that is an argument and a return value.

`decode_step` is one candidate's step; callers vmap it inside the loop (a vmapped while_loop would copy the whole cache
at every step). The samples of a prompt share its keys and values; all rows write theirs to the same slot behind them.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from seal_jax.model.transformer import Cache, Prompts, Transformer, make_room

BLOCK = 256
MAX_TRIES = 1000


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen and which tokens end a row.

    Temperature 0 decodes greedily; top_k 0 and top_p 1 keep the whole distribution.
    """

    temperature: float
    top_p: float
    top_k: int
    stop_ids: tuple[int, ...]


class Constraint(NamedTuple):
    """A grammar as a table over tokens, and how late each of its states may be entered (domains/arc/grammar.py).

    next_state int16 [S, V], -1 where a token is not allowed; deadline int32 [S]: the token at position p may lead to
    state s if p < deadline[s]; start int32 [].
    """

    next_state: jax.Array
    deadline: jax.Array
    start: jax.Array


@dataclass(frozen=True)
class Decoder:
    """All that is static in decoding: the model, the rules, and whether to end when every row is done (`early`)."""

    model: Transformer
    rules: Sampling
    early: bool = True


class Decoding(NamedTuple):
    """Rows being decoded: the cache, tokens [B, S] written so far (`count` of them; S as in the cache),
    and done [B].

    log_probs float32 [B, S]: of each token under the model's full next-token distribution at temperature 1, in
    nats. states int32 [B]: where each row is in its grammar; 0 without one.
    """

    cache: Cache
    tokens: jax.Array
    log_probs: jax.Array
    count: jax.Array
    done: jax.Array
    states: jax.Array


def sample_token(key: jax.Array, logits: jax.Array, rules: Sampling) -> jax.Array:
    """One token from logits [V]: temperature, then top-k, then top-p, without sorting the vocabulary.

    A draw from the whole distribution that lies outside the nucleus (the tokens whose more probable rivals hold less
    than top_p together, Holtzman et al. 2020) is rejected and drawn again, which is the renormalised nucleus exactly.
    """
    if rules.temperature == 0:
        return jnp.argmax(logits).astype(jnp.int32)
    logits = logits / rules.temperature
    if rules.top_k:
        least = jax.lax.top_k(logits, min(rules.top_k, logits.size))[0][-1]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    weights = jnp.exp(logits - logits.max())
    blocks = jnp.pad(weights, (0, -weights.size % BLOCK)).reshape(-1, BLOCK)
    ends = jnp.cumsum(blocks.sum(axis=1))

    def draw(tries):
        point = jax.random.uniform(jax.random.fold_in(key, tries)) * ends[-1]
        block = jnp.minimum(jnp.sum(ends <= point), ends.size - 1)
        within = point - jnp.where(block > 0, ends[block - 1], 0.0)
        place = jnp.minimum(jnp.sum(jnp.cumsum(blocks[block]) <= within), BLOCK - 1)
        token = jnp.minimum(block * BLOCK + place, weights.size - 1)  # rounding may point past the last one
        chosen = weights[token]
        above = jnp.sum(jnp.where(weights > chosen, weights, 0.0))
        return token.astype(jnp.int32), (chosen > 0) & (above < rules.top_p * ends[-1])

    def retry(carry):
        tries, token, accepted = carry
        new, good = draw(tries)
        return tries + 1, jnp.where(accepted, token, new), accepted | good

    most_likely = jnp.argmax(logits).astype(jnp.int32)
    _, token, accepted = jax.lax.while_loop(
        lambda carry: ~carry[2] & (carry[0] < MAX_TRIES), retry, (jnp.int32(0), most_likely, jnp.array(False))
    )
    return jnp.where(accepted, token, most_likely)


def choose(logits: jax.Array, keys: jax.Array, position: jax.Array, rules: Sampling) -> jax.Array:
    """Next token of every row: logits [B, V], one key per row [B]; the row's key is folded with the position."""
    return jax.vmap(lambda key, row: sample_token(jax.random.fold_in(key, position), row, rules))(keys, logits)


def log_prob(logits: jax.Array, token: jax.Array) -> jax.Array:
    """Log-probability [B] in nats of a token of each row [B] under the softmax of its logits [B, V]."""
    picked = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0]
    return picked - jax.nn.logsumexp(logits, axis=-1)


def whole_rows(logits: jax.Array) -> jax.Array:
    """The same logits [B, V], on each of the devices that share a model: drawing tokens takes a number of turns that
    differs between rows, so nothing may be exchanged meanwhile."""
    if AxisType.Auto in jax.sharding.get_abstract_mesh().axis_types:
        return jax.lax.with_sharding_constraint(logits, PartitionSpec())
    return logits


def constrain(logits: jax.Array, states: jax.Array, position: jax.Array, constraint: Constraint | None) -> jax.Array:
    """Logits [B, V] with -inf where the grammar does not allow the token at `position`."""
    if constraint is None:
        return logits
    target = constraint.next_state[states]
    return jnp.where((target >= 0) & (position < constraint.deadline[target]), logits, -jnp.inf)


def advance(states: jax.Array, token: jax.Array, constraint: Constraint | None) -> jax.Array:
    """The states [B] of the grammar after the chosen tokens [B]."""
    return states if constraint is None else constraint.next_state[states, token].astype(jnp.int32)


def prefill(model: Transformer, variables: dict, tokens: jax.Array, start: jax.Array) -> tuple[Prompts, jax.Array]:
    """Read prompts [P, T], padded on the left up to slot `start` [P] -> (their keys and values, logits [P, V])."""
    hidden, prompts = model.apply(variables, tokens, start=start)
    return prompts, model.apply({"params": variables["params"]}, hidden[:, -1], method="logits")


def begin(
    prompts: Prompts, logits: jax.Array, keys: jax.Array, slots: int, rules: Sampling,
    constraint: Constraint | None = None,
) -> Decoding:  # fmt: skip
    """Give each prompt its samples, rows side by side with a key each [B] and so many slots, and choose their first
    tokens."""
    batch = keys.shape[0]
    cache = make_room(prompts, batch, slots)
    states = jnp.full(batch, 0 if constraint is None else constraint.start, jnp.int32)
    logits = whole_rows(jnp.repeat(logits, batch // logits.shape[0], axis=0))
    first = choose(constrain(logits, states, jnp.int32(0), constraint), keys, jnp.int32(0), rules)
    tokens = jnp.zeros((batch, slots), jnp.int32).at[:, 0].set(first)
    log_probs = jnp.zeros((batch, slots), jnp.float32).at[:, 0].set(log_prob(logits, first))
    done, states = is_stop(first, rules), advance(states, first, constraint)
    return Decoding(cache, tokens, log_probs, jnp.int32(1), done, states)


def is_stop(token: jax.Array, rules: Sampling) -> jax.Array:
    """Whether each token [B] ends its row."""
    return jnp.isin(token, jnp.array(rules.stop_ids, jnp.int32)) if rules.stop_ids else jnp.zeros(token.shape, bool)


def decode_step(
    decoder: Decoder, variables: dict, state: Decoding, keys: jax.Array, constraint: Constraint | None = None
) -> Decoding:
    """Feed every row's last token and choose the next one; what rows that are done go on to write is padding."""
    model, rules = decoder.model, decoder.rules
    last = jax.lax.dynamic_slice_in_dim(state.tokens, state.count - 1, 1, axis=1)
    hidden, cache = model.apply(variables, last, state.cache)
    logits = whole_rows(model.apply({"params": variables["params"]}, hidden[:, -1], method="logits"))
    token = choose(constrain(logits, state.states, state.count, constraint), keys, state.count, rules)

    def write(rows, column):
        return jax.lax.dynamic_update_slice_in_dim(rows, column[:, None], state.count, axis=1)

    tokens, log_probs = write(state.tokens, token), write(state.log_probs, log_prob(logits, token))
    done, states = state.done | is_stop(token, rules), advance(state.states, token, constraint)
    return Decoding(cache, tokens, log_probs, state.count + 1, done, states)


CACHE_AXES = Cache(Prompts(k=0, v=0, start=0), k=0, v=0, filled=None)
DECODING_AXES = Decoding(CACHE_AXES, tokens=0, log_probs=0, count=None, done=0, states=0)


def decode(
    decoder: Decoder, variables: dict, state: Decoding, keys: jax.Array, until: jax.Array,
    constraint: Constraint | None = None,
) -> Decoding:  # fmt: skip
    """Decode until `until` tokens are written or, if `decoder.early`, every row is done. All but the base carry a C
    axis.

    `variables` is {'params': base} or {'params': base, 'lora': adapters [C, ...]}; state as `begin` makes it, vmapped,
    with room for `until` tokens. The adapters are cast to what the base computes in once, not at every token.
    """
    dtype = variables["params"]["embed"]["embedding"].dtype
    adapters = {name: value for name, value in variables.items() if name != "params"}
    adapters = jax.tree.map(lambda leaf: leaf.astype(dtype), adapters)

    def step(adapters, state, keys):
        return decode_step(decoder, {"params": variables["params"], **adapters}, state, keys, constraint)

    mapped = jax.vmap(step, in_axes=(0, DECODING_AXES, 0), out_axes=DECODING_AXES)

    def unfinished(state):
        return (state.count < until) & ~(decoder.early & jnp.all(state.done))

    end = jax.lax.while_loop(unfinished, lambda state: mapped(adapters, state, keys), state)
    until = jnp.maximum(until, state.count)  # the same on every device, though one whose rows are done stops earlier
    filled = state.cache.filled + until - state.count
    return end._replace(cache=end.cache._replace(filled=filled), count=until)
