"""Texts that have nothing to do with what is learned: where they come from, and what is refused."""

import json

import pytest

from seal_jax.domains.knowledge import neutral
from seal_jax.domains.knowledge.corpus import Passage, load_passages
from seal_jax.errors import UserError


def test_a_text_file_has_empty_lines_between_its_texts(tmp_path):
    file = tmp_path / "rain.txt"
    file.write_text("\ufeffIt rains\nin June.\n\n  \n\nSnow falls. \n \n\nFog.\n", encoding="utf-8")
    assert neutral.texts(str(file), []) == ["It rains in June.", "Snow falls.", "Fog."]


def test_passages_give_their_contexts_and_need_no_questions(tmp_path):
    file = tmp_path / "rain.json"
    file.write_text(json.dumps([{"title": "Rain", "context": "It rains."}]))
    assert neutral.texts(str(file), []) == ["It rains."]
    shipped = load_passages("shipped:validation")
    assert neutral.texts("shipped:validation", load_passages("shipped:test")) == [one.context for one in shipped]


def test_what_is_missing_empty_or_learned_is_said(tmp_path):
    file = tmp_path / "rain.txt"
    with pytest.raises(UserError, match=r"rain.txt cannot be read \(No such file or directory\); give a text file"):
        neutral.texts(str(file), [])
    file.write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(UserError, match="not UTF-8 text"):
        neutral.texts(str(file), [])
    file.write_text(" \n\n")
    with pytest.raises(UserError, match="rain.txt holds no text"):
        neutral.texts(str(file), [])
    file.write_text("It rains.\n\nFog.")
    with pytest.raises(UserError, match="config.continual.neutral: 1 of its texts are also learned"):
        neutral.texts(str(file), [Passage("r", "Rain", "It rains.", ())])
