"""Whether a path holds a model: told without torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdfast.errors import ConfigError, DataError, TeacherError
from kdfast.model_files import (
    SOURCE_FILE,
    check_converted,
    check_gguf,
    check_model_directory,
    written_context,
    written_end_ids,
)


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        check_model_directory(path, error=ConfigError, name="arch.init")
    return str(caught.value)


def test_a_model_directory_has_a_config_that_is_a_json_object(tmp_path: Path) -> None:
    give = "give a Hugging Face model directory"
    assert refused(tmp_path / "none") == f"arch.init: no such file or directory; {give}: {tmp_path / 'none'}"
    assert refused(tmp_path) == f"arch.init: no readable config.json, {give}: {tmp_path}"
    config = tmp_path / "config.json"
    assert refused(tmp_path) == f"arch.init: no readable config.json, {give}: {tmp_path}"
    for content in (b"{", b"[]", b"\xff", b"[" * 99_999):
        config.write_bytes(content)
        assert refused(tmp_path) == f"arch.init: no readable config.json, {give}: {tmp_path}"
    assert refused(config) == f"arch.init: this is a file; {give}: {config}"
    config.write_text('{"model_type": "llama"}', encoding="utf-8")
    check_model_directory(tmp_path, error=ConfigError, name="arch.init")


def test_a_gguf_file_in_the_place_of_a_model_is_named(tmp_path: Path) -> None:
    file = tmp_path / "small.gguf"
    file.write_bytes(b"GGUF")
    remedy = "name it as teacher.model, or make a model directory of it (`kdfast convert FILE DIRECTORY`)"
    assert refused(tmp_path) == f"arch.init: has no config.json, but a GGUF file; {remedy}: {file}"
    assert refused(file) == f"arch.init: this is a file; {remedy}: {file}"


def test_a_gguf_file_begins_as_such(tmp_path: Path) -> None:
    file = tmp_path / "small.gguf"
    with pytest.raises(TeacherError, match=r"^teacher.model: no such file \(check the path\): "):
        check_gguf(file, name="teacher.model")
    file.write_bytes(b"<html>")
    with pytest.raises(TeacherError, match=r"^gguf: this is no GGUF file, fetch it again: "):
        check_gguf(file, name="gguf")
    file.write_bytes(b"GGUF\x03")
    check_gguf(file, name="gguf")


def test_a_directory_of_somebody_else_is_not_replaced_by_a_converted_model(tmp_path: Path) -> None:
    check_converted(tmp_path)
    check_converted(tmp_path / "new")
    note = tmp_path / "note.txt"
    note.touch()
    with pytest.raises(ConfigError, match=r"^directory: holds other files, which would be lost"):
        check_converted(tmp_path)
    with pytest.raises(ConfigError, match=r"^directory: must be a directory, this is a file"):
        check_converted(note)
    (tmp_path / SOURCE_FILE).touch()
    check_converted(tmp_path)


def test_end_tokens_as_a_models_own_files_say(tmp_path: Path) -> None:
    config, generation = tmp_path / "config.json", tmp_path / "generation_config.json"
    config.write_text("{}")
    assert written_end_ids(tmp_path) == ()
    config.write_text('{"eos_token_id": 2}')
    assert written_end_ids(tmp_path) == (2,)
    generation.write_text('{"eos_token_id": null}')
    assert written_end_ids(tmp_path) == (2,)
    generation.write_text('{"eos_token_id": [0, 7]}')
    assert written_end_ids(tmp_path) == (0, 7)
    for wrong in ('{"eos_token_id": "2"}', '{"eos_token_id": [true]}', '{"eos_token_id": -1}'):
        generation.write_text(wrong)
        with pytest.raises(DataError, match=r"generation_config\.json: eos_token_id must be a token id"):
            written_end_ids(tmp_path)
    for wrong, message in (("{", "not JSON"), ("[]", "must hold a JSON object, got list")):
        generation.write_text(wrong)
        with pytest.raises(DataError, match=rf"generation_config\.json: {message}"):
            written_end_ids(tmp_path)


def test_how_much_a_model_reads(tmp_path: Path) -> None:
    for told, context in (
        ("{}", None),
        ('{"max_position_embeddings": 64}', 64),
        ('{"max_position_embeddings": 0}', None),
    ):
        (tmp_path / "config.json").write_text(told)
        assert written_context(tmp_path) == context
