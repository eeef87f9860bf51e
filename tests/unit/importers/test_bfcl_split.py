"""The split into training and held-out records, without leakage."""

import pytest

from kdfast.errors import DataError
from kdfast.importers.bfcl_split import Shares, components, split


def labelled(question, tool, category="simple_python"):
    return {
        "messages": [{"role": "user", "content": question}],
        "tools": [{"name": tool}],
        "tool_should_be_used": True,
        "metadata": {"category": category},
    }


def test_components_join_through_questions_and_function_sets():
    records = [
        labelled("What is X?", "a"),
        labelled("unrelated", "b"),
        labelled("  what is x ", "c"),
        labelled("else", "c"),
        labelled("?!", "d"),
        labelled("!!", "e"),
    ]
    assert components(records) == [[0, 2, 3], [1], [4], [5]]


@pytest.mark.parametrize("seed", range(5))
def test_no_component_lies_on_both_sides(seed):
    records = [labelled(f"question {i}", f"tool {i // 3}") for i in range(60)]
    train, validation = split(records, Shares(validation_rows=10), seed)
    assert len(validation) == 10
    held_out = {record["tools"][0]["name"] for record in validation}
    assert not held_out & {record["tools"][0]["name"] for record in train}
    # 10 is no multiple of 3: one component gives one record, its other two are dropped and not leaked.
    assert len(train) == 60 - 12


def test_records_that_all_hang_together_cannot_be_split():
    one_tool = [labelled(f"question {i}", "same") for i in range(4)]
    with pytest.raises(DataError, match="fewer records"):
        split(one_tool, Shares(rows=2, validation_rows=2), 0)
