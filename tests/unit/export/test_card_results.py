"""The numbers of a model card are those of the run's files; what is missing is said."""

import made_run
import pytest

from kdfast.errors import DataError
from kdfast.export.card_results import cell, evaluation_text, gates_text, parity_text, speed_text, table
from kdfast.export.parity.result import ParityCheck
from kdfast.runs.reading import read_run


@pytest.fixture
def run(tmp_path):
    def made(**files):
        return read_run(made_run.write_run(tmp_path / "first", **files))

    return made


def rows_of(text):
    """The rows of a Markdown table, the first cell -> the others."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {line[0]: line[1:] for line in lines if not line[0].startswith("---")}


def test_evaluation_shows_counts_and_intervals(run):
    after = made_run.evaluation(8, made_run.AFTER, intervals=True)
    text = evaluation_text(run(evaluation_after=after))
    rows = rows_of(text)
    assert rows["exact match (accepted values)"] == ["0.0 % (0 of 2)", "50.0 % (1 of 2) [30.0 %, 65.0 %]"]
    assert rows["F1 of calls"] == ["not measured", "62.5 % [50.0 %, 75.0 %]"]
    assert "right calls of those made" not in rows
    assert "95 % intervals" in text
    assert "Validation at step 8: loss 0.24" in text


def test_without_intervals_none_are_spoken_of(run):
    assert "intervals" not in evaluation_text(run())


def test_few_prompts_are_said(run):
    after = made_run.evaluation(8, made_run.AFTER, intervals=True) | {"prompts": 3, "due": 2}
    text = evaluation_text(run(evaluation_after=after))
    assert "On 3 held-out prompts, 2 of which need a call" in text
    assert "3 prompts are few" in text
    many = evaluation_text(run(evaluation_after=after | {"prompts": 300}))
    assert "are few" not in many


def test_quantised_students_are_compared(run):
    rows = rows_of(evaluation_text(run(quantization=made_run.quantization())))
    assert rows["float, at the start"] == ["4,194,304", "-", "0.211", "19 of 20"]
    assert rows["trained under quantisation"] == ["700,000", "0.0312", "0.215", "18 of 20"]
    assert "was kept" in evaluation_text(run(quantization=made_run.quantization()))
    assert "failed" in evaluation_text(run(quantization=made_run.quantization(failed=True)))


def test_gates_tell_what_could_not_be_judged(run):
    text = gates_text(run())
    assert "**A gate failed.** 2 of 5 could not be judged." in text
    rows = rows_of(text)
    assert rows["ttfa_p95"] == ["failed", "infinite", "25 tokens", "2 prompts got no valid call"]
    assert rows["ttft_p95"][0] == "report only"
    assert rows["f1"] == ["skipped", "0.625", "", "no_baseline"]
    assert gates_text(run(gates=made_run.gates() | {"passed": True})).startswith("No gate failed.")


def test_speed_names_the_machine_and_events_that_did_not_come(run):
    report = made_run.speed(never=24)
    text = speed_text(run(speed=report))
    assert "Some CPU / AVX512 / 2 cores" in text
    rows = rows_of(text)
    assert rows["tokens to the first valid call"] == ["never tokens", "never tokens (p95)", "24"]
    assert rows["speed"][0] == f"{report['metrics']['tps']['p50']:.3g} tokens/s"
    assert rows["speed"][1].endswith("(p5)")
    assert "before its export" in text
    assert "It is an export's." in speed_text(run(speed=report | {"export": True}))


def test_speed_of_another_student_is_not_shown(run):
    text = speed_text(run(speed=made_run.speed() | {"step": 4}))
    assert text.startswith("Not measured for this student")
    assert "|" not in text


@pytest.mark.parametrize(
    ("told", "file"), [(evaluation_text, "evaluation_after"), (gates_text, "gates"), (speed_text, "speed")]
)
def test_what_is_missing_is_not_measured(run, told, file):
    text = told(run(**{file: None}))
    assert text.startswith(("Not measured. No ", "Not evaluated. No "))
    assert f"{file}.json" in text
    assert "no run of kdfast" in told(None)


@pytest.mark.parametrize(
    ("told", "files", "said"),
    [
        (
            evaluation_text,
            {"evaluation_after": {"table": {"parsed": {"count": None, "total": 4}}}},
            "count is missing",
        ),
        (evaluation_text, {"evaluation_after": {"table": []}}, "table must be an object"),
        (evaluation_text, {"evaluation_after": {}}, "table is missing"),
        (gates_text, {"gates": {"passed": True, "results": None}}, "results is missing"),
        (gates_text, {"gates": {"passed": "yes", "results": []}}, "passed must be true or false"),
        (speed_text, {"speed": {"step": 8, "metrics": {"tps": {"unit": 3}}}}, "unit must be a text"),
    ],
)
def test_a_damaged_file_is_named(run, told, files, said):
    with pytest.raises(DataError, match=f"{next(iter(files))}.json: .*{said}"):
        told(run(**files))


def test_parity_lists_figures_reasons_and_problems():
    checks = {
        "weights": ParityCheck(
            name="weights", status="passed", figures={"tensors": 1234, "bytes": 2_500_000}
        ),
        "logits": ParityCheck(
            name="logits",
            status="failed",
            figures={"mean_kl": 0.012345, "positions": 64},
            problems=("mean KL is 0.0123, above 0.005: `<a|b>`",),
        ),
        "calls": ParityCheck(name="calls", status="not_measured", reason="--no-verify"),
    }
    text = parity_text(checks)
    rows = rows_of(text)
    assert rows["weights"] == ["passed", "1,234 tensors, 2.5 MB"]
    assert rows["logits"] == ["failed", "mean KL 0.01235 nats at 64 positions"]
    assert rows["calls"] == ["not measured", "--no-verify"]
    assert "- logits: mean KL is 0.0123, above 0.005: `&lt;a\\|b&gt;`" in text
    assert parity_text({}) == "Not measured."


def test_a_table_keeps_its_cells():
    assert cell(made_run.EVIL).count("<") == 0
    text = table(["a", "b"], [["x|y\nz", 1]])
    assert text.splitlines() == ["| a | b |", "| --- | --- |", "| x\\|y z | 1 |"]
