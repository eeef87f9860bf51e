"""The benchmark of what QAT mends: it runs from end to end, and its arithmetic is that of the obvious twin."""

import itertools
import json
import random
import re
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).parents[3] / "bench"


@pytest.fixture(autouse=True)
def _bench_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))


@pytest.mark.slow
def test_a_quick_run_writes_results_and_table_and_goes_on_from_what_it_kept(tmp_path):
    from qat_recovery import main
    from recovery.arms import ARMS

    arguments = ["--quick", "--work", str(tmp_path / "work"), "--out", str(tmp_path)]
    main(arguments)
    first = json.loads((tmp_path / "qat_recovery.json").read_text())
    assert list(first["arms"]) == [arm.name for arm in ARMS]
    for arm in first["arms"].values():
        assert 0 < arm["changed"][0] <= 1
        assert all(-1 <= cosine <= 1 for cosine in arm["cosine"][0])
    contenders = first["contenders"]
    assert contenders["float at the start"]["kl_answer"] == 0
    assert contenders["float at the start + post-training"]["kl_answer"] > 0
    assert ("absent" in first["llama_cpp"]) != ("llama.cpp's Q4_0 of the float student" in contenders)
    table = (tmp_path / "qat_recovery.md").read_text()
    assert all(f"| {name} |" in table for name in contenders)

    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "work").iterdir()}
    main(arguments)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "work").iterdir()} == kept
    assert json.loads((tmp_path / "qat_recovery.json").read_text())["contenders"] == contenders


def test_the_places_of_name_and_arguments_are_those_of_their_text():
    from recovery.student import encode, train_tokenizer
    from recovery.world import make_records

    records = make_records(3, 80)
    tokenizer = train_tokenizer(records)
    for row in (encode(tokenizer, record) for record in records):
        texts = [
            tokenizer.decode([row.ids[row.start + at] for at in places], skip_special_tokens=False)
            for places in (row.name, row.arguments)
        ]
        if not row.record.name:
            assert texts == ["", ""]
            continue
        inside = re.fullmatch(
            r'<tool_call>\n\{"name": "(.*)", "arguments": \{(.*)\}\}\n</tool_call>', row.record.answer
        )
        assert row.record.name == inside[1]
        assert inside[1] in texts[0]
        assert inside[2] in texts[1]
        assert len(texts[0]) <= len(inside[1]) + 3
        assert len(texts[1]) <= len(inside[2]) + 6


def test_batches_read_each_row_once_an_epoch_in_an_order_of_the_seed():
    from recovery.student import Row, batches
    from recovery.world import Record

    rows = [Row([0] * (1 + number % 7), 0, [], [], Record(str(number), "", "")) for number in range(48)]

    def read(seed):
        return [row.record.prompt for batch in batches(rows, 4, 24, seed) for row in batch]

    names = {row.record.prompt for row in rows}
    assert len(read(0)) == 96
    assert set(read(0)) == names
    assert read(0) == read(0)
    assert read(0) != read(1)


def test_paired_difference_is_that_of_the_means_over_tokens():
    from recovery.judge import average, paired

    draw = torch.Generator().manual_seed(1)
    count = torch.randint(1, 9, (200,), generator=draw).double()
    base = torch.rand(200, generator=draw).double() * count
    sums = {"nll_name": base, "count_name": count}
    better = {"nll_name": base - 0.25 * count, "count_name": count}
    found = paired(better, sums, "nll", "name")
    assert found == pytest.approx({"difference": -0.25, "low": -0.25, "high": -0.25})
    noisy = {"nll_name": base + torch.randn(200, generator=draw).double(), "count_name": count}
    found = paired(noisy, sums, "nll", "name")
    assert found["low"] < found["difference"] < found["high"]
    both = average([sums, better])
    assert torch.allclose(both["nll_name"], base - 0.125 * count)


