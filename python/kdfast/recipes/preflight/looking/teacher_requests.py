"""What the requests to a teacher will take, and what they give away: looked at before one is sent."""

from __future__ import annotations

from contextlib import nullcontext
from urllib.parse import urlsplit

from kdfast.config import Config
from kdfast.recipes.preflight.check import Finding, failed, passed, skipped, warned
from kdfast.recipes.teach.estimate import Estimate, estimate
from kdfast.recipes.teach.plan import Plan
from kdfast.recipes.teach.private import private_text
from kdfast.teacher.api.journal import Journal
from kdfast.teacher.api.price import money

_NO_PROMPTS = "there are no teacher.prompts: nothing will be asked"
_MOST_SHOWN = 10


def budget_covers_the_job(config: Config, plan: Plan | None) -> Finding:
    """Holds the budget against what is still to be sent, at its expected and its worst cost."""
    if plan is None:
        return no_requests(config)
    found = _estimate(config, plan)
    if found.cost is None:
        return skipped("the teacher costs nothing (price.free): there is nothing to limit")
    expected, worst = money(found.cost.expected), money(found.cost.worst)
    sums = f"{found.requests} requests cost {expected} as expected and {worst} at worst"
    if found.budget_micro is None:
        return warned(
            f"{sums}, and there is no teacher.budget",
            "set teacher.budget: nothing is sent that could exceed it",
        )
    left = found.budget_micro - found.spent_micro
    sums += f"; {money(max(0, left))} of teacher.budget ({money(found.budget_micro)}) is left"
    if found.covered == found.requests:
        return passed(sums)
    if found.cost.expected <= left:
        return warned(
            f"{sums}: surely enough for {found.covered} requests only",
            "raise teacher.budget, or go on with a higher one where it stops",
        )
    return failed(
        f"{sums}: too little even as expected", "raise teacher.budget, or ask fewer or shorter prompts"
    )


def _estimate(config: Config, plan: Plan) -> Estimate:
    files = config.teacher.files
    path = None if files is None or not files.journal.exists() else files.journal
    with Journal(path, read_only=True) if path is not None else nullcontext() as journal:
        done: set[str] = set()
        if journal is not None:
            done = {one for page in journal.pages("answer IS NOT NULL") for one in page}
        missing = [one for one in plan.asked if one.request.hash not in done]
        return estimate(missing, journal, config, plan.price, answered=len(plan.asked) - len(missing))


def private_data_is_decided(config: Config, plan: Plan | None) -> Finding:
    """What private text would leave this machine."""
    if plan is None:
        return no_requests(config)
    if not config.api.hosted and not config.teacher.redact:
        return skipped(f"prompts go to {host_of(config)}, your own server")
    prompts = prompts_in(plan)
    text = private_text(plan.private, plan.private_prompts, prompts, redact=config.teacher.redact)
    if not text:
        return passed(f"no e-mail address, phone or card number or key was seen in {prompts} prompts")
    if config.teacher.redact:
        return passed(text)
    seen, _, remedy = text.partition("; ")
    return warned(seen, f"{remedy}; without it you accept that it leaves")


def prompts_leave_room(config: Config, plan: Plan | None) -> Finding:
    """Whether an answer of full length fits beside each prompt."""
    if plan is None:
        return no_requests(config)
    most, shape, prompts = config.teacher.max_new_tokens, config.data.shapes[-1], prompts_in(plan)
    if plan.short_of_room:
        return warned(
            f"{plan.short_of_room} of {prompts} prompts leave less than teacher.max_new_tokens ({most}) in the largest"
            f" of data.shapes ({shape}): a long answer is paid and left out",
            "raise the largest of data.shapes, or lower teacher.max_new_tokens",
        )
    longest = max((one.input_tokens for one in plan.asked), default=0)
    return passed(
        f"the longest of {prompts} prompts has {longest} tokens, so that {most} more fit in a shape of {shape}"
    )


def prompts_are_asked(config: Config, plan: Plan | None) -> Finding:
    """Whether every line of the prompts becomes a request."""
    if plan is None:
        return no_requests(config)
    prompts, left_out = prompts_in(plan), plan.left_out
    asked = f"{prompts} prompts become {len(plan.asked)} requests"
    if left_out:
        return warned(
            f"{asked}; not asked: {len(left_out)} of the lines of {config.teacher.prompts}",
            "mend these lines, or remove them",
            *(f"line {line}: {reason}" for line, reason in sorted(left_out.items())[:_MOST_SHOWN]),
        )
    repeated = len(plan.asked) - len({one.request.hash for one in plan.asked})
    return passed(
        f"{asked}" + (f"; {repeated} of them ask the same again and are sent once" if repeated else "")
    )


def no_server(config: Config) -> Finding:
    """Why there is no server to look at."""
    return skipped(f"teacher.kind is {config.teacher.kind!r}: no server is asked")


def no_requests(config: Config) -> Finding:
    """Why there is no plan."""
    return no_server(config) if config.teacher.kind != "api" else skipped(_NO_PROMPTS)


def host_of(config: Config) -> str:
    """Host and port of the server."""
    return urlsplit(config.api.base_url or "").netloc or "nobody"


def prompts_in(plan: Plan) -> int:
    """How many prompts are asked."""
    return len({one.prompt.index for one in plan.asked})
