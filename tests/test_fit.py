"""fit: slices' names, what a compiled program exchanges, the roofline's arithmetic, real programs for a slice."""

import dataclasses
import json
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from seal_jax import fit
from seal_jax.config import Config, EngineConfig, Model, Outer, Parallel, Reward, Sampling, Training
from seal_jax.errors import UserError
from seal_jax.fitting import chips, report
from seal_jax.fitting.flops import matmul_flops
from seal_jax.fitting.hlo import Collective, collectives
from seal_jax.fitting.measure import Measured, TooBig, fits, measure, read_off
from seal_jax.fitting.models import PUBLISHED, abstract_weights, architecture
from seal_jax.fitting.plan import ANSWER_DECODE, EDIT_DECODE, LINE, LONGEST, MERGE, PASSAGE, SCORE, Plan, Program
from seal_jax.fitting.roofline import Part, Work, round_terms
from seal_jax.fitting.workload import Workload

V5E = chips.CHIPS["v5e"]


@pytest.mark.parametrize(
    ("name", "libtpu", "count"),
    [
        ("v4-8", "v4:2x2x1", 4), ("v5p-8", "v5p:2x2x1", 4), ("v4-16", "v4:2x2x2", 8), ("v5e-16", "v5e:4x4", 16),
        ("v5litepod-16", "v5e:4x4", 16), ("v6e-8", "v6e:2x4", 8), ("v5e-256", "v5e:16x16", 256),
        ("v5e-1", "v5e:1x1", 1),
    ],
)  # fmt: skip
def test_names_of_slices(name, libtpu, count):
    """v4 and v5p count cores, two to a chip; v5e and v6e count chips."""
    found = chips.topology(name)
    assert (found.libtpu, found.chips) == (libtpu, count)


@pytest.mark.parametrize("name", ["v5e-3", "v4-4", "v9-8", "v5e", "h100-8", "v5p-9"])
def test_names_that_no_slice_has(name):
    with pytest.raises(UserError, match=f"--topology={name}: no such slice"):
        chips.topology(name)


def test_shapes_hold_the_chips_that_their_keys_say():
    for axes, shapes in chips.SHAPES.items():
        for count, shape in shapes.items():
            sizes = [int(size) for size in shape.split("x")]
            assert len(sizes) == axes and jnp.prod(jnp.array(sizes)) == count


HLO = """\
HloModule jit_f

%body.1 (p: (s32[], bf16[4,128])) -> (s32[], bf16[4,128]) {
  %ag = bf16[4,256]{1,0:T(4,128)(2,1)S(1)} all-gather(%x), channel_id=2, replica_groups=[2,4]<=[8], dimensions={1}
  %f = bf16[4,128]{1,0} fusion(%ag), kind=kOutput, calls=%fused
}

%cond.1 (p: (s32[], bf16[4,128])) -> pred[] {
  %c = s32[]{:T(128)} constant(28)
  ROOT %lt = pred[]{:T(512)} compare(%i, %c), direction=LT
}

%cond.2 (p: (s32[], bf16[4,128])) -> pred[] {
  %c2 = s32[] constant(1000)
  %and = pred[] and(%a, %b)
  ROOT %r = pred[] fusion(%and)
}

%body.2 (p: (s32[], bf16[4,128])) -> (s32[], bf16[4,128]) {
  %w1 = (s32[], bf16[4,128]) while(%t), condition=%cond.1, body=%body.1
}

%fused (p: bf16[4,256]) -> bf16[4,128] {
  ROOT %s = f32[10]{0} all-reduce(%p), replica_groups={{0,1},{2,3}}, to_apply=%add
  %again = bf16[4,256]{1,0} all-gather(%p), channel_id=2, replica_groups=[2,4]<=[8], dimensions={1}
}

ENTRY %main (a: bf16[4,128]) -> bf16[4,128] {
  %w2 = (s32[], bf16[4,128]) while(%t), condition=%cond.2, body=%body.2
  %ars = (f32[8], f32[16]) all-reduce-start(%p), replica_groups={{0,1,2,3}}, to_apply=%add
  %ard = f32[16] all-reduce-done(%ars)
  %agm = f32[6] all-gather(%p), channel_id=5, replica_groups=mesh['axis_0'=4,'axis_1'=1,'axis_2'=2] {'axis_0','axis_2'}
}
"""


