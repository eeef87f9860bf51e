"""The requests of a job: from the prompts of a config to what is sent, in which order, and what it may cost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from kdfast.config import Config
from kdfast.config.teacher import TeachFiles
from kdfast.data.token_rows import Reader
from kdfast.errors import ConfigError, DataError
from kdfast.model_files import converted_directory
from kdfast.recipes.teach.dataset import OWN_KEY, template_hash
from kdfast.recipes.teach.private import prepare_private
from kdfast.recipes.teach.prompt_rows import PromptRows, prompt_rows
from kdfast.scoring.thinking import thinking_after
from kdfast.teacher.answers import AnswerReader
from kdfast.teacher.api.body import RequestSettings, request_of, worst_input_tokens, worst_output_tokens
from kdfast.teacher.api.price import FREE, Price, price_of, worst_case_micro
from kdfast.teacher.api.private_patterns import Kind
from kdfast.teacher.asked import Asked
from kdfast.teacher.local.requests import LocalSettings, local_request
from kdfast.teacher.order import sending_order
from kdfast.teacher.prompts import Prompt, check_rejected, read_prompts


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that a job asks.

    Attributes:
        config: the config.
        reader: what records are read with.
        price: the price of tokens.
        asked: all requests, in the order of sending.
        left_out: line -> why its prompt is not asked.
        short_of_room: how many prompts leave less room for an answer than `teacher.max_new_tokens`.
        private: how often each kind of private text is in the prompts.
        private_prompts: how many prompts hold private text.
    """

    config: Config
    reader: Reader
    price: Price
    asked: list[Asked]
    left_out: dict[int, str]
    short_of_room: int
    private: Counter[Kind]
    private_prompts: int

    def answer_reader(self, *, logprobs: bool) -> AnswerReader:
        """What answers are read with.

        Args:
            logprobs: also read log-probabilities, which takes long; the verdict does not depend on them.
        """
        top_logprobs = self.config.api.top_logprobs if logprobs else 0
        return AnswerReader(self.reader.tokenizer, self.reader.formats, self.price, top_logprobs=top_logprobs)


def asks_api(config: Config) -> bool:
    """Whether the requests are those of a server. A replay builds the requests of the teacher that answered."""
    return config.teacher.kind == "api" or (
        config.teacher.kind == "replay" and config.api.base_url is not None
    )


def plan(config: Config, files: TeachFiles) -> Plan:
    """Reads the prompts and makes the requests.

    Args:
        config: the config.
        files: its `teacher.files`.

    Raises:
        ConfigError: a key that the requests need is missing.
        DataError: a prompt that cannot be read, or whose answer could not be learned.
        OSError: a file cannot be read.
    """
    reader = Reader.of(config.data)
    price = price_of(config.price) if config.teacher.kind == "api" else FREE
    left_out: dict[int, str] = {}
    prompts = _read(files.prompts, config, left_out)
    total = len(prompts) + len(left_out)
    redact = config.teacher.redact and asks_api(config)
    private: Counter[Kind] = Counter()
    private_prompts = 0
    if redact or (config.teacher.kind == "api" and config.api.hosted):
        prompts, private, private_prompts = prepare_private(prompts, redact=redact)
    with prompt_rows(prompts, reader, config.teacher.max_new_tokens) as rows:
        left_out |= rows.left_out
        asked = list(_requests(rows, reader, config, price, left_out))
    check_rejected(len(left_out), total, files.prompts, config.data)
    return Plan(
        config=config,
        reader=reader,
        price=price,
        asked=asked,
        left_out=left_out,
        short_of_room=rows.short_of_room,
        private=private,
        private_prompts=private_prompts,
    )


def _read(path: Path, config: Config, left_out: dict[int, str]) -> list[Prompt]:
    prompts = read_prompts(path, config.data, left_out)
    for prompt in prompts:
        if OWN_KEY in prompt.metadata:
            raise DataError(
                f"the key {OWN_KEY!r} (of the record or its metadata) is where kdfast writes who answered; rename it",
                str(path),
                prompt.line,
            )
    return prompts


