"""The numerical contract of docs/losses.md, clause by clause, over every loss of the table in every form it takes."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_forms import FORMS, bend, generator, student_logits, take, teacher_logits

from kdfast.errors import DataError
from kdfast.losses import DenseTeacher, SparseTeacher, linear_kd

pytestmark = pytest.mark.slow  # every loss in every form: 20 s

INF = math.inf
VOCAB, K = 17, 5
TEACHERS = [form for form in FORMS if form.loss.teacher]
EVERY = pytest.mark.parametrize("form", FORMS, ids=str)
DIVERGENCES = pytest.mark.parametrize("form", [f for f in FORMS if f.loss.divergence], ids=str)
SPARSE = pytest.mark.parametrize("form", [f for f in FORMS if f.kind == "sparse"], ids=str)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
RELATIVE = {torch.float64: 1e-11, torch.float32: 3e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}


@st.composite
def cases(draw, form):
    """A form's student and inputs of any shape, with ordinary and extreme rows."""
    n, vocab, seed = draw(st.integers(1, 5)), draw(st.integers(2, 24)), draw(st.integers(0, 1 << 20))
    kinds = ["plain", "huge", "one_hot", "masked"] if form.loss.teacher else ["plain", "huge", "one_hot"]
    rows = st.lists(st.sampled_from(kinds), min_size=n, max_size=n)
    teacher_kinds, student_kinds = draw(rows), draw(rows)
    if form.loss.divergence and not form.divergence.smooth:
        # Two huge rows may give an id the same mass: at that kink, any slope between its sides is right.
        both = zip(student_kinds, teacher_kinds, strict=True)
        student_kinds = ["plain" if mine == theirs == "huge" else mine for mine, theirs in both]
    teacher = bend(teacher_logits(n, vocab, seed), teacher_kinds, seed)
    inputs = form.inputs(n, vocab, k=draw(st.integers(1, vocab)), seed=seed, logits=teacher)
    x = bend(student_logits(n, vocab, seed).detach(), student_kinds, seed + 1)
    return x.to(draw(st.sampled_from(DTYPES))), inputs


@EVERY
@given(data=st.data())
@settings(max_examples=40)
def test_value_and_gradient_equal_the_oracle_and_its_twin(form, data):
    x, inputs = data.draw(cases(form))
    options = {"temperature": data.draw(st.sampled_from([1.0, 0.5, 3.0]))} if form.loss.temperature else {}
    x.requires_grad_()
    term = form.term(x, inputs, **options)
    values = form.oracle(x, inputs, **options)
    relative = 1e-11 if x.dtype == torch.float64 else 3e-6
    scale = max(1.0, *map(abs, values))
    assert float(term.total.detach()) == pytest.approx(sum(values), abs=relative * scale * len(x))
    term.total.backward()
    expected = form.twin_gradient(x, inputs, **options)
    torch.testing.assert_close(
        x.grad.double(),
        expected,
        rtol=RELATIVE[x.dtype],
        atol=max(relative * scale, 1e-7 * (x.dtype == torch.float16)),
    )
    if x.dtype in (torch.float64, torch.float32):
        assert float(x.grad.double().sum(1).abs().max()) < 10 * relative * scale


