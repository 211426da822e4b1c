"""From a config to a `Setup`: whatever is wrong with the input is found here, before anything is computed."""

from collections.abc import Iterable, Sequence

from etils import epath

from seal_jax.authors.author import Author
from seal_jax.authors.file import File
from seal_jax.authors.policy import Policy
from seal_jax.config import Config
from seal_jax.config.roles import author_of_lessons, policy_writes
from seal_jax.domains.domain import Domain, Example
from seal_jax.errors import UserError
from seal_jax.experiments import arc, judging, knowledge, rewarding, writing
from seal_jax.experiments.rounds import Arm, Setup
from seal_jax.experiments.world import World
from seal_jax.outer.dpo import DPO, RandomPairs
from seal_jax.outer.policy_gradient import PolicyGradient
from seal_jax.outer.rest_em import RandomSelection, RestEM
from seal_jax.outer.weighted import WeightedSFT
from seal_jax.runs.keys import EVALUATION, RANDOM, SEAL, TRAIN
from seal_jax.runs.recorder import Recorder
from seal_jax.student.actor import Actor, load_actor


def prepare(config: Config, path: epath.Path) -> Setup:
    """The setup of a config whose domain is one of this package's, with its records in `path`."""
    world = arc.world(config) if config.domain == "arc" else knowledge.world(config)
    return assemble(config, path, world)


def assemble(config: Config, path: epath.Path, world: World) -> Setup:
    """Models, judges, reward and improvers around the items of a world."""
    _check_disjoint(world)
    policy, student = load_roles(config)
    for actor in (policy, student or policy):
        if world.chat_only and not actor.chat:
            raise UserError(
                "training and questions are turns of a chat, but a model's prompts are not (config.model.chat, or a "
                "model without a chat template); name an instruct model, or use plain text where the domain has it"
            )
    domain = world.domain(judging.make(config.evaluation.judge, config, policy))
    grammar = world.grammar(policy)

    def writes(actor: Actor) -> Policy:
        return Policy(actor, domain, config.sampling, world.attempts, grammar)

    made = writing.maker(config, domain, writes)
    _check_context(config, writes(policy), student or policy, world)
    _check_update(config, student or policy, world)
    if world.note:
        print(world.note, flush=True)
    rows = {who: made(who, policy, writing.of_rows(config)) for who in config.evaluation.authors}
    kind, need = author_of_lessons(config), writing.of_lessons(config)
    _check_files(config, world, made(kind, policy, need), rows.values())
    rewarded = rewarding.make(config, world, policy)
    actors = [policy, *([student] if student else [])]
    recorder = Recorder(path, lambda: usage(actors), lambda: activity(actors))
    recorder.declare_items(
        [{"split": TRAIN, "item": item.id} | domain.shown(item) for item in world.train]
        + [{"split": EVALUATION, "item": item.id} | domain.shown(item) for item in world.evaluation]
    )
    return Setup(
        config=config,
        policy=policy,
        student=student,
        train=world.train,
        evaluation=world.evaluation,
        domain=domain,
        writes=writes,
        teaches=lambda actor: made(kind, actor, need),
        reward=rewarded(recorder),
        arms=arms(config, recorder, policy),
        recorder=recorder,
        neutral=world.neutral,
        others=[(who, writing.row_name(who, config), author) for who, author in rows.items()],
    )


def arms(config: Config, recorder: Recorder, policy: Actor) -> list[Arm]:
    """The policies that learn: SEAL, and the control that learns from a random choice."""
    outer, like = config.outer, (recorder.rollouts, SEAL)
    how = outer.sft, outer.unfinished
    if outer.improver == "dpo":
        pair = DPO(outer.dpo.beta, *how), RandomPairs(outer.dpo.beta, *how, like)
    elif outer.improver == "policy_gradient":
        longest = config.sampling.max_new_tokens
        step = PolicyGradient(outer.policy_gradient, longest, outer.sft, policy)
        pair = step, RandomSelection(*how, like)
    elif outer.improver == "weighted":
        pair = WeightedSFT(outer.weighted.temperature, *how), RandomSelection(*how, like)
    elif outer.selection == "random":
        pair = RandomSelection(*how), RandomSelection(*how, like)
    else:
        pair = RestEM(outer.selection, *how), RandomSelection(*how, like)
    return [Arm(SEAL, pair[0])] + [Arm(RANDOM, pair[1])] * outer.random_control


def load_roles(config: Config) -> tuple[Actor, Actor | None]:
    """(policy, student); a student of None is the policy of the round."""
    policy = load_actor(config.model.policy, config)
    if config.model.student == "initial":
        return policy, policy
    return policy, load_actor(config.model.student, config) if config.model.student else None


