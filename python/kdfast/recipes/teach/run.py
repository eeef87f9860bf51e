"""`kdfast teach`: the teacher of a config answers prompts, or scores answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kdfast.config import Config
from kdfast.display import Display
from kdfast.errors import BudgetReached, DataError, TeacherError
from kdfast.exit_codes import DONE, INTERRUPTED
from kdfast.files import write_document
from kdfast.recipes.requests import TeachRequest
from kdfast.recipes.teach.asking import Asking, ask, leases_of, secrets_of
from kdfast.recipes.teach.dataset import Written, write_dataset
from kdfast.recipes.teach.estimate import estimate, print_estimate
from kdfast.recipes.teach.facts import facts_table
from kdfast.recipes.teach.pilot import pilot_report
from kdfast.recipes.teach.pilot_table import print_pilot
from kdfast.recipes.teach.plan import Plan, asks_api, plan
from kdfast.recipes.teach.private import private_text
from kdfast.stop import StopRequest
from kdfast.teacher.answers import AnswerReader
from kdfast.teacher.api.journal import Journal
from kdfast.teacher.asked import Asked
from kdfast.teacher.order import truth_sample

_NO_REQUEST = TeachRequest()


def run(config: Config, request: TeachRequest = _NO_REQUEST) -> int:
    """Lets the teacher of a config answer its prompts; without prompts, lets it score the answers of the records.

    Args:
        config: the config.
        request: what to do beside what the config says.

    Returns:
        0 when all is done, 3 when a pilot does not say go, 130 when it was stopped.

    Raises:
        ConfigError, DataError: bad config or data, found before anything is asked where that can be.
        TeacherError: nobody can answer, the budget is reached, or requests have no answer yet. What came is written.
        OSError: a file cannot be read or written.
    """
    files = config.teacher.files
    if files is None:
        return _score(config)
    display = Display()
    made = plan(config, files)
    _say_plan(display, made)
    asked = _chosen(made, request)
    if request.dry_run:
        return _dry_run(made, asked, files.journal, display, request)
    journal = Journal(files.journal, leases=leases_of(config), secrets=secrets_of(config).values)
    with journal, StopRequest() as stop:
        answers = made.answer_reader()
        done = ask(asked, made, journal, answers, display=display, stop=stop)
        if request.pilot and done.ended == "done":
            return _pilot(made, asked, journal, answers, display, request)
        written = write_dataset(made.asked, journal, answers.read, made.reader, files.out)
        _say_written(display, done, written)
        if request.json_out is not None:
            write_document(request.json_out, _to_json(done, written, journal))
        _check_ended(done, written, journal, asked, config, request)
        if done.ended == "stopped":
            display.console.print(f"stopped; go on with: {request.command}", markup=False, soft_wrap=True)
            return INTERRUPTED
        return _score_after(config, written, display, stop)


def _score(config: Config) -> int:
    from kdfast.recipes.teach.scores import score

    return score(config)


def _score_after(config: Config, written: Written, display: Display, stop: StopRequest) -> int:
    """A local teacher that has answered scores the records, its own among them."""
    if config.teacher.kind != "local" or config.teacher.store is None:
        return DONE
    if config.teacher.out not in config.data.train_files:
        display.console.print(
            "[yellow]not scored[/yellow]: teacher.out is not among data.train",
            highlight=False,
            soft_wrap=True,
        )
        return DONE
    if not written.records:
        return DONE
    from kdfast.recipes.teach.scores import score

    return score(config, display, stop)


def _chosen(made: Plan, request: TeachRequest) -> list[Asked]:
    """The requests to ask: all, the first ones of a limit, or those of a pilot."""
    if request.pilot:
        prompts = sorted({one.prompt.index: one.prompt for one in made.asked}.items())
        places = truth_sample([prompt for _, prompt in prompts], request.pilot, made.config.teacher.seed)
        if not places:
            raise DataError(
                "no prompt has a right answer (truth_message, truth_text or metadata.accepted), so a pilot cannot be "
                "scored; add some",
                str(made.config.teacher.prompts),
            )
        chosen = {prompts[place][0] for place in places}
        return [one for one in made.asked if one.prompt.index in chosen and one.request.sample == 0]
    if request.limit:
        return made.asked[: request.limit * made.config.teacher.answers_per_prompt]
    return made.asked


def _dry_run(made: Plan, asked: Sequence[Asked], path: Path, display: Display, request: TeachRequest) -> int:
    with Journal(path, read_only=True) if path.exists() else nullcontext() as journal:
        missing = [one for one in asked if journal is None or journal.answered(one.request.hash) is None]
        found = estimate(missing, journal, made.config, made.price, answered=len(asked) - len(missing))
    print_estimate(display.console, found)
    if request.json_out is not None:
        write_document(request.json_out, found.to_json())
    return DONE


def _pilot(
    made: Plan,
    asked: Sequence[Asked],
    journal: Journal,
    answers: AnswerReader,
    display: Display,
    request: TeachRequest,
) -> int:
    pairs = [(one, journal.answered(one.request.hash)) for one in asked]
    hashes = {one.request.hash for one in asked}
    rest = [
        one
        for one in made.asked
        if one.request.hash not in hashes and journal.answered(one.request.hash) is None
    ]
    found = pilot_report(
        [(one, answer, None if answer is None else answers.read(one, answer)) for one, answer in pairs],
        made.config,
        journal=journal,
        price=made.price,
        rest=rest,
        formats=made.reader.formats,
    )
    print_pilot(display.console, found)
    if request.json_out is not None:
        write_document(request.json_out, found.to_json())
    return found.exit_code


def _say_plan(display: Display, made: Plan) -> None:
    """What a user should know before anything is asked."""
    config = made.config
    notes = [f"line {line} is not asked: {reason}" for line, reason in list(made.left_out.items())[:3]]
    if len(made.left_out) > len(notes):
        notes.append(f"{len(made.left_out)} prompts are not asked in all")
    if made.short_of_room:
        notes.append(
            f"{made.short_of_room} prompts leave less than teacher.max_new_tokens ({config.teacher.max_new_tokens}) for"
            f" the answer in the largest of data.shapes ({config.data.shapes[-1]}): a long answer would be left out"
        )
    if asks_api(config) and config.teacher.kind == "api":
        prompts = len({one.prompt.index for one in made.asked})
        said = private_text(made.private, made.private_prompts, prompts, redact=config.teacher.redact)
        notes += [said] if said and config.api.hosted else []
    for note in notes:
        display.console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _say_written(display: Display, done: Asking, written: Written) -> None:
    display.console.print(facts_table([*done.facts, *_written_facts(written)]))


def _written_facts(written: Written) -> Iterator[tuple[str, str]]:
    where = f"written to {written.path}" if written.records else f"nothing was written to {written.path}"
    yield "records", f"{written.records} {where}"
    name = "left out"
    for verdict, count in sorted(written.left_out.items(), key=lambda entry: -entry[1]):
        yield name, f"{verdict.reason} {count}, such as {written.examples[verdict]}"
        name = ""
    if written.with_logprobs:
        yield "log-probabilities", f"with {written.with_logprobs} records"
    for reason, count in written.logprobs_unused.items():
        yield "", f"not used with {count} records: {reason}"
    if written.unanswered:
        yield "not answered yet", f"{written.unanswered} requests"


def _check_ended(
    done: Asking,
    written: Written,
    journal: Journal,
    asked: Sequence[Asked],
    config: Config,
    request: TeachRequest,
) -> None:
    """Raises the error of a job that ended early, or that left requests without an answer."""
    if done.error is not None:
        remedy = "raise teacher.budget, then " if isinstance(done.error, BudgetReached) else ""
        done.error.add_note(f"{remedy}go on with: {request.command}")
        raise done.error
    if done.ended == "stopped" or not written.unanswered:
        return
    open_ones = [one for one in asked if journal.answered(one.request.hash) is None]
    if not open_ones:
        return  # the limit left them out
    most = config.teacher.max_unknown_retries
    lost = sum(journal.unknown_outcomes(one.request.hash) > most for one in open_ones)
    again = f"{len(open_ones) - lost} of them are asked again by: {request.command}"
    unknown = (
        f"; {lost} were lost too often: raise teacher.max_unknown_retries, each may be charged"
        if lost
        else ""
    )
    if config.teacher.kind == "replay":
        again = "ask for them with teacher.kind 'api' or 'local'"
    raise TeacherError(f"{len(open_ones)} requests have no answer; {again}{unknown}", retryable=True)


def _to_json(done: Asking, written: Written, journal: Journal) -> dict[str, Any]:
    left_out = [
        {"kind": verdict.kind, "reason": verdict.reason, "count": count}
        for verdict, count in sorted(
            written.left_out.items(), key=lambda entry: (entry[0].kind, entry[0].reason)
        )
    ]
    return {
        "ended": done.ended,
        "out": str(written.path),
        "records": written.records,
        "unanswered": written.unanswered,
        "left_out": left_out,
        "with_logprobs": written.with_logprobs,
        "logprobs_unused": dict(written.logprobs_unused),
        "money": asdict(journal.money()),
    }