@EVERY
@given(data=st.data())
@settings(max_examples=20)
def test_chunk_size_and_row_order_do_not_matter(form, data):
    n, dtype = data.draw(st.integers(1, 9)), data.draw(st.sampled_from([torch.float64, torch.float32]))
    chunk, seed = data.draw(st.integers(1, 10)), data.draw(st.integers(0, 1000))
    order = torch.tensor(data.draw(st.permutations(range(n))))
    hidden = torch.randn(n, 6, generator=generator(seed), dtype=torch.float64).to(dtype)
    weight = torch.randn(VOCAB, 6, generator=generator(seed + 1), dtype=torch.float64).to(dtype)
    inputs = form.inputs(n, VOCAB, K, seed)
    results = []
    for rows, chunk_rows in ((torch.arange(n), 256), (order, chunk)):
        mine, head = hidden[rows].requires_grad_(), weight.clone().requires_grad_()
        result = linear_kd(mine, head, form.targets(take(inputs, rows), VOCAB), chunk_rows=chunk_rows)
        result.total.backward()
        back = torch.empty_like(hidden).index_copy_(0, rows, mine.grad)
        results.append((result.total.detach(), back, head.grad))
    plain = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    total = form.term(plain[0] @ plain[1].T, inputs).total
    total.backward()
    results.append((total.detach(), plain[0].grad, plain[1].grad))
    # in fp32 the summands of a reverse KL are some times larger than their sum; fp64 finds what is wrong
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            torch.testing.assert_close(
                got, expected, rtol=tolerance, atol=tolerance * max(1.0, float(expected.abs().max()))
            )


@EVERY
@given(st.lists(st.booleans(), min_size=1, max_size=9), st.sampled_from(DTYPES))
@settings(max_examples=15)
def test_rows_outside_the_mask_cost_nothing_even_when_broken(form, kept, dtype):
    mask, n = torch.tensor(kept), len(kept)
    x, inputs = student_logits(n, VOCAB, 1, dtype).detach(), form.inputs(n, VOCAB, K, 1)
    x[~mask] = math.nan
    x.requires_grad_()
    if form.kind == "labels":
        inputs["labels"] = inputs["labels"].masked_fill(~mask, -100)
        term = form.term(x, inputs)
        assert term.count == pytest.approx(float(inputs["weights"][mask].sum()))
    else:
        term = form.term(x, inputs, mask=mask)
        assert term.count == sum(kept)
    alone = form.term(x.detach()[mask], take(inputs, mask)).total
    assert float(term.total.detach()) == float(alone)
    term.total.backward()
    assert torch.equal(x.grad[~mask], torch.zeros_like(x.grad[~mask]))
    assert bool(x.grad.isfinite().all())
    assert term.skipped == 0
    if not any(kept):
        assert (float(term.total.detach()), term.count) == (0.0, 0)


@EVERY
@pytest.mark.parametrize("dtype", DTYPES)
def test_maths_is_fp32_or_fp64_for_any_input(form, dtype):
    x, inputs = student_logits(9, VOCAB, 1, dtype), form.inputs(9, VOCAB, K, 1)
    term = form.term(x, inputs)
    exact = form.term(x.detach().double(), inputs)
    assert term.total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert float(term.total.detach()) == pytest.approx(float(exact.total), rel=1e-6)
    term.total.backward()
    assert x.grad.dtype == dtype


@EVERY
def test_no_row_is_exactly_0_on_the_graph(form):
    x = torch.zeros(4, VOCAB, requires_grad=True)
    none = take(form.inputs(4, VOCAB, K), slice(0, 0))
    term = form.term(x[:0], none)
    assert (float(term.total.detach()), term.count) == (0.0, 0)
    term.total.backward()
    assert torch.equal(x.grad, torch.zeros(4, VOCAB))


@EVERY
def test_gradient_of_a_row_sums_to_0(form):
    x = student_logits(9, VOCAB, 2, torch.float64)
    form.term(x, form.inputs(9, VOCAB, K, 2)).total.backward()
    assert float(x.grad.sum(1).abs().max()) < 1e-13
    assert float(x.grad.abs().amax(1).min()) > 1e-3


@EVERY
def test_grad_output_other_than_1_is_exact(form):
    inputs = form.inputs(9, VOCAB, K, 3)
    one, many = student_logits(9, VOCAB, 3), student_logits(9, VOCAB, 3)
    form.term(one, inputs).total.backward()
    (form.term(many, inputs).total * 0.25).backward()
    assert torch.equal(many.grad, one.grad * 0.25)


