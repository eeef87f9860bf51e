"""Why a server refuses a request for good: because of this record, or because of the whole job."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kdfast.teacher.api.error_words import ServerError


@dataclass(frozen=True)
class Refusal:
    """A refusal that no retry changes.

    Attributes:
        reason: a fixed word.
        stops: whether every other request of the job will be refused as well.
    """

    reason: str
    stops: bool


RECORD_REASONS = frozenset({"content_filter", "context_length", "refused_schema"})
"""Reasons of a refusal that belongs to its record, whatever its status says: asked again, it comes again."""

_QUOTA_CODES = {
    "insufficient_quota",
    "insufficient_balance",
    "billing_hard_limit_reached",
    "billing_not_active",
    "billing_error",
    "exceeded_current_quota_error",
}
_KEY_CODES = {"invalid_api_key", "authentication_error", "permission_error"}
_MODEL_CODES = {
    "model_not_found",
    "invalid_model",
    "unknown_model",
    "deploymentnotfound",
    "model_not_available",
}
_FILTER_CODES = {
    "content_filter",
    "content_policy_violation",
    "responsibleaipolicyviolation",
    "moderation_blocked",
}
_LENGTH_CODES = {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
_SCHEMA_CODES = {"invalid_function_parameters", "invalid_json_schema", "invalid_schema"}

# Whole phrases at their place: a refusal may cite the prompt, and that may speak of bills.
_QUOTA = re.compile(
    r"^your credit balance is too low|^insufficient (balance|credits|funds)\b|^billing hard limit has been reached"
    r"|^your account is not active, please check your billing"
    r"|^you exceeded your current quota, please check your plan and billing",
    re.IGNORECASE,
)
_KEY = re.compile(r"\bAPI key (is )?(not |in)valid|\binvalid API key", re.IGNORECASE)
# Status 404 is nearly always the address or the model; 400 may be anything, so that it needs plainer words.
_MODEL_404 = re.compile(r"\bmodel\b.{0,200}?(not exist|have access|doesn't exist|not found)", re.IGNORECASE)
_MODEL_400 = re.compile(
    r"^(model not exist|unknown model|invalid model\b(?! output))|is not a valid model"
    r"|\bmodel [`'\"]?[\w./:-]+[`'\"]? (does not exist|(is |was )?not found)",
    re.IGNORECASE,
)
_FILTER = re.compile(
    r"content (management )?(policy|filter)|content filtering|\bflagged\b|safety system|inappropriate content",
    re.IGNORECASE,
)
_LENGTH = re.compile(
    r"maximum context length|context (length|size|window)|prompt is too long|exceeds? the maximum number of tokens"
    r"|reduce the length of the (messages|prompt)|input is too long",
    re.IGNORECASE,
)
_SCHEMA = re.compile(
    r"invalid schema|schema .{0,80}(invalid|not (supported|permitted|allowed))|unsupported schema"
    r"|(parse|convert|compile) .{0,40}(schema|grammar)|\bgrammar\b",
    re.IGNORECASE,
)
_SCHEMA_PARAM = re.compile(r"(tools|functions|response_format)\b")

_OTHER_REFUSALS = {
    400: Refusal("refused_request", stops=False),
    404: Refusal("not_found", stops=False),
    413: Refusal("context_length", stops=False),
    422: Refusal("refused_request", stops=False),
}


def refusal_of(status: int, error: ServerError) -> Refusal | None:
    """Why a server refuses a request for good; None if it does not, or if only the status says so.

    Codes decide before words, because words change.

    Args:
        status: the HTTP status; 200 for an error that came as an answer.
        error: what the server said.

    Examples:
        >>> refusal_of(429, ServerError("Quota used up", frozenset({"insufficient_quota"})))
        Refusal(reason='insufficient_quota', stops=True)
        >>> refusal_of(429, ServerError("Slow down", frozenset({"rate_limit_exceeded"}))) is None
        True
    """
    if status not in (200, 400, 404, 413, 422):
        return _of_key_or_money(status, error) or (_record_refusal(error) if status == 500 else None)
    job = _of_key_or_money(status, error) or _of_model(status, error)
    record = None if status == 404 else _record_refusal(error)
    return job or record or _OTHER_REFUSALS.get(status)


def _of_key_or_money(status: int, error: ServerError) -> Refusal | None:
    if status == 402 or error.codes & _QUOTA_CODES or (status == 400 and _QUOTA.search(error.words)):
        return Refusal("insufficient_quota", stops=True)
    if status == 403 and _is_filtered(error):
        # Routers answer 403 if a moderation flags one prompt. This costs one record, not the job.
        return Refusal("content_filter", stops=False)
    known = error.codes & _KEY_CODES or _KEY.search(error.words)
    if status in (401, 403) or (status in (200, 400) and known):
        return Refusal("not_authorised", stops=True)
    return None


def _of_model(status: int, error: ServerError) -> Refusal | None:
    words = _MODEL_404 if status == 404 else _MODEL_400
    named = error.codes & _MODEL_CODES or words.search(error.words)
    return Refusal("unknown_model", stops=True) if named else None


def _record_refusal(error: ServerError) -> Refusal | None:
    """A refusal of this record; some servers send one with status 500."""
    if _is_filtered(error):
        return Refusal("content_filter", stops=False)
    if error.codes & _LENGTH_CODES or _LENGTH.search(error.words):
        return Refusal("context_length", stops=False)
    named = _SCHEMA_PARAM.match(error.param) is not None
    if error.codes & _SCHEMA_CODES or named or _SCHEMA.search(error.words):
        return Refusal("refused_schema", stops=False)
    return None


def _is_filtered(error: ServerError) -> bool:
    return bool(error.codes & _FILTER_CODES) or _FILTER.search(error.words) is not None
