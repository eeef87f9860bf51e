import naive_collate
import numpy as np
import pytest
import tiny_store
from hypothesis import given, settings
from hypothesis import strategies as st

from kdfast import _rust

K, VOCAB = 3, 486


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    talks = [
        {
            "messages": [
                m for n in range(turns) for m in (tiny_store.user(f"q{n}"), tiny_store.message(a=n, b=n))
            ]
            + [tiny_store.user("end?")],
            "teacher_text": tiny_store.call(a=turns, b=0),
            "truth_text": "no",
            "teacher_prefix_ids": list(range(30)),
        }
        for turns in range(4)
    ]
    given_mask = {"prompt": "m ", "teacher_text": "t", "teacher_attention_mask": [0, 1]}
    return tiny_store.build(
        tmp_path_factory.mktemp("store"), [*tiny_store.RECORDS, *talks, given_mask], supervise="all"
    )


def teach(store, directory, scored, seed, samples=0):
    """A teacher store with random scores for the rows `scored`; some positions without any mass."""
    rng, rows = np.random.default_rng(seed), sorted(scored)
    lengths = np.array(
        [sum(int(e - s) for s, e in store.row(row)["supervised"]) for row in rows], dtype=np.int64
    )
    total = int(lengths.sum())
    logp = np.log(rng.dirichlet(np.ones(K + 1), total)).astype(np.float32).reshape(total, K + 1)
    logp[rng.uniform(size=total) < 0.1, :K] = -np.inf
    ids = rng.integers(0, VOCAB, (total, K), dtype=np.int32)
    drawn = {}
    if samples:
        drawn["sample_ids"] = rng.integers(0, VOCAB, (total, samples), dtype=np.int32)
        drawn["sample_counts"] = -np.sort(-rng.multinomial(samples, np.ones(samples) / samples, total))
        drawn["sample_counts"] = drawn["sample_counts"].astype(np.uint16)
    with _rust.TeacherWriter.open(directory, "t", k=K, vocab_size=VOCAB, samples=samples) as writer:
        if rows:
            keys = store.row_keys("t")[rows]
            writer.append(keys, ids, logp[:, :K].copy(), logp[:, K].copy(), lengths, **drawn)
        return _rust.TeacherStore.open(writer.path)


@settings(max_examples=60)
@given(data=st.data())
def test_equal_to_the_naive_collation_and_unpadding_gives_the_rows_back(store, tmp_path_factory, data):
    rows = data.draw(st.lists(st.integers(0, len(store) - 1), min_size=1, max_size=6))
    scored = data.draw(st.sets(st.integers(0, len(store) - 1), max_size=5))
    whole = [store.row(row) for row in rows]
    least = max(len(row["ids"]) - sum(int(end - start) for start, end in row["drop_groups"]) for row in whole)
    length = data.draw(st.integers(least, least + 200))
    samples = data.draw(st.sampled_from([0, 1, 5]))
    teacher = teach(store, tmp_path_factory.mktemp("teacher"), scored, seed=length, samples=samples)
    ours = _rust.collate(store, np.array(rows), length, 9, teacher, threads=data.draw(st.integers(1, 3)))
    cut = [store.row(row, max_length=length) for row in rows]
    keys = store.row_keys("t")
    scores = [teacher.row(keys[row]) if teacher.contains(keys[row : row + 1])[0] else None for row in rows]
    kept = [_kept(*parts) for parts in zip(scores, whole, cut, strict=True)]
    naive = naive_collate.collate(cut, length, 9, kept)
    assert set(ours) - {"row"} == set(naive)
    for name, expected in naive.items():
        assert np.array_equal(ours[name], expected), name
    for index, row in enumerate(cut):
        tokens = ours["attention_mask"][index].astype(bool)
        assert ours["input_ids"][index][tokens].tolist() == row["ids"].tolist()
        assert (ours["labels"][index] == -100).tolist() == (~ours["response_mask"][index]).tolist()


def _kept(score, whole, cut):
    """The scores of the supervised tokens that a cut left: the dropped ones are the oldest turns'."""
    if score is None:
        return None
    dropped = sum(int(e - s) for s, e in whole["supervised"]) - sum(int(e - s) for s, e in cut["supervised"])
    # Drop groups begin at the first user turn, so what is lost stands in front.
    return {name: value if value is None else value[dropped:] for name, value in score.items()}
