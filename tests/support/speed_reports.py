"""Speed reports made by hand."""

import copy

from kdfast.gates import evaluate_speed_gates


def metric(unit, **values):
    return {"unit": unit, "infinite": 0, "count": 40, **values}


def report(**changes):
    """A valid report; `changes` are paths with __ between keys, such as `ttft_ms__p50=...`.

    If the first key is a metric or a quality, it is looked up in its section. None removes the key.
    """
    made = {
        "schema_version": "1.0",
        "kind": "kdfast.speed_report",
        "measured_at": 0.0,
        "hardware": {"key": "cpu-a", "cores": 2},
        "metrics": {
            "ttft_ms": metric("ms", p50=100.0, p95=120.0),
            "tps": metric("tokens/s", p50=50.0, p5=40.0, p95=60.0),
            "ttfa_tokens": metric("tokens", p50=15.0, p95=20.0),
            "ttfa_name_tokens": metric("tokens", p50=8.0, p95=14.0),
            "ttfa_overhead_tokens": metric("tokens", p50=0.0, p95=2.0),
        },
        "quality": {
            "f1": {"value": 0.8},
            "false_call_rate": {"value": 0.05},
            "missed_call_rate": {"value": 0.1},
        },
        "fingerprints": {"prompts": "p", "model": "m"},
    }
    for path, value in changes.items():
        *parents, key = path.split("__")
        place = made
        for section in ("metrics", "quality"):
            if (parents or [key])[0] in made[section]:
                place = made[section]
        for parent in parents:
            place = place[parent]
        place[key] = value
        if value is None:
            del place[key]
    return made


def runs(count=6, **changes):
    """Reports of several runs, each number 0.5 % above the last; two such lists alternate in time (`measured_at`)."""
    made = []
    for number in range(count):
        one = copy.deepcopy(report(**changes)) | {"measured_at": float(number)}
        for name in ("ttft_ms", "tps"):
            for key in ("p5", "p50", "p95"):
                if key in one["metrics"][name]:
                    one["metrics"][name][key] *= 1 + 0.005 * (number - (count - 1) / 2)
        made.append(one)
    return made


TIMES = ("ttft_p50", "ttft_p95", "tps_p50", "tps_p95")
RELATIVE = (*TIMES, "f1", "false_call_rate", "missed_call_rate")


def statuses(gate_report):
    return {result.name: result.status for result in gate_report.results}


def gate(name, current, baseline, limits=None, **options):
    return evaluate_speed_gates(current, baseline, limits, **options)[name]
