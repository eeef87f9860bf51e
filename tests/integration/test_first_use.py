"""A first use: the commands of README on a newcomer's own records and model, each wrong turn before the right one.

The records are OpenAI's, with what is found in such files; the model is a tiny Qwen3 whose template can think or not.
"""

from __future__ import annotations

import json
import re

import pytest
from documents import ROOT
from html_page import Page
from newcomer import NO_THOUGHT, TOOL, Newcomer, record, write_folder

pytestmark = pytest.mark.slow

CONFIG = """\
arch:
  init: teacher
data:
  train: data/train.jsonl
  validation: data/validation.jsonl
  tokenizer: model
  template_kwargs: {enable_thinking: false}
  shapes: [192, 256]
teacher:
  model: model
  store: store
  k: 8
optimizer:
  learning_rate: 1e-3
  warmup_steps: 1
train:
  num_steps: 4
  validate_every_steps: 2
  checkpoint_every_steps: 2
  eval_prompts: 2
  eval_irrelevance_prompts: 1
  eval_max_new_tokens: 8
kd:
  ce_teacher_weight: 0
io:
  run_dir: runs/first
"""


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Newcomer:
    newcomer = write_folder(tmp_path_factory.mktemp("first_use"))
    (newcomer.folder / "my.yaml").write_text(CONFIG, encoding="utf-8")
    return newcomer


@pytest.fixture(scope="module")
def split(newcomer: Newcomer) -> str:
    return newcomer.does("data split all.jsonl --out data --by prompt --fraction 0.25")


@pytest.fixture(scope="module")
def taught(newcomer: Newcomer, split: str) -> str:
    return newcomer.does("teach my.yaml")


@pytest.fixture(scope="module")
def trained(newcomer: Newcomer, taught: str) -> str:
    return newcomer.does("train my.yaml")


def cells(printed: str) -> dict[str, str]:
    """The tables of two columns in what a command printed."""
    return {row[1]: row[2] for row in re.findall(r"(│) (.*?) +│ (.*?) +│$", printed, re.MULTILINE)}


def first_number(text: str) -> int:
    return int(text.split(maxsplit=1)[0])


def test_he_looks_at_his_records(newcomer: Newcomer) -> None:
    look = "data inspect all.jsonl --tokenizer model"
    newcomer.errs(look.replace("all", "al"), "FILE: no such file (check the path): al.jsonl")
    array = "it is one JSON array; write an object a line (jq -c '.[]')"
    why = f"all.json: holds no JSON lines (one record a line, UTF-8): {array}"
    newcomer.errs("data inspect all.json --tokenizer model", why)
    need = "Missing option '--tokenizer'. (see kdfast data inspect --help)"
    newcomer.errs("data inspect all.jsonl", need)
    why = "--tokenizer: no such file or directory (check the path): modle"
    newcomer.errs(look.replace("model", "modle"), why)
    why = (
        "data.template_kwargs: the chat template (the tokenizer's own) reads no such variable, did you mean "
        "'enable_thinking'? Rename or remove it, got 'enable_thinkng'"
    )
    newcomer.errs(f"""{look} --template-kwargs '{{"enable_thinkng": false}}'""", why)
    newcomer.errs(f"{look} --line 42", "all.jsonl:42: no row comes from the line that --line names")

    thinking = newcomer.does(look)
    told = newcomer.does(f"""{look} --template-kwargs '{{"enable_thinking": false}}' --line 8""")
    for printed in (thinking, told):
        found = cells(printed)
        assert found["records"] == "41"
        assert found["rows"] == "41 (0 teacher's answers, 41 ground truths)"
        assert found["tool calls due"] == "31 of 41 (76%)"
        assert found["answers with calls"] == "31, all valid by their schemas"
        assert found["calls are read as"] == "hermes"
        lines = printed.splitlines()
        assert "keys that kdfast does not know: 1" in lines
        assert "  metdata: in 1 record, kept as metadata; did you mean 'metadata'?" in lines
        assert "rows with the tokens of an earlier row, learned once more: 1" in lines
        assert "no line was rejected" in lines
    assert cells(thinking)["chat template"] == "the tokenizer's own"
    assert cells(told)["chat template"] == """the tokenizer's own, with {"enable_thinking": false}"""
    # told not to think, the model gets the empty thought in its prompt and learns it no more
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(newcomer.folder / "model")
    fewer = 41 * len(tokenizer.encode(NO_THOUGHT))
    supervised = [first_number(cells(printed)["supervised tokens"]) for printed in (thinking, told)]
    assert supervised[0] - supervised[1] == fewer
    # roles of other houses become those of the template
    assert "<|im_start|>system\nUse the tool.\n\n# Tools\n" in told
    assert "<|im_start|>user\n<tool_response>\n21 degrees\n</tool_response><|im_end|>\n" in told
    assert told.endswith(f"<|im_start|>assistant\n{NO_THOUGHT}Rome is lovely on every day.<|im_end|>\n")