def test_collectives_are_counted_as_often_as_loops_turn():
    """28 layers inside a loop of unknown length, which counts once; a start is not counted again when it is done, nor
    what stands in several fusions."""
    assert set(collectives(HLO)) == {
        Collective("all-gather", 4 * 256 * 2, 4, 28),
        Collective("all-reduce", 40, 2, 28),
        Collective("all-reduce", 64, 4, 1),
        Collective("all-gather", 24, 8, 1),
    }


def test_bytes_sent_in_a_ring():
    assert Collective("all-gather", 800, 4).sent == 600
    assert Collective("all-reduce", 800, 4, 2).sent == 2400
    assert Collective("reduce-scatter", 200, 4).sent == 600
    assert Collective("collective-permute", 10, 2, 3).sent == 30
    assert Collective("all-reduce", 800, 4).over_link == 600  # half to each neighbour
    assert Collective("all-reduce", 800, 2).over_link == 800  # the other chip of a pair is the only one


def test_flops_of_matrix_products():
    def layer(x, w):
        return jnp.tanh(x @ w), None

    def net(x, ws):
        return jax.lax.scan(layer, x, ws)[0].sum()

    x, ws = jax.ShapeDtypeStruct((5, 8), "float32"), jax.ShapeDtypeStruct((3, 8, 8), "float32")
    one = 2 * 5 * 8 * 8
    assert matmul_flops(jax.make_jaxpr(net)(x, ws).jaxpr) == 3 * one
    assert matmul_flops(jax.make_jaxpr(jax.grad(net, argnums=(0, 1)))(x, ws).jaxpr) == 9 * one


def test_the_slowest_term_counts():
    work = Work(flops=197e12, hbm=819e9 * 3, link=V5E.link, hops=1e6)
    assert work.terms(V5E) == pytest.approx({"FLOPs": 1.0, "HBM": 3.0, "interconnect": 2.0})
    assert work.seconds(V5E) == pytest.approx(3.0) and work.limit(V5E) == "HBM"
    busy = Work(197e12 * 4, 0, 0, 0)
    terms = round_terms([Part("a", work, 2), Part("b", busy, 10)], V5E)
    assert terms == pytest.approx({"FLOPs": 40.0, "HBM": 6.0, "interconnect": 0.0})


def test_weights_of_published_models():
    """Their parameters, in billions, as published."""
    sizes = {"Qwen/Qwen2.5-7B": 7.616, "Qwen/Qwen2.5-3B": 3.086, "meta-llama/Llama-3.2-1B": 1.236,
             "Qwen/Qwen2.5-72B": 72.706, "meta-llama/Llama-3.2-3B": 3.213, "Qwen/Qwen2.5-0.5B": 0.494,
             "Qwen/Qwen2.5-1.5B": 1.544, "smollm2-135m-instruct": 0.1345,
             "google/gemma-3-270m": 0.2681, "google/gemma-3-1b": 0.99989, "HuggingFaceTB/SmolLM3-3B": 3.075,
             "mistralai/Mistral-7B-v0.3": 7.248}  # fmt: skip
    assert architecture("google/gemma-3-1b-it") == architecture("google/gemma-3-1b")
    assert sizes.keys() == PUBLISHED.keys()
    for name, billions in sizes.items():
        leaves = jax.tree.leaves(abstract_weights(architecture(name), "bfloat16"))
        assert sum(leaf.size for leaf in leaves) / 1e9 == pytest.approx(billions, rel=1e-3)


def test_what_the_compiler_says_it_needs():
    assert TooBig("RESOURCE_EXHAUSTED: HLO temporaries (128.00G) exceeds available HBM (15.75G).").needs == 128 * 2**30
    assert TooBig("Ran out of memory in memory space hbm. Used 18.5G of 15.75G hbm.").needs == 18.5 * 2**30
    assert TooBig("RESOURCE_EXHAUSTED").needs is None


