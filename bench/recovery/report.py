"""Tables and picture of bench/qat_recovery.py, from its results file."""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection
from pathlib import Path
from typing import Any

from recovery.plot import plot

Document = dict[str, Any]
PARTS = {"name": "name", "arguments": "arguments", "answer": "all"}


def write_report(file: Path) -> None:
    """Writes the .md and, where matplotlib is installed, the .svg beside a results file."""
    document = json.loads(file.read_text())
    file.with_suffix(".md").write_text(markdown(document))
    plot(document, file.with_suffix(".svg"))


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def milli(value: float) -> str:
    """A figure in thousandths of a nat.

    Example:
        >>> milli(0.01234), milli(0.000001)
        ('12.34', '0.001')
    """
    return f"{1000 * value:.2f}" if abs(value) >= 1e-5 or not value else f"{1000 * value:.3f}"


def _interval(found: dict[str, float]) -> str:
    return f"{milli(found['difference'])} ({milli(found['low'])}..{milli(found['high'])})"


def _columns(*names: str) -> list[str]:
    return [f"{names[0]}, {part}" for part in PARTS.values()]


def _contenders(document: Document) -> list[str]:
    prompts = document["setting"]["prompts"]
    rows = []
    for name, one in document["contenders"].items():
        figures = [milli(one[f"{what}_{part}"]) for what in ("kl", "nll") for part in PARTS]
        rows.append([name, *figures, str(one.get("exact", ""))])
    head = ["", *_columns("KL"), *_columns("NLL"), f"right of {prompts}"]
    return [
        "",
        "## Every contender",
        "",
        "KL from the float student as it was at the start, and NLL of the truth, in thousandths of a nat a token, over "
        "all held-out rows; of arms, the mean over seeds. `right`: greedy answers of the first seed, the due call with "
        "its name and arguments, or no call where none is due. What is named `of:` or by its steps is of the first "
        "seed only.",
        *_table(head, rows),
    ]


def _paired(document: Document, label: str, base: str, names: Collection[str] = ()) -> list[str]:
    """Differences from one contender; of some names, or of all."""
    rows = []
    for name, one in document["contenders"].items():
        if name == base or (names and name not in names):
            continue
        cells = [
            _interval(one[f"against_{label}"][f"{what}_{part}"])
            for what in ("kl", "nll")
            for part in ("name", "arguments")
        ]
        test = one.get(f"mcnemar_{label}")
        cells.append(f"+{test['gained']} -{test['lost']}, p {test['p']:.2g}" if test else "")
        rows.append([name, *cells])
    head = ["", "KL, name", "KL, arguments", "NLL, name", "NLL, arguments", "right answers, McNemar"]
    return [
        "",
        f"## Against: {base}",
        "",
        "Difference (95 % interval, paired bootstrap over rows, not over seeds); below 0 is better. Seeds are averaged "
        "row by row; what was made of the first seed only is compared with that seed.",
        *_table(head, rows),
    ]


def _arms(document: Document) -> list[str]:
    peak = document["setting"]["size"]["float_rate"]
    step = document["student"]["q4_0_step"]
    rows = []
    for name, one in document["arms"].items():
        nlls = [milli(seed["nll_answer"]) for seed in one["seeds"]]
        kls = [milli(seed["kl_answer"]) for seed in one["seeds"]]
        cosines = [f"{start:.4f} -> {end:.4f}" for start, end in one["cosine"]]
        rows.append(
            [
                name,
                f"{one['rate']:g}",
                f"{one['rate'] / peak:.3g}",
                f"{one['rate'] / step:.2g}",
                ", ".join(f"{100 * share:.1f}" for share in one["changed"]),
                ", ".join(cosines),
                ", ".join("yes" if passed else "no" for passed in one["stable"]),
                ", ".join(kls),
                ", ".join(nlls),
                f"{statistics.median(one['seconds']):.0f}",
            ]
        )
    head = [
        "",
        "rate",
        "of the float peak",
        "of a Q4_0 step",
        "codes changed, %",
        "worst layer's cosine",
        "check passed",
        "KL, all",
        "NLL, all",
        "s",
    ]
    return [
        "",
        "## The arms, seed by seed",
        "",
        f"The rate is the peak; it falls to 0 by a cosine. The median distance between two codes of Q4_0 is {step:.4f} "
        f"in this student (root mean square of its weights: {document['student']['weight_rms']:.4f}). Cosine: hidden "
        "states with and without rounding, on the arm's own float weights, at the start and at the end. Check: "
        "`check_qat_stability` at the end, with its default limits.",
        *_table(head, rows),
    ]