def test_he_splits_them(newcomer: Newcomer, split: str) -> None:
    assert split == (
        "data/train.jsonl: 31 records, data/validation.jsonl: 10 records; 40 groups, none on both sides\n"
    )
    one_group = (
        "--fraction: 0.1 of 41 records cannot be held out without a leak (they are one group, the largest has 41); "
        "take --by prompt if all share one set of tools, or collect more different records: all.jsonl"
    )
    newcomer.errs("data split all.jsonl --out elsewhere", one_group)
    again = "--out: is there already; remove it or choose another directory: data/train.jsonl"
    newcomer.errs("data split all.jsonl --out data --by prompt", again)
    sides = [(newcomer.folder / "data" / f"{side}.jsonl").read_text() for side in ("train", "validation")]
    whole = (newcomer.folder / "all.jsonl").read_text().splitlines()
    assert sorted("".join(sides).splitlines()) == sorted(whole)
    asked = {json.loads(line)["messages"][1]["content"] for line in sides[1].splitlines()}
    look = "data inspect data/train.jsonl --tokenizer model --validation data/validation.jsonl"
    none = f"0 of {len(asked)} held-out prompts (data/validation.jsonl) are prompts of this file too"
    assert none in newcomer.does(look).splitlines()


def test_he_writes_a_config(newcomer: Newcomer, split: str) -> None:
    newcomer.errs("config show mine.yaml", "no such config file, did you mean 'my.yaml'?: mine.yaml")
    (newcomer.folder / "typo.yaml").write_text(CONFIG.replace("num_steps", "num_step"), encoding="utf-8")
    typo = "train.num_step: unknown key, did you mean 'num_steps'? (typo.yaml:17)"
    for command in ("config show", "teach", "train"):
        newcomer.errs(f"{command} typo.yaml", typo)
    newcomer.errs("teach my.yaml teacher.K=4", "teacher.K: unknown key, did you mean 'k'?")
    (newcomer.folder / "typo.yaml").write_text(CONFIG.replace("validation.js", "held.js"), encoding="utf-8")
    gone = "data.validation: no such file (check the path): data/held.jsonl (typo.yaml:5)"
    for command in ("teach", "train"):
        newcomer.errs(f"{command} typo.yaml", gone)
    shown = dict(re.findall(r"^(\S+) +(.*?) {2,}", newcomer.does("config show my.yaml"), re.MULTILINE))
    assert shown["train.num_steps"] == "4"
    assert shown["data.template_kwargs"] == "{'enable_thinking': False}"


def test_he_asks_the_teacher(newcomer: Newcomer, taught: str) -> None:
    ids = len(json.loads((newcomer.folder / "model" / "tokenizer.json").read_text())["model"]["vocab"])
    lines = taught.splitlines()
    assert lines[0].startswith("41 rows, 40 of them to be scored into store/")
    assert re.fullmatch(r"40 rows in the store; 52 bytes a token; store/\w+\.teacher\.arrow", lines[-1])
    most = f"teacher.k: must be at most {ids}, the number of ids that teacher and student share, got 1000"
    newcomer.errs("teach my.yaml teacher.store=elsewhere teacher.k=1000", most)
    newcomer.errs("teach my.yaml --k 4", "No such option '--k'. (see kdfast teach --help)")
    assert newcomer.does("teach my.yaml").startswith("41 rows, 0 of them to be scored into store/")


