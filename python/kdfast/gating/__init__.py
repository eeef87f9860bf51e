"""`kdfast gate` and `kdfast bless`: the runs behind the gates."""

from kdfast.gating.bless import BlessRequest, bless
from kdfast.gating.contest import PAIR_TOKENS, Contest, Side
from kdfast.gating.gate import GateRequest, gate, gate_reports
from kdfast.gating.judging import Judging
from kdfast.gating.trial import Outcome, decide

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
