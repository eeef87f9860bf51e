"""`kdfast journal`: look at what a teacher was asked, check it, copy it."""

# ruff: noqa: D301 (click's mark for a paragraph to leave alone is a real backspace)

from __future__ import annotations

from pathlib import Path

import click

from kdfast.cli.arguments import PATH, overrides
from kdfast.config import load_config
from kdfast.recipes.first_look.files import check_named, file_problem

STATES = ("in_flight", "answered", "not_final", "unknown", "not_sent")

file_argument = click.argument("file", type=PATH)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for machines.")


@click.group()
def journal() -> None:
    """Look at what a teacher was asked and what it answered; check it, copy it.

    FILE is the journal of a teacher: teacher.journal of the config, else teacher.out with .db at its end. No command
    changes it, and each may run while `kdfast teach` writes to it.
    """


@journal.command()
@file_argument
@click.argument("hash_", metavar="[HASH]", required=False)
@click.option(
    "--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Most requests; 0 = all."
)
@click.option("--verdict", help="Only answers judged so: accepted, filtered or failed.")
@click.option("--reason", help="Only answers with this reason of their verdict, such as cut.")
@click.option("--state", type=click.Choice(STATES), help="Only requests with an attempt in this state.")
@as_json
def show(
    file: Path,
    hash_: str | None,
    limit: int,
    verdict: str | None,
    reason: str | None,
    state: str | None,
    as_json: bool,
) -> None:
    """List the requests in FILE, or show one of them whole.

    The list has a line for each request, by order: the beginning of its hash, the user's last words, how often it was
    tried, the status, the verdict, what all tries cost (<= where that is a worst case), and the seconds to the answer.

    With HASH, the beginning of a request's hash, it shows what was sent, and of each attempt how it ended, what it
    cost and what came back.

    An attempt is in_flight, answered, not_final (answered, but the request is sent again, as after status 429),
    unknown (no whole response came: it may have been charged) or not_sent.

    \b
    Examples:
      kdfast journal show teacher.jsonl.db
      kdfast journal show teacher.jsonl.db --verdict filtered --reason cut --limit 0
      kdfast journal show teacher.jsonl.db --state unknown
      kdfast journal show teacher.jsonl.db 3fa2b1
      kdfast journal show teacher.jsonl.db 3fa2b1 --json

    \b
    Exit codes: 0 shown; 1 the machine failed or a bug; 2 no such file, no journal, a damaged one,
    or no such request.
    """
    check_named([("FILE", file_problem(file))])
    filters = {"--verdict": verdict, "--reason": reason, "--state": state}
    given = next((name for name, value in filters.items() if value is not None), None)
    if hash_ is not None and given is not None:
        raise click.UsageError(f"{given}: means nothing beside HASH, which shows one request")
    from kdfast.recipes.journal import look as recipe
    from kdfast.teacher.api.overview import Filter

    if hash_ is None:
        wanted = Filter(verdict=verdict, reason=reason, state=state, limit=limit)
        recipe.show_list(file, wanted, as_json=as_json)
    else:
        recipe.show_one(file, hash_, as_json=as_json)


@journal.command()
@file_argument
@as_json
def stats(file: Path, as_json: bool) -> None:
    """Sum up FILE: requests, verdicts, money, tokens, seconds, and who answered.

    Money counts a response at its worst case as long as its cost is not known, and an unknown outcome for ever. A
    warning names models that answered under one name: a server that changes its model in mid-run gives the answers of
    two teachers.

    \b
    Examples:
      kdfast journal stats teacher.jsonl.db
      kdfast journal stats teacher.jsonl.db --json

    \b
    Exit codes: 0 summed up, warnings included; 1 the machine failed or a bug; 2 no such file, no
    journal, or a damaged one.
    """
    check_named([("FILE", file_problem(file))])
    from kdfast.recipes.journal import look as recipe

    recipe.stats(file, as_json=as_json)