def test_a_refused_start_is_corrected_without_resume(newcomer: Newcomer, taught: str) -> None:
    start, run = "train my.yaml io.run_dir=runs/corrected", newcomer.folder / "runs" / "corrected"
    no_store = (
        "teacher.store: holds nothing of this teacher and these settings; run `kdfast teach CONFIG`: none"
    )
    newcomer.errs(f"{start} teacher.store=none", no_store)
    hot = "kd.temperature: must be the temperature of the teacher's log-probabilities (1.0), got 2.0"
    newcomer.errs(f"{start} kd.temperature=2", hot)
    no_label = (
        "kd.ce_teacher_weight: needs labels of source teacher, which no training row carries; give records with "
        "teacher_text or teacher_message, or set it to 0, got 0.3"
    )
    newcomer.errs(f"{start} kd.ce_teacher_weight=0.3", no_label)
    assert not run.exists()
    newcomer.does(f"{start} train.num_steps=2")
    assert (run / "student" / "model.safetensors").exists()


def test_he_goes_on(newcomer: Newcomer, taught: str) -> None:
    start = "train my.yaml io.run_dir=runs/longer"
    newcomer.does(start)
    again = (
        "io.run_dir: holds a run already; go on with it by --resume, or choose another folder: runs/longer"
    )
    newcomer.errs(start, again)
    other = (
        "io.run_dir: holds a run with another config (optimizer.learning_rate: 0.01, the run has 0.001); choose "
        "another folder or the same config: runs/longer"
    )
    newcomer.errs(f"{start} optimizer.learning_rate=0.01 --resume", other)
    longer = newcomer.does(f"{start} train.num_steps=6 --resume").splitlines()
    # a cosine from 1e-3 to 1e-4: its last step of 4 was reached, and step 5 of 6 is three quarters of the way
    assert (
        "the learning rate now falls over 6 steps, not over 4: the next step's is 2.32e-04 instead of 1.00e-04, and "
        "loss weights that change over the run move likewise; set optimizer.schedule_steps=4 to keep the schedule"
    ) in longer
    assert "going on from step 4: runs/longer/checkpoints/step_4" in longer
    steps = [line for line in newcomer.table("runs/longer/metrics.csv") if line["kind"] == "train"]
    rates = [float(line["learning_rate"]) for line in steps]
    assert rates == pytest.approx([1e-3, 1e-3, 5.5e-4, 1e-4, 2.318e-4, 1e-4], rel=1e-3)

    fewer = (
        "train.num_steps: the run is beyond that already, its newest checkpoint is of step 6; set it to at least 6, "
        "or start a new run in another io.run_dir, got 4"
    )
    newcomer.errs(f"{start} --resume", fewer)
    kept = newcomer.files()
    done = newcomer.does(f"{start} train.num_steps=6 --resume")
    nothing = "nothing is left to train: the run is at its last step, 6 of 6; a larger train.num_steps lets it go on"
    assert nothing in done.splitlines()
    assert "going on" not in done
    assert [path.name for path, data in newcomer.files().items() if kept.get(path) != data] == []