def test_bad_flags_are_one_sentence(capsys, monkeypatch):
    config = "configs/knowledge_qwen2_5_7b.py"
    for argv, said in [
        ([], "give --config=FILE"),
        ([f"--config={config}"], "give --topology=SLICE"),
        ([f"--config={config}", "--topology=v5e-5"], "--topology=v5e-5: no such slice; there are v5e-1, v5e-4"),
        ([f"--config={config}", "--config.engine.lanes=3", "--topology=v5e-4"], "lanes"),
        ([f"--config={config}", "--config.engine.candidates=0", "--topology=v5e-4"], "find one with --largest"),
        (["--config=configs/fewshot_smollm2.py", "--topology=v5e-4"], "this config has 'arc'"),
        ([f"--config={config}", "--config.data.train_items=0", "--topology=v5e-4"], "train_items is 0 (all)"),
        (["--nonsense"], "nonsense"),
    ]:
        fit.FLAGS.unparse_flags()
        for flag in fit.FLAGS.get_key_flags_for_module(fit):
            flag.unparse()
        monkeypatch.setattr(sys, "argv", ["fit", *argv])  # where the flags of a config's fields are looked for
        assert fit.main(["fit", *argv]) == 2
        errors = capsys.readouterr().err
        assert said in errors and errors.count("\n") == 1


def test_without_libtpu(monkeypatch):
    monkeypatch.setattr(chips, "has_libtpu", lambda: False)
    with pytest.raises(UserError, match="libtpu, which is not installed: pip install"):
        chips.topology("v5e-4").devices()


@pytest.mark.parametrize(
    ("name", "engine", "said"),
    [
        (LONGEST, EngineConfig(candidates=8, remat="minimal"), "activations with --config.engine.remat=full"),
        (LONGEST, EngineConfig(candidates=8, remat="full"), "--config.engine.candidates=4"),
        (LONGEST, EngineConfig(candidates=1, loss_chunk=64), "--config.engine.loss_chunk=32"),
        (EDIT_DECODE, EngineConfig(decode_rows=64), "--config.engine.decode_rows=32"),
        (SCORE, EngineConfig(candidates=8), "--config.engine.candidates=4"),
        (SCORE, EngineConfig(candidates=8, answer_rows=80), "--config.engine.answer_rows=40"),
    ],
)
def test_the_remedy_fits_the_program(config, name, engine, said):
    plan = report.make_plan(dataclasses.replace(config, engine=engine), jax.devices()[:1])
    refusal = report.refusal(plan, name, 20 * 2**30, chips.topology("v5e-1"))
    assert f"'{name}' needs 20.0 GiB of the 15.8 GiB of a chip" in refusal and said in refusal


def test_the_largest_asks_all_programs_of_a_candidate(config, capsys, monkeypatch):
    """Training would let 24 candidates in, scoring only eight."""
    seen = []

    def pretend(program, base, chips):
        lanes, each = program.call.args[2].shape[0] if program.name == SCORE else len(program.call.args[2]), 2**30
        seen.append((program.name, lanes))
        return Measured(program.name, lanes * each * (1.9 if program.name == SCORE else 0.6), 0.0, [], None), None

    monkeypatch.setattr(report, "measure", pretend)
    reward = Reward(accuracy_weight=0.0, likelihood_weight=1.0)
    likelihood = dataclasses.replace(config, reward=reward, engine=EngineConfig(decode_rows=1))
    assert report.show_largest(likelihood, chips.topology("v5e-1"), jax.devices()[:1]) == 0
    printed = capsys.readouterr().out
    assert "8 candidates: 15.2 GiB, fits" in printed and "12 candidates: 22.8 GiB, does not fit" in printed
    assert printed.endswith("The most candidates in flight on v5e-1: --config.engine.candidates=8\n")
    assert (LONGEST, 8) in seen and (SCORE, 8) in seen


