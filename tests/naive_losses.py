"""The losses written the slow, obvious way in float64 Python numbers: oracles, one row at a time."""

import math


def log_softmax(values):
    top = max(values)
    lse = top + math.log(sum(math.exp(value - top) for value in values))
    return [value - lse for value in values]


def kl(logp, logq):
    return sum(math.exp(a) * (a - b) for a, b in zip(logp, logq, strict=True) if a > -math.inf)


def bucket_kl_row(logits, ids, logp, tail, temperature=1.0):
    """KL over the classes "each usable id" and "any other id", all by dictionaries."""
    vocab = len(logits)
    teacher = {}
    for index, value in zip(ids, logp, strict=True):
        if value > -math.inf and index < vocab and index not in teacher:
            teacher[index] = value
    others = [i for i in range(vocab) if i not in teacher]
    names = list(teacher)
    classes = [teacher[i] for i in names]
    student = [math.exp(value) for value in log_softmax([z / temperature for z in logits])]
    masses = [student[i] for i in names]
    if others and tail > -math.inf:
        names.append("other")
        classes.append(tail)
        masses.append(sum(student[i] for i in others))
    if not names or names == ["other"]:
        return 0.0
    return temperature**2 * kl(log_softmax(classes), [math.log(mass) for mass in masses])


def bucket_kl(logits, ids, logp, tail, temperature=1.0):
    rows = zip(logits.tolist(), ids.tolist(), logp.tolist(), tail.tolist(), strict=True)
    return sum(bucket_kl_row(*row, temperature) for row in rows)


def weighted_cross_entropy(logits, labels, weights):
    total = 0.0
    for row, label, weight in zip(logits.tolist(), labels.tolist(), weights.tolist(), strict=True):
        if label != -100:
            total -= weight * log_softmax(row)[label]
    return total