@EVERY
def test_row_order_and_splits_do_not_matter(form):
    x, inputs = student_logits(12, VOCAB, 4, torch.float64), form.inputs(12, VOCAB, K, 4)
    whole = form.term(x, inputs)
    order = torch.randperm(12, generator=generator(0))
    parts = [form.term(x[rows], take(inputs, rows)) for rows in order.split(5)]
    total = sum(part.total for part in parts)
    assert float(total.detach()) == pytest.approx(float(whole.total.detach()), rel=1e-13)
    assert sum(part.count for part in parts) == pytest.approx(whole.count, rel=1e-13)
    gradients = [torch.autograd.grad(each, x)[0] for each in (whole.total, total)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-13)


@EVERY
@pytest.mark.parametrize("value", [math.nan, INF, "all -inf"])
def test_student_nan_raises_or_skips_the_row(form, value):
    x, inputs = student_logits(6, VOCAB, 5).detach(), form.inputs(6, VOCAB, K, 5)
    if value == "all -inf":
        x[3] = -INF
    else:
        x[3, 2] = value
    x.requires_grad_()
    with pytest.raises(FloatingPointError, match=r"logits are not finite in 1 row\(s\): 3"):
        form.term(x, inputs)
    term = form.term(x, inputs, nan="skip_row")
    others = torch.tensor([0, 1, 2, 4, 5])
    clean = form.term(x.detach()[others], take(inputs, others))
    whole = form.term(student_logits(6, VOCAB, 5), inputs)
    assert (term.count, term.skipped) == (whole.count, 1)
    assert float(term.total.detach()) == pytest.approx(float(clean.total), rel=1e-6)
    term.total.backward()
    assert torch.equal(x.grad[3], torch.zeros(VOCAB))
    assert bool(x.grad.isfinite().all())
    with pytest.raises(ValueError, match="nan must be 'raise' or 'skip_row': 'ignore'"):
        form.term(x, inputs, nan="ignore")


@pytest.mark.parametrize("form", [f for f in FORMS if f.loss.temperature], ids=str)
@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, INF])
def test_temperature_must_be_finite_and_above_0(form, temperature):
    with pytest.raises(ValueError, match="temperature must be finite and above 0"):
        form.term(student_logits(2, VOCAB, 0), form.inputs(2, VOCAB, K), temperature=temperature)


@DIVERGENCES
def test_temperature_divides_the_logits_and_its_power_multiplies_value_and_gradient(form):
    temperature, logits = 2.5, teacher_logits(9, VOCAB, 8)
    factor = temperature**form.divergence.temperature_power
    hot, cool = student_logits(9, VOCAB, 8, torch.float64), student_logits(9, VOCAB, 8, torch.float64)
    inputs = form.inputs(9, VOCAB, K, logits=logits if form.kind == "dense" else logits / temperature)
    term = form.term(hot, inputs, temperature=temperature)
    plain = form.term(cool / temperature, form.inputs(9, VOCAB, K, logits=logits / temperature))
    assert float(term.total.detach()) == pytest.approx(factor * float(plain.total.detach()), rel=1e-12)
    term.total.backward()
    (factor * plain.total).backward()
    torch.testing.assert_close(hot.grad, cool.grad, rtol=1e-12, atol=1e-13)


@DIVERGENCES
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_student_equal_to_teacher_has_0_and_no_gradient(form, dtype, temperature):
    logits = bend(
        teacher_logits(8, VOCAB, 6).float(), ["plain"] * 4 + ["huge", "one_hot", "masked", "masked"], 6
    )
    made = logits if form.kind == "dense" else logits / temperature
    x = logits.to(dtype).requires_grad_()
    term = form.term(x, form.inputs(8, VOCAB, K, logits=made), temperature=temperature)
    # in fp32 the summands of a reverse KL are some times larger than their sum; fp64 finds what is wrong
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert abs(float(term.total.detach())) < 8 * tolerance
    term.total.backward()
    if form.divergence.smooth:
        assert float(x.grad.abs().max()) < tolerance