@pytest.mark.parametrize(
    ("remat", "gib", "taken"),
    [("auto", (None, 14.0), "minimal"), ("auto", (14.0,), "none"), ("auto", (14.5, 14.5, 15.0), "full"),
     ("none", (15.0,), "none")],
)  # fmt: skip
def test_fit_recomputes_as_a_run_would(config, monkeypatch, remat, gib, taken):
    """Each choice needs so much where nine tenths of 15.75 GiB are to be filled; None: the compiler refuses it."""
    tried = []

    def pretend(program, base, chips):
        size = gib[len(tried)]
        tried.append(program.remat)
        if size is None:
            raise TooBig("RESOURCE_EXHAUSTED")
        return Measured(program.name, size * 2**30, 0.0, [], None, program.remat), None

    monkeypatch.setattr(report, "measure", pretend)
    plan = report.make_plan(dataclasses.replace(config, engine=EngineConfig(remat=remat)), jax.devices()[:1])
    measured, _ = report.least(plan, LONGEST, {}, chips.topology("v5e-1"))
    assert measured.remat == taken == tried[-1] and len(tried) == len(gib)
    assert plan.choices(SCORE) == [plan]


# Real programs, for a slice of four chips

RECORDED_ALONE, RECORDED_SHARED = 8.03, 6.99  # MiB on a chip
WORKLOAD = Workload(longest=64, passage=48, line=16, passages=((0, 30), (1, 48)), lines=((0, 6), (1, 9)), prompt=32,
                    edits=((0, 8), (1, 16)), lesson=64, question=16)  # fmt: skip
HF = {"model_type": "qwen2", "vocab_size": 1024, "hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
      "num_key_value_heads": 2, "intermediate_size": 512, "max_position_embeddings": 512}  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(HF))
    return Config(
        model=Model(policy=str(folder)),
        sampling=Sampling(max_new_tokens=32),
        engine=EngineConfig(candidates=4, decode_rows=10, remat="full"),
        inner=Training(rank=8, targets=("q_proj", "v_proj")),
    )


@pytest.mark.parametrize(
    ("candidates", "asked", "accuracy", "chunks", "rows"),
    [(4, 10, 1.0, 1, 2), (4, 64, 1.0, 3, 5), (8, 4, 1.0, 1, 1), (4, 10, 0.0, 2, 1), (1, 64, 0.0, 64, 1)],
)
@pytest.mark.parametrize("field", ["decode_rows", "answer_rows"])
def test_what_is_asked_together(config, candidates, asked, accuracy, chunks, rows, field):
    """As student/trials.py puts chunks together and student/ask.py bounds the rows; five questions each."""
    engine = EngineConfig(candidates=candidates, **{field: asked})
    reward = Reward(accuracy_weight=accuracy, likelihood_weight=1.0)
    plan = report.make_plan(dataclasses.replace(config, engine=engine, reward=reward), jax.devices()[:1])
    assert (plan.asked_chunks, plan.asked_rows) == (chunks, rows)
    assert plan.score().call.args[2].shape[1] == rows


@pytest.fixture(scope="module")
def slice_of_four():
    if not chips.has_libtpu():
        pytest.skip("libtpu is not installed; pip install -e '.[tpu]'")
    topology = chips.topology("v5e-4")
    return topology, topology.devices()


def plan_of(config, devices, model):
    made = report.make_plan(dataclasses.replace(config, parallel=Parallel(model=model)), devices)
    return dataclasses.replace(made, load=WORKLOAD)


def compiled(plan: Plan, name: str):
    return measure(plan.programs()[name]({}), plan.base, 4)[0]


def test_an_inner_step_for_a_slice(config, slice_of_four):
    """Nothing is exchanged where every chip has a whole model, and within pairs where two share one; memory is as
    recorded with libtpu 0.0.42, to a tenth."""
    topology, devices = slice_of_four
    alone, shared = (compiled(plan_of(config, devices, model), LONGEST) for model in (1, 2))
    assert alone.exchanged == []
    assert {item.group for item in shared.exchanged} == {2} and shared.work.link > 0
    assert alone.flops == pytest.approx(shared.flops)
    for measured, recorded in ((alone, RECORDED_ALONE), (shared, RECORDED_SHARED)):
        assert measured.memory / 2**20 == pytest.approx(recorded, rel=0.1)
    assert fits(shared.memory, 0, topology.chip) and not fits(shared.memory, topology.chip.hbm, topology.chip)


