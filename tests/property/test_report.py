"""Whatever stands in a run's files, a report is a page or one clear error: never a crash, never a broken page."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from html_page import Page
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_run import AFTER, evaluation, gates, metrics, qat_lines, quantization, speed, write_run
from mutations import JSON, places

from kdfast.errors import DataError
from kdfast.page import render_page
from kdfast.runs.reading import read_run

WHOLE: dict[str, Any] = {
    "metrics": [*metrics(4), *qat_lines()],
    "evaluation_after": evaluation(8, AFTER, intervals=True)
    | {
        "categories": {"a": evaluation(8, AFTER) | {"prompts": 3}, "b": evaluation(8, AFTER) | {"prompts": 3}}
    },
    "speed": speed(6, 1, cut=2),
    "gates": gates(),
    "quantization": quantization(),
}
PLACES = {name: places(document) for name, document in WHOLE.items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("mutated") / "run", **WHOLE)


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_value_gives_a_page_or_an_error_that_names_the_file(run: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(WHOLE)))
    path = data.draw(st.sampled_from(PLACES[name]))
    made = copy.deepcopy(WHOLE[name])
    place = made
    for key in path[:-1]:
        place = place[key]
    if isinstance(place, dict) and data.draw(st.booleans()):
        del place[path[-1]]
    else:
        place[path[-1]] = data.draw(JSON)
    file = run / f"{name}.{'jsonl' if name == 'metrics' else 'json'}"
    before = file.read_bytes()
    lines = [json.dumps(line) for line in made] if name == "metrics" else [json.dumps(made)]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    told, document = "", None
    try:
        document, _ = render_page(read_run(run))
    except DataError as error:
        told = str(error)
    finally:
        file.write_bytes(before)
    assert file.name in told if document is None else not Page(document).all("script")
