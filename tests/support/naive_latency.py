"""The latency losses written the slow, obvious way with Python floats, one row and one token at a time: oracles."""

import math


def log_odds(logits, ids):
    logq = log_softmax([min(max(value, -1e4), 1e4) for value in logits])
    inside = [value for index, value in enumerate(logq) if index in ids]
    others = [value for index, value in enumerate(logq) if index not in ids]
    return _lse(inside) - _lse(others)


def _lse(values):
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


def log_softmax(values):
    return [value - _lse(values) for value in values]


def probability(log_odds_value):
    if log_odds_value >= 0:
        return 1 / (1 + math.exp(-log_odds_value))
    return math.exp(log_odds_value) / (1 + math.exp(log_odds_value))


def stopping_times(odds, length, limit):
    """P(the answer ends with token n) for n = 1..limit, and P(it has not ended); `odds`: {gate token: log-odds}."""
    alive, times = 1.0, []
    for n in range(1, limit + 1):
        p = probability(odds[min(n, length)]) if min(n, length) in odds else 0.0
        times.append(alive * p)
        alive *= 1 - p
    return times, alive


def expected_length(odds, length, max_new_tokens):
    """The expected length: the sum over all stopping times; an answer that has not ended at the limit is cut there."""
    limit = max(length, max_new_tokens)
    times, alive = stopping_times(odds, length, limit)
    return sum(n * p for n, p in enumerate(times, 1)) + limit * alive


def excess(odds, length, options):
    if options.form == "quantile":
        times, _ = stopping_times(odds, length, length + math.floor(options.hinge * length + 1e-9))
        return math.log(options.quantile) - math.log(sum(times))
    ratio = expected_length(odds, length, options.max_new_tokens) / length
    return (
        math.log(ratio) - math.log(1 + options.hinge) if options.form == "log" else ratio - 1 - options.hinge
    )


def length_rows(batch, eos_ids, exempt=None):
    """For each row its gate tokens (numbers from 1 to the length), or why the row is left out."""
    plans = []
    for b in range(len(batch["labels"])):
        length, width = int(batch["response_length"][b]), batch["labels"].shape[1]
        columns = [int(batch["response_start"][b]) - 1 + i for i in range(length)]
        should, present = bool(batch["tool_should_be_used"][b]), bool(batch["required_fields_present"][b])
        excused = should and not present if exempt is None else bool(exempt[b])
        if not length or columns[-1] >= width or int(batch["labels"][b, columns[-1]]) not in eos_ids:
            plans.append("cut")
        elif excused:
            plans.append("exempt")
        else:
            calls = [i for i, t in enumerate(columns, 1) if bool(batch["tool_call_mask"][b, t])]
            plans.append([*range(max(calls) + 1, length), length] if calls else [length])
    return plans


def length_loss(full, batch, eos_ids, options, exempt=None):
    """The sum of the loss over rows, and how many rows count, from logits [B,T,V]."""
    total, count = 0.0, 0
    for b, gates in enumerate(length_rows(batch, eos_ids, exempt)):
        if isinstance(gates, str):
            continue
        start, length = int(batch["response_start"][b]), int(batch["response_length"][b])
        odds = {i: log_odds(full[b, start - 2 + i].tolist(), eos_ids) for i in gates}
        value = excess(odds, length, options)
        if options.hinge_open is None:
            value = max(value, 0.0)
        total += options.slope * value * (options.hinge_open is not False)
        count += 1
    return total, count


def early_rows(batch, max_tokens=25):
    """For each row, from its own tokens: {target column: id}, and the columns of the other parts of the loss."""
    plans = []
    for b in range(len(batch["labels"])):
        plan = {"targets": {}, "prior": [], "preamble": [], "negative": []}
        plans.append(plan)
        labels, start = batch["labels"][b].tolist(), int(batch["response_start"][b])
        end = min(start - 1 + int(batch["response_length"][b]), len(labels))
        columns = range(max(start - 1, 0), end)
        calls = [t for t in columns if bool(batch["tool_call_mask"][b, t])]
        t0 = calls[0] if calls else start - 1
        if t0 not in columns:
            continue
        if not bool(batch["tool_should_be_used"][b]):
            plan["negative"] = [start - 1] if start - 1 in columns else []
            continue
        for offset, token in enumerate(batch["teacher_prefix_ids"][b].tolist()[:max_tokens]):
            read = labels[t0 : t0 + offset]
            agrees = read == batch["teacher_prefix_ids"][b].tolist()[:offset]
            if token == -100 or not agrees or t0 + offset not in columns:
                break
            plan["targets"][t0 + offset] = token
        plan["prior"] = [] if plan["targets"] else [t0]
        plan["preamble"] = [t for t in columns if t < t0] if calls else []
    return plans


def early_parts(full, batch, opening_ids, options):
    """The sum and the count of each part of the loss, from logits [B,T,V]."""
    sums = {"early_tool_ce": [0.0, 0], "early_tool_prior": [0.0, 0]}
    sums |= {"early_tool_preamble": [0.0, 0], "early_tool_negative": [0.0, 0]}

    def add(part, value):
        sums[part][0] += value
        sums[part][1] += 1

    for b, plan in enumerate(early_rows(batch, options.max_tokens)):
        opens = {
            t: probability(log_odds(full[b, t].tolist(), opening_ids))
            for t in plan["prior"] + plan["preamble"] + plan["negative"]
        }
        for t, token in plan["targets"].items():
            add("early_tool_ce", -log_softmax(full[b, t].tolist())[token])
        for t in plan["prior"]:
            add("early_tool_prior", -math.log(opens[t]))
        for t in plan["negative"]:
            add("early_tool_negative", -math.log(1 - opens[t]))
        if plan["preamble"]:
            alive, expected = 1.0, 0.0
            for t in plan["preamble"]:
                alive *= 1 - opens[t]
                expected += alive
            add(
                "early_tool_preamble",
                options.preamble_slope * max(expected - options.max_preamble_tokens, 0.0),
            )
    return {part: tuple(pair) for part, pair in sums.items()}
