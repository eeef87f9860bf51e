"""`kdfast data tokenizer`: what is learned, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_records import LIGHT, answered, asked, write_lines
from commands import Finished, run_command
from tokenizers import Tokenizer

from kdfast import _rust
from kdfast.data import KDDataset
from kdfast.export.gguf.vocabulary import CONTROL, NORMAL, USER_DEFINED, read_vocabulary
from kdfast.student.vocabulary import read_pieces

SIZE = 400
FILES = ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json")
MARKS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")


def make(*arguments: str | Path) -> Finished:
    return run_command("data", "tokenizer", *arguments)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lines(tmp_path_factory.mktemp("records") / "train.jsonl", [answered(n) for n in range(60)])


@pytest.fixture(scope="module")
def made(records: Path) -> tuple[Path, Finished]:
    """A tokenizer for baked-in tools, and what the command said."""
    out = records.parent / "tokenizer"
    done = make(records, "--vocab", str(SIZE), "--out", out, "--hide-tools")
    assert done.returncode == 0, done.stderr
    return out, done


def test_the_vocabulary_is_exactly_as_large(made: tuple[Path, Finished]) -> None:
    out, _ = made
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == SIZE
    pieces = read_pieces(out)
    assert len(pieces) == SIZE == len(set(pieces))
    assert pieces[:3] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert sorted(pieces[-4:], key=MARKS.index) == list(MARKS)
    assert "brightness" in pieces


def test_special_tokens_and_marks(made: tuple[Path, Finished]) -> None:
    out, _ = made
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    added = {token.content: token.special for token in tokenizer.get_added_tokens_decoder().values()}
    assert added == {"<|endoftext|>": True, "<|im_start|>": True, "<|im_end|>": True} | dict.fromkeys(
        MARKS, False
    )
    text = "<|im_start|>assistant\n<tool_call>\n{}\n</tool_call><|im_end|>"
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "assistant\n<tool_call>\n{}\n</tool_call>"
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    settings = json.loads((out / "tokenizer_config.json").read_text())
    assert settings == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(1e30),
    }


def test_every_byte_is_a_token(made: tuple[Path, Finished]) -> None:
    tokenizer = _rust.Tokenizer.from_file(made[0])
    singles = {tokenizer.token_bytes(token) for token in range(SIZE)}
    assert {bytes([byte]) for byte in range(256)} <= singles


def test_the_dataset_reads_it(made: tuple[Path, Finished], records: Path, tmp_path: Path) -> None:
    out, done = made
    theirs = Tokenizer.from_file(str(out / "tokenizer.json"))
    file = write_lines(tmp_path / "rows.jsonl", [answered(number) for number in range(60)])
    data = KDDataset(file, out, template="auto")
    assert data.template.hides_tools
    assert not data.template.note
    lengths = []
    for index in range(len(data)):
        row = data.store.row(index)
        ids, start = row["ids"].tolist(), row["response_start"]
        prompt, answer = (
            theirs.decode(part, skip_special_tokens=False) for part in (ids[:start], ids[start:])
        )
        question = answered(index)["messages"][0]["content"]
        assert prompt == f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        assert answer.endswith("<|im_end|>")
        assert theirs.encode(prompt, add_special_tokens=False).ids == ids[:start]
        assert theirs.encode(answer, add_special_tokens=False).ids == ids[start:]
        assert bool(row["call_valid"])
        assert bool(row["tool_should_be_used"]) == (index % 5 != 0)
        lengths.append((start, row["response_length"]))
    # The command counts what the dataset reads.
    prompts, answers = (sum(part) / len(lengths) for part in zip(*lengths, strict=True))
    assert f"mean {prompts:.1f}, p95" in line(done, "tokens a prompt")
    assert f"mean {answers:.1f}, p95" in line(done, "tokens an answer")
    assert f"mean {prompts + answers:.1f}, p95" in line(done, "tokens a row")


def line(done: Finished, name: str) -> str:
    return next(text for text in done.stdout.splitlines() if name in text)


def test_transformers_reads_it(made: tuple[Path, Finished]) -> None:
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(made[0])
    messages = answered(7)["messages"]
    ids = loaded.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    text = f"<|im_start|>user\n{messages[0]['content']}<|im_end|>\n<|im_start|>assistant\n"
    assert ids == _rust.Tokenizer.from_file(made[0]).encode(text)
    assert (loaded.eos_token_id, loaded.pad_token_id, len(loaded)) == (2, 0, SIZE)


def test_a_gguf_file_can_say_it(made: tuple[Path, Finished]) -> None:
    vocabulary = read_vocabulary(made[0], SIZE)
    assert vocabulary.pre == "gpt-2"
    kinds = {kind: vocabulary.types.count(kind) for kind in (NORMAL, CONTROL, USER_DEFINED)}
    assert kinds == {NORMAL: SIZE - 7, CONTROL: 3, USER_DEFINED: 4}
    assert vocabulary.named == {"bos_token": 1, "eos_token": 2, "unk_token": 0, "pad_token": 0}


def test_what_is_said(made: tuple[Path, Finished]) -> None:
    out, done = made
    assert "60 of 1 file, 60 with an answer" in line(done, "rows")
    assert f"{SIZE}: 256 bytes, {SIZE - 263} learned, 7 of the template" in line(done, "vocabulary")
    assert "<|im_end|>" in line(done, "an answer ends with")
    assert float(line(done, "bytes a token").split("│")[2]) > 2
    example = done.stdout.splitlines()[-1]
    assert example.startswith("<|im_start|>¦user¦\\n¦")
    assert example.endswith("<|im_end|>")
    assert sorted(path.name for path in out.iterdir()) == list(FILES)
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []


def test_the_same_bytes_again(made: tuple[Path, Finished], records: Path, tmp_path: Path) -> None:
    done = make(records, "--vocab", str(SIZE), "--out", tmp_path / "again", "--hide-tools")
    assert done.returncode == 0, done.stderr
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (made[0] / name).read_bytes()


def test_tools_that_are_shown_are_learned(made: tuple[Path, Finished], records: Path, tmp_path: Path) -> None:
    done = make(records, "--vocab", str(SIZE), "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert {"<tools>", "</tools>"} <= set(read_pieces(tmp_path / "out"))
    text = json.dumps(LIGHT["function"])
    shown, hidden = (_rust.Tokenizer.from_file(path).encode(text) for path in (tmp_path / "out", made[0]))
    assert len(shown) < len(hidden)
    template = (tmp_path / "out" / "chat_template.jinja").read_text()
    assert not template.startswith("{% set tools")


def test_prompts_without_answers(records: Path, tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [{"__header__": {"v": 1}}, *(asked(number) for number in range(30))]
    prompts = write_lines(
        tmp_path / "prompts.jsonl", [*lines, {"prompt": "raw <|im_start|>"}, answered_truth()]
    )
    done = make(prompts, records, "--vocab", "330", "--out", tmp_path / "out", "--hide-tools")
    assert done.returncode == 0, done.stderr
    assert "92 of 2 files, 61 with an answer" in line(done, "rows")
    assert "tokens a row" not in done.stdout
    assert done.stdout.splitlines()[-1].endswith("<|im_start|>¦assistant¦\\n")  # no stand-in's answer
    prompts = write_lines(tmp_path / "only.jsonl", [asked(number) for number in range(30)])
    done = make(prompts, "--vocab", "300", "--out", tmp_path / "only", "--hide-tools")
    assert done.returncode == 0, done.stderr
    assert "tokens an answer" not in done.stdout


def answered_truth() -> dict[str, Any]:
    return asked(1) | {"truth_text": "Done."}


def test_other_scripts(tmp_path: Path) -> None:
    texts = (
        "Schalte das Licht in der Küche aus",
        "打开客厅的灯",
        "🎄🔥 on!",
        "Привет, дом",
        "set 215 degrees",
    )
    lines = [{"prompt": text, "truth_text": text} for text in texts for _ in range(3)]
    file = write_lines(tmp_path / "texts.jsonl", lines)
    done = make(file, "--vocab", "335", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    tokenizer = _rust.Tokenizer.from_file(tmp_path / "out")
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("客厅")) < len("客厅".encode())
    assert len(tokenizer.encode(" 215")) == 1  # digits are not cut one by one


# Refused


def test_sizes_that_cannot_be(records: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    small = make(records, "--vocab", "262", "--out", out, "--hide-tools")
    assert small.returncode == 2
    assert "--vocab: must be at least 263, for 256 bytes and 7 tokens" in small.stderr
    large = make(records, "--vocab", "30000", "--out", out, "--hide-tools")
    assert large.returncode == 2
    found = large.stderr.partition("give --vocab ")[2].split()[0]
    assert f"only {int(found):,} tokens can be learned from these texts" in large.stderr
    assert not out.exists()
    assert make(records, "--vocab", found, "--out", out, "--hide-tools").returncode == 0
    assert len(read_pieces(out)) == int(found)
    least = make(records, "--vocab", "263", "--out", tmp_path / "least", "--hide-tools")
    assert least.returncode == 0, least.stderr
    assert "263: 256 bytes, 0 learned" in line(least, "vocabulary")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"prompt": "a", "teacher_text": "b"}\nnope\n', "bad.jsonl:2"),
        ('{"prompt": "a"}\n{"messages": 3}\n', "bad.jsonl:2"),
        ('{"prompt": "a"}\n\n{"messages": [{"role": "critic", "content": "x"}]}\n', "bad.jsonl:3"),
        ('{"prompt": "a", "teacher_text": "b"}\n{"prompt": "a"}\n', "bad.jsonl:2"),
        ('{"prompt": "a", "teacher_text": "b", "teacher_attention_mask": [1, 1, 1, 1, 1]}\n', "remove it"),
        ("", "bad.jsonl: holds no records"),
        ("\n\n", "bad.jsonl: holds no records"),
    ],
)
def test_bad_files(tmp_path: Path, content: str, said: str) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(content)
    done = make(bad, "--out", tmp_path / "out", "--vocab", "300")
    assert done.returncode == 2
    assert said in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl"]


def test_names_that_cannot_be(records: Path, tmp_path: Path) -> None:
    wrong = make(tmp_path / "none.jsonl", records, "--out", records, "--template", "auto")
    assert wrong.returncode == 2
    assert "FILES: no such file (check the path)" in wrong.stderr
    assert "--template: there is no tokenizer yet" in wrong.stderr
    assert "--out: must be a folder" in wrong.stderr
    plain = tmp_path / "plain.jinja"
    plain.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    done = make(records, "--out", tmp_path / "out", "--template", plain)
    assert done.returncode == 2
    assert "without a control token such as <|im_end|>" in done.stderr


def test_an_output_that_is_there(records: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    command = (records, "--vocab", "300", "--out", out, "--hide-tools")
    assert make(*command).returncode == 0  # an empty directory is no output
    before = (out / "tokenizer.json").read_bytes()
    refused = make(*command)
    assert refused.returncode == 2
    assert "--out: is there already; take --overwrite" in refused.stderr
    larger = (records, "--vocab", "310", "--out", out, "--hide-tools", "--overwrite")
    assert make(*larger).returncode == 0
    assert (out / "tokenizer.json").read_bytes() != before
    (out / "model.safetensors").touch()
    refused = make(*larger)
    assert refused.returncode == 2
    assert "would delete them (model.safetensors)" in refused.stderr
    assert (out / "model.safetensors").exists()


def test_call_frames_make_calls_short_and_spans_stay_right(records: Path, tmp_path: Path) -> None:
    """A frame is one token, and the name and the arguments begin and end where they did."""
    found = {}
    for name, more in (("plain", ()), ("frames", ("--call-frames",))):
        out = tmp_path / name
        done = make(records, "--vocab", str(SIZE), "--out", out, "--hide-tools", *more)
        assert done.returncode == 0, done.stderr
        dataset = KDDataset(records, out, 512, show_tools=False, cache=tmp_path / f"store of {name}")
        rows = []
        for number in range(len(dataset)):
            row = dataset.store.row(int(dataset.rows[number]))
            ids = row["ids"].tolist()
            spans = {
                key: [dataset.tokenizer.decode(ids[a:b]) for a, b in row["spans"][key].tolist()]
                for key in ("tool_name", "tool_args", "tool_call")
            }
            rows.append((len(ids), spans))
        found[name] = rows
    for (plain, spans), (frames, same) in zip(found["plain"], found["frames"], strict=True):
        assert same["tool_name"] == spans["tool_name"]
        for exact, around in zip(same["tool_args"], spans["tool_args"], strict=True):
            assert isinstance(json.loads(exact), dict)  # a frame ends where the arguments begin
            assert exact in around
        assert frames <= plain - 6 * len(spans["tool_call"])
    assert any(spans["tool_name"] for _, spans in found["plain"])
