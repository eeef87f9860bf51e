"""kdfast's scoring says of calls what BFCL's own checker says; `bench/bfcl_agreement.py` compares many more."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
WHEELS = sorted((ROOT / ".cache" / "wheels").glob("bfcl_eval-*.whl"))


@pytest.mark.slow
@pytest.mark.skipif(
    not WHEELS,
    reason="the bfcl-eval wheel is not in .cache/wheels (make quickstart-llm or make bench-agreement fetches it)",
)
def test_right_and_mutated_calls(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.bfcl_agreement import compare

    agreement = compare(WHEELS[-1], per_record=20, every=10, seed=1)
    assert agreement.differences == []
    assert agreement.compared.total() > 2000
    assert min(agreement.right, agreement.wrong) > 500
    assert agreement.on_purpose.total() < agreement.compared.total() / 50
