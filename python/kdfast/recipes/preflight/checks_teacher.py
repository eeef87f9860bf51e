"""Checks of group `teacher`: who answers, what it costs, what leaves this machine, and that no answer can get lost."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from kdfast.config import Config
from kdfast.data import KDDataset
from kdfast.errors import ConfigError, KdfastError, TeacherError
from kdfast.recipes.first_look.of_config import check_teacher
from kdfast.recipes.first_look.of_teacher import look_before_teaching
from kdfast.recipes.preflight.check import Check, Finding, failed, passed, skipped, warned
from kdfast.recipes.preflight.facts import PreflightRequest, Sample, TaughtSample
from kdfast.recipes.preflight.looking.server_models import Listed, list_models
from kdfast.recipes.preflight.looking.taught_answers import answers_of, with_own_places
from kdfast.recipes.preflight.looking.teacher_requests import (
    budget_covers_the_job,
    host_of,
    no_requests,
    no_server,
    private_data_is_decided,
    prompts_are_asked,
    prompts_leave_room,
)
from kdfast.recipes.preflight.made.fault_trials import FaultTrial
from kdfast.recipes.preflight.made.taught_sample import teach_quietly
from kdfast.recipes.requests import TeachRequest
from kdfast.recipes.teach.asking import check_listening
from kdfast.teacher.api.journal import Journal
from kdfast.teacher.api.price import money, price_of
from kdfast.teacher.api.secrets_from_env import read_secrets

_MOST_ROWS = 2000
_MOST_SHOWN = 10
_NO_LIST = "is api.base_url right (most end in /v1)? --probe asks one prompt"
_OUR_FAULT = "this is a fault of kdfast: do not pay before it is mended, and report it with this text"


def somebody_answers(config: Config, train_rows: KDDataset) -> Finding:
    """Looks at who answers or scores, and at how much there is to score."""
    teacher = config.teacher
    if teacher.kind != "local":
        return skipped(f"teacher.kind is {teacher.kind!r}: no teacher of this machine answers")
    if teacher.model is None:
        if teacher.prompts is not None:
            return failed("there are teacher.prompts, and nobody to answer them", "set teacher.model")
        return skipped("no teacher.model is named: the records are learned as they are")
    try:
        check_teacher(teacher.model)
    except (KdfastError, OSError) as error:
        return skipped(f"config.files_are_there says what is wrong with it: {error}")
    if teacher.store is None:
        return passed(f"{teacher.model} is a model; it scores nothing (teacher.store is null)")
    rows = len(train_rows)
    step = 1 + rows // _MOST_ROWS
    looked_at = range(0, rows, step)
    counted = sum(_supervised(train_rows, index) for index in looked_at)
    tokens = round(counted * rows / max(1, len(looked_at)))
    size = tokens * (6 * (teacher.k + teacher.samples) + 4) / 2**20
    about = "" if step == 1 else "about "
    return passed(
        f"{teacher.model} is a model; {rows:,} training rows have {about}{tokens:,} tokens to score, {size:,.1f} MiB in"
        " teacher.store"
    )


def _supervised(rows: KDDataset, index: int) -> int:
    spans = rows.store.row(int(rows.rows[index]))["supervised"]
    return sum(int(end) - int(start) for start, end in spans)


def is_reachable(config: Config) -> Finding:
    """Connects to the server and asks for its list of models, which costs nothing."""
    api = config.api
    if config.teacher.kind != "api":
        return no_server(config)
    if api.base_url is None:
        return skipped("api.base_url is not set: there is no server to look for")
    try:
        secrets = read_secrets(api, os.environ)
    except ConfigError as error:
        return skipped(f"nothing can be sent: {error}")
    check_listening(api)
    try:
        listed = list_models(api, secrets)
    except TeacherError as error:
        return failed(
            f"{host_of(config)} gives no answer ({error})",
            "correct api.base_url, or the network or its proxy variables",
        )
    return of_status(config, listed)


def of_status(config: Config, listed: Listed) -> Finding:
    """What the answer to the question for the models says about the server."""
    host, words = host_of(config), f": {listed.words}" if listed.words else ""
    if listed.status in (401, 403):
        key = config.api.key_from_env or "api.headers_from_env"
        return failed(
            f"{host} refuses the key (HTTP status {listed.status}{words})",
            f"set {key} to a key of this server; api.key_from_env names the variable",
        )
    if listed.status in (404, 405):
        return warned(
            f"{host} answers, but has no list of models (HTTP status {listed.status}{words})", _NO_LIST
        )
    if 300 <= listed.status < 400:
        return failed(
            f"{host} redirects, and no redirect is followed (HTTP status {listed.status}{words})",
            "set api.base_url to the address that it redirects to",
        )
    if not 200 <= listed.status < 300:
        return warned(
            f"{host} answers, but with HTTP status {listed.status}{words}", "look again later, or use --probe"
        )
    return _of_models(config, listed)


def _of_models(config: Config, listed: Listed) -> Finding:
    host, model = host_of(config), config.api.model or ""
    if listed.models is None:
        return warned(
            f"{host} answers, but not with a list of models (HTTP status {listed.status})", _NO_LIST
        )
    if any(name == model or name.endswith(f"/{model}") for name in listed.models):
        return passed(f"{host} answers; {model!r} is among its {len(listed.models)} models")
    return warned(
        f"{host} answers; {model!r} is not among its {len(listed.models)} models",
        "set api.model to one of them, unless the server answers to any name",
        *listed.models[:_MOST_SHOWN],
    )


def key_is_set(config: Config) -> Finding:
    """Reads the key and the headers from the environment; shows none of them."""
    if config.teacher.kind != "api":
        return no_server(config)
    api = config.api
    secrets = read_secrets(api, os.environ)
    headers = f"; headers: {', '.join(secrets.headers)}" if secrets.headers else ""
    if secrets.key is not None:
        return passed(f"{api.key_from_env} holds a key of {len(secrets.key)} characters{headers}")
    if api.key_from_env is None:
        return passed(f"no key is sent: api.key_from_env is null{headers}")
    return passed(f"no key is sent: {api.key_from_env} is not set, and the server is your own{headers}")


def price_is_known(config: Config) -> Finding:
    """Reads the section `price`."""
    if config.teacher.kind != "api":
        return no_server(config)
    price = price_of(config.price)
    if not config.price.free:
        return passed(
            f"a million tokens cost {money(price.input)} in prompts ({money(price.cached)} cached) and"
            f" {money(price.output)} in answers"
        )
    if config.api.hosted:
        return warned(
            f"price.free is true, and {host_of(config)} is no server of your own: no budget would hold",
            "set price.input and price.output, unless it costs nothing",
        )
    return passed("the server is your own and costs nothing (price.free)")


def terms_are_acknowledged(config: Config) -> Finding:
    """Whether somebody has read the terms of a hosted server."""
    if config.teacher.kind != "api":
        return no_server(config)
    if not config.api.hosted:
        return skipped(f"{host_of(config)} is your own server: it has no terms")
    if config.teacher.terms is None:
        return failed(
            f"nobody has said that the terms of {host_of(config)} allow to train on its answers",
            "read them, and set teacher.terms to 'acknowledged'",
        )
    return passed(f"the terms of {host_of(config)} are acknowledged")


def every_fault_is_survived(config: Config, fault_trials: tuple[FaultTrial, ...]) -> Finding:
    """Looks at what each fault of the fake server led to."""
    if not fault_trials:
        return no_server(config)
    lost = [one for one in fault_trials if not one.kept]
    shown = tuple(f"{one.behaviour}: {one.text}" for one in lost or fault_trials)
    if lost:
        names = ", ".join(one.behaviour for one in lost)
        return failed(
            f"{len(lost)} of {len(fault_trials)} behaviours of a server lost or repeated something: {names}",
            _OUR_FAULT,
            *shown,
        )
    return passed(f"{len(fault_trials)} behaviours of a server: nothing was lost, nothing paid twice", *shown)


def fake_answers_become_records(taught: TaughtSample, sample: Sample, work: Path) -> Finding:
    """Looks at what became of the fake teacher's answers; places are those of the user's own files."""
    found = _of_taught(taught)
    shown = tuple(with_own_places(line, work, sample) for line in found.shown)
    return replace(found, text=with_own_places(found.text, work, sample), shown=shown)


def _of_taught(taught: TaughtSample) -> Finding:
    found = answers_of(taught)
    faults = sum(count for name, count in taught.served.items() if name != "ok")
    why = ", ".join(f"{reason} {count}" for reason, count in found.left_out.most_common())
    text = f"{found.requests} requests for {found.prompts} prompts met {faults} faults; {len(taught.records)} records"
    shown = taught.output.rstrip().splitlines()
    if found.unanswered or not found.requests:
        return failed(f"{text}; without an answer: {found.unanswered}", _OUR_FAULT, *shown)
    if found.wrong:
        return failed(
            f"{text}; {found.wrong[0]} ({len(found.wrong)} in all)", _OUR_FAULT, *found.wrong, *shown
        )
    if found.accepted != len(taught.records):
        return failed(f"{text}, from {found.accepted} accepted answers", _OUR_FAULT, *shown)
    text += f"; left out: {why}" if why else "; each says what the server said"
    if not taught.records:
        return warned(
            f"{text}: nothing of what the fake teacher says can be learned",
            "see whether the reasons lie in your prompts, tools or section data; --probe asks your own teacher",
            *shown,
        )
    return passed(text)


def probe(config: Config, request: PreflightRequest) -> Finding:
    """Asks the user's own teacher one prompt; the answer goes to the user's own journal."""
    if not request.probe:
        return skipped("not asked: --probe")
    files = config.teacher.files
    if config.teacher.kind != "api" or files is None:
        return no_requests(config)
    look_before_teaching(config)
    spent, verdicts = _so_far(files.journal)
    _, output, error = teach_quietly(config, TeachRequest(limit=1))
    spent_then, verdicts_then = _so_far(files.journal)
    new, shown = verdicts_then - verdicts, output.rstrip().splitlines()
    paid = f"it cost {money(spent_then - spent)}, and is in {files.journal}"
    if error is not None and not new:
        raise error
    if not new:
        return passed(
            f"the first prompt was answered before, and is in {files.journal}: nothing was sent", *shown
        )
    if all(kind == "accepted" for kind, _ in new):
        return passed(f"{host_of(config)} has answered, and the answer can be learned; {paid}", *shown)
    why = ", ".join(f"{kind}: {reason}" for kind, reason in new)
    return warned(
        f"{host_of(config)} has answered, and the answer cannot be learned ({why}); {paid}",
        "look at it with `kdfast journal`, and try `kdfast teach CONFIG --pilot 20` before the rest",
        *shown,
    )


def _so_far(path: Path) -> tuple[int, Counter[tuple[str, str]]]:
    """What the requests of a journal cost, in micro-units, and the verdicts on its answers."""
    if not path.exists():
        return 0, Counter()
    with Journal(path, read_only=True) as journal:
        return journal.money().spent_micro, Counter(journal.stats().verdicts)


CHECKS = (
    Check(
        name="teacher.somebody_answers",
        proves="A teacher of this machine is there, and it is known how much it has to score.",
        look=somebody_answers,
    ),
    Check(
        name="teacher.key_is_set",
        proves="The key and the headers that the server wants are in the environment.",
        look=key_is_set,
    ),
    Check(
        name="teacher.price_is_known",
        proves="What a request costs can be told, so that a budget holds.",
        look=price_is_known,
    ),
    Check(
        name="teacher.terms_are_acknowledged",
        proves="Somebody has read whether the hosted server lets you train on its answers.",
        look=terms_are_acknowledged,
    ),
    Check(
        name="teacher.prompts_are_asked",
        proves="Every line of the prompts becomes a request whose answer could be learned.",
        look=prompts_are_asked,
        owns=("plan",),
    ),
    Check(
        name="teacher.prompts_leave_room",
        proves="An answer of full length fits beside each prompt.",
        look=prompts_leave_room,
    ),
    Check(
        name="teacher.private_data_is_decided",
        proves="What is private in the prompts is replaced, or you know that it leaves this machine.",
        look=private_data_is_decided,
    ),
    Check(
        name="teacher.budget_covers_the_job",
        proves="The budget is enough for all requests as expected; a warning says where it is not at their worst.",
        look=budget_covers_the_job,
    ),
    Check(
        name="teacher.is_reachable",
        proves="The server answers, takes the key and has the model in its list.",
        look=is_reachable,
        slow=True,
    ),
    Check(
        name="teacher.every_fault_is_survived",
        proves="Whatever a server does wrong, no answer is lost and none is paid twice.",
        look=every_fault_is_survived,
        owns=("fault_trials",),
        slow=True,
    ),
    Check(
        name="teacher.fake_answers_become_records",
        proves="Your own prompts go through client, journal and reader, and come out as records.",
        look=fake_answers_become_records,
        owns=("taught",),
        slow=True,
    ),
    Check(
        name="teacher.probe",
        proves="Your own teacher answers one of your prompts.",
        look=probe,
        slow=True,
    ),
)