def test_an_inner_step_on_long_sequences(config, slice_of_four):
    """Has the kernel for TPU in it, on chips that share a model too."""
    _, devices = slice_of_four
    for attention in ("auto", "blocks"):
        engine = dataclasses.replace(config.engine, attention=attention)
        plan = plan_of(dataclasses.replace(config, engine=engine), devices, 2)
        program = dataclasses.replace(plan, load=Workload(longest=2048)).programs()[LONGEST]({})
        _, made = measure(program, plan.base, 4)
        assert ("tpu_custom_call" in made.as_text()) == (attention == "auto")


def test_all_programs_of_a_round(config, slice_of_four, capsys, monkeypatch):
    topology, devices = slice_of_four
    plan = plan_of(config, devices, 2)
    monkeypatch.setattr(report, "make_plan", lambda config, devices: plan)
    assert report.show(config, topology, devices) == 0
    printed = capsys.readouterr().out
    for name in (LONGEST, "self-edits, a token", "answers, a token", "answers, score", "outer SFT step", MERGE):
        assert name in printed
    assert "750 inner loops: 50 passages × 5 self-edits × 3 retrains" in " ".join(printed.split())
    assert "A round takes at least" in printed and "limited by" in printed


def test_the_programs_of_a_round_are_those_of_the_engine(config, tmp_path):
    """Built and traced here without libtpu; decoding goes on from what the compiled prefill returns."""
    small = {"vocab_size": 256, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(HF | small))
    model = Model(policy=str(tmp_path), dtype="float32")
    plan = plan_of(dataclasses.replace(config, model=model), jax.devices()[:1], 1)
    shapes, done = {}, {}
    for name, make in plan.programs().items():
        program = make(done)
        if "prefill" in name:
            done[name] = program, program.call.compile()
        shapes[name] = jax.eval_shape(program.call.function, *program.call.args)
    assert len(shapes) == 10
    for name, samples, room in ((EDIT_DECODE, 10, 32), (ANSWER_DECODE, 4 * 2, 64)):
        tokens = shapes[name].tokens
        assert tokens.shape[0] * tokens.shape[1] == samples and tokens.shape[2] == room
    assert shapes[SCORE].shape == (4, 2)
    assert shapes[MERGE]["layers"].keys() == plan.base["layers"].keys()


@pytest.mark.parametrize(("improver", "tokens"), [("rest_em", (5, 2, 64)), ("dpo", (5, 2, 2, 64))])
def test_the_step_of_the_outer_loop_is_that_of_its_improver(config, improver, tokens):
    sft = Training(rank=8, batch_size=2, accumulation=5)
    made = dataclasses.replace(config, outer=Outer(improver=improver, sft=sft))
    program = plan_of(made, jax.devices()[:1], 1).outer_step()
    state, loss = jax.eval_shape(program.call.function, *program.call.args)
    assert loss.shape == () and program.call.args[2].tokens.shape == tokens
    assert jax.tree.structure(state) == jax.tree.structure(program.call.args[1])


def test_weighted_sft_is_taught_all_self_edits(config):
    work = {"outer SFT step": Work(1.0, 1.0, 1.0, 1.0)}
    counts = []
    for improver in ("rest_em", "weighted", "dpo"):
        plan = plan_of(dataclasses.replace(config, outer=Outer(improver=improver)), jax.devices()[:1], 1)
        counts += [part.calls for part in plan.parts(work) if part.name == "outer SFT step"]
    assert counts == [2 * 5, 2 * 25, 2 * 5]  # epochs × (50 passages, or 250 self-edits) / batches of 10


def test_a_model_that_does_not_fit_is_refused_with_a_remedy(config, slice_of_four, capsys):
    """A 7B model whole on every 16 GB chip, without compiling: one sentence, and exit status 1."""
    topology, devices = slice_of_four
    for policy, said in [
        ("Qwen/Qwen2.5-7B", "28.4 GiB of the 15.8 GiB of a chip; split each model over more chips with "
                            "--config.parallel.model=4."),
        ("Qwen/Qwen2.5-72B", "take a slice with more chips."),
    ]:  # fmt: skip
        assert report.show(dataclasses.replace(config, model=Model(policy=policy)), topology, devices) == 1
        refusal = capsys.readouterr().out.strip().split("\n\n")[-1]
        begins = f"{policy} with 4 candidates in flight does not fit v5e-4: holding the weights needs "
        assert refusal.startswith(begins) and refusal.endswith(said) and "\n" not in refusal


