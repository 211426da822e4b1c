"""The tables that `fit` prints, and the one sentence where a program does not fit."""

import dataclasses
import functools
import math
import sys
import textwrap
from collections.abc import Mapping, Sequence

from seal_jax.config import Config
from seal_jax.engine.budget import most, other_bases
from seal_jax.engine.engine import Engine
from seal_jax.engine.memory import SHARE, on_device
from seal_jax.fitting.chips import Topology
from seal_jax.fitting.hlo import Collective
from seal_jax.fitting.measure import Measured, TooBig, fits, gib, measure
from seal_jax.fitting.models import abstract_weights, architecture
from seal_jax.fitting.plan import (
    ANSWER_DECODE,
    ANSWER_PREFILL,
    EDIT_DECODE,
    EDIT_PREFILL,
    LONGEST,
    MERGE,
    SCORE,
    TEACH,
    TRAINING,
    Plan,
)
from seal_jax.fitting.roofline import round_terms
from seal_jax.parallel import make_layout
from seal_jax.text import columns, duration

WIDTH = 100
WEIGHTS = "holding the weights"


def make_plan(config: Config, devices: Sequence) -> Plan:
    """The plan of a config's programs on `devices`, with its base weights as structs."""
    layout = make_layout(config.parallel.model, config.parallel.backend, devices)
    model = architecture(config.model.policy)
    dtype = "bfloat16" if config.model.dtype == "auto" else config.model.dtype
    base = layout.put_weights(abstract_weights(model, dtype, config.model.quantization))
    return Plan(config, Engine(model, config.engine, layout), base)


def show(config: Config, topology: Topology, devices: Sequence) -> int:
    """Compile every program, print what it needs and the estimate of a round -> exit status."""
    plan = make_plan(config, devices)
    weights, copies = on_device(plan.base), other_bases(config)
    print(heading(plan, topology, weights, copies), flush=True)
    if too_heavy(plan, topology):
        return 1
    done, found = {}, {}
    for name in plan.programs():
        problem = None
        try:
            found[name], done[name] = least(plan, name, done, topology)
            if not fits(found[name].memory, copies * weights, topology.chip):
                problem = found[name].memory
        except TooBig as error:
            problem = error.needs or 0.0
        if problem is not None:
            if found:
                print(f"\n{program_table(found, copies * weights, topology)}")
            print(f"\n{refusal(plan, name, problem, topology)}", flush=True)
            return 1
    print(f"\n{program_table(found, copies * weights, topology)}\n\n{round_table(plan, found, topology)}", flush=True)
    return 0


def least(plan: Plan, name: str, done: Mapping, topology: Topology) -> tuple[Measured, tuple]:
    """The program of that name as a run would have it -> (what it needs, (program, compiled)). Where a run may choose
    what a training step computes again, it is the least with which the step fits, as in engine/remat.py.

    Raises TooBig where the compiler refuses the last choice; whether that fits is for the caller to see.
    """
    resident = other_bases(plan.config) * on_device(plan.base)
    *choices, last = plan.choices(name)
    for choice in choices:
        try:
            measured, made = compiled(choice, name, done, topology)
        except TooBig:
            continue
        if measured.memory + resident <= SHARE * topology.chip.hbm:
            return measured, made
    return compiled(last, name, done, topology)


def compiled(plan: Plan, name: str, done: Mapping, topology: Topology) -> tuple[Measured, tuple]:
    """What the program of that name needs, and (program, compiled). Raises TooBig where the compiler refuses it."""
    program = plan.programs()[name](done)
    how = f", {program.remat} recomputation" if program.remat else ""
    print(f"compiling '{name}'{how}", file=sys.stderr, flush=True)
    measured, made = measure(program, plan.base, topology.chips)
    return measured, (program, made)


def show_largest(config: Config, topology: Topology, devices: Sequence) -> int:
    """Find the greatest `config.engine.candidates` that can be trained, asked and scored, print it -> exit status."""
    plan = make_plan(config, devices)
    groups, resident = plan.engine.layout.devices, other_bases(config) * on_device(plan.base)
    print(heading(plan, topology, on_device(plan.base), other_bases(config)), flush=True)
    if too_heavy(plan, topology):
        return 1

    @functools.cache
    def needs(lanes: int) -> float:
        """Peak bytes of the largest program with so many candidates in each group of chips."""
        chosen = dataclasses.replace(config.engine, candidates=lanes * groups)
        asked = make_plan(dataclasses.replace(config, engine=chosen), devices).choices(LONGEST)[-1]
        makers, done, most_bytes = asked.programs(), {}, 0.0
        for name in (LONGEST, ANSWER_PREFILL, ANSWER_DECODE, SCORE):
            if name in makers and most_bytes + resident <= topology.chip.hbm:
                try:
                    program = makers[name](done)
                    measured, compiled = measure(program, plan.base, topology.chips)
                    done[name], most_bytes = (program, compiled), max(most_bytes, measured.memory)
                except TooBig as error:
                    most_bytes = error.needs or math.inf
        said = "fits" if most_bytes + resident <= topology.chip.hbm else "does not fit"
        print(f"{lanes * groups} candidates: {gib(most_bytes + resident)} GiB, {said}", flush=True)
        return most_bytes + resident

    best = most(needs, topology.chip.hbm)
    if best == 0:
        print(f"\n{refusal(plan, LONGEST, 0.0, topology)}")
        return 1
    print(f"\nThe most candidates in flight on {topology.name}: --config.engine.candidates={best * groups}")
    return 0


