"""All checks, in the order in which they are looked at. A new check is one function and one entry in its list."""

from __future__ import annotations

from kdfast.recipes.preflight import (
    checks_answers,
    checks_batch,
    checks_calls,
    checks_checkpoint,
    checks_config,
    checks_data,
    checks_export,
    checks_form,
    checks_learning,
    checks_losses,
    checks_machine,
    checks_model,
    checks_qat,
    checks_run,
    checks_speed,
    checks_teacher,
    checks_tokens,
    checks_warnings,
)
from kdfast.recipes.preflight.check import Check

CHECKS: tuple[Check, ...] = (
    *checks_config.CHECKS,
    *checks_machine.CHECKS,
    *checks_data.CHECKS,
    *checks_calls.CHECKS,
    *checks_tokens.CHECKS,
    *checks_batch.CHECKS,
    *checks_model.CHECKS,
    *checks_losses.CHECKS,
    *checks_learning.CHECKS,
    *checks_teacher.CHECKS,
    *checks_answers.CHECKS,
    *checks_run.CHECKS,
    *checks_qat.CHECKS,
    *checks_checkpoint.CHECKS,
    *checks_speed.CHECKS,
    *checks_export.CHECKS,
    *checks_form.CHECKS,
    *checks_warnings.CHECKS,
)
"""A group's checks follow each other."""