def test_decoding_counts_the_rows_and_slots_that_there_are(config):
    """Texts of one length stay to the end; where most are short, most rows leave, and few slots are used."""
    engine = EngineConfig(candidates=4, decode_rows=250, segment=16)
    sampling = Sampling(max_new_tokens=1024)
    plan = report.make_plan(dataclasses.replace(config, engine=engine, sampling=sampling), jax.devices()[:1])
    even, most, uneven = (
        dataclasses.replace(plan, load=Workload(edits=edits)).decoding()
        for edits in (((0, 1024), (1, 1024)), ((0, 129), (1, 129)), ((0, 64), (0.9, 64), (1, 1024)))
    )
    assert even[:2] == (1023, 1.0) and 0.4 < even[2] < 1  # slots double as they are needed
    assert most == (128, 1.0, pytest.approx(0.125, rel=0.3))
    assert 1000 <= uneven[0] <= 1023 and 0.02 < uneven[2] < uneven[1] < 0.3


def same(tokens):
    return (0, tokens), (1, tokens)


def training_of(config, batch):
    """Of 64 self-edits of a passage and eight lines, trained three times, four at a time: so in 48 chunks."""
    inner = dataclasses.replace(config.inner, batch_size=batch)
    data = dataclasses.replace(config.data, train_items=16)
    made = dataclasses.replace(config, inner=inner, data=data, outer=Outer(samples=4), reward=Reward(retrains=3))
    plan = report.make_plan(made, jax.devices()[:1])
    load = Workload(passages=same(192), lines=same(32), edits=same(256))
    return dataclasses.replace(plan, load=load).training()


def test_inner_steps_on_a_sequence_each_are_as_many_as_there_are_sequences(config):
    assert training_of(config, 1) == ({LINE: 48 * 10 * 8, PASSAGE: 48 * 10}, 1.0)


def test_inner_steps_on_three_sequences_are_padded_to_the_longest(config):
    """An epoch has three steps, one of them with the passage and two lines."""
    calls, real = training_of(config, 3)
    assert calls == {LINE: 48 * 10 * 2, PASSAGE: 48 * 10}
    assert real == pytest.approx((192 + 8 * 32) / (3 * (192 + 2 * 32)))


def test_inner_steps_of_real_lengths_have_padding_and_count_as_the_nearest_that_is_compiled(config):
    plan = report.make_plan(dataclasses.replace(config, engine=EngineConfig(candidates=64)), jax.devices()[:1])
    calls, real = plan.training()
    assert 0.7 < real < 0.85  # the plan for the real file has 76.5%: benchmarks/padding.py
    assert calls[LINE] > 4 * calls[PASSAGE] > 0
    loops = plan.load.loops(250, 10, 30)
    assert 8 < sum(len(one.rows) for one in loops) / 250 < 10 and max(len(one.rows) for one in loops) == 31
    lines = [sum(len(row.tokens) for row in one.rows[1:]) for one in loops]
    whole = [(found, wanted) for found, wanted in zip(lines, plan.load.written(250), strict=True) if found >= wanted]
    assert len(whole) > 240 and all(found < wanted + 482 for found, wanted in whole)


def test_work_is_that_of_the_rows_that_there_are_and_memory_that_of_all(config):
    program = Program("self-edits, a token", None, read=100.0, written=40.0, busy=(0.5, 0.1))
    stats = SimpleNamespace(output_size_in_bytes=64, alias_size_in_bytes=60, temp_size_in_bytes=8,
                            argument_size_in_bytes=76, generated_code_size_in_bytes=0)  # fmt: skip
    whole = read_off(dataclasses.replace(program, busy=(1.0, 1.0)), {}, 10.0, stats, HLO)
    part = read_off(program, {}, 10.0, stats, HLO)
    assert whole.work.hbm == 100 + 76 + 4 + 16 and part.work.hbm == 100 + 0.5 * (36 + 4 + 16) + 0.1 * 40
    assert (part.work.flops, part.flops, whole.work.flops) == (5.0, 10.0, 10.0)
    assert part.memory == whole.memory == 88 and part.work.link == 0.5 * whole.work.link > 0