def heading(plan: Plan, topology: Topology, weights: float, copies: int) -> str:
    layout, settings = plan.engine.layout, plan.config.engine
    others = {0: "", 1: " and again for the first policy's", 2: ", for the first policy's and the control's as well"}
    return textwrap.fill(
        f"{plan.config.model.policy} on {topology.name} ({topology.libtpu}, {topology.chips} chips of "
        f"{gib(topology.chip.hbm)} GiB): {layout.devices} groups of {layout.model}, {settings.candidates} candidates "
        f"in flight, {settings.decode_rows} self-edits written and {settings.question_rows} questions asked together; "
        f"weights {gib(weights)} GiB on a chip"
        f"{others[copies]}.",
        WIDTH,
    )


def program_table(found: Mapping[str, Measured], resident: float, topology: Topology) -> str:
    """Bytes, FLOPs and collectives of each program."""
    rows = []
    for name, measured in found.items():
        total = measured.memory + resident
        rows.append(
            [name, measured.remat, gib(total), f"{total / topology.chip.hbm:.0%}", f"{measured.flops / 1e9:,.1f}"]
            + [f"{sum(item.sent for item in measured.exchanged) / 2**20:,.1f}", summary(measured.exchanged)]
        )
    header = ["program, on each chip", "remat", "GiB", "of HBM", "GFLOPs", "MiB sent", "collectives"]
    return columns(header, rows)


def summary(exchanged: Sequence[Collective]) -> str:
    """How many collectives of each kind."""
    counts: dict[str, int] = {}
    for item in exchanged:
        counts[item.kind] = counts.get(item.kind, 0) + item.count
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "none"


def round_table(plan: Plan, found: Mapping[str, Measured], topology: Topology) -> str:
    """The roofline estimate of a round and its assumptions."""
    chip = topology.chip
    parts = plan.parts({name: measured.work for name, measured in found.items()})
    rows = [
        [part.name, f"{part.calls:,.0f}", f"{part.work.seconds(chip) * 1e3:.2f}", part.work.limit(chip)]
        + [duration(part.calls * part.work.seconds(chip))]
        for part in parts
    ]
    terms = round_terms(parts, chip)
    total = sum(terms.values())
    shares = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in terms.items())
    rows.append(["round", "", "", "", duration(total)])
    table = columns(["of a round", "calls", "ms each", "limited by", "in all"], rows)
    peaks = (
        f"{chip.name}: {chip.flops / 1e12:.0f} TFLOP/s bfloat16, HBM {chip.hbm_bandwidth / 1e9:.0f} GB/s, "
        f"{chip.link / 1e9:.0f} GB/s over a link of the interconnect in each direction"
    )
    notes = "\n".join(
        textwrap.fill(note, WIDTH, initial_indent="- ", subsequent_indent="  ") for note in [peaks, *plan.assumptions()]
    )
    limit = max(terms, key=terms.get)
    return f"{table}\n\nA round takes at least {duration(total)}, limited by {limit} ({shares}), where\n{notes}"


def too_heavy(plan: Plan, topology: Topology) -> bool:
    """Whether the weights alone, or two sets of them during a merge, do not fit; if so it prints the refusal."""
    weights, copies = on_device(plan.base), other_bases(plan.config)
    least = {WEIGHTS: weights}
    if plan.config.outer.rounds and plan.config.outer.sft.rank:
        least[MERGE] = 2 * weights
    for name, needed in least.items():
        if not fits(needed, copies * weights, topology.chip):
            print(f"\n{refusal(plan, name, needed, topology)}", flush=True)
            return True
    return False


def refusal(plan: Plan, name: str, needs: float, topology: Topology) -> str:
    """One sentence: what does not fit, what it needs (bytes; 0: unknown), and what to change."""
    config = plan.config
    copies = other_bases(config)
    needed = f"needs {gib(needs + copies * on_device(plan.base))} GiB of" if needs else "does not fit in"
    what = name if name == WEIGHTS else repr(name)
    return (
        f"{config.model.policy} with {config.engine.candidates} candidates in flight does not fit {topology.name}: "
        f"{what} {needed} the {gib(topology.chip.hbm)} GiB of a chip; {remedy(plan, name, topology)}."
    )


def remedy(plan: Plan, name: str, topology: Topology) -> str:
    """What to change so that a program fits."""
    config, model = plan.config, plan.engine.layout.model
    whole = on_device(plan.base) * model
    kept = 1 + other_bases(config) + (name == MERGE)
    wanted = model
    while wanted < topology.chips and whole / wanted * kept > 0.75 * topology.chip.hbm:
        wanted *= 2
    if whole / wanted * kept > 0.9 * topology.chip.hbm:
        return "take a slice with more chips"
    if wanted > model:
        return f"split each model over more chips with --config.parallel.model={wanted}"
    if name in (EDIT_PREFILL, EDIT_DECODE):
        return (
            f"decode fewer rows together, --config.engine.decode_rows={max(1, config.engine.decode_rows // 2)}, or "
            f"shorter self-edits, --config.sampling.max_new_tokens={config.sampling.max_new_tokens // 2}"
        )
    if name in TRAINING and config.engine.remat not in ("auto", "full"):
        return "recompute activations with --config.engine.remat=full"
    if name in (TEACH, MERGE):
        return f"split each model over more chips with --config.parallel.model={min(2 * model, topology.chips)}"
    if name in (ANSWER_PREFILL, ANSWER_DECODE, SCORE) and plan.asked_chunks > 1:
        return f"ask fewer questions together, --config.engine.answer_rows={config.engine.question_rows // 2}"
    if config.engine.candidates <= plan.engine.layout.devices:
        return f"lower --config.engine.loss_chunk={config.engine.loss_chunk // 2}, or take a slice with more chips"
    fewer = max(1, config.engine.candidates // 2)
    return f"train fewer candidates together with --config.engine.candidates={fewer}"
