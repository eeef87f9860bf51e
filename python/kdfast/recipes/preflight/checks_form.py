"""Checks of the real student's form, which a stand-in does not have: do the formats that it ships in hold it?"""

from __future__ import annotations

from torch import nn

from kdfast.config import Config
from kdfast.errors import ConfigError
from kdfast.recipes.preflight.check import Check, Finding, failed, passed, skipped
from kdfast.recipes.train.first_checks import check_codes


def weights_fit_the_format(config: Config, form: nn.Module) -> Finding:
    """The blocks of each format divide the widths of the real student's tensors."""
    quant, export = config.quant, config.export
    formats: list[str] = [quant.format] if quant.enabled else []
    if "gguf" in export.targets and not quant.enabled:
        formats.append(f"gguf {export.gguf_type or 'q8_0'}")
    if not formats:
        return skipped("quant.enabled is false, and export.targets has no gguf")
    try:
        check_codes(config, form)
    except ConfigError as error:
        return failed(str(error), "set another format, or an arch whose widths it divides")
    shapes = [weight for weight in form.parameters() if weight.ndim > 1]
    return passed(f"{' and '.join(formats)} can hold the {len(shapes)} matrices of the student")


CHECKS = (
    Check(
        name="export.weights_fit_the_format",
        proves="The formats that the student ships in can hold its matrices.",
        look=weights_fit_the_format,
        owns=("form",),
    ),
)