def usage(actors: Sequence[Actor]) -> dict[str, float]:
    """What the engines of some models did so far."""
    engines = {id(actor.engine): actor.engine for actor in actors}.values()
    return {
        "real_tokens": sum(engine.usage.real for engine in engines),
        "token_slots": sum(engine.usage.slots for engine in engines),
        "generated": sum(engine.usage.generated for engine in engines),
        "programs": sum(engine.programs.count for engine in engines),
        "compile_seconds": sum(engine.programs.seconds for engine in engines),
    }


def activity(actors: Sequence[Actor]) -> str:
    """What the engine of the first of some models that is at work does, in words."""
    return next(filter(None, (actor.engine.programs.activity() for actor in actors)), "")


def _check_disjoint(world: World) -> None:
    """No item may be both learned from and evaluated on."""
    known = {item.id for item in world.train}
    both = [item.title for item in world.evaluation if item.id in known]
    if both:
        named = ", ".join(map(repr, both[:3])) + (", …" if len(both) > 3 else "")
        raise UserError(
            f"config.data.evaluation: {len(both)} of its items are in config.data.train as well ({named}); evaluate on "
            "others, or the table would measure what was learned by heart"
        )


def _check_context(config: Config, author: Policy, student: Actor, world: World) -> None:
    """Prompts and what is written after them must fit the models' contexts."""
    sampled = [*world.train, *world.evaluation] if config.outer.rounds else world.evaluation
    if config.experiment == "rounds" or policy_writes(config):
        prompts = {item.title: len(author.prompt(item)) for item in sampled}
        _check_room("config.sampling.max_new_tokens", config.sampling.max_new_tokens, prompts, author.actor)
    for group, items in (("reward", world.train), ("evaluation", world.evaluation)):
        asked = _question_lengths(author.domain, items, student)
        _check_room(f"config.{group}.answer_tokens", getattr(config, group).answer_tokens, asked, student)


def _question_lengths(domain: Domain, items: Sequence, student: Actor) -> dict[str, int]:
    """{title: tokens of an item's longest question}."""
    return {
        item.title: max(len(student.tokenizer.encode_prompt(p)) for p in prompts)
        for item in items
        if (prompts := domain.quiz(item, student.chat).prompts)
    }


def _check_update(config: Config, student: Actor, world: World) -> None:
    """The layers that a config names are the model's, and neutral texts fit its context."""
    depth = student.source.config.num_layers
    for group in ("inner", "continual"):
        wrong = [layer for layer in getattr(config, group).layers if layer >= depth]
        if wrong:
            raise UserError(
                f"config.{group}.layers: names layer {wrong[0]}, but the student has {depth}, counted from 0; name "
                f"layers up to {depth - 1}"
            )
    for text in world.neutral:
        length = student.length(Example(None, text, closing=False))
        if length > student.source.config.max_position:
            raise UserError(
                f"config.continual.neutral: the text that begins with {text[:40]!r} has {length} tokens, which are "
                f"more than the {student.source.config.max_position} of the model's context; split it"
            )


def _check_files(config: Config, world: World, lessons: Author, rows: Iterable[Author]) -> None:
    """Where files wrote the self-edits that are learned from, or those of rows, they must hold enough of each item."""
    learned = world.train if config.experiment == "rounds" else [*world.train, *world.evaluation]
    if isinstance(lessons, File) and (config.experiment != "rounds" or config.outer.rounds):
        lessons.check(learned, writing.of_lessons(config).count)
    for author in rows:
        if isinstance(author, File):
            author.check(world.evaluation, writing.of_rows(config).count)


def _check_room(field: str, new: int, prompts: dict[str, int], actor: Actor) -> None:
    if not prompts:
        return
    title, longest = max(prompts.items(), key=lambda pair: pair[1])
    context = actor.source.config.max_position
    if longest + new > context:
        room = context - longest
        shorter, longer = f"lower it to at most {room}", "leave that item out, or take a model with a longer context"
        mend = shorter if room > 0 else longer
        raise UserError(
            f"{field}: the longest prompt, of {title!r}, has {longest} tokens, which with {new} new ones are more than "
            f"the {context} of the model's context; {mend}"
        )


def heading(setup: Setup) -> str:
    """What is about to run, in one sentence."""
    model, words = setup.config.model, setup.domain.words
    student = f", student {model.student}" if model.student else ""
    if setup.config.experiment != "rounds":
        items = f"{len(setup.train) + len(setup.evaluation)} {words.many}"
        return f"{setup.config.experiment}: policy {model.policy}{student}; {items}; judge {setup.domain.grader}"
    return (
        f"policy {model.policy}{student}; {len(setup.train)} {words.many} to learn from, {len(setup.evaluation)} to "
        f"evaluate on; judge {setup.domain.grader}"
    )