def _tuning(document: Document) -> list[str]:
    tuning = document["tuning"]
    rates = sorted({float(rate) for tried in tuning.values() for rate in tried})
    rows = []
    for name, tried in tuning.items():
        found = {float(rate): one for rate, one in tried.items()}
        lowest = min(one["nll"] for one in found.values())
        cells = []
        for rate in rates:
            one = found.get(rate)
            text = "" if one is None else f"{milli(one['nll'])} / {milli(one['kl'])}"
            text += f" / {100 * one['changed']:.1f} %" if one is not None and "changed" in one else ""
            cells.append(f"**{text}**" if one is not None and one["nll"] == lowest else text)
        rows.append([name, *cells])
    size = document["setting"]["size"]
    return [
        "",
        "## The rates tried",
        "",
        f"NLL / KL of all tokens (/ codes changed, where kept) on the {size['tune_rows']} rows for tuning, one seed "
        "that is not used again; the lowest NLL is chosen.",
        *_table(["", *(f"{rate:g}" for rate in rates)], rows),
    ]


def _formats(document: Document) -> list[str]:
    plain = document["contenders"]["float at the start"]["nll_answer"]
    rows = []
    for name, one in document["formats"].items():
        gap = one["against_float"]["nll_answer"]
        rows.append(
            [
                name,
                milli(one["kl_answer"]),
                milli(one["nll_answer"]),
                f"{100 * (one['nll_answer'] / plain - 1):+.2f}",
                _interval(gap),
                str(one["exact"]),
                f"{one['bytes'] / 1e6:.3f}",
            ]
        )
    lines = [
        "",
        "## The float student at the start, quantised at once",
        "",
        f"The float student: NLL {milli(plain)}.",
        *_table(
            ["format", "KL, all", "NLL, all", "% above float", "difference (95 %)", "right", "MB"],
            rows,
        ),
    ]
    before = [
        [name, *(milli(one[f"{what}_{part}"]) for what in ("kl", "nll") for part in PARTS)]
        for name, one in document["before_spreading"].items()
    ]
    lines += [
        "",
        "The same before its columns were spread (recovery/outliers.py); KL from that student, which is the same:",
        *_table(["", *_columns("KL"), *_columns("NLL")], before),
    ]
    return lines + _int8(document)


def _int8(document: Document) -> list[str]:
    if "int8" not in document:
        return []
    found = document["int8"]
    rows = [[f"QAT at {rate}", milli(one["nll"]), milli(one["kl"])] for rate, one in found["tried"].items()]
    for name, key in (
        ("float at the start + post-training", "post_training"),
        (f"float, trained on at {found['trained_on']['rate']:g}, + post-training", "trained_on"),
        ("float at the start", "float"),
    ):
        rows.append([name, milli(found[key]["nll"]), milli(found[key]["kl"])])
    return [
        "",
        "QAT with cross-entropy for int8_channel, on the rows for tuning, by rate:",
        *_table(["", "NLL, all", "KL, all"], rows),
    ]


