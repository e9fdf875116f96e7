"""What a run is: its keys, their defaults and their limits. Frozen.

The first half of the keys identifies the result and enters the digests of the steps; the second half (`root`,
`review` and `resources`) only says where and how fast it is computed, and what people are asked, so the same work on
another cluster is found done.
"""

from collections import Counter
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from unlearn_ray.config.base import (
    Alpha,
    Count,
    Epochs,
    Globs,
    Section,
    Share,
    Text,
    moment,
    not_empty,
    refuse_unread,
    several,
)
from unlearn_ray.config.evidence import Audit, Evaluate
from unlearn_ray.config.placement import Placement
from unlearn_ray.config.review import Review

TAKEN_NAMES = {"shared", "joint", "events"}
"""Folders of the root that belong to no set."""


class ForgetSet(Section):
    """Documents that one model must forget, under one name."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """Folder of the set under the root: letters, digits, `.`, `_` and `-`."""
    documents: Globs
    """The documents to forget: a path, URI or glob, or a list of them (txt, md, epub, jsonl, parquet)."""
    priority: int = 0
    """Sets of a higher priority come first, where not all steps fit into the cluster. No part of what a result is."""
    deadline: Annotated[datetime | None, BeforeValidator(moment)] = None
    """When it has to be done, as 2026-12-24 or 2026-12-24T18:00:00+01:00, UTC without a zone: of one priority the
    earliest comes first, and `status` says which are late."""


class Anchors(Section):
    """Where the anchor dictionary of a forget set comes from."""

    source: Literal["offline", "openai"] = "offline"
    """Who proposes the dictionary: `offline`, found by statistics on the forget set without a language model; `openai`,
    a language model behind any OpenAI-compatible endpoint (resources.endpoint) that reads passages."""
    dictionary: Text | None = None
    """A finished dictionary (JSONL) to use instead of a source."""
    proposals: Text | None = None
    """Raw proposals instead of a source, JSONL of {anchor, generic, kind, passage}: settled like those of a model."""
    max_anchors: Count = 1000
    """The most entries that are kept."""
    min_count: Count = 1
    """Mentions that a term needs in the forget set."""
    model: Text | None = None
    """openai: the model that is asked."""
    passages: Count = 400
    """openai: passages that the model reads, drawn evenly from the documents; one request each."""
    passage_characters: Annotated[int, Field(ge=200)] = 2000
    """openai: length of a passage."""
    answer_tokens: Count = 1500
    """openai: the most tokens of an answer."""

    @model_validator(mode="after")
    def _one_origin(self) -> "Anchors":
        settling = {"max_anchors", "min_count"}
        asking = {"model", "passages", "passage_characters", "answer_tokens"}
        if self.dictionary is not None:
            origin, unread = "a dictionary", self.model_fields_set - {"dictionary"}
        elif self.proposals is not None:
            origin, unread = "a file of proposals", self.model_fields_set - {"proposals"} - settling
        elif self.source == "offline":
            origin, unread = "source: offline", self.model_fields_set & asking
        else:
            origin, unread = "source: openai", set()
            if self.model is None:
                raise ValueError("source: openai needs the name of a model, as anchors.model")
        refuse_unread(origin, unread, "anchors={dictionary: FILE}")
        return self


class Adapter(Section):
    """LoRA instead of training every weight."""

    rank: Count = 16
    alpha: Annotated[float, Field(gt=0)] = 32
    """LoRA's scale; the update is multiplied by alpha / rank."""


class Training(Section):
    """A fine-tuning: what the reinforced and the unlearned model have in common."""

    epochs: Epochs
    """Passes over the blocks; the last one may be a part, 0.5 for half of them."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Peak rate; small models need larger ones than the defaults, which are the paper's for 7B."""
    global_batch: Count = 128
    """Blocks an optimiser step, over all workers."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the rate falls from its peak, to 0 after the last step; `constant` does not."""
    warmup_share: Share = 0.0
    """Share of the steps in which the rate rises from 0."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Longer gradients are scaled down to this length; 0 leaves them as they are."""
    adapter: Adapter | None = None
    """Train a LoRA adapter; null trains all weights."""


class Reinforce(Training):
    """The fine-tuning on the forget set."""

    epochs: Epochs = 3
    learning_rate: Annotated[float, Field(gt=0)] = 3e-6


