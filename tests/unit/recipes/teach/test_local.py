"""A local teacher answers in batches: no answer is asked for twice, none depends on its batch, none is lost."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from journals import quick_folder
from local_jobs import attempts, exported, quiet, read, requests_of, run_job, write_job
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from kdfast._rust import Tokenizer
from kdfast.config import Config
from kdfast.display import Display
from kdfast.errors import DataError, TeacherError
from kdfast.evaluate.draws import row_uniforms
from kdfast.recipes.teach.loaded_teacher import named_failures
from kdfast.stop import StopRequest
from kdfast.teacher.api.job_report import Event
from kdfast.teacher.api.journal import Answer, Attempt, Journal, Leases, Response, Verdict
from kdfast.teacher.asked import Asked
from kdfast.teacher.local.requests import local_reply
from kdfast.teacher.reading import Reading


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return write_job(tmp_path_factory.mktemp("job"))


@pytest.fixture
def path() -> Iterator[Path]:
    with quick_folder() as folder:
        yield folder / "answers.db"


def with_teacher(config: Config, **keys: object) -> Config:
    return replace(config, teacher=replace(config.teacher, **keys))


class Interrupted(Display):
    """Ctrl-C, pressed as soon as so many answers have ended."""

    def __init__(self, after: int) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.after = after

    @contextmanager
    def working(self, what: str, total: int) -> Iterator[Callable[[int, str], None]]:
        def on_progress(done: int, note: str = "") -> None:
            if done >= self.after:
                raise KeyboardInterrupt

        yield on_progress


@torch.no_grad()
def naive_answer(config: Config, asked: Asked) -> tuple[list[int], str]:
    """The obvious twin: one prompt, no cache, no padding; gives the ids and why the answer ended."""
    body = asked.request.body
    model = AutoModelForCausalLM.from_pretrained(config.teacher.model).eval()
    usable = Tokenizer.from_file(config.data.tokenizer).vocab_size
    ids: list[int] = []
    for position in range(body["max_tokens"]):
        logits = model(torch.tensor([[*body["prompt"], *ids]])).logits[0, -1].double()
        if body["temperature"]:
            uniforms = torch.from_numpy(row_uniforms(asked.request.hash, position, len(logits)))
            logits = logits / body["temperature"] - torch.log(-torch.log(uniforms))
        token = int(logits[:usable].argmax())
        if token in body["stop"]:
            return ids, "stop"
        ids.append(token)
    return ids, "length"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_are_those_of_one_prompt_at_a_time(config: Config, path: Path, temperature: float) -> None:
    config = with_teacher(config, temperature=temperature, batch_size=4)
    asked = requests_of(config, range(9))
    result = run_job(asked, config, path)
    lines = exported(path)
    assert [line["request"] for line in lines] == [one.request.hash for one in asked]
    found = [line["response"]["choices"][0] for line in lines]
    twin = [naive_answer(config, one) for one in asked]
    assert [(each["token_ids"], each["finish_reason"]) for each in found] == twin
    tokenizer = Tokenizer.from_file(config.data.tokenizer)
    assert [each["text"] for each in found] == [tokenizer.decode(ids) for ids, _ in twin]
    cut = sum(finish == "length" for _, finish in twin)
    assert result.verdicts == {Verdict("accepted"): 9 - cut} | (
        {Verdict("filtered", "cut"): cut} if cut else {}
    )
    with Journal(path) as journal:
        assert journal.money().spent_micro == 0
    for line, one in zip(lines, asked, strict=True):
        assert line["usage"]["input_tokens"] == len(one.request.body["prompt"])
        assert line["usage"]["output_tokens"] == len(line["response"]["choices"][0]["token_ids"])
        assert line["cost_micro"] == 0


def test_drawn_answers_end_at_different_times_and_differ_by_sample(config: Config, path: Path) -> None:
    config = with_teacher(config, temperature=1.5, answers_per_prompt=2)
    run_job(requests_of(config, range(8)), config, path)
    answers = [line["response"]["choices"][0]["token_ids"] for line in exported(path)]
    assert len({len(ids) for ids in answers}) > 3
    assert all(first != second for first, second in zip(answers[::2], answers[1::2], strict=True))
    assert [line["order"] for line in exported(path)] == list(range(16))


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_an_interrupted_job_keeps_what_ended_and_asks_for_the_rest_only(
    config: Config, path: Path, temperature: float
) -> None:
    config = with_teacher(config, temperature=temperature, batch_size=4)
    asked = requests_of(config, range(12))
    whole = path.with_name("whole.db")
    run_job(asked, config, whole)
    for after in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            run_job(asked, config, path, Interrupted(after))
        states = attempts(path, asked)
        kept = [one for one, tries in zip(asked, states, strict=True) if "answered" in tries]
        # of the batch in work only those that had ended; nothing is left in flight, or with an unknown outcome
        assert after <= len(kept) < 12
        assert {state for tries in states for state in tries} <= {"answered", "not_sent"}
    again = run_job(asked, config, path)
    assert (again.reused, again.answered, again.left) == (len(kept), 12 - len(kept), 0)
    assert attempts(path, kept) == [tries for tries in states if "answered" in tries]
    assert exported(path) == exported(whole)


def test_the_rest_of_a_batch_does_not_hold_an_answer_back(config: Config, path: Path) -> None:
    config = with_teacher(config, temperature=1.5, batch_size=12)
    asked = requests_of(config, range(12))
    with pytest.raises(KeyboardInterrupt):
        run_job(asked, config, path, Interrupted(1))
    kept = sum(tries == ["answered"] for tries in attempts(path, asked))
    assert 1 <= kept < 12
    # they have no verdict yet; the next run reads them first
    assert all(line["verdict"] is None for line in exported(path))
    stop = StopRequest()
    stop.requested = True
    result = run_job(asked, config, path, stop=stop)
    assert (result.ended, result.reused, result.answered, result.left) == ("stopped", kept, 0, 12 - kept)
    assert all(line["verdict"] is not None for line in exported(path))


def test_a_stop_ends_the_batch_in_work_and_no_other_one_begins(config: Config, path: Path) -> None:
    config = with_teacher(config, batch_size=4)
    asked, stop = requests_of(config, range(12)), StopRequest()

    def read_and_stop(one: Asked, answer: Answer) -> Reading:
        stop.requested = True
        return read(one, answer)

    result = run_job(asked, config, path, stop=stop, read=read_and_stop)
    assert (result.ended, result.answered, result.left, result.sent) == ("stopped", 4, 8, 4)
    longest = sorted(asked, key=lambda one: (-one.input_tokens, one.request.order))[:4]
    assert attempts(path, longest) == [["answered"]] * 4


def test_what_is_answered_needs_no_model(config: Config, path: Path) -> None:
    asked = requests_of(config, range(3))
    run_job(asked, config, path)
    gone = with_teacher(config, model=Path("no/such/model"))
    events: list[Event] = []
    again = run_job(asked, gone, path, on_event=events.append)
    assert (again.ended, again.reused, again.answered, again.sent) == ("done", 3, 0, 0)
    assert [(event.kind, event.asked) for event in events] == [("reused", one) for one in asked]


def test_a_reader_that_changed_its_mind_sets_the_verdict_anew(config: Config, path: Path) -> None:
    asked = requests_of(config, range(3))
    run_job(asked, config, path)

    def read_anew(one: Asked, answer: Answer) -> Reading:
        return replace(read(one, answer), verdict=Verdict("filtered", "refusal"))

    assert run_job(asked, config, path, read=read_anew).verdicts == {Verdict("filtered", "refusal"): 3}
    assert [line["verdict"]["reason"] for line in exported(path)] == ["refusal"] * 3


def test_whatever_the_price_an_answer_of_this_machine_costs_nothing(config: Config, path: Path) -> None:
    asked = requests_of(config, range(3))

    def read_with_a_price(one: Asked, answer: Answer) -> Reading:
        return replace(read(one, answer), cost_micro=500)

    run_job(asked, config, path, read=read_with_a_price)
    assert [line["cost_micro"] for line in exported(path)] == [0] * 3
    with Journal(path) as journal:
        journal.begin_attempt(requests_of(config, [7])[0].request, worst_micro=10, budget_micro=10)
        assert (journal.money().spent_micro, journal.stats().uncosted) == (0, 0)


def test_the_same_request_is_answered_once_and_keeps_its_smallest_place(config: Config, path: Path) -> None:
    (one,) = requests_of(config, [5])
    repeat = replace(one, request=replace(one.request, order=2))
    (other,) = requests_of(config, [6])
    result = run_job([one, repeat, other], config, path)
    assert (result.asked, result.answered, result.reused, result.sent) == (3, 2, 1, 2)
    assert [line["order"] for line in exported(path)] == [2, 6]
    assert run_job([replace(other, request=replace(other.request, order=1))], config, path).reused == 1
    assert [line["order"] for line in exported(path)] == [1, 2]


@pytest.mark.slow
def test_a_request_of_another_process_is_waited_for(config: Config, path: Path) -> None:
    config = with_teacher(config, batch_size=2)
    asked = requests_of(config, range(4))
    first = max(asked, key=lambda one: one.input_tokens)  # of the batch that comes first
    with Journal(path, leases=Leases(3600, "another machine/1/1/0")) as other:
        theirs = other.begin_attempt(first.request, 0)
        assert isinstance(theirs, Attempt)

        def read_and_let_them_end(one: Asked, answer: Answer) -> Reading:
            if other.answered(first.request.hash) is None:
                reply = local_reply("m", "theirs", [5], cut=False, prompt_tokens=3)
                other.finish_attempt(theirs, Response(200, {}, reply, 1), final=True)
            return read(one, answer)

        display = quiet()
        result = run_job(asked, config, path, display, read=read_and_let_them_end)
    assert isinstance(display.console.file, io.StringIO)
    assert display.console.file.getvalue().count("in flight in another process; waiting for it") == 1
    assert (result.ended, result.answered, result.reused) == ("done", 3, 1)
    texts = {line["request"]: line["response"]["choices"][0]["text"] for line in exported(path)}
    assert texts[first.request.hash] == "theirs"
    assert attempts(path, asked) == [["answered"]] * 4


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([5] * 1013, r"^prompts.jsonl:3: the prompt has 1013 tokens, .*teacher.max_new_tokens 12 .*: 1024$"),
        ([], r"^prompts.jsonl:3: the prompt has no tokens"),
        ([5, 100_000], r"^prompts.jsonl:3: the prompt has a token that the teacher does not know.*: 100000$"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_refused_before_anything_is_asked(
    config: Config, path: Path, ids: list[int], message: str
) -> None:
    asked = requests_of(config, range(4))
    body = {**asked[2].request.body, "prompt": ids}
    asked[2] = replace(asked[2], request=replace(asked[2].request, body=body))
    with pytest.raises(DataError, match=message):
        run_job(asked, config, path)
    assert attempts(path, asked) == [[]] * 4


def test_a_prompt_that_just_fits_is_answered(config: Config, path: Path) -> None:
    (one,) = requests_of(config, [0])
    one = replace(one, request=replace(one.request, body={**one.request.body, "prompt": [5] * 1012}))
    assert run_job([one], config, path).answered == 1


def test_another_vocabulary_is_refused(config: Config, path: Path, tmp_path: Path) -> None:
    document = json.loads((config.data.tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = document["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    other = replace(config, data=replace(config.data, tokenizer=tmp_path))
    with pytest.raises(DataError, match="different vocabularies"):
        run_job(requests_of(config, range(2)), other, path)


def test_settings_of_two_jobs_are_not_mixed(config: Config, path: Path) -> None:
    asked = [*requests_of(config, range(2)), *requests_of(config, [2], max_tokens=13)]
    with pytest.raises(ValueError, match="one set of settings: 2"):
        run_job(asked, config, path)


def test_nan_ends_the_job_with_a_remedy(path: Path, tmp_path: Path) -> None:
    config = write_job(tmp_path, batch_size=2)
    asked = requests_of(config, range(4))
    weights = tmp_path / "teacher" / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.norm.weight"][:] = torch.nan
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(TeacherError, match=r"^teacher.model: gives NaN .*teacher.dtype fp32.*: .*teacher$"):
        run_job(asked, config, path)
    assert sorted(attempts(path, asked)) == [[], [], ["not_sent"], ["not_sent"]]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
    ],
)
def test_a_lack_of_memory_names_the_key(error: RuntimeError) -> None:
    with (
        pytest.raises(TeacherError, match=r"^teacher.batch_size: .*lower it.*: 8$"),
        named_failures(Path("m"), 8),
    ):
        raise error


def test_another_error_of_torch_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), named_failures(Path("m"), 8):
        raise RuntimeError("shapes differ")


def test_progress_is_shown(config: Config, path: Path) -> None:
    display = quiet()
    asked = requests_of(with_teacher(config, temperature=1.5), range(6))
    result = run_job(asked, config, path, display)
    assert isinstance(display.console.file, io.StringIO)
    first, *rest = display.console.file.getvalue().splitlines()
    assert first == f"6 requests, 6 of them to be answered into {path.resolve()}"
    filtered = result.verdicts.get(Verdict("filtered", "cut"), 0)
    assert rest[-1].startswith(f"answer 6/6  {filtered} filtered  ")
    assert rest[-1].endswith("tokens/s  0:00 left")