def _requests(
    rows: PromptRows, reader: Reader, config: Config, price: Price, left_out: dict[int, str]
) -> Iterator[Asked]:
    """The requests, in the order of sending; notes in `left_out` what cannot be sent."""
    template, of_api = template_hash(reader.template), asks_api(config)
    build = _api_builder(config, price, reader) if of_api else _local_builder(config, rows, template)
    before: Sequence[int] = ()
    for index in sending_order(rows.prompts, config.teacher.seed):
        prompt = rows.prompts[index]
        ids = rows.ids(prompt)
        text = reader.tokenizer.decode(ids)
        for sample in range(config.teacher.answers_per_prompt):
            try:
                asked = build(prompt, sample, ids, text)
            except DataError as error:
                if config.data.on_error == "raise":
                    raise
                left_out[prompt.line] = error.message
                break
            yield replace(asked, shared_tokens=_shared(before, ids))
            before = ids


Build = Callable[[Prompt, int, Sequence[int], str], Asked]
"""Makes the request for a prompt, a sample, and the prompt's tokens and their text."""


def _api_builder(config: Config, price: Price, reader: Reader) -> Build:
    settings = RequestSettings.of(config, template=template_hash(reader.template))
    renders = config.api.endpoint == "completions"

    @cache
    def tokens_of(tools: str) -> int:
        return len(reader.tokenizer.encode(tools))

    def build(prompt: Prompt, sample: int, ids: Sequence[int], text: str) -> Asked:
        request, names = request_of(prompt, sample, settings, text=text if renders else None)
        # A template with baked-in tools shows none, but the server gets them, and counts them.
        sent = request.body.get("tools") if reader.template.hides_tools and not renders else None
        unseen = tokens_of(json.dumps(sent, ensure_ascii=False)) if sent else 0
        # Where nothing costs anything, a request may have no limit.
        most = 0 if price == FREE else worst_output_tokens(request, settings)
        worst = worst_case_micro(price, worst_input_tokens(request), most, config.api.max_reasoning_tokens)
        return Asked(
            prompt=prompt,
            request=request,
            names=names,
            input_tokens=len(ids) + unseen,
            output_tokens=most,
            worst_micro=worst,
            thinking=thinking_after(text) if renders else "closed",
        )

    return build


def _local_builder(config: Config, rows: PromptRows, template: str) -> Build:
    settings = LocalSettings.of(config, teacher_directory(config), rows.turn_end_ids, template=template)

    def build(prompt: Prompt, sample: int, ids: Sequence[int], text: str) -> Asked:
        request = local_request(prompt, sample, ids, settings)
        return Asked(prompt=prompt, request=request, input_tokens=len(ids), thinking=thinking_after(text))

    return build


def teacher_directory(config: Config) -> Path:
    """The Hugging Face directory of the local teacher; a GGUF file is converted once, unless this is a replay.

    Raises:
        ConfigError: the config names no teacher, or a replay's GGUF file was never converted.
        TeacherError: the file is missing or damaged.
    """
    model = config.teacher.model
    if model is None:
        keys = "api.base_url or teacher.model" if config.teacher.kind == "replay" else "teacher.model"
        raise ConfigError(f"{keys}: needed by `kdfast teach`: it says who answers the prompts")
    if model.suffix.lower() != ".gguf":
        return model
    if config.teacher.kind == "local":
        from kdfast.teacher import model_directory

        return model_directory(model)
    directory = converted_directory(model)
    if not directory.is_dir():
        raise ConfigError(
            f"teacher.model: its answers were never asked for here (no such directory): {directory}"
        )
    return directory


def _shared(before: Sequence[int], ids: Sequence[int]) -> int:
    """How many tokens two prompts have in common at their start."""
    shorter = min(len(before), len(ids))
    return next((place for place in range(shorter) if before[place] != ids[place]), shorter)