@DIVERGENCES
def test_the_gradient_near_the_teacher_fades_only_where_the_divergence_is_smooth(form):
    logits = teacher_logits(9, VOCAB, 6)
    inputs, sizes = form.inputs(9, VOCAB, K, logits=logits), []
    for distance in (1e-2, 1e-4):
        x = (logits + distance * student_logits(9, VOCAB, 6, torch.float64).detach()).requires_grad_()
        form.term(x, inputs).total.backward()
        sizes.append(float(x.grad.norm()))
    assert (sizes[1] < sizes[0] / 50) == form.divergence.smooth


@DIVERGENCES
@given(
    st.integers(0, 1 << 20), st.sampled_from([0.0, 30.0, 1e3, 1e4]), st.sampled_from([0.0, 1e-4, 1e-2, 1.0])
)
@settings(max_examples=25)
def test_no_row_is_below_0_however_near_or_shifted_the_student(form, seed, shift, noise):
    assert form.divergence.non_negative
    logits = teacher_logits(4, 64, seed, scale=4.0)
    x = (logits + noise * student_logits(4, 64, seed).detach() + shift).float()
    inputs = form.inputs(4, 64, 1 + seed % 64, logits=logits)
    for i in range(4):
        assert float(form.term(x[i : i + 1], take(inputs, slice(i, i + 1))).total) >= -1e-6


@EVERY
@pytest.mark.parametrize("size", [1e4, 1e30, 1e37])
def test_huge_logits_stay_finite(form, size):
    x = (student_logits(9, VOCAB, 7).detach().sign() * size).requires_grad_()
    term = form.term(x, form.inputs(9, VOCAB, K, 7))
    term.total.backward()
    assert bool(term.total.isfinite())
    assert bool(x.grad.isfinite().all())


@EVERY
def test_validation_keeps_no_buffer(form):
    kept = []
    with (
        torch.no_grad(),
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t),
    ):
        term = form.term(student_logits(4, VOCAB, 8), form.inputs(4, VOCAB, K, 8))
    assert kept == []
    assert not term.total.requires_grad


@EVERY
def test_the_students_logits_are_not_overwritten(form):
    x = student_logits(4, VOCAB, 9)
    inputs = form.inputs(4, VOCAB, K, 9)
    before = x.detach().clone(), {name: value.clone() for name, value in inputs.items()}
    form.term(x, inputs).total.backward()
    assert torch.equal(x.detach(), before[0])
    assert all(torch.equal(value, before[1][name]) for name, value in inputs.items())


@pytest.mark.parametrize("form", TEACHERS, ids=str)
def test_no_gradient_reaches_the_teacher(form):
    inputs = {
        name: value.requires_grad_() if value.is_floating_point() else value
        for name, value in form.inputs(4, VOCAB, K, 9).items()
    }
    form.term(student_logits(4, VOCAB, 9), inputs).total.backward()
    assert all(value.grad is None for value in inputs.values())


@SPARSE
def test_entries_of_a_sparse_teacher_that_are_ignored(form):
    x = student_logits(1, VOCAB, 10, torch.float64).detach()
    inputs = form.inputs(1, VOCAB, 3, 10)
    plain = float(form.term(x, inputs).total)

    def value(ids, logp):
        more = {
            "ids": torch.cat([inputs["ids"], torch.tensor([ids]).int()], 1),
            "logp": torch.cat([inputs["logp"], torch.tensor([logp]).double()], 1),
            "tail_logp": inputs["tail_logp"],
        }
        return float(form.term(x, more).total)

    first = int(inputs["ids"][0, 0])
    assert value([0, 0], [-INF, -INF]) == pytest.approx(plain, rel=1e-12)
    assert value([-1, 99], [-INF, -INF]) == pytest.approx(plain, rel=1e-12)
    assert value([first], [-3.0]) == pytest.approx(plain, rel=1e-12)


