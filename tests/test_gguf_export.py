"""A GGUF file that we write holds the model that went in: for our loader, for the reader of `gguf`, in every family."""

from dataclasses import replace

import gguf
import numpy as np
import pytest
from tiny_checkpoint import random_params, rope_divisors, tiny_config, tiny_tokenizer, write_gguf

from seal_jax.errors import UserError
from seal_jax.model.export import save_merged
from seal_jax.model.gguf_export import permute, save_gguf
from seal_jax.model.gguf_file import unpermute
from seal_jax.model.hf_config import model_config
from seal_jax.model.layout import to_tensors
from seal_jax.model.pretrained import load

TEXTS = ("It's 12 or 1999, they'll say\n\n  naïve 日本語 12345.", "<|im_start|>user\nÉtude<|im_end|>\n")


def source(folder, kind="llama", pre="smollm", **changes):
    """(path, model) of a GGUF file as llama.cpp's converter writes it."""
    hf = tiny_config(kind, **changes)
    params = random_params(hf)
    path = folder / f"{kind}.gguf"
    write_gguf(path, hf, dict(to_tensors(model_config(hf, "config"), params)), tiny_tokenizer(), pre)
    return path, load(str(path), "float32")


def same(left, right, bound=0.0):
    pairs = zip(to_tensors(left.config, left.params), to_tensors(right.config, right.params), strict=True)
    for (name, a), (_, b) in pairs:
        np.testing.assert_allclose(a, b, atol=bound, rtol=0, err_msg=name)


@pytest.mark.parametrize(
    ("kind", "pre", "tied"), [("llama", "smollm", False), ("qwen2", "qwen2", True), ("qwen3", "qwen2", False)]
)
def test_what_is_written_is_read_back(tmp_path, kind, pre, tied):
    path, model = source(tmp_path, kind, pre, tied=tied)
    save_gguf(tmp_path / "out.gguf", model, path, "f32")
    again = load(str(tmp_path / "out.gguf"), "float32")
    assert again.config == model.config
    same(again, model)
    assert [again.tokenizer.encode(text) for text in TEXTS] == [model.tokenizer.encode(text) for text in TEXTS]
    assert again.tokenizer.hf.chat_template == model.tokenizer.hf.chat_template
    assert again.tokenizer.stop_ids == model.tokenizer.stop_ids
    ours, theirs = gguf.GGUFReader(tmp_path / "out.gguf"), gguf.GGUFReader(path)
    assert {t.name: list(t.shape) for t in ours.tensors} == {t.name: list(t.shape) for t in theirs.tensors}
    for key, field in theirs.fields.items():  # what the converter wrote stands in our file as it was
        if key.startswith(("tokenizer.", f"{kind}.")):
            assert ours.fields[key].contents() == field.contents() and ours.fields[key].types == field.types, key


def test_rows_and_divisors_are_those_of_llama_cpp(tmp_path):
    path, model = source(tmp_path)
    save_gguf(tmp_path / "out.gguf", model, path, "f32")
    ours, theirs = ({t.name: t.data for t in gguf.GGUFReader(file).tensors} for file in (tmp_path / "out.gguf", path))
    for name in ("blk.1.attn_q.weight", "blk.0.attn_k.weight"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    np.testing.assert_allclose(ours["rope_freqs.weight"], rope_divisors(tiny_config("llama")), rtol=1e-6)
    weight = np.arange(48.0).reshape(16, 3)
    np.testing.assert_array_equal(unpermute(permute(weight, 2), 2), weight)
    assert permute(weight, 2)[:, 0].tolist()[:4] == [0.0, 12.0, 3.0, 15.0]


@pytest.mark.parametrize("pre", ["smollm", "qwen2", "llama-bpe"])
def test_a_tokenizer_from_a_folder_gets_the_rule_that_it_cuts_by(tmp_path, pre):
    """GGUF -> folder -> GGUF: the name of the rule is lost on the way, and found again."""
    _, model = source(tmp_path, pre=pre, vocab=416)  # 16 embeddings without a token
    folder = tmp_path / "folder"
    save_merged(folder, model.params, model.config, model.tokenizer, model.hf_config)
    before = load(str(folder), "float32")
    save_gguf(tmp_path / "out.gguf", before, folder, "f32")
    again = load(str(tmp_path / "out.gguf"), "float32")
    assert gguf.GGUFReader(tmp_path / "out.gguf").fields["tokenizer.ggml.pre"].contents() == pre
    assert [again.tokenizer.encode(text) for text in TEXTS] == [before.tokenizer.encode(text) for text in TEXTS]
    assert again.tokenizer.stop_ids == before.tokenizer.stop_ids and again.config == before.config
    assert again.tokenizer.decode(again.tokenizer.encode(TEXTS[0])) == TEXTS[0]


def test_fewer_bits(tmp_path):
    path, model = source(tmp_path)
    for kind, size in (("f16", gguf.GGMLQuantizationType.F16), ("q8_0", gguf.GGMLQuantizationType.Q8_0)):
        save_gguf(tmp_path / f"{kind}.gguf", model, path, kind)
        same(load(str(tmp_path / f"{kind}.gguf"), "float32"), model, 0.02)
        found = {t.name: t.tensor_type for t in gguf.GGUFReader(tmp_path / f"{kind}.gguf").tensors}
        assert found["blk.0.ffn_up.weight"] == size and found["blk.0.attn_norm.weight"] == gguf.GGMLQuantizationType.F32


def test_what_cannot_be_written(tmp_path):
    path, model = source(tmp_path)
    out = tmp_path / "out.gguf"
    with pytest.raises(UserError, match="--gguf-type is 'q4'"):
        save_gguf(out, model, path, "q4")
    with pytest.raises(UserError, match="llama.gguf exists"):
        save_gguf(path, model, path)
    with pytest.raises(UserError, match="of type 'gemma3_text' cannot be written as GGUF, only llama, qwen2, qwen3"):
        save_gguf(out, replace(model, hf_config={"model_type": "gemma3_text"}), path)
    save_merged(tmp_path / "folder", model.params, model.config, tiny_tokenizer(), model.hf_config)
    odd = load(str(tmp_path / "folder"), "float32")
    with pytest.raises(UserError, match="cuts words by a rule that is none of smollm, qwen2"):
        save_gguf(out, odd, tmp_path / "folder")
    model.params["layers"]["up_proj"]["kernel"][0, 0, 0] = 1e6
    with pytest.raises(UserError, match=r"blk.0.ffn_up.weight has numbers beyond the range of float16"):
        save_gguf(out, model, path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "llama.gguf"]
