"""The recipes of `kdfast gate` and `kdfast bless`: they run models and judge them by `kdfast.gates`."""

from kdfast.recipes.gate.bless import bless
from kdfast.recipes.gate.contest import PAIR_TOKENS, Contest, Side
from kdfast.recipes.gate.judging import Judging
from kdfast.recipes.gate.run import gate, gate_reports
from kdfast.recipes.gate.trial import Outcome, decide
from kdfast.recipes.requests import BlessRequest, GateRequest

__all__ = [
    "PAIR_TOKENS",
    "BlessRequest",
    "Contest",
    "GateRequest",
    "Judging",
    "Outcome",
    "Side",
    "bless",
    "decide",
    "gate",
    "gate_reports",
]
