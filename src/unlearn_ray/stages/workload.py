"""How much a run has to do: blocks of its documents, steps of its stages and, at a measured speed, seconds."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from unlearn_ray.config import Reinforce, RunConfig, Unlearn
from unlearn_ray.documents import read_documents
from unlearn_ray.engine import storage
from unlearn_ray.errors import InputError
from unlearn_ray.labelling import CPU_BATCH
from unlearn_ray.method.blocks import tokenise
from unlearn_ray.models import load_tokenizer
from unlearn_ray.planning import PROMPT_TOKENS, Shape
from unlearn_ray.probe import Speed
from unlearn_ray.scoring import PROMPTS_PER_BLOCK
from unlearn_ray.training.examples import optimizer_steps

CHARACTERS_A_TOKEN = 4
ALWAYS_MEASURED = 3  # models of evaluation beside checkpoints and a reference: baseline, reinforced, unlearned
CHECKPOINTING, ADAPTER = 4 / 3, 2 / 3  # of a step's time: one more forward pass; no gradients of the weights


@dataclass(frozen=True)
class Workload:
    """Blocks of each forget set and of the retain text; estimated: from characters, without the tokenizer."""

    blocks: dict[str, int]
    retain_blocks: int
    estimated: bool


def count_work(config: RunConfig, model: str) -> Workload:
    """Reads the documents. model: where the tokenizer is; if it cannot be loaded, four characters count as a token."""
    try:
        tokenizer = load_tokenizer(model, trust_remote_code=config.trust_remote_code)
    except InputError:
        tokenizer = None
    length = config.label.block_tokens
    blocks = {one.name: sum(_document_blocks(one.documents, tokenizer, length)) for one in config.forget_sets}
    kept = 0
    if config.retain and config.unlearn.retain_weight > 0:
        for more in _document_blocks(config.retain, tokenizer, length):
            kept = min(kept + more, config.unlearn.retain_blocks)
            if kept == config.unlearn.retain_blocks:
                break  # the rest is not read by the run's training either
    return Workload(blocks, kept, tokenizer is None)


def _document_blocks(
    patterns: tuple[str, ...], tokenizer: PreTrainedTokenizerFast | None, block_tokens: int
) -> Iterator[int]:
    for _, text in read_documents(storage.expand(patterns), storage.read_bytes):
        tokens = len(tokenise(tokenizer, [text])[0].ids_T) if tokenizer else len(text) / CHARACTERS_A_TOKEN
        yield math.ceil(tokens / block_tokens)


def training_steps(settings: Reinforce | Unlearn, blocks: int) -> int:
    """Optimiser steps of one training."""
    return optimizer_steps(blocks, settings.global_batch, settings.epochs)


def stage_steps(config: RunConfig, work: Workload) -> dict[str, str]:
    """What each costly stage does, over all forget sets."""
    batch, sets = config.resources.evaluation_batch, work.blocks.values()
    batches = sum(math.ceil(blocks / (config.resources.batch_blocks or CPU_BATCH)) for blocks in sets)
    models = sum(measured_models(config, blocks) for blocks in sets)
    trained = {
        stage: f"{sum(training_steps(settings, blocks) for blocks in trainings)} optimiser steps"
        for stage, settings, trainings in (
            ("reinforced", config.reinforce, sets),
            ("unlearned", config.unlearn, unlearnings(config, work)),
        )
    }
    kept = {"retain": f"{math.ceil(work.retain_blocks / batch)} batches"} if work.retain_blocks else {}
    again = f", {asked} examinations of earlier sets" if (asked := earlier_examinations(config)) else ""
    return trained | kept | {"labels": f"{batches} batches", "evaluation": f"{models} models{again}"}


def unlearnings(config: RunConfig, work: Workload) -> list[int]:
    """The blocks of each training that makes an unlearned model: of all sets together in joint mode."""
    of_sets = list(work.blocks.values())
    return [sum(of_sets)] if config.mode == "joint" else of_sets


def checkpoints(settings: Unlearn, blocks: int) -> int:
    """How many of the models on the way are kept."""
    made = max(training_steps(settings, blocks) - 1, 0) // settings.checkpoint_every
    return made if settings.keep_checkpoints is None else min(made, settings.keep_checkpoints)


def measured_models(config: RunConfig, blocks: int) -> int:
    """How many models an evaluation measures."""
    return ALWAYS_MEASURED + bool(config.evaluate.reference) + checkpoints(config.unlearn, blocks)


def earlier_examinations(config: RunConfig) -> int:
    """How often a model of a sequence is asked about a set before its own."""
    sets = len(config.forget_sets)
    return sets * (sets - 1) // 2 if config.mode == "sequential" else 0


def stage_seconds(config: RunConfig, shape: Shape, work: Workload, speed: Speed) -> dict[str, float]:
    """Seconds of each costly stage over all forget sets, one after another, without what starting and loading take."""
    workers, length, sets = config.resources.workers, config.label.block_tokens, work.blocks.values()
    kept = {"retain": speed.retain_token * length * work.retain_blocks / workers} if work.retain_blocks else {}
    return kept | {
        "reinforced": sum(_training_seconds(config, config.reinforce, blocks, 0, shape, speed) for blocks in sets),
        "labels": speed.label_token * length * sum(sets) / workers,
        "unlearned": sum(
            _training_seconds(config, config.unlearn, blocks, work.retain_blocks, shape, speed)
            for blocks in unlearnings(config, work)
        ),
        "evaluation": sum(_evaluation_seconds(config, blocks, speed) for blocks in sets)
        + earlier_examinations(config) * _asking_seconds(config, speed, config.evaluate.completions),
    }


def _training_seconds(
    config: RunConfig, settings: Reinforce | Unlearn, blocks: int, retain_blocks: int, shape: Shape, speed: Speed
) -> float:
    """Tokens of the blocks, with the retain blocks beside each step, and one optimiser step a global batch."""
    resources, steps = config.resources, training_steps(settings, blocks)
    beside = config.unlearn.retain_batch or config.unlearn.global_batch
    tokens = config.label.block_tokens * (settings.epochs * blocks + (steps * beside if retain_blocks else 0))
    factor = (CHECKPOINTING if resources.activation_checkpointing else 1) * (ADAPTER if settings.adapter else 1)
    trained = shape.trained(settings.adapter.rank if settings.adapter else None)
    divided = resources.workers if resources.deepspeed else 1
    computing = factor * speed.train_token * tokens / resources.workers
    return computing + steps * speed.optimizer_parameter * trained / divided


def _evaluation_seconds(config: RunConfig, blocks: int, speed: Speed) -> float:
    """Scored tokens and completions of every model, without benchmarks."""
    settings = config.evaluate
    texts = 1 + bool(config.evaluation_retain) + bool(settings.nonmembers) + len(settings.neighbours)
    reading = texts * settings.perplexity_blocks * config.label.block_tokens * speed.score_token
    models = measured_models(config, blocks)
    at_a_time = min(config.resources.workers, models)
    asking = _asking_seconds(config, speed, settings.completions, settings.verbatim)
    return models * (reading + asking) / at_a_time


def _asking_seconds(config: RunConfig, speed: Speed, *completed: int) -> float:
    """One model's probability prompts, and so many prompts that it completes, one token of a batch of them a time."""
    settings, batch = config.evaluate, PROMPTS_PER_BLOCK * config.resources.evaluation_batch
    scored = (settings.probability_prompts + sum(completed)) * PROMPT_TOKENS * speed.score_token
    batches = sum(math.ceil(prompts / batch) for prompts in completed)
    return scored + batches * settings.completion_tokens * speed.decode_step
