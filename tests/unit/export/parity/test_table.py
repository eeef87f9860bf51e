"""The parity table of the terminal."""

import io

from rich.console import Console

from kdfast.export.parity.result import ParityCheck
from kdfast.export.parity.table import parity_table


def shown(*checks):
    console = Console(file=io.StringIO(), width=200)
    console.print(parity_table({check.name: check for check in checks}))
    return console.file.getvalue()


def test_every_check_has_its_figures():
    logits = {"positions": 88, "mean_kl": 0.00082, "decoded_positions": 59, "decoded_mean_kl": 0.0007}
    logits |= {"top1_positions": 143, "top1_equal": 1.0, "centred_cosine_mean": 0.99953}
    prompt = {"compared": 32, "equal": 30, "differences": {"number": 2}, "left_out_special": 1}
    calls = {"answers": 12, "cut": 1, "equal": 11, "forced_answers": 12, "forced_equal": 12, "ended": 11}
    text = shown(
        ParityCheck(name="weights", status="passed", figures={"tensors": 12, "bytes": 2500}),
        ParityCheck(name="logits", status="failed", figures=logits),
        ParityCheck(name="prompt", status="waived", figures=prompt),
        ParityCheck(name="calls", status="passed", figures=calls | {"stopped_right": 11, "constrained": 1}),
    )
    assert "12 tensors, 2.5 kB" in text
    assert "mean KL 0.00082 nats at 88 positions; 0.00070 at 59 decoded; top-1 equal 100.0% of 143" in text
    assert "30 of 32 prompts equal; number: 2; 1 left out (special tokens in their content)" in text
    assert (
        "11 of 11 answers and 12 of 12 right answers parsed as by kdfast; 11 of 11 ends right; 1 cut off"
        in text
    )
    assert "1 changed by the server's grammar" in text


def test_what_was_not_measured_says_why():
    text = shown(ParityCheck(name="calls", status="not_measured", reason="no record [of 3] has messages"))
    assert "not measured" in text
    assert "no record [of 3] has messages" in text


def test_what_nothing_ended_measures_is_not_called_right():
    calls = {"answers": 12, "cut": 12, "equal": 0, "forced_answers": 12, "forced_equal": 12, "ended": 0}
    calls |= {"stopped_right": 0, "constrained": 0, "refused": 2, "forced_refused": 1}
    text = shown(ParityCheck(name="calls", status="passed", figures=calls, reason="all 12 were cut"))
    assert "0 of 0" not in text
    assert "12 of 12 right answers parsed as by kdfast; ends of answers not measured; 12 cut off" in text
    assert "2 left out (refused by the server)" in text
    assert "1 right answers refused by the server" in text
    assert "all 12 were cut" in text
    calls |= {"forced_answers": 0, "forced_equal": 0}
    text = shown(ParityCheck(name="calls", status="not_measured", figures=calls))
    assert "0 of 0" not in text
    assert "parsed" not in text
