"""What is measured of a model, and how it is attacked. Read from the same file as all other sections."""

import re
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from unlearn_ray.config.base import Count, Globs, Section, Text, not_empty, refuse_unread, several

BenchmarkName = Literal["arc_challenge", "arc_easy", "boolq", "hellaswag", "openbookqa", "piqa", "winogrande"]


class Benchmarks(Section):
    """Which of the paper's benchmarks show what else the model still can, zero-shot. They need unlearn-ray[eval]."""

    tasks: Annotated[tuple[BenchmarkName, ...], BeforeValidator(several)] = ()
    data: Text | None = None
    """Folder with NAME/test.jsonl or NAME/validation.jsonl for each task, in the columns of its dataset, as
    benchmarks/bench_data.py writes it; null takes the datasets from the hub."""
    limit: Count | None = None
    """The most items of a task, spread evenly over it; null takes all, 22 thousand in the seven."""


class Prompts(Section):
    """Where the prompts of the completion familiarity come from; evaluate.completions says how many."""

    source: Literal["documents", "openai"] = "documents"
    """`documents`: pieces of the documents, each up to an anchor; `openai`: a language model behind any
    OpenAI-compatible endpoint (resources.endpoint) writes one from each passage that it reads."""
    file: Text | None = None
    """JSONL of {prompt, references, subtlety} to use instead of a source, all of them."""
    model: Text | None = None
    """openai: the model that is asked."""
    passage_characters: Annotated[int, Field(ge=200)] = 2000
    """openai: length of a passage."""
    answer_tokens: Count = 600
    """openai: the most tokens of an answer."""

    @model_validator(mode="after")
    def _one_origin(self) -> "Prompts":
        if self.file is not None:
            refuse_unread("a file of prompts", self.model_fields_set - {"file"}, "evaluate.prompts={file: FILE}")
        elif self.source == "documents":
            unread = self.model_fields_set - {"source", "file"}
            refuse_unread("source: documents", unread, "evaluate.prompts={source: documents}")
        elif self.model is None:
            raise ValueError("source: openai needs the name of a model, as evaluate.prompts.model")
        return self


class Judge(Section):
    """Who grades the completions of the completion familiarity, from 0 to 3."""

    source: Literal["dictionary", "openai"] = "dictionary"
    """`dictionary`: by the anchors and theme words that a completion names; `openai`: a language model behind any
    OpenAI-compatible endpoint (resources.endpoint), one request a completion."""
    model: Text | None = None
    """openai: the model that is asked."""
    answer_tokens: Count = 300
    """openai: the most tokens of an answer."""

    @model_validator(mode="after")
    def _one_judge(self) -> "Judge":
        if self.source == "dictionary":
            unread = self.model_fields_set - {"source"}
            refuse_unread("source: dictionary", unread, "evaluate.judge={source: dictionary}")
        elif self.model is None:
            raise ValueError("source: openai needs the name of a model, as evaluate.judge.model")
        return self


class Evaluate(Section):
    """What is measured before and after, and on how much."""

    completions: Count = 64
    """Prompts of the completion familiarity."""
    prompts: Prompts = Prompts()
    judge: Judge = Judge()
    completion_tokens: Count = 24
    probability_prompts: Count = 128
    """Prompts of the probability familiarity, cut from the documents."""
    token_prompts: Text | None = None
    """JSONL of {prompt, tokens} to use instead: prompts by hand, each with the words that would show knowledge if one
    of them came next, leading space included."""
    verbatim: Count = 32
    """Passages of the verbatim memorisation."""
    perplexity_blocks: Count = 24
    """Blocks of the forget set, and as many of other prose, for the perplexity."""
    retain: Globs | None = None
    """Held-out prose that must not suffer; null takes the retain files. Read it as `RunConfig.evaluation_retain`."""
    nonmembers: Globs | None = None
    """Text like the forget set, best of the same author, that no model has read: without it membership inference has
    nothing to compare with."""
    neighbours: dict[str, Globs] = Field(default_factory=dict)
    """Name -> text of a neighbouring domain, whose perplexity is measured too."""
    reference: Text | None = None
    """A model that never read the forget set (hub id, folder or .gguf file): what perfect forgetting would give."""
    probes: Text | None = None
    """JSONL of {prompt, answer} about the forget set: the answers must become improbable."""
    controls: Text | None = None
    """JSONL of {prompt, answer} about other things: the answers must stay probable."""
    tolerance: Annotated[float, Field(ge=0)] = 0.1
    """The checkpoint with the least probability familiarity is chosen among those that lose at most this share of the
    baseline's utility."""
    benchmarks: Benchmarks = Benchmarks()
    seed: Annotated[int, Field(ge=0)] = 1234
    bootstrap: Count = 1000
    """Resamples behind each confidence interval."""

    @field_validator("neighbours")
    @classmethod
    def _free_names(cls, neighbours: dict[str, Globs]) -> dict[str, Globs]:
        for name in neighbours:
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or name in ("forget", "retain", "nonmembers"):
                raise ValueError(
                    f"{name}: expected a name of a-z, 0-9, _ and - that is not forget, retain or nonmembers"
                )
        return neighbours


Attack = Literal[
    "jailbreak", "context", "know nothing", "languages", "relearning", "quantisation", "probing", "translation"
]


class Audit(Section):
    """What an attacker gets back from the chosen model: `unlearn-ray run --audit`, `unlearn-ray evaluate`."""

    attacks: Annotated[tuple[Attack, ...], BeforeValidator(several)] = get_args(Attack)
    """Those that are made; one that lacks its text or its package is listed in the report as not tested."""
    title: Text | None = None
    """What a prompt calls the forget set; null takes its name."""
    prompts: Count = 48
    """Prompts of the probability familiarity, and as many of the completion familiarity, of each attack: the first
    ones of the evaluation."""
    languages: Text | None = None
    """JSONL of {language, prompt, answer}: questions about the forget set in other languages."""
    about: Globs | None = None
    """Harmless text about the forget set, such as a summary: as context, and to relearn from."""
    context_characters: Count = 2000
    """How much of that text, and of sentences of the forget set, stands before a prompt."""
    context_sentences: Count = 5
    relearn_share: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """The part of the forget set, its beginning, that is relearnt; what is asked lies outside of it."""
    relearn_steps: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(several), AfterValidator(not_empty)
    ] = (0, 2, 4, 8, 16)
    """Steps after which a relearning model is asked."""
    relearn_rate: Annotated[float, Field(gt=0)] = 1e-3
    relearn_batch: Count = 8
    """Blocks in one step of relearning."""
    bits: Annotated[
        tuple[Annotated[int, Field(ge=2, le=8)], ...], BeforeValidator(several), AfterValidator(not_empty)
    ] = (8, 4)
    """Widths of the quantised weights."""
    probing_prompts: Count = 320
    """Places in the documents from which entities are read."""
