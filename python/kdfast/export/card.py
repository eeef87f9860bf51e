"""The model card, `README.md`: what an export is, from what, how good, and what nobody knows about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from kdfast.export.card_results import cell, evaluation_text, gates_text, parity_text, speed_text, table
from kdfast.export.manifest import Manifest
from kdfast.export.serving import Serving, serving_text
from kdfast.runs.reading import RunFiles

_HUB_LICENSE = re.compile(r"[a-z0-9][a-z0-9.\-]*")
_ORIGINS = {
    "trained": "The codes are those of the training under quantisation, written as they are.",
    "post-training": "The weights were quantised after training, at export.",
    "float": "The weights are not quantised.",
}
_TERMS = (
    "The terms of many hosted models restrict training other models on their answers. Read those of this teacher before"
    " you pass the student on."
)


def model_card(
    manifest: Manifest,
    serving: Serving,
    *,
    run: RunFiles | None = None,
    license_name: str | None = None,
    base_model: str | None = None,
) -> str:
    """The card's text, with the YAML head that the Hugging Face hub reads.

    Args:
        manifest: the export's manifest.
        serving: how it is served.
        run: the run's files; None = the student is no run's, so it has no evaluation, gates or speed.
        license_name: the student's licence as the user names it, such as `apache-2.0`; None = not stated.
        base_model: the name on the hub of the model that the student started from; None = not stated.

    Raises:
        DataError: a file of the run is damaged; the message names file and key.
    """
    name = str(manifest.source["name"])
    sections = {
        "Training data": _data(manifest),
        "Teacher": _teacher(manifest.teacher),
        "Licence": _license(license_name),
        "Evaluation": evaluation_text(run),
        "Gates": gates_text(run),
        "Parity": _parity(manifest),
        "Speed": speed_text(run),
        "Limits": _limits(manifest, run),
        "How to serve it": serving_text(serving),
    }
    head = _front_matter(manifest, license_name, base_model)
    parts = [f"---\n{head}---", f"# {cell(name)}", _intro(manifest, base_model)]
    parts += [f"## {title}\n\n{text}" for title, text in sections.items()]
    return "\n\n".join([*parts, "Hashes, versions and every figure: `manifest.json`."]) + "\n"


def _front_matter(manifest: Manifest, license_name: str | None, base_model: str | None) -> str:
    """The hub's metadata. What nobody stated (licence, language) is left out: a guess would be read as a fact."""
    head: dict[str, Any] = {}
    if license_name is not None:
        known = _HUB_LICENSE.fullmatch(license_name.lower())
        head |= (
            {"license": license_name.lower()} if known else {"license": "other", "license_name": license_name}
        )
    if base_model is not None:
        head["base_model"] = base_model
    head["pipeline_tag"] = "text-generation"
    if manifest.target == "hf":
        head["library_name"] = "transformers"
    distilled = ["knowledge-distillation"] if _is_run(manifest) else []
    head["tags"] = ["tool-calling", "function-calling", *distilled, "kdfast"]
    head["tags"] += ["gguf", "llama.cpp"] if manifest.target == "gguf" else ["safetensors"]
    text: str = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    return text


def _is_run(manifest: Manifest) -> bool:
    """Whether kdfast trained it. Of another directory nobody knows how it was trained."""
    return bool(manifest.source["kind"] == "run")


def _intro(manifest: Manifest, base_model: str | None) -> str:
    source = manifest.source
    step = f", step {source['step']:,}" if "step" in source else ""
    trained = " trained by knowledge distillation and" if _is_run(manifest) else ""
    lines = [
        f"A small language model that calls tools,{trained} exported by kdfast from the {cell(source['kind'])} "
        f"`{cell(source['name'])}`{step}."
    ]
    if base_model is not None:
        lines.append(f"It started from {cell(base_model)}.")
    size = sum(one["bytes"] for one in manifest.tensors.values())
    if manifest.gguf is not None:
        lines.append(f"`{manifest.gguf['file']}` is a GGUF file of type {manifest.gguf['type']}.")
        lines.append(_ORIGINS[manifest.gguf["origin"]])
    formats: dict[str, int] = {}
    for one in manifest.tensors.values():
        formats[one["format"]] = formats.get(one["format"], 0) + 1
    told = ", ".join(f"{count} in {name}" for name, count in sorted(formats.items()))
    lines.append(f"{len(manifest.tensors):,} tensors ({told}), {size:,} bytes of weights.")
    return " ".join(lines)


def _data(manifest: Manifest) -> str:
    if not manifest.data:
        return "Not stated: this model is no run of kdfast."
    rows = [
        (
            "training" if use == "train" else "held-out",
            file["file"],
            f"{file['rows']:,}" if "rows" in file else "not counted: the file is no longer there",
            file.get("sha256", "")[:16],
        )
        for use, files in manifest.data.items()
        for file in files
    ]
    parts = [
        "Rows and hashes (the first 16 digits of SHA-256) are those of the files at export.",
        table(["use", "file", "rows", "hash"], rows),
    ]
    if "dataset" in manifest.fingerprints:
        parts.append(
            f"Fingerprint of the held-out records for parity: `{manifest.fingerprints['dataset'][:16]}`."
        )
    return "\n\n".join([*parts, "Where the records come from, their licence and their language: not stated."])


def _teacher(teacher: Mapping[str, Any]) -> str:
    kind, model = teacher["kind"], teacher.get("model")
    named = f"`{model}`" if model else "a model whose name is not stated"
    who = {
        "none": "The run had no teacher of its own. Who wrote the answers in its training file is not stated.",
        "unknown": "Not stated: this model is no run of kdfast.",
        "local": f"A local model, {named}, that gave {' and '.join(teacher.get('gives') or ['nothing'])}.",
        "api": f"{named[0].upper()}{named[1:]}, over HTTP{', hosted' if teacher.get('hosted') else ''}.",
        "replay": f"{named[0].upper()}{named[1:]}, by answers that were recorded before.",
    }[kind]
    terms = "the user has read them (`teacher.terms: acknowledged`)"
    stated = terms if teacher["terms"] == "acknowledged" else "not stated"
    return f"{who}\n\nTerms of the teacher: {stated}. {_TERMS}"


def _license(license_name: str | None) -> str:
    if license_name is not None:
        return f"{cell(license_name)}, as the user who exported it stated."
    return "Not stated. The licences of the model that it started from, of the teacher and of the data may apply."


def _parity(manifest: Manifest) -> str:
    text = parity_text(manifest.parity)
    return f"The exported file against what was trained:\n\n{text}"


def _limits(manifest: Manifest, run: RunFiles | None) -> str:
    lines = [f"- Not measured: {cell(what)}: {cell(why)}" for what, why in manifest.gaps.items()]
    trained = (
        "It was trained on prompts with tools, rendered" if _is_run(manifest) else "Its prompts are rendered"
    )
    lines += [
        f"- {trained} by the chat template that ships with it. Another template, or none, is another prompt: nothing"
        " here holds for it.",
        "- A call that is valid by its schema may still be the wrong one. Check calls before you run them.",
        "- Languages, bias and safety were not evaluated.",
    ]
    if run is not None and run.config.data.shapes:
        lines.append(
            f"- Longer conversations than {run.config.data.shapes[-1]:,} tokens were not seen in training."
        )
    return "\n".join(lines)