@SPARSE
@pytest.mark.parametrize("tail", [0.0, -1.5, -INF])
def test_a_row_without_entries_has_value_0_and_no_gradient(form, tail):
    x = student_logits(2, VOCAB, 11, torch.float64)
    inputs = form.inputs(2, VOCAB, 3, 11)
    inputs["logp"][1], inputs["tail_logp"][1] = -INF, tail
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        term = form.term(x, inputs)
    alone = form.term(x.detach()[:1], take(inputs, slice(0, 1)))
    assert (float(term.total.detach()), term.count) == (pytest.approx(float(alone.total), rel=1e-12), 2)
    term.total.backward()
    assert float(x.grad[1].abs().max()) < 1e-15


@SPARSE
@pytest.mark.parametrize("field", ["logp", "tail_logp"])
@pytest.mark.parametrize("value", [math.nan, INF])
def test_nan_in_a_sparse_teacher_names_the_row(form, field, value):
    inputs = form.inputs(6, VOCAB, K)
    inputs[field][3] = value
    with pytest.raises(DataError, match=r"teacher log-probabilities are NaN or \+inf in row\(s\): 3"):
        form.term(student_logits(6, VOCAB, 0), inputs)


@pytest.mark.parametrize("form", [f for f in FORMS if f.kind == "dense"], ids=str)
@pytest.mark.parametrize("value", [math.nan, INF])
@pytest.mark.parametrize("nan", ["raise", "skip_row"])
def test_nan_in_a_dense_teacher_names_the_row(form, value, nan):
    inputs = form.inputs(6, VOCAB)
    inputs["logits"][3, 1] = value
    mask = torch.tensor([False, True, True, True, True, True])
    with pytest.raises(DataError, match=r"teacher logits are NaN or \+inf in row\(s\): 3$"):
        form.term(student_logits(6, VOCAB, 0), inputs, mask=mask, nan=nan)


@st.composite
def growing(draw):
    """A student's and a teacher's logits, an order of ids and a largest k."""
    vocab = draw(st.integers(2, 9))
    numbers = st.lists(st.floats(-12, 12), min_size=vocab, max_size=vocab)
    return draw(numbers), draw(numbers), draw(st.permutations(range(vocab)))


@SPARSE
@given(growing())
@settings(max_examples=30)
def test_bucket_divergence_is_between_0_and_the_full_one_and_grows_with_ids(form, example):
    z, teacher, order = (torch.tensor([row], dtype=torch.float64) for row in example)
    full = float(form.loss.function(z, DenseTeacher(teacher)).total)
    logp, order = torch.log_softmax(teacher, 1), order.long()
    before = 0.0
    for k in range(1, z.shape[1] + 1):
        ids = order[:, :k]
        tail = logp.scatter(1, ids, -INF).logsumexp(1)
        value = float(form.loss.function(z, SparseTeacher(ids, logp.gather(1, ids), tail)).total)
        assert value >= before - 1e-12
        before = value
    assert before == pytest.approx(full, abs=1e-12)


@DIVERGENCES
def test_a_vocabulary_of_everyday_size_stays_within_the_contract(form):
    vocab = 151936
    logits = torch.stack([torch.zeros(vocab), torch.randn(vocab, generator=generator(0)) * 3])
    x = logits + torch.randn(2, vocab, generator=generator(1)) * 1e-4
    inputs = form.inputs(2, vocab, 20, logits=logits)
    for i in range(2):
        value = float(form.term(x[i : i + 1], take(inputs, slice(i, i + 1))).total)
        exact = float(form.term(x[i : i + 1].double(), take(inputs, slice(i, i + 1))).total)
        assert value >= -1e-6
        # where there is a kink, the rounding of the masses (1e-6 of 1) is seen itself, elsewhere its square
        assert value == pytest.approx(exact, abs=1e-6 if form.divergence.smooth else 3e-6)
