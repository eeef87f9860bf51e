"""Properties of the plan of steps."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kdfast.shapes import StepSampler, assign_shapes, shape_use, truncate_batch_to_shape
from kdfast.shapes.truncate import SEQUENCES


@st.composite
def samplers(draw):
    shapes = sorted(draw(st.sets(st.integers(1, 40), min_size=1, max_size=4)))
    lengths = draw(st.lists(st.integers(1, shapes[-1]) | st.just(-1), min_size=1, max_size=25))
    lengths.append(draw(st.integers(1, shapes[-1])))
    options = {
        "rows_per_step": draw(st.integers(1, 9)),
        "seed": draw(st.integers(0, 2**40)),
        "probs": draw(st.sampled_from(["natural", "production"])),
        "upweight_every": draw(st.integers(0, 5)),
    }
    return lambda: StepSampler(lengths, shapes, **options), lengths, shapes


def plans(sampler, steps):
    return [sampler.plan(step) for step in steps]


@given(samplers(), st.integers(0, 30), st.integers(1, 10))
@settings(max_examples=60)
def test_resumed_at_any_step_gives_the_same_plan(example, at, more):
    make, _, _ = example
    whole = plans(make(), range(at + more))
    looked_ahead = make()
    looked_ahead.plan(at + more)  # what a loader fetched early must not show in the state
    state = json.loads(json.dumps(looked_ahead.state_dict(at)))
    resumed = make()
    resumed.load_state_dict(state)
    assert resumed.first_step == at
    assert resumed.state_dict() == state
    assert plans(resumed, range(at, at + more)) == whole[at:]
    assert resumed.state_dict() == looked_ahead.state_dict(at + more)
    assert plans(resumed, reversed(range(at, at + more))) == whole[at:][::-1]


@given(samplers(), st.integers(1, 60))
@settings(max_examples=60)
def test_every_row_of_a_bucket_is_visited_equally_often(example, steps):
    make, lengths, shapes = example
    index = assign_shapes(lengths, shapes)
    visits = np.zeros(len(lengths), dtype=int)
    for shape, rows in plans(make(), range(steps)):
        np.add.at(visits, rows, 1)
        assert all(shapes[index[row]] == shape for row in rows)
    for bucket in range(len(shapes)):
        seen = visits[index == bucket]
        assert not len(seen) or seen.max() - seen.min() <= 1
    assert not visits[index < 0].any()


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=30), st.sets(st.integers(1, 50), min_size=1, max_size=5)
)
def test_the_smallest_shape_that_holds_a_row(lengths, shapes):
    shapes = sorted(shapes)
    for length, index in zip(lengths, assign_shapes(lengths, shapes).tolist(), strict=True):
        slow = next((i for i, shape in enumerate(shapes) if length <= shape), -1)
        assert index == slow
    uses = shape_use(lengths, shapes)
    assert sum(use.rows for use in uses) == sum(length <= shapes[-1] for length in lengths)
    assert all(0 <= use.padding_fraction < 1 for use in uses)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 8))
def test_truncation_never_loses_a_label_silently(width, length, last):
    labels = np.full((1, width), -100)
    labels[0, min(last, width - 1)] = 3
    batch = {"input_ids": np.zeros((1, width)), "labels": labels}
    try:
        cut = truncate_batch_to_shape(batch, length)
    except ValueError:
        assert min(last, width - 1) >= length
    else:
        assert (cut["labels"] != -100).sum() == 1
        assert cut["input_ids"].shape[1] == min(width, length)


@st.composite
def batches(draw):
    """Some sequence fields [B,T] or [B,T,K], other values, and the length to cut to."""
    rows, width, k = draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 7))
    names = draw(st.lists(st.sampled_from(SEQUENCES), min_size=1, unique=True))
    batch = {"source": np.zeros(rows), "teacher_prefix_ids": np.zeros((rows, width)), "id": ["a"] * rows}
    for name in names:
        axes = (rows, width, k) if name in ("teacher_topk_ids", "teacher_logits") else (rows, width)
        batch[name] = np.arange(float(np.prod(axes))).reshape(axes)
    return batch, names, draw(st.integers(1, 9))


@given(batches())
def test_truncation_equals_its_slow_twin_whatever_gives_the_length(example):
    """The twin cuts each row of a known field by itself."""
    batch, names, length = example
    cut = truncate_batch_to_shape(batch, length, cut_response=True)
    assert list(cut) == list(batch)
    for name, value in batch.items():
        if name in names:
            assert cut[name].tolist() == [row[:length] for row in value.tolist()], name
        else:
            assert cut[name] is value