def test_mcnemar_is_the_share_of_coin_tosses_that_are_as_uneven():
    from recovery.judge import mcnemar

    rng = random.Random(5)
    for _ in range(20):
        pairs = [(rng.random() < 0.6, rng.random() < 0.4) for _ in range(12)]
        found = mcnemar(*zip(*pairs, strict=True))
        count = found["gained"] + found["lost"]
        uneven = abs(found["gained"] - found["lost"])
        tosses = list(itertools.product((-1, 1), repeat=count))
        expected = sum(abs(sum(one)) >= uneven for one in tosses) / len(tosses)
        assert found["p"] == pytest.approx(expected)


def test_rates_are_tried_beyond_an_end_while_the_best_is_there():
    from recovery.arms import LADDER, best, climb

    def tried(goal, rates):
        return climb(lambda rate: {"nll": abs(rate - goal)}, rates)

    assert sorted(tried(3e-4, [1e-4, 3e-4, 1e-3])) == [1e-4, 3e-4, 1e-3]
    above = tried(3e-3, [1e-4, 3e-4, 1e-3])
    assert best(above) == 3e-3
    assert sorted(above) == [1e-4, 3e-4, 1e-3, 3e-3, LADDER[-1]]
    assert sorted(tried(1e-2, [3e-3])) == [3e-3]


def test_rows_of_a_model_are_those_of_its_logits():
    from recovery.judge import mean, reference, row_sums
    from recovery.student import Size, encode, make_student, train_tokenizer
    from recovery.world import make_records

    records = make_records(4, 12)
    tokenizer = train_tokenizer(records)
    rows = [encode(tokenizer, record) for record in records]
    size = Size(hidden=32, layers=1, intermediate=32, heads=2)
    vocab = tokenizer.get_vocab_size()
    student, other = make_student(size, vocab, 1).eval(), make_student(size, vocab, 2).eval()
    sums = row_sums(other, reference(student, rows, size=5))
    for place, row in enumerate(rows):
        ids = torch.tensor([row.ids])
        with torch.no_grad():
            logp, logq = (
                model(ids).logits[0, row.start - 1 : -1].log_softmax(1) for model in (student, other)
            )
        kl = (logp.exp() * (logp - logq)).sum(1)
        nll = -logq[range(len(kl)), row.ids[row.start :]]
        for part, places in (("name", row.name), ("arguments", row.arguments), ("answer", range(len(kl)))):
            assert float(sums[f"kl_{part}"][place]) == pytest.approx(float(kl[list(places)].sum()), abs=1e-4)
            assert float(sums[f"nll_{part}"][place]) == pytest.approx(
                float(nll[list(places)].sum()), abs=1e-3
            )
            assert int(sums[f"count_{part}"][place]) == len(places)
    assert mean(row_sums(student, reference(student, rows)), "kl", "answer") == pytest.approx(0, abs=1e-6)


def test_what_is_kept_is_told_apart_by_its_settings(tmp_path):
    from recovery.stored import stored

    made = []

    def make():
        made.append(1)
        return len(made)

    assert [stored(tmp_path, "a + b", settings, make) for settings in (1, 1, 2, 1)] == [1, 1, 2, 1]


def test_spread_columns_change_what_q4_0_costs_and_not_what_the_model_computes():
    from recovery.arms import post_training
    from recovery.outliers import spread_columns
    from recovery.student import Size, make_student

    model = make_student(Size(hidden=64, layers=2, intermediate=96, heads=4), 50).eval()
    ids = torch.arange(40).view(2, 20)

    def logits(one):
        with torch.no_grad():
            return one(input_ids=ids, use_cache=False).logits

    before, cost = logits(model), (logits(post_training(model, "q4_0")) - logits(model)).norm()
    spread_columns(model, 1.0)
    assert torch.allclose(logits(model), before, atol=1e-4)
    assert (logits(post_training(model, "q4_0")) - before).norm() > 2 * cost
