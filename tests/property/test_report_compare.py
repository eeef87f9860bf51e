"""Whatever stands in a run's files, a comparison is a page or one clear error: never a crash, never a broken page."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from html_page import Page
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_run import AFTER, evaluation, gates, metrics, speed, write_run
from mutations import JSON, places

from kdfast.errors import DataError
from kdfast.page.compare import Run, render_comparison
from kdfast.runs.reading import read_run
from kdfast.runs.saved import read_saved

STATE = {"state": {"inputs": {"data.validation": "a", "teacher.store": "b with 3 rows"}}}
WHOLE: dict[str, Any] = {
    "metrics.jsonl": metrics(4),
    "evaluation_after.json": evaluation(8, AFTER, intervals=True)
    | {
        "fingerprints": {"prompts": "a", "truth": "b"},
        "decoding": {"max_new_tokens": 3, "formats": ["hermes"]},
    },
    "speed.json": speed(6, 1),
    "gates.json": gates(),
    "checkpoints/step_4/state.json": STATE,
}
PLACES = {name: places(document) for name, document in WHOLE.items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("compared")
    made = [write_run(folder / name, metrics=metrics(4)) for name in "ab"]
    for run in made:
        (run / "checkpoints" / "step_4").mkdir(parents=True)
        for name, document in WHOLE.items():
            (run / name).write_text(text_of(name, document), encoding="utf-8")
    return made


def text_of(name: str, document: Any) -> str:
    lines = document if name.endswith("jsonl") else [document]
    return "".join(f"{json.dumps(line)}\n" for line in lines)


@pytest.mark.slow
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_value_gives_a_page_or_an_error_that_names_the_file(
    runs: list[Path], data: st.DataObject
) -> None:
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
    file = runs[1] / name
    file.write_text(text_of(name, made), encoding="utf-8")
    told, document = "", None
    try:
        read = [Run(label=run.name, files=read_run(run), saved=read_saved(run)) for run in runs]
        document, _ = render_comparison(read)
    except DataError as error:
        told = str(error)
    finally:
        file.write_text(text_of(name, WHOLE[name]), encoding="utf-8")
    assert str(file) in told if document is None else not Page(document).all("script")