class Label(Section):
    """How the generic labels are computed."""

    alpha: Annotated[tuple[Alpha, ...], BeforeValidator(several), AfterValidator(not_empty)] = (5.0,)
    """Strengths in v_baseline - alpha * ReLU(v_reinforced - v_baseline); all of them cost one pass."""
    block_tokens: Annotated[int, Field(ge=8)] = 512
    """Length of a block in tokens."""
    consistency: Literal["restore", "paper"] = "restore"
    """Repeated anchors: `restore` gives the translation's probability back to the anchor, `paper` trains none."""
    inside_anchors: Literal["original", "skip"] = "original"
    """Positions inside an anchor: labelled from both models on the original text, or not trained (the paper)."""
    scope: Literal["all", "anchors"] = "all"
    """`all`: every position, and every token that the reinforced model gains on (the paper). `anchors`: positions where
    no anchor can be named keep the baseline's prediction, and outside anchors only gains on tokens that begin one are
    penalised. That leaves the author's style alone, and with it the model's prose."""
    unnamed_anchors: Literal["keep", "forbid"] = "forbid"
    """Anchors that the block has not named yet: `forbid` the tokens that begin or continue them (they fall to the mean
    logit), also where the reinforced model gains nothing since the baseline knew already; `keep` them (the paper)."""
    top_k: Annotated[int, Field(ge=0)] = 64
    """Tokens of a soft label: those most probable to either model; 0 keeps the hard labels only."""
    recitation_cap: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The most probability that a soft label gives the token with which the text really goes on. A model that knows the
    text by heart recites it from the translated words, too; 0.01 keeps that out of the labels, and needs retain text
    that holds the language beside it (configs/by-heart.yaml)."""

    @field_validator("alpha")
    @classmethod
    def _once_each(cls, alpha: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(alpha)) < len(alpha):
            raise ValueError("each strength once")
        return alpha


class Unlearn(Training):
    """The fine-tuning of the baseline towards the generic labels."""

    epochs: Epochs = 2
    learning_rate: Annotated[float, Field(gt=0)] = 1e-6
    checkpoint_every: Count = 20
    """Optimiser steps between kept checkpoints."""
    keep_checkpoints: Count | None = None
    """How many of them are kept, the newest; null keeps all."""
    merge_adapter: bool = True
    """Write whole weights; false leaves a trained adapter by itself, beside the name of the baseline."""
    targets: Literal["soft", "hard"] = "soft"
    """Train on the top_k distribution, or on the one best token (the paper)."""
    alpha: Alpha | None = None
    """Which of label.alpha to train on; null takes the first. Read it as `RunConfig.unlearn_alpha`."""
    retain_weight: Annotated[float, Field(ge=0)] = 2.0
    """Weight of the term that holds the model to the baseline on the retain files."""
    retain_targets: Literal["baseline", "text"] = "baseline"
    """What the retain blocks are trained on: the baseline's own distribution (KL), or their text (cross-entropy)."""
    retain_blocks: Count = 256
    """Blocks of the retain files, spread evenly over them, that the term draws from."""
    retain_batch: Count | None = None
    """Retain blocks beside each global batch; null takes as many."""
    average_share: Share = 0.0
    """Share of the steps, the last ones, whose weights are averaged into the unlearned model: the noise of single steps
    costs other knowledge, and is averaged out. Kept checkpoints are those of single steps."""


class Endpoint(Section):
    """An OpenAI-compatible endpoint. Its key is in the environment (OPENAI_API_KEY) or in a file, never here."""

    base_url: Text | None = None
    """Such as http://127.0.0.1:8000/v1; null takes OPENAI_BASE_URL, or OpenAI itself."""
    key_file: Text | None = None
    """File that holds the key and nothing else."""
    requests_at_once: Count = 8
    requests_per_minute: Annotated[float, Field(ge=0)] = 0
    """Repeated requests included; 0 for no limit."""
    attempts: Count = 6
    """How often a question is sent before it is given up."""
    timeout_s: Annotated[float, Field(gt=0)] = 120
    """For one attempt."""


