"""Everything on eight fake devices equals the same on one. Run by test_parallel.py, in a process of its own."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from tiny_training import interpret_splash, random_adapter, random_rows, stack, tiny_engine, tiny_model

from seal_jax.engine import calls, room
from seal_jax.engine.engine import Engine
from seal_jax.engine.generation import Generation
from seal_jax.engine.packing import Candidate, Lanes
from seal_jax.engine.recipe import Recipe
from seal_jax.engine.weights import Weights
from seal_jax.errors import UserError
from seal_jax.inner import sft
from seal_jax.inner.sampling import Sampling
from seal_jax.inner.sft import Optimizer
from seal_jax.model.lora import LoraConfig, init_adapter
from seal_jax.model.transformer import Transformer
from seal_jax.parallel import make_layout

KIND = {"kind": "qwen2", "vocab": 304}
LORA = LoraConfig(4, 8.0, ("q_proj", "down_proj"))
RECIPE = Recipe(LORA, 1, 1, Optimizer("cosine", weight_decay=0.1))
LAYOUTS = [(1, "shard_map"), (2, "shard_map"), (4, "shard_map"), (8, "shard_map"), (1, "pmap")]
CANDIDATES = [  # lengths that share a bucket, so that few programs are compiled
    Candidate(random_rows([12 - c, 9], c), 1e-2 / (c + 1), 1 + c // 3, c % 2, (1, c), (3, 4))
    for c in range(5)
]
COLLECTIVE = r"(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("


def engine_on(devices, model=1, backend="shard_map", **settings):
    config, base = tiny_model(**KIND)
    engine = tiny_engine(config, segment=4, **settings)
    engine = Engine(config, engine.settings, make_layout(model, backend, jax.devices()[:devices]))
    return engine, engine.put_base(base)


@pytest.fixture(scope="module")
def one():
    return engine_on(1)


@pytest.fixture(scope="module")
def many(request):
    return engine_on(8, *request.param)


def on(*layouts):
    """The test on these layouts of eight devices: (devices that share a model, backend)."""
    return pytest.mark.parametrize("many", layouts, indirect=True, ids=lambda p: f"{8 // p[0]}x{p[0]}-{p[1]}")


def close(a, b, atol=2e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol), a, b)


def adapters_of(engine, stacked, count):
    total = jax.tree.leaves(stacked)[0].shape[0]
    lanes = Lanes(total, engine.layout.devices)
    values = jax.tree.map(np.asarray, stacked)
    return [jax.tree.map(lambda leaf, c=c: leaf[lanes.of(c)], values) for c in range(count)]


@on((2, "shard_map"), (1, "pmap"))
def test_inner_loops_of_students_that_have_learned_before(one, many):
    """Each beside its own frozen adapter, against the same loop on weights into which that adapter is merged."""
    wide = LoraConfig(6, 12.0, LORA.targets)
    merged, adapters = [], [random_adapter(one[1], wide, seed) for seed in range(len(CANDIDATES))]
    for candidate, adapter in zip(CANDIDATES, adapters, strict=True):
        base = one[0].merge(one[1], adapter, wide)
        stacked, [losses] = one[0].finetune(base, [candidate], RECIPE)
        merged.append((adapters_of(one[0], stacked, 1)[0], losses))
    engine, base = many
    lanes = Lanes.holding(len(CANDIDATES), engine.layout.devices)
    past = engine.layout.put_weights(stack(lanes.spread(adapters)), candidates=True)
    stacked, losses = engine.finetune(base, CANDIDATES, RECIPE, past)
    for ours, values, (theirs, expected) in zip(adapters_of(engine, stacked, 5), losses, merged, strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-4)
        close(ours, theirs, 2e-4)


@on(*LAYOUTS)
def test_inner_loops(one, many):
    outcomes = []
    for engine, base in (one, many):
        stacked, losses = engine.finetune(base, CANDIDATES, RECIPE)
        outcomes.append((adapters_of(engine, stacked, len(CANDIDATES)), losses))
    # Adam divides a gradient by its own size: where it is next to nothing, its rounding counts.
    close(outcomes[0][0], outcomes[1][0], 5e-5 if many[0].layout.model == 1 else 2e-4)
    for candidate, here, there in zip(CANDIDATES, outcomes[0][1], outcomes[1][1], strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-4)
        assert here.shape == (candidate.epochs * len(candidate.rows),) and np.isfinite(here).all()
    assert np.abs(outcomes[1][0][3]["layers"]["q_proj"]["B"]).max() > 1e-3


def place(engine, adapters):
    """Adapters on the devices, as `finetune` would leave them."""
    lanes = Lanes.holding(len(adapters), engine.layout.devices)
    tree = stack(lanes.spread(adapters))
    return jax.tree.map(jax.device_put, tree, engine.layout.weight_shardings(tree, candidates=True))


@on((2, "shard_map"), (4, "shard_map"))
def test_inner_loops_by_a_kernel(one, many, monkeypatch):
    """Of sequences that a kernel reads, by each device on heads of its own; two key heads cannot be divided by four."""
    rows = [random_rows([128], seed) for seed in range(5)]
    candidates = [Candidate(row, 1e-2, 2, 0, (1, number), (3,)) for number, row in enumerate(rows)]

    def losses(engine, base):
        half = engine.put_base(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), jax.device_get(base)))
        return np.stack(engine.finetune(half, candidates, RECIPE)[1])

    expected = losses(*one)
    traced = interpret_splash(monkeypatch)
    monkeypatch.setattr(calls, "kernel_for", lambda device: "splash")
    engine, base = many
    found = losses(Engine(engine.config, replace(engine.settings, loss_chunk=16), engine.layout), base)
    np.testing.assert_allclose(found, expected, rtol=0.01)
    assert {shape[1] for shape in traced} == {4 // engine.layout.model if engine.layout.model < 4 else 4}


@on(LAYOUTS[0], LAYOUTS[1], LAYOUTS[3], LAYOUTS[4])
def test_generation_and_scores(one, many, monkeypatch):
    """Rows end at different places on different devices, and leave there; one with another number of candidates is
    joined to them."""
    rng, rules = np.random.default_rng(2), Sampling(1.0, 0.9, 0, tuple(range(0, 304, 5)))
    trees = [random_adapter(tiny_model(**KIND)[1], LORA, c, 0.3) for c in range(len(CANDIDATES))]
    parts = [trees[:2], trees[2:]]
    prompts = [[rng.integers(6, 300, rng.integers(3, 9)).tolist() for _ in range(3)] for _ in CANDIDATES]
    seeds = [[[(c, q, k) for k in range(2)] for q in range(3)] for c in range(len(prompts))]
    rows = [random_rows((9, 14), c) for c in range(len(prompts))]
    outcomes = []
    for engine, base in (one, many):
        adapters = engine.join([(place(engine, adapters), len(adapters)) for adapters in parts])
        adapted, alone = Weights(base, adapters, LORA), Weights(base)
        monkeypatch.setattr(room, "PROGRAM", 10**9 if engine is one[0] else 0)
        generation = Generation(rules, 10, lambda tokens: tokens[-1] % 7 == 0)
        out = engine.generate(adapted, prompts, seeds, generation)
        out += engine.generate(alone, [sum(prompts, [])], [sum(seeds, [])], Generation(rules, 10))
        samples = [sample for lane in out for samples in lane for sample in samples]
        texts = [(sample.tokens, sample.stop, sample.stopped) for sample in samples]
        scores = engine.log_likelihood(adapted, rows), engine.log_likelihood(alone, [sum(rows, ())])
        outcomes.append((texts, [sample.log_probs for sample in samples], scores))
    assert outcomes[0][0] == outcomes[1][0]
    close(outcomes[0][1:], outcomes[1][1:], 1e-3)
    assert len({tuple(tokens) for tokens, _, _ in texts[:30]}) > 20
    assert len({len(tokens) for tokens, _, _ in texts[:30]}) > 3
    assert {(stop is None, stopped) for _, stop, stopped in texts} == {(True, True), (False, False), (True, False)}


@on(LAYOUTS[0], LAYOUTS[2], LAYOUTS[3])
@pytest.mark.parametrize("lora", [LORA, None], ids=["adapter", "full"])
def test_outer_sft_and_merge(one, many, lora):
    recipe = Recipe(lora, 2, 3, Optimizer("linear"))
    candidate = Candidate(random_rows((15, 12, 12, 9, 8, 7, 6), 1), 3e-3, 2, 0, (4,), (5,))
    outcomes = []
    for engine, base in (one, many):
        learned, losses = engine.teach(base, candidate, recipe)
        merged = engine.merge(base, learned, lora) if lora else learned
        outcomes.append((jax.tree.map(np.asarray, merged), losses))
    np.testing.assert_allclose(outcomes[0][1], outcomes[1][1], rtol=1e-4)
    close(outcomes[0][0], outcomes[1][0], 1e-4)
    assert outcomes[0][1][0] - outcomes[0][1][-1] > 1e-3
    if many[0].layout.model > 1 or lora is None:
        kernel = learned["layers"]["up_proj"]["kernel"] if lora is None else base["layers"]["up_proj"]["kernel"]
        assert kernel.addressable_shards[0].data.size < kernel.size


# What the compiled programs do


def step_program(devices, model=1, count=8, backend="shard_map", **settings):
    engine, base = engine_on(devices, model, backend, **settings)
    lanes = Lanes.holding(count, engine.layout.devices)
    seeds = engine.layout.put_candidates(np.zeros((lanes.total, 2), np.uint32))
    state = engine.init_adapters(base, seeds, RECIPE)
    hyper = engine.layout.put_candidates(sft.Hyper(*np.ones((3, lanes.total), np.float32)))
    batch = engine.calls.blank_batch((1, 1), (lanes.total, 64))
    return engine.calls.step({"params": base}, state, hyper, RECIPE, batch).compile()


def groups_of(line):
    """The devices that meet in a collective, group by group, or pair by pair."""
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
    if iota:
        shape, dims, order = ([int(n) for n in part.split(",")] if part else None for part in iota.groups())
        return np.arange(np.prod(dims)).reshape(dims).transpose(order).reshape(shape).tolist()
    listed = re.search(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]*\})\}", line)
    return [[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", listed[1])]


def across_candidates(text, model):
    """Collectives of a compiled program in which devices with other candidates meet."""
    lines = [line for line in text.splitlines() if re.search(COLLECTIVE, line)]
    return [line for line in lines if any(len({d // model for d in group}) > 1 for group in groups_of(line))]


@pytest.mark.parametrize(("model", "backend"), [(1, "shard_map"), (2, "shard_map"), (4, "shard_map"), (1, "pmap")])
def test_inner_loops_exchange_nothing_between_candidates(model, backend):
    text = step_program(8, model, backend=backend).as_text()
    assert not across_candidates(text, model)
    assert bool(re.search(COLLECTIVE, text)) == (model > 1)  # the search finds what there is


def test_the_search_finds_the_trap():
    """An adapter made inside a mapped function is taken for one that all share, and its gradient is summed."""
    config, base = tiny_model(**KIND)
    mesh = make_layout(1, devices=jax.devices()).mesh
    program = sft.Program(Transformer(config, LORA.scale), Optimizer(), 8)

    def finetune(base, batch, hyper):
        adapter = init_adapter(jax.random.key(0), base, LORA)
        state = sft.init_state(program.optimizer, {"lora": adapter})
        return sft.sft_step(program, {"params": base}, state, batch, hyper)[0].trainable

    mapped = jax.shard_map(
        jax.vmap(finetune, in_axes=(None, 0, 0)), mesh=mesh, in_specs=(P(), P("candidate"), P("candidate")),
        out_specs=P("candidate"), axis_names={"candidate"},
    )  # fmt: skip
    tokens = np.ones((8, 1, 1, 16), np.int32)
    batch = sft.Batch(tokens, np.ones(tokens.shape, np.float32), np.ones(8, bool))
    hyper = sft.Hyper(np.ones(8, np.float32), np.ones(8, np.int32), np.zeros(8, np.int32))
    text = jax.jit(mapped).lower(base, batch, hyper).compile().as_text()
    assert any("all-reduce" in line for line in across_candidates(text, 1))


def test_groups_are_read_in_every_form():
    assert groups_of("replica_groups=[4,2]<=[8]") == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert groups_of("replica_groups=[2,4]<=[4,2]T(1,0)") == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert groups_of("replica_groups={{0,1},{2,3}}, x={{4,5}}") == [[0, 1], [2, 3]]
    assert groups_of("source_target_pairs={{0,1},{1,0}}") == [[0, 1], [1, 0]]


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_work_of_a_device_falls_as_their_number(devices):
    # XLA counts the body of a loop once, however often it runs: the head is applied in one part, whatever a device has.
    flops = [step_program(n, loss_chunk=8 * 64).cost_analysis()["flops"] for n in (1, devices)]
    assert flops[1] == pytest.approx(flops[0] / devices, rel=0.05)


def test_layouts_that_do_not_go():
    with pytest.raises(UserError, match=r"8 devices cannot be grouped by 3; choose one of \[1, 2, 4, 8\]"):
        make_layout(3)
    with pytest.raises(UserError, match="pmap gives every device a whole model"):
        make_layout(2, "pmap")
