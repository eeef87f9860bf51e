"""Weights as they ship: number formats, which tensor gets which, and the one table that every exporter reads."""

from kdfast.quantized.effective import effective_weight
from kdfast.quantized.formats import (
    FORMATS,
    Format,
    Quantized,
    check_finite,
    int8_channel,
    q4_0,
    q8_0,
    quantize,
    rounded_weight,
)
from kdfast.quantized.plan import PlannedTensor, QuantPlan, plan_model
from kdfast.quantized.table import (
    TABLE_FILE,
    QuantizedTable,
    check_saved,
    read_table,
    write_table,
)

__all__ = [
    "FORMATS",
    "TABLE_FILE",
    "Format",
    "PlannedTensor",
    "QuantPlan",
    "Quantized",
    "QuantizedTable",
    "check_finite",
    "check_saved",
    "effective_weight",
    "int8_channel",
    "plan_model",
    "q4_0",
    "q8_0",
    "quantize",
    "read_table",
    "rounded_weight",
    "write_table",
]