def test_what_a_run_leaves(newcomer: Newcomer, trained: str) -> None:
    lines = newcomer.table("runs/first/metrics.csv")
    assert [(line["step"], line["kind"]) for line in lines if line["kind"] != "speed"] == [
        ("0", "validation"),
        *(("1", "train"), ("2", "train"), ("2", "validation")),
        *(("3", "train"), ("4", "train"), ("4", "validation")),
    ]
    losses = {line["step"]: float(line["loss"]) for line in lines if line["kind"] == "validation"}
    assert losses["4"] < losses["2"] < losses["0"]
    best = f"  best         runs/first/checkpoints/step_4 (held-out loss {losses['4']:.4f})"
    assert best in trained.splitlines()
    held_out = (newcomer.folder / "data" / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    for when in ("before", "after"):
        rows = newcomer.table(f"runs/first/evaluation_{when}.csv")
        assert [row["should_call"] for row in rows] == ["true", "true", "false"]
        for row in rows:
            answer = json.loads(held_out[int(row["line"]) - 1])["messages"][-1]
            assert [int(row["calls_due"]), row["calls_made"]] == [len(answer.get("tool_calls", [])), "0"]
            assert (answer["content"] or '{"name": "get_weather", "arguments": {"city":') in row[
                "reference_text"
            ]
            assert NO_THOUGHT not in row["reference_text"]


def test_he_evaluates_and_measures(newcomer: Newcomer, trained: str) -> None:
    folder = newcomer.folder
    missing = "model: no such directory; give a Hugging Face model directory or a run folder: runs/frist"
    newcomer.errs("eval runs/frist", missing)
    newcomer.errs("measure runs/frist --out speed.json", missing)
    need = "Missing option '--out'. (see kdfast measure --help)"
    newcomer.errs("measure runs/first", need)
    newcomer.errs("measure runs/first --out data", "--out: is a directory (name a file instead): data")
    newcomer.errs(
        "eval model", "Missing option '--prompts' (only a run folder has its own). (see kdfast eval --help)"
    )
    (folder / "data" / "validation.jsonl").rename(folder / "away.jsonl")
    gone = (
        "no such file (check the path): data/validation.jsonl, which is data.validation of the run runs/first; "
        "name another with --prompts"
    )
    for command in ("eval runs/first", "measure runs/first --out s.json", "bless runs/first --out b.json"):
        newcomer.errs(command, gone)
    (folder / "away.jsonl").rename(folder / "data" / "validation.jsonl")

    printed = newcomer.does("eval runs/first --max-new-tokens 4")
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    rows = newcomer.table("evaluation.csv")
    assert (evaluation["prompts"], len(rows)) == (10, 10)
    due = sum(row["should_call"] == "true" for row in rows)
    assert re.search(rf"missed calls +{due}/{due} 100 % \(100 to 100\)", printed)
    assert evaluation["quality"]["missed_call_rate"]["value"] == 1.0
    assert evaluation["decoding"]["thinking"] == "closed"
    newcomer.does("measure runs/first --out speed.json --limit 2 --max-new-tokens 4")
    speed = json.loads((folder / "speed.json").read_text(encoding="utf-8"))
    assert speed["decoding"]["max_new_tokens"] == 4
    assert len(speed["prompts"]) == 2


def test_he_blesses_one_and_judges_another(newcomer: Newcomer, trained: str) -> None:
    newcomer.does("train my.yaml io.run_dir=runs/candidate train.num_steps=2")
    few = "--max-new-tokens 4 gates.min_pairs=10 gates.max_pairs=10"
    bless = f"bless runs/first --out baseline.json {few}"
    too_few = "data/validation.jsonl: times are judged on at least 10 prompts; give more (--prompts, --limit), got 2"
    newcomer.errs(f"{bless} --limit 2", too_few)
    newcomer.errs(f"{bless} gates.f1_dorp=0", "gates.f1_dorp: unknown key, did you mean 'f1_drop'?")
    assert "  baseline     baseline.json" in newcomer.does(bless).splitlines()
    baseline = json.loads((newcomer.folder / "baseline.json").read_text(encoding="utf-8"))
    assert (baseline["kind"], len(baseline["reports"])) == ("kdfast.speed_baseline", 1)

    gone = "candidate: no such directory; give a Hugging Face model directory or a run folder: runs/canddate"
    newcomer.errs("gate --candidate runs/canddate --blessed runs/first", gone)
    no_file = "--baseline: no such file (check the path): base.json"
    newcomer.errs("gate --candidate runs/candidate --baseline base.json", no_file)
    judge = f"gate --candidate runs/candidate --blessed runs/first --json gates.json {few}"
    newcomer.does(f"{judge} gates.enabled=[missed_call_rate]")
    (missed,) = json.loads((newcomer.folder / "gates.json").read_text(encoding="utf-8"))["results"]
    assert (missed["name"], missed["status"]) == ("missed_call_rate", "passed")
    assert (missed["value"], missed["baseline"], missed["limit"]) == (1.0, 1.0, 1.01)
    # a student of two steps calls nothing: with all gates it fails, and says by which
    newcomer.does(f"gate --candidate runs/candidate --baseline baseline.json --json gates.json {few}", code=3)
    judged = json.loads((newcomer.folder / "gates.json").read_text(encoding="utf-8"))
    reasons = {one["name"]: one["reason"] for one in judged["results"]}
    assert (judged["passed"], judged["exit_code"]) == (False, 3)
    assert reasons["f1"] == "f1 is 0: no call was right"
    decide = "6 runs a side, or `kdfast gate --blessed`, would decide, got 1 and 1"
    assert reasons["ttft_p50"].endswith(decide)
    newcomer.does("measure runs/candidate --out two.json --limit 2 --max-new-tokens 4")
    newcomer.does("gate --candidate-report two.json --baseline baseline.json --json gates.json", code=3)
    judged = json.loads((newcomer.folder / "gates.json").read_text(encoding="utf-8"))
    reasons = {one["name"]: one["reason"] for one in judged["results"]}
    assert re.fullmatch(r"prompts_mismatch: \w{12} against \w{12}", reasons["ttft_p50"])


def test_he_reads_the_report(newcomer: Newcomer, trained: str) -> None:
    newcomer.errs("report runs", "run: it has no config.yaml; give the io.run_dir of a `kdfast train`: runs")
    gone = "run: no such directory; give the io.run_dir of a `kdfast train`: runs/frist"
    newcomer.errs("report runs/frist", gone)
    newcomer.errs("report runs/first runs/first", "run: named twice; name each run once: runs/first")
    verdict = r"  verdict      (?:\w+: )?(Not good: \d good, \d worth a look, \d bad.*)"
    (said,) = re.findall(verdict, newcomer.does("report runs/first"))
    text = Page((newcomer.folder / "runs" / "first" / "report.html").read_text(encoding="utf-8")).text()
    for part in (*said.split(": "), "4 of 4 steps", "the last is the best checkpoint, checkpoints/step_4"):
        assert part in text
    newcomer.does("train my.yaml io.run_dir=runs/short train.num_steps=2")
    assert len(re.findall(verdict, newcomer.does("report runs/first runs/short"))) == 2
    text = Page((newcomer.folder / "comparison.html").read_text(encoding="utf-8")).text()
    for part in ("2 runs compared", "4 of 4", "2 of 2", "train.num_steps", "Not good"):
        assert part in text


def test_the_student_does_not_think_by_default(newcomer: Newcomer, trained: str) -> None:
    from transformers import AutoTokenizer

    asked = {"tools": [TOOL], "add_generation_prompt": True, "tokenize": False}
    messages = record(0)["messages"][1:2]
    ends = {}
    for name in ("model", "runs/first/student", "runs/first/checkpoints/step_2"):
        tokenizer = AutoTokenizer.from_pretrained(newcomer.folder / name)
        plain = tokenizer.apply_chat_template(messages, **asked)
        thinking = tokenizer.apply_chat_template(messages, **asked, enable_thinking=True)
        assert thinking.endswith("<|im_end|>\n<|im_start|>assistant\n")
        ends[name] = plain.removeprefix(thinking)
    assert ends == {
        "model": "",
        "runs/first/student": NO_THOUGHT,
        "runs/first/checkpoints/step_2": NO_THOUGHT,
    }


def test_every_command_of_readme_is_walked_here() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = "".join(re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    shown = set(re.findall(r"^kdfast[ -]((?:data |config )?[a-z]+)", blocks, re.MULTILINE))
    walked = {"data inspect", "data split", "config show", "teach", "train", "eval", "measure", "bless"}
    walked |= {"gate", "report"}
    elsewhere = {
        "export",
        "chat",
        "preflight",
    }  # test_export.py and test_preflight.py here, tests/unit/recipes/chat
    assert {"data inspect", "teach", "train", "eval", "report"} <= shown <= walked | elsewhere
