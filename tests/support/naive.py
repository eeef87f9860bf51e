"""The losses written the slow, obvious way with Python numbers, one row at a time: oracles for the tests.

A divergence compares two lists of log-probabilities over classes. A class is a list of ids. For a dense teacher each
class is one id; a sparse teacher has one more class, which holds all other ids.
"""

import math

INF = math.inf
FLOOR = 60.0


def logsumexp(values):
    top = max(values, default=-INF)
    if top == -INF:
        return -INF
    return top + math.log(sum(math.exp(value - top) for value in values))


def log_softmax(values):
    lse = logsumexp(values)
    return [value - lse for value in values]


def kl(logp, logq):
    total = 0.0
    for a, b in zip(logp, logq, strict=True):
        if a > -INF:
            total += math.exp(a) * (a - b)
    return total


def mixture(logp, logq, share):
    return [
        logsumexp([a + math.log(share), b + math.log(1 - share)]) for a, b in zip(logp, logq, strict=True)
    ]


def forward_kl(logp, logq):
    return kl(logp, logq)


def reverse_kl(logp, logq):
    return kl(logq, logp)


def generalized_jsd(logp, logq, beta=0.5):
    if beta == 0:
        return kl(logp, logq)
    if beta == 1:
        return kl(logq, logp)
    middle = mixture(logp, logq, beta)
    return beta * kl(logp, middle) + (1 - beta) * kl(logq, middle)


def skew_kl(logp, logq, alpha=0.1):
    return kl(logp, mixture(logp, logq, alpha) if alpha else logq)


def tvd(logp, logq):
    return sum(abs(math.exp(a) - math.exp(b)) for a, b in zip(logp, logq, strict=True)) / 2


DIVERGENCES = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "generalized_jsd": generalized_jsd,
    "skew_kl": skew_kl,
    "tvd": tvd,
}
TEMPERATURE_POWER = {"tvd": 1}
"""The power of the temperature that multiplies a divergence; 2 for all others."""


def dense_classes(student, teacher):
    """One class per id that at least one model knows, and the teacher's log-probability of each class."""
    ids, values = [], []
    for i in range(len(student)):
        value = teacher[i] if i < len(teacher) else -INF
        if value == -INF and student[i] == -INF:
            continue
        ids.append(i)
        values.append(value)
    floor = max(values) - FLOOR
    return [[i] for i in ids], log_softmax([floor if value == -INF else value for value in values])


def bucket_classes(student, ids, logp, tail):
    """One class per valid id and one for all other ids, and the teacher's log-probability of each class."""
    vocab = len(student)
    known = {}
    for index, value in zip(ids, logp, strict=True):
        if value > -INF and index < vocab and index not in known:
            known[index] = value
    others = [i for i in range(vocab) if i not in known]
    classes, values = [[i] for i in known], list(known.values())
    if not classes:
        return [others], [0.0]
    if others:
        classes.append(others)
        values.append(tail)
    teacher = log_softmax(values)
    if others:
        if tail == -INF and all(student[i] == -INF for i in others):
            classes.pop()
            teacher.pop()
        else:
            teacher[-1] = max(teacher[-1], -FLOOR)
    return classes, teacher


def student_classes(student, classes):
    """The student's log-probability of each class; a class without any mass gets that of its likeliest id, minus 60."""
    logq = log_softmax(student)
    masses = [logsumexp([logq[i] for i in members]) for members in classes]
    return [max(logq) - FLOOR if mass == -INF else mass for mass in masses]


def dense_row(name, student, teacher, temperature=1.0, **options):
    student, teacher = [z / temperature for z in student], [z / temperature for z in teacher]
    classes, logp = dense_classes(student, teacher)
    return temperature ** TEMPERATURE_POWER.get(name, 2) * DIVERGENCES[name](
        logp, student_classes(student, classes), **options
    )


def sparse_row(name, student, ids, logp, tail, temperature=1.0, **options):
    student = [z / temperature for z in student]
    classes, logp = bucket_classes(student, ids, logp, tail)
    return temperature ** TEMPERATURE_POWER.get(name, 2) * DIVERGENCES[name](
        logp, student_classes(student, classes), **options
    )


def sampled_kl_row(student, sample_ids, sample_counts):
    logq, total, cost = log_softmax(student), 0, 0.0
    for index, count in zip(sample_ids, sample_counts, strict=True):
        if count and index < len(student):
            total += count
            cost -= count * logq[index]
    return cost / total if total else 0.0


def cross_entropy_row(student, label, weight=1.0):
    return 0.0 if label == -100 else -weight * log_softmax(student)[label]


def rows(function, *columns):
    """Calls an oracle for each row of tensors, and returns its values."""
    return [function(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
