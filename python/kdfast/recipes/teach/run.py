"""`kdfast teach`: the teacher of a config answers prompts, or scores answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from kdfast.config import Config
from kdfast.display import Display
from kdfast.errors import DataError
from kdfast.exit_codes import DONE, INTERRUPTED
from kdfast.files import write_document
from kdfast.recipes.requests import TeachRequest
from kdfast.recipes.teach.asking import ask, leases_of, secrets_of
from kdfast.recipes.teach.dataset import write_dataset
from kdfast.recipes.teach.ended import check_ended, check_written
from kdfast.recipes.teach.estimate import estimate, print_estimate
from kdfast.recipes.teach.pilot import pilot_report
from kdfast.recipes.teach.pilot_table import print_pilot
from kdfast.recipes.teach.plan import Plan, plan
from kdfast.recipes.teach.summary import result_json, say_plan, say_written
from kdfast.stop import StopRequest
from kdfast.teacher.answers import AnswerReader
from kdfast.teacher.api.journal import Journal
from kdfast.teacher.asked import Asked
from kdfast.teacher.order import truth_sample

_NO_REQUEST = TeachRequest()
_REFUSED = 400
"""Statuses from here on are refusals."""


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
    say_plan(display, made)
    asked = _chosen(made, request)
    if request.dry_run:
        return _dry_run(made, asked, files.journal, display, request)
    journal = Journal(files.journal, leases=leases_of(config), secrets=secrets_of(config).values)
    with journal, StopRequest() as stop:
        answers = made.answer_reader(logprobs=False)
        if config.teacher.ask_refused_again and config.teacher.kind == "api":
            _withdraw_refused(asked, journal)
        done = ask(asked, made, journal, answers, display=display, stop=stop)
        if request.pilot and done.ended == "done":
            code = _pilot(made, asked, journal, answers, display, request)
            check_ended(done, asked, journal, config, request)
            return code
        whole = made.answer_reader(logprobs=True)
        written = write_dataset(made.asked, journal, whole.read, made.reader, files.out.resolve())
        say_written(display, done, written)
        if request.json_out is not None:
            write_document(request.json_out, result_json(done, written, journal))
        check_ended(done, asked, journal, config, request)
        if done.ended == "stopped":
            display.console.print(f"stopped; go on with: {request.again()}", markup=False, soft_wrap=True)
            return INTERRUPTED
        check_written(written)
        return _score_after(config, display, stop)


def _score(config: Config) -> int:
    from kdfast.recipes.teach.scores import score

    return score(config)


def _score_after(config: Config, display: Display, stop: StopRequest) -> int:
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
    from kdfast.recipes.teach.scores import score

    return score(config, display, stop)


def _withdraw_refused(asked: Sequence[Asked], journal: Journal) -> None:
    """Lets requests be asked again that the server refused: because of how it was set up, it may be."""
    for one in asked:
        answer = journal.answered(one.request.hash)
        if answer is not None and answer.status >= _REFUSED:
            journal.withdraw(answer, "teacher.ask_refused_again")


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
        answered = {one.request.hash for one in asked} - {one.request.hash for one in missing}
        found = estimate(missing, journal, made.config, made.price, answered=len(answered))
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
    rest = [one for one in made.asked if journal.answered(one.request.hash) is None]
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