@journal.command()
@file_argument
@click.option("--out", metavar="ANSWERS.jsonl", type=PATH, required=True, help="The file to write; replaced.")
def export(file: Path, out: Path) -> None:
    """Write all final answers in FILE as JSONL, for other tools.

    A line has the request's body, the response as it came, tokens, cost in millionths, and the verdict. For training,
    let `kdfast teach` write the records: it checks them.

    \b
    Example:
      kdfast journal export teacher.jsonl.db --out answers.jsonl

    \b
    Exit codes: 0 written; 1 the machine failed (disk full, no permission) or a bug; 2 no such file,
    no journal, a damaged one, or another file is in the way.
    """
    check_named([("FILE", file_problem(file))])
    from kdfast.recipes.journal import copying as recipe

    recipe.export(file, out)


@journal.command()
@file_argument
@click.option(
    "--dataset",
    metavar="OUT.jsonl",
    type=PATH,
    multiple=True,
    help="A teacher.out to compare with; may be given several times.",
)
@click.option(
    "--config",
    "config_file",
    metavar="CONFIG",
    type=PATH,
    help="A config whose teacher.out and teacher.store to compare with.",
)
@overrides
def verify(
    file: Path, dataset: tuple[Path, ...], config_file: Path | None, overrides: tuple[str, ...]
) -> None:
    """Read all of FILE and check it, and what a dataset and the teacher stores say of it.

    Every command checks the form of the file. This one also reads each request and response, and compares it with its
    checksum.

    With --dataset: each record that `kdfast teach` wrote names its request and the checksum of its response. The
    command names the records whose answer is missing in FILE, or is another one. It also counts the accepted answers
    that are in no dataset: they may be of another config.

    With --config, teacher.out is the dataset, and each store in teacher.store is checked: does every row match its
    checksum, and does it hold the log-probabilities of every row of teacher.out? Up to teacher.demonstrations rows may
    lack them, as these are left out on purpose. A store with another teacher.k or teacher.samples is not read by the
    config: what it lacks is no fault. The log-probabilities of a server's answers are in the records: the command
    counts the records that carry them. KEY=VALUE changes keys of CONFIG, as for `kdfast teach`.

    \b
    Examples:
      kdfast journal verify teacher.jsonl.db
      kdfast journal verify teacher.jsonl.db --dataset teacher.jsonl
      kdfast journal verify teacher.jsonl.db --config configs/mine.yaml
      kdfast journal verify teacher.jsonl.db --config configs/mine.yaml teacher.k=64

    \b
    Exit codes: 0 whole, and holds what the datasets were made from; 1 the machine failed or a bug;
    2 no such file, no journal, damaged, an answer of a dataset is missing or another one, or a store
    lacks rows of it or is damaged.
    """
    if overrides and config_file is None:
        raise click.UsageError(f"{overrides[0]}: means nothing without --config")
    check_named([("FILE", file_problem(file)), *(("--dataset", file_problem(one)) for one in dataset)])
    config = None if config_file is None else load_config(config_file, overrides)
    from kdfast.recipes.journal.verifying import verify as check

    check(file, dataset, config)


@journal.command()
@file_argument
@click.option("--out", metavar="COPY", type=PATH, required=True, help="The copy; an older one is replaced.")
def backup(file: Path, out: Path) -> None:
    """Copy FILE whole, also while a job writes to it.

    Jobs that write wait meanwhile. The copy is checked before it replaces an older one. Do not copy a journal in use by
    other means: the copy may miss a part of a change.

    \b
    Example:
      kdfast journal backup teacher.jsonl.db --out copies/teacher.jsonl.db

    \b
    Exit codes: 0 copied; 1 the machine failed (disk full, no permission) or a bug; 2 no such file,
    no journal, a damaged one, or another file is in the way.
    """
    check_named([("FILE", file_problem(file))])
    from kdfast.recipes.journal import copying as recipe

    recipe.backup(file, out)
