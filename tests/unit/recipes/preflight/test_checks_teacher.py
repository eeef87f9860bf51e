"""The checks of group `teacher`: each passes on a good project, and each catches its fault."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import journals
import pytest
import tiny_run
from preflight_objects import assert_only_fails, clean, folder, look
from preflight_teacher import CHEAP, KEY, config, hosted, objects
from teach_jobs import RawServer

from kdfast.config import Config, PriceConfig
from kdfast.recipes.preflight.facts import PreflightRequest, Sample, TaughtSample
from kdfast.recipes.preflight.made.fault_trials import FaultTrial
from kdfast.recipes.preflight.made.makers import MAKERS
from kdfast.recipes.preflight.made.taught_sample import teach_sample
from kdfast.recipes.requests import TeachRequest
from kdfast.recipes.teach.run import run as teach
from kdfast.teacher.api.fake_replies import http_response
from kdfast.teacher.api.fake_server import FakeServer
from kdfast.teacher.api.journal import Journal


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("key_is_set", f"TEACHER_KEY holds a key of {len(KEY)} characters"),
        ("price_is_known", "a million tokens cost 1.00 in prompts (1.00 cached) and 4.00 in answers"),
        ("terms_are_acknowledged", "the terms of example.com are acknowledged"),
        ("prompts_are_asked", "8 prompts become 8 requests"),
        ("private_data_is_decided", "no e-mail address, phone or card number or key was seen in 8 prompts"),
    ],
)
def test_a_hosted_teacher_as_it_should_be(tmp_path: Path, name: str, text: str) -> None:
    found = look(f"teacher.{name}", objects(hosted(tmp_path)))
    assert (found.status, found.text) == ("pass", text)
    assert KEY not in repr(found)


def test_room_and_budget_as_they_should_be(tmp_path: Path) -> None:
    made = objects(hosted(tmp_path))
    room = look("teacher.prompts_leave_room", made)
    assert (room.status, room.text.endswith("64 more fit in a shape of 512")) == ("pass", True)
    budget = look("teacher.budget_covers_the_job", made)
    assert budget.status == "pass"
    assert budget.text.startswith("8 requests cost 0.00")
    assert budget.text.endswith("; 1.00 of teacher.budget (1.00) is left")


def test_a_local_teacher_is_looked_at_and_the_rest_does_not_apply() -> None:
    found = look("teacher.somebody_answers", clean())
    rows = len(clean().get("train_rows"))
    assert found.status == "pass"
    assert f"is a model; {rows} training rows have " in found.text
    assert "MiB in teacher.store" in found.text
    for name in (
        "key_is_set",
        "price_is_known",
        "terms_are_acknowledged",
        "is_reachable",
        "budget_covers_the_job",
    ):
        skipped = look(f"teacher.{name}", clean())
        assert (skipped.status, skipped.text) == ("skip", "teacher.kind is 'local': no server is asked")
    assert look("teacher.probe", clean()).text == "not asked: --probe"


def test_the_tokens_to_score_are_counted() -> None:
    rows = clean().get("train_rows")
    spans = [rows.store.row(int(row))["supervised"] for row in rows.rows]
    tokens = sum(int(end - start) for one in spans for start, end in one)
    assert f"have {tokens:,} tokens to score" in look("teacher.somebody_answers", clean()).text


# Faults: exactly this check fails


def no_key(work: Path) -> Config:
    return hosted(work, api={"key_from_env": "NO_SUCH_VARIABLE"})


def no_price(work: Path) -> Config:
    return hosted(work, price=PriceConfig())


def no_terms(work: Path) -> Config:
    return hosted(work, terms=None)


def small_budget(work: Path) -> Config:
    return hosted(work, budget=0.0001)


def nobody_answers(work: Path) -> Config:
    made = config(work, kind="local")
    arch = replace(made.arch, init=str(made.teacher.model))
    return replace(made, arch=arch, teacher=replace(made.teacher, model=None, store=None))


def refused_prompt(work: Path) -> Config:
    path = work / "prompts.jsonl"
    path.write_text('{"prompt": "Hi", "teacher_text": "an answer"}\n', encoding="utf-8")
    return hosted(work, lines=path)


FAULTS: list[tuple[str, Callable[[Path], Config], str, str]] = [
    ("key_is_set", no_key, "api.key_from_env: set the environment variable", "api.key_from_env"),
    ("price_is_known", no_price, "price: the teacher's price is not known", "price.input"),
    ("terms_are_acknowledged", no_terms, "that the terms of example.com allow", "teacher.terms"),
    ("budget_covers_the_job", small_budget, "too little even as expected", "teacher.budget"),
]


@pytest.mark.parametrize(("name", "broken", "text", "remedy"), FAULTS, ids=[one[0] for one in FAULTS])
def test_a_fault_is_found_by_its_check_alone(
    tmp_path: Path, name: str, broken: Callable[[Path], Config], text: str, remedy: str
) -> None:
    good = objects(hosted(tmp_path)).get("plan")
    made = objects(broken(tmp_path), plan=good)
    found = assert_only_fails(f"teacher.{name}", made)
    assert text in found.text
    assert remedy in found.remedy + found.text
    assert KEY not in repr(found)


def test_prompts_that_nobody_answers(tmp_path: Path) -> None:
    found = look("teacher.somebody_answers", objects(nobody_answers(tmp_path)))
    assert (found.status, found.text) == ("fail", "there are teacher.prompts, and nobody to answer them")


def test_a_plan_that_cannot_be_made_is_one_failure(tmp_path: Path) -> None:
    made = objects(refused_prompt(tmp_path))
    found = look("teacher.prompts_are_asked", made)
    assert found.status == "fail"
    assert "teacher_text belongs to an answer" in found.text
    assert look("teacher.budget_covers_the_job", made).status == "skip"


# Warnings, and what does not apply


def test_a_budget_that_is_enough_only_as_expected(tmp_path: Path) -> None:
    free = look("teacher.budget_covers_the_job", objects(hosted(tmp_path)))
    assert free.status == "pass"
    found = look("teacher.budget_covers_the_job", objects(hosted(tmp_path, budget=0.008)))
    assert found.status == "warn"
    assert ": surely enough for " in found.text
    none = look("teacher.budget_covers_the_job", objects(hosted(tmp_path, budget=None)))
    assert (none.status, none.text.endswith(", and there is no teacher.budget")) == ("warn", True)
    nothing = look("teacher.budget_covers_the_job", objects(config(tmp_path, price=PriceConfig(free=True))))
    assert nothing.status == "skip"


def test_a_hosted_server_that_is_said_to_cost_nothing(tmp_path: Path) -> None:
    found = look("teacher.price_is_known", objects(hosted(tmp_path, price=PriceConfig(free=True))))
    assert (found.status, "price.free is true, and example.com" in found.text) == ("warn", True)
    own = look("teacher.price_is_known", objects(config(tmp_path, price=PriceConfig(free=True))))
    assert own.status == "pass"


def test_private_text_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Write to ann@work.org"}\n{"prompt": "Now"}\n', encoding="utf-8")
    found = look("teacher.private_data_is_decided", objects(hosted(tmp_path, lines=path)))
    assert found.status == "warn"
    assert found.text == "1 e-mail address in 1 of 2 prompts leaves this machine"
    assert "teacher.redact" in found.remedy
    redacted = look("teacher.private_data_is_decided", objects(hosted(tmp_path, lines=path, redact=True)))
    assert (redacted.status, "replaced by placeholders" in redacted.text) == ("pass", True)
    own = look("teacher.private_data_is_decided", objects(config(tmp_path, lines=path)))
    assert (own.status, own.text) == ("skip", "prompts go to 127.0.0.1:9, your own server")


def test_prompts_that_are_not_asked_and_that_leave_no_room(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    records = [{"prompt": "Hi"}, {"prompt": "Hi", "teacher_text": "x"}, {"prompt": "so many words " * 22}]
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    made = hosted(tmp_path, lines=path, max_new_tokens=480)
    made = replace(made, data=replace(made.data, on_error="quarantine", max_rejected_fraction=0.5))
    found = look("teacher.prompts_are_asked", objects(made))
    assert (found.status, found.text) == (
        "warn", f"2 prompts become 2 requests; not asked: 1 of the lines of {path}"
    )  # fmt: skip
    assert found.shown[0].startswith("line 2: teacher_text belongs to an answer")
    room = look("teacher.prompts_leave_room", objects(made))
    assert room.status == "warn"
    assert room.text.startswith("1 of 2 prompts leave less than teacher.max_new_tokens (480)")


def test_nothing_is_asked(tmp_path: Path) -> None:
    made = config(tmp_path)
    made = replace(made, teacher=replace(made.teacher, prompts=None, out=None))
    for name in (
        "prompts_are_asked",
        "prompts_leave_room",
        "private_data_is_decided",
        "budget_covers_the_job",
    ):
        found = look(f"teacher.{name}", objects(made))
        assert (found.status, found.text) == ("skip", "there are no teacher.prompts: nothing will be asked")
    assert look("teacher.terms_are_acknowledged", objects(made)).status == "skip"


# The server


def reached(work: Path, url: str, **api: Any) -> Any:
    return look("teacher.is_reachable", objects(config(work, api={"base_url": url, **api}), plan=None))


@pytest.mark.parametrize(
    ("behaviour", "status", "text"),
    [
        ("forbidden", "fail", "refuses the key (HTTP status 403"),
        ("redirect", "fail", "redirects, and no redirect is followed (HTTP status 307: /elsewhere)"),
        ("close", "fail", "gives no answer ("),
        ("unknown_model", "warn", "has no list of models (HTTP status 404"),
        ("error_503", "warn", "answers, but with HTTP status 503: The engine is overloaded"),
        ("ok", "pass", "is among its 1 models"),
    ],
)
def test_what_a_server_says(tmp_path: Path, behaviour: str, status: str, text: str) -> None:
    with FakeServer(lambda _: behaviour) as server:
        found = reached(tmp_path, server.url)
    assert (found.status, text in found.text) == (status, True), found
    assert KEY not in repr(found)


@pytest.mark.parametrize(("model", "status"), [("fake", "pass"), ("a", "pass"), ("other", "warn")])
def test_the_model_is_looked_for_in_the_list(tmp_path: Path, model: str, status: str) -> None:
    body = json.dumps({"data": [{"id": "fake"}, {"id": "models/a"}]}).encode()
    with RawServer([None, http_response(200, body)]) as server:
        found = reached(tmp_path, server.url, model=model)
    assert found.status == status
    assert found.shown == (("fake", "models/a") if status == "warn" else ())


def test_a_wrong_key_and_a_server_that_is_gone_fail_alone(tmp_path: Path) -> None:
    with FakeServer(lambda _: "unauthorised") as server:
        made = config(tmp_path, api={"base_url": server.url})
        found = assert_only_fails("teacher.is_reachable", objects(made))
    assert "refuses the key (HTTP status 401: Incorrect API key provided" in found.text
    assert KEY not in repr(found)
    found = assert_only_fails("teacher.is_reachable", objects(made))
    assert found.text.startswith("no server takes connections")
    assert "api.base_url" in found.remedy


def test_without_a_key_nothing_is_sent(tmp_path: Path) -> None:
    found = look("teacher.is_reachable", objects(no_key(tmp_path), plan=None))
    assert (found.status, found.text.startswith("nothing can be sent: api.key_from_env")) == ("skip", True)


# Faults of a server, and the fake teacher's answers


def trials(*lost: str) -> tuple[FaultTrial, ...]:
    return tuple(
        FaultTrial(behaviour=name, kept=name not in lost, text=f"what became of {name}")
        for name in ("ok", "reset", "hang")
    )


def test_a_trial_that_lost_an_answer(tmp_path: Path) -> None:
    made = config(tmp_path)
    good = look("teacher.every_fault_is_survived", objects(made, fault_trials=trials()))
    assert (good.status, len(good.shown)) == ("pass", 3)
    assert good.text == "3 behaviours of a server: nothing was lost, nothing paid twice"
    found = assert_only_fails("teacher.every_fault_is_survived", objects(made, fault_trials=trials("reset")))
    assert found.text == "1 of 3 behaviours of a server lost or repeated something: reset"
    assert found.shown == ("reset: what became of reset",)
    assert look("teacher.every_fault_is_survived", clean()).status == "skip"


@functools.cache
def taught() -> TaughtSample:
    sample = Sample(records=tuple(map(tiny_run.record, range(4))), lines=(), held_out=(), of=4, asked=False)
    return teach_sample(clean().get("config"), sample, folder() / "of-the-teacher")


def records(found: TaughtSample) -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(json.dumps(found.records)))


@pytest.mark.slow
def test_the_fake_answers_of_a_good_project() -> None:
    found = look("teacher.fake_answers_become_records", clean().replaced(taught=taught()))
    assert found.status == "pass"
    assert found.text.endswith("faults; 4 records; each says what the server said")


@pytest.mark.slow
def test_a_record_that_is_lost_or_says_something_else() -> None:
    name = "teacher.fake_answers_become_records"
    lost = clean().replaced(taught=replace(taught(), records=taught().records[:-1]))
    assert assert_only_fails(name, lost).text.endswith("3 records, from 4 accepted answers")
    changed = records(taught())
    changed[0]["teacher_message"]["tool_calls"][0]["function"]["arguments"] = {"city": "Nowhere"}
    found = look(name, clean().replaced(taught=replace(taught(), records=changed)))
    assert found.status == "fail"
    assert "record 1 says something else than the server did (1 in all)" in found.text


@pytest.mark.slow
def test_a_request_without_an_answer_and_answers_that_teach_nothing(tmp_path: Path) -> None:
    name = "teacher.fake_answers_become_records"
    files = taught().config.teacher.files
    assert files is not None
    copy = tmp_path / "journal.db"
    copy.write_bytes(files.journal.read_bytes())
    with Journal(copy) as journal:
        journal.mark_unknown(journals.begun(journal, journals.request()), "reset")
    made = replace(taught().config, teacher=replace(taught().config.teacher, journal=copy))
    found = look(name, clean().replaced(taught=replace(taught(), config=made)))
    assert (found.status, found.text.endswith("; without an answer: 1")) == ("fail", True)

    parameters = {
        "type": "object",
        "properties": {"code": {"type": "string", "pattern": "^[0-9]{4}$"}},
        "required": ["code"],
    }
    tool = {"type": "function", "function": {"name": "open", "parameters": parameters}}
    record = {"messages": [{"role": "user", "content": "Now?"}], "tools": [tool]}
    sample = Sample(records=(record,), lines=(), held_out=(), of=1, asked=True)
    nothing = teach_sample(clean().get("config"), sample, tmp_path)
    found = look(name, clean().replaced(taught=nothing))
    assert found.status == "warn"
    assert "; left out: schema_broken 1: nothing of what the fake teacher says can be learned" in found.text


# One paid prompt


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as opened:
        yield opened


def probed(made: Config) -> Any:
    return look("teacher.probe", objects(made, request=PreflightRequest(probe=True)))


@pytest.mark.slow
def test_a_probe_is_paid_once_and_kept(tmp_path: Path, server: FakeServer) -> None:
    made = config(tmp_path, api={"base_url": server.url})
    found = probed(made)
    assert found.status == "pass"
    assert "has answered, and the answer can be learned; it cost 0.00" in found.text
    assert "it cost 0.00," not in found.text
    assert server.seen.total() == 1
    assert "nothing was sent" in probed(made).text
    assert server.seen.total() == 1
    assert teach(made, TeachRequest()) == 0
    assert server.seen == Counter(dict.fromkeys(server.seen, 1))


@pytest.mark.slow
def test_a_probe_whose_answer_cannot_be_learned(tmp_path: Path) -> None:
    with FakeServer(lambda _: "no_choices") as server:
        found = probed(config(tmp_path, api={"base_url": server.url}))
    assert found.status == "warn"
    assert "the answer cannot be learned (failed: no_choices); it cost " in found.text


@pytest.mark.slow
def test_a_probe_that_fails(tmp_path: Path) -> None:
    with FakeServer(lambda _: "unauthorised") as server:
        found = probed(config(tmp_path, api={"base_url": server.url}))
    assert (found.status, "the teacher's server: Incorrect API key" in found.text) == ("fail", True)
    assert KEY not in repr(found)


def test_a_probe_is_not_sent_before_terms_and_price_are_clear(tmp_path: Path) -> None:
    plan = objects(hosted(tmp_path)).get("plan")
    for broken in (no_terms, no_price, no_key):
        made = objects(broken(tmp_path), plan=plan, request=PreflightRequest(probe=True))
        assert look("teacher.probe", made).status == "fail"
    assert not (tmp_path / "journal.db").exists()


def test_every_check_of_the_group_is_looked_at_here() -> None:
    from kdfast.recipes.preflight.checks_teacher import CHECKS

    source = Path(__file__).read_text(encoding="utf-8")
    assert [check.name for check in CHECKS if check.name.partition(".")[2] not in source] == []
    assert set(CHEAP) <= set(MAKERS)