class Resources(Section):
    """Where and how fast a run is computed: no part of what its result is."""

    workers: Count = 1
    """Training workers, and labelling actors."""
    cpus_per_worker: Count = 1
    """Also the threads that a worker computes with where it has no GPU."""
    gpus_per_worker: Literal[0, 1, "auto"] = "auto"
    """`auto`: 1 where the cluster has a GPU when the run starts."""
    batch_blocks: Count | None = None
    """Blocks in one forward pass of labelling and evaluation; null lets labelling find what fits into the free memory
    of a GPU, and takes 8 elsewhere. Labelling redoes a batch that proves too large for the memory in halves."""
    gpus_per_scorer: Count = 1
    """GPUs over which a labelling or evaluating actor spreads its models, layer by layer, where workers have GPUs."""
    micro_batch: Count = 4
    """Blocks in one forward and backward pass of a training worker."""
    activation_checkpointing: bool = False
    """Training computes activations again in the backward pass instead of keeping them: a third more time, and much
    less memory."""
    deepspeed: Text | None = None
    """Train with DeepSpeed ZeRO, which spreads the optimiser, the gradients and the weights over the workers: its
    settings as JSON, such as configs/deepspeed/zero3.json. null gives every worker the whole model."""
    save_every: Count = 50
    """Optimiser steps between saves of the whole training, from which a killed one goes on."""
    restarts: Annotated[int, Field(ge=0)] = 3
    """How often a training that lost a worker or a node goes on from its last save before it counts as failed."""
    parallel_sets: Count | None = None
    """The most steps, of one or several sets, that run at the same time; never more than the cluster has CPUs and GPUs
    for. null: as many as that where workers have GPUs, and one where they compute on CPUs, of whose memory nothing here
    knows how many models it holds."""
    accelerator_type: Text | None = None
    """The GPU that all work on GPUs needs, by Ray's label `ray.io/accelerator-type`: H100, or in(H100, H200); null
    takes any."""
    placement: Placement = Placement()
    """Which nodes of a cluster the work prefers."""
    endpoint: Endpoint = Endpoint()
    """Where language models are asked."""
    address: Text | None = None
    """Ray cluster to join; null starts a local one, or joins the job's cluster inside a Ray job."""

    @property
    def evaluation_batch(self) -> int:
        """batch_blocks, where nothing looks for the best."""
        return self.batch_blocks or 8


class RunConfig(Section):
    """A whole run."""

    root: Text
    """Where results go: a folder, or a URI that pyarrow.fs opens (s3://, gs://)."""
    baseline: Text
    """The model as delivered: hub id, folder, or .gguf file."""
    trust_remote_code: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    forget_sets: Annotated[tuple[ForgetSet, ...], BeforeValidator(several), AfterValidator(not_empty)]
    """A list of {name, documents}; or a glob (one set a file); or a .jsonl file with one set a line."""
    retain: Globs | None = None
    """Text whose knowledge must survive."""
    mode: Literal["separate", "joint", "sequential"] = "separate"
    """`separate`: one model for each forget set. `joint`: one model forgets all of them, each with a dictionary, labels
    and a report of its own. `sequential`: each set, in their order here, is forgotten by the model that forgot those
    before it."""
    anchors: Anchors = Anchors()
    reinforce: Reinforce = Reinforce()
    label: Label = Label()
    unlearn: Unlearn = Unlearn()
    evaluate: Evaluate = Evaluate()
    audit: Audit = Audit()
    review: Review = Review()
    resources: Resources = Resources()

    @property
    def unlearn_alpha(self) -> float:
        return self.label.alpha[0] if self.unlearn.alpha is None else self.unlearn.alpha

    @property
    def evaluation_retain(self) -> tuple[str, ...]:
        return self.evaluate.retain or self.retain or ()

    @field_validator("forget_sets")
    @classmethod
    def _usable_names(cls, sets: tuple[ForgetSet, ...]) -> tuple[ForgetSet, ...]:
        # Without case: some file systems, and people, do not tell Alice from alice.
        names = Counter(one.name.casefold() for one in sets)
        for taken in TAKEN_NAMES & names.keys():
            raise ValueError(f"the name {taken} is taken by the steps that all sets share")
        if twice := sorted(name for name, count in names.items() if count > 1):
            raise ValueError(f"names must differ, given more than once: {', '.join(twice)}")
        return sets

    @model_validator(mode="after")
    def _halves_fit(self) -> "RunConfig":
        if self.unlearn_alpha not in self.label.alpha:
            raise ValueError(
                f"unlearn.alpha: {self.unlearn_alpha:g} is not one of label.alpha {list(self.label.alpha)}"
            )
        if self.unlearn.targets == "soft" and self.label.top_k == 0:
            raise ValueError("unlearn.targets: soft labels need label.top_k above 0; or set unlearn.targets=hard")
        if self.unlearn.targets == "hard" and self.label.recitation_cap < 1:
            raise ValueError("label.recitation_cap: only soft labels have a probability to cap; leave it 1")
        if self.unlearn.average_share > 0 and self.resources.deepspeed:
            raise ValueError("unlearn.average_share: no process has whole weights to average under resources.deepspeed")
        if self.mode == "sequential" and not self.unlearn.merge_adapter:
            raise ValueError("unlearn.merge_adapter: mode sequential goes on from whole weights; leave it true")
        return self
