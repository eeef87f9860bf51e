"""The table of a measurement: whole at any width, in one piece where it fits and in several where not."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping

import pytest
from rich.console import Console

from kdfast.speed import Metric, SpeedMetrics, aggregate_speed_metrics, speed_table

NASTY = {
    **dict.fromkeys(("ttft_ms", "ttft_tokenise_ms", "ttft_prefill_ms", "ttft_first_token_ms"), 123456.7),
    **dict.fromkeys(("tpot_ms", "tps", "ttfa_ms"), 123456.7),
    "itl_ms": [0.123] * 1234,
    **dict.fromkeys(("ttfa_tokens", "ttfa_name_tokens", "ttfa_overhead_tokens"), math.inf),
    "prompt_tokens": 131072.0,
    "output_tokens": 4096.0,
    "thinking_tokens": 12.0,
}
SHAPES = (512, 1024, 2048, 4096, 131072)


def printed(speed: SpeedMetrics, shapes: Mapping[int, SpeedMetrics] | None = None, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(speed_table(speed, shapes))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    return text


def rows(text: str) -> list[list[str]]:
    """The cells of each line; an empty cell is no cell."""
    return [re.split(r"  +", line.strip()) for line in text.splitlines() if line.strip()]


def test_one_table_where_it_fits() -> None:
    whole = aggregate_speed_metrics(
        [{"ttft_ms": 24.0, "ttfa_tokens": 20.0}, {"ttft_ms": 27.5, "ttfa_tokens": math.inf}]
    )
    part = aggregate_speed_metrics([{"ttft_ms": 24.0}])
    found = rows(printed(whole, {64: part, 128: whole}, width=160))
    assert ["metric", "p50", "p90", "p95", "unit", "n", "no call", "p50 at 64", "p50 at 128"] in found
    assert ["time to first token", "24", "27.5", "27.5", "ms", "2", "24", "24"] in found
    assert ["first action: call", "20", "never", "never", "tokens", "2", "1", "-", "20"] in found


def test_one_shape_says_nothing_new() -> None:
    speed = aggregate_speed_metrics([{"ttft_ms": 24.0}])
    assert "64" not in printed(speed, {64: speed})
    assert printed(speed, {64: speed}) == printed(speed) == printed(speed, {})


def test_a_log_of_80_columns_has_every_value_in_full() -> None:
    speed = aggregate_speed_metrics([NASTY] * 4)
    text = printed(speed, dict.fromkeys(SHAPES, speed))
    found = rows(text)
    assert ["time to first token", "123456.7", "123456.7", "123456.7", "ms", "4"] in found
    assert ["tokens per second", "123456.7", "123456.7", "123456.7", "tokens/s", "4"] in found
    assert ["inter-token latency", "0.123", "0.123", "0.123", "ms", "4936"] in found
    assert ["beyond the shortest", "never", "never", "never", "tokens", "4", "4"] in found
    assert ["metric", *map(str, SHAPES)] in found
    assert ["time to first token", *["123456.7"] * 5] in found
    assert ["first action: call", *["never"] * 5] in found
    assert ["thinking blocks", *["12"] * 5] in found


def test_more_shapes_than_fit_beside_each_other_go_to_further_tables() -> None:
    speed = aggregate_speed_metrics([NASTY])
    shapes = [2**power for power in range(9, 21)]
    headings = [line[1:] for line in rows(printed(speed, dict.fromkeys(shapes, speed))) if "metric" in line]
    assert [int(one) for line in headings[1:] for one in line] == shapes
    assert len(headings) == 4


@pytest.mark.parametrize("width", [20, 40, 60, 79])
def test_a_narrow_console_loses_no_character(width: int) -> None:
    speed = aggregate_speed_metrics([{"ttft_ms": 123456.7, "tps": 98765.4}])
    text = printed(speed, dict.fromkeys(SHAPES, speed), width)
    assert sum(text.count(digit) for digit in "7") >= 2 * (3 + 5)


def test_what_was_cut_is_told() -> None:
    def shown(infinite: int, cut: int | None) -> str:
        metric = Metric("tokens", [31.0] + [math.inf] * infinite, cut)
        return printed(SpeedMetrics(metrics={"ttfa_tokens": metric}, absent={}))

    assert ["first action: call", "cut", "cut", "cut", "tokens", "4", "3"] in rows(shown(3, 3))
    assert "no call: the token limit cut 3 of 3 answers before one came" in " ".join(shown(3, 3).split())
    assert ["first action: call", "no call", "no call", "no call", "tokens", "4", "3"] in rows(shown(3, 1))
    assert ["first action: call", "never", "never", "never", "tokens", "4", "3"] in rows(shown(3, 0))
    assert ["first action: call", "never", "never", "never", "tokens", "4", "3"] in rows(shown(3, None))
    assert "limit" not in shown(3, 0)
