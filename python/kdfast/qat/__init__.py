"""Quantisation-aware training: usable in any loop of your own.

plan: should_enable_qat -> apply_qat_to_model -> train on -> check_qat_stability now and then -> convert_qat
"""

from kdfast.qat.changes import CodeChanges, CodeWatch
from kdfast.qat.fake_quantize import (
    FakeQuantEmbedding,
    FakeQuantLinear,
    WeightQuantizer,
    float_weights,
    refresh,
    straight_through,
    weight_quantizers,
)
from kdfast.qat.prepare import (
    Converted,
    apply_qat_to_model,
    convert_qat,
    is_qat_applied,
    remove_qat,
    should_enable_qat,
)
from kdfast.qat.recovery import Action, Decision, Recovery
from kdfast.qat.scales import clamp_weights, freeze_scales, frozen_scales, load_frozen_scales
from kdfast.qat.stability import StabilityReport, check_qat_stability
from kdfast.quantized import effective_weight

__all__ = [
    "Action",
    "CodeChanges",
    "CodeWatch",
    "Converted",
    "Decision",
    "FakeQuantEmbedding",
    "FakeQuantLinear",
    "Recovery",
    "StabilityReport",
    "WeightQuantizer",
    "apply_qat_to_model",
    "check_qat_stability",
    "clamp_weights",
    "convert_qat",
    "effective_weight",
    "float_weights",
    "freeze_scales",
    "frozen_scales",
    "is_qat_applied",
    "load_frozen_scales",
    "refresh",
    "remove_qat",
    "should_enable_qat",
    "straight_through",
    "weight_quantizers",
]
