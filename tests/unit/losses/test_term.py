import torch

from kdfast.losses import IGNORE_INDEX, Term, count_ce, count_kl, span_weights, supervised_mask

BATCH = {
    "labels": torch.tensor([[IGNORE_INDEX, 5, 6, 7], [IGNORE_INDEX, 8, 9, IGNORE_INDEX]]),
    "teacher_topk_mask": torch.tensor([[False, True, True, True], [False, False, False, False]]),
    "tool_name_mask": torch.tensor([[False, True, False, False], [False, True, False, False]]),
    "tool_args_mask": torch.tensor([[False, False, True, True], [False, False, True, False]]),
    "source": torch.tensor([0, 1], dtype=torch.int8),
}


def test_counts_by_hand():
    assert count_kl(BATCH) == 3
    assert count_ce(BATCH, "teacher") == 3.0
    assert count_ce(BATCH, "truth", name_weight=0.5) == 2.5
    assert count_ce(BATCH, "teacher", name_weight=0.5, args_weight=0.25) == 4.0


def test_counts_do_not_depend_on_the_split():
    parts = [{key: value[i : i + 1] for key, value in BATCH.items()} for i in range(2)]
    assert sum(map(count_kl, parts)) == count_kl(BATCH)
    for source in ("teacher", "truth"):
        assert sum(count_ce(part, source, name_weight=0.5) for part in parts) == count_ce(
            BATCH, source, name_weight=0.5
        )


def test_count_equals_the_sum_of_span_weights():
    weights = span_weights(BATCH, name_weight=0.15, args_weight=0.15)
    teacher = weights[0][BATCH["labels"][0] != IGNORE_INDEX].double().sum()
    assert abs(float(teacher) - count_ce(BATCH, "teacher", name_weight=0.15, args_weight=0.15)) < 1e-6


def test_a_batch_without_a_teacher_counts_no_kl():
    batch = {"labels": BATCH["labels"]}
    assert count_kl(batch) == 0
    assert torch.equal(supervised_mask(batch), BATCH["labels"] != IGNORE_INDEX)


def test_mean_of_nothing_is_zero_and_on_the_graph():
    x = torch.zeros(2, requires_grad=True)
    mean = Term(x.sum(), 0).mean()
    mean.backward()
    assert float(mean.detach()) == 0.0
    assert Term(torch.tensor(6.0), 4).mean() == 1.5