def _llama(document: Document) -> list[str]:
    found = document["llama_cpp"]
    lines = ["", "## llama.cpp's own Q4_0", ""]
    if "absent" in found:
        return [*lines, f"Not measured: {found['absent']}."]
    first = next(iter(found.values()))
    version = document["machine"]["xllamacpp"]
    return [
        *lines,
        f"`ggml_quantize_chunk` of xllamacpp {version or '(version not known)'}, dequantised by `gguf.quants`: Q4_0, "
        f"and {first['embedding']} for the tied embedding, as `llama-quantize` chooses types ("
        f"{first['bytes'] / 1e6:.3f} MB; kdfast's, with Q8_0: {document['formats']['q4_0']['bytes'] / 1e6:.3f} MB). "
        "The importance matrix: mean squares of each layer's inputs over 500 training rows. `of:` an arm means: what "
        "kdfast ships of its first seed goes through these functions once more. llama.cpp's CPU kernels round "
        "activations to Q8_0 besides; nothing here was trained for that, and it is not part of these numbers.",
    ]


def _lengths(document: Document) -> list[str]:
    if "other_lengths" not in document:
        return []
    rows = [
        [
            name,
            f"{one['rate']:g}",
            f"{100 * one['changed']:.1f}",
            f"{one['cosine'][0]:.4f} -> {one['cosine'][1]:.4f}",
            f"{one['seconds']:.0f}",
        ]
        for name, one in document["other_lengths"].items()
    ]
    return [
        "",
        "## Other lengths",
        "",
        "One seed, at the rates found above (not tuned again for each length); judged in the tables above.",
        *_table(["", "rate", "codes changed, %", "worst layer's cosine", "s"], rows),
    ]


def _spreads(document: Document) -> list[str]:
    if "by_spread" not in document:
        return []
    rows = [
        [
            spread,
            name,
            *(milli(one[f"{what}_answer"]) for what in ("kl", "nll")),
            _interval(one["against_start"]["nll_answer"]),
            str(one["exact"]),
        ]
        for spread, found in document["by_spread"]["spreads"].items()
        for name, one in found.items()
    ]
    return [
        "",
        "## Students that lose less or more by Q4_0",
        "",
        f"The same student with other spreads of its columns; one seed, all arms at the rate "
        f"{document['by_spread']['rate']:g} (not tuned again). The difference: from `float at the start + "
        "post-training` of the same spread.",
        *_table(["spread", "", "KL, all", "NLL, all", "difference in NLL (95 %)", "right"], rows),
    ]


def markdown(document: Document) -> str:
    """The whole document as Markdown."""
    setting, student, machine = document["setting"], document["student"], document["machine"]
    size = setting["size"]
    tokens = student["held_out_tokens"]
    lines = [
        "# How much of what Q4_0 breaks does QAT mend?",
        "",
        "`python bench/qat_recovery.py` says in its first lines what is compared. "
        f"The student: a Llama of {size['layers']} layers, hidden size {size['hidden']}, {student['parameters']:,} "
        f"parameters, {size['float_steps']} steps of {size['float_batch']} rows at a peak of {size['float_rate']:g}, "
        f"{size['train_rows']:,} training rows of {student['tokens_a_row']:.0f} tokens; then its columns were spread "
        f"by exp({setting['spread']:g} x normal). Arms: {setting['steps']} steps of 16 rows, "
        f"{setting['seeds']} seed(s). Held out: {size['held_out_rows']:,} rows, "
        f"{student['held_out_calls']:,} of them with a call; {tokens['name']:,} tokens of names, "
        f"{tokens['arguments']:,} of arguments, {tokens['answer']:,} in all answers. Generation: {setting['prompts']} "
        f"prompts, {student['prompt_calls']} of them with a due call.",
        *(["", "## What comes out", "", document["note"]] if "note" in document else []),
        *_contenders(document),
        *_paired(document, "trained_on", "float, trained on, + post-training"),
        *_paired(document, "start", "float at the start + post-training"),
        *_paired(document, "float", "float at the start"),
        *_paired(document, "qat", "QAT, cross-entropy", document["arms"]),
        *_arms(document),
        *_tuning(document),
        *_lengths(document),
        *_spreads(document),
        *_formats(document),
        *_llama(document),
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} thread; torch {machine['torch']}, "
        f"transformers {machine['transformers']}, kdfast {machine['kdfast']}, Python {machine['python']}.",
        "",
    ]
    return "\n".join(lines)
