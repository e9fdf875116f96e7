"""What a run needs of memory, from the shape of its model alone. Free of Ray; everything is in bytes.

N parameters, Nt trained ones, W workers, V vocabulary, H hidden size, I intermediate size, L layers.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from unlearn_ray.method.labels import CHUNK
from unlearn_ray.method.losses import LOSS_CHUNK
from unlearn_ray.scoring import PROMPTS_PER_BLOCK

REDUCED_AT_ONCE = 500_000_000  # gradients that DeepSpeed collects before it reduces them (reduce_bucket_size)
LIVE_WEIGHTS = 1_000_000_000  # that ZeRO-3 holds gathered (stage3_max_live_parameters)
LONGER = 1.25  # how much longer than its block a translation may be
PROMPT_TOKENS = 96  # of evaluation; a prompt has at most 320 characters


@dataclass(frozen=True)
class Shape:
    """A causal language model as far as memory follows from it. `keys`: width of K and of V; `linear_widths`: inputs
    and outputs of every linear layer but the last, summed.
    """

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    keys: int
    vocabulary: int
    linear_widths: int

    def trained(self, rank: int | None) -> int:
        """Nt: all parameters, or those of a LoRA adapter, rank * (inputs + outputs) a linear layer."""
        return self.parameters if rank is None else rank * self.linear_widths


@dataclass(frozen=True)
class Zero:
    """DeepSpeed's division of the training over the workers."""

    stage: int
    offload_optimizer: bool = False
    offload_weights: bool = False


@dataclass(frozen=True)
class TrainingJob:
    """A fine-tuning as far as memory follows from it; without `zero` data parallel; `rank` is that of an adapter."""

    block_tokens: int
    workers: int
    micro_batch: int
    checkpointing: bool
    zero: Zero | None
    rank: int | None
    averaged: bool
    bf16: bool


@dataclass(frozen=True)
class ScoringJob:
    """Labelling or evaluation as far as memory follows from it: `models` at a time, over `gpus` devices; `rank`: an
    adapter is the second model. `cached`: tokens of a prompt and its completion, where such are written.
    """

    models: int
    block_tokens: int
    batch: int
    gpus: int
    rank: int | None
    bf16: bool
    cached: int = 0


def shape_of(config: PreTrainedConfig, *, trust_remote_code: bool = False) -> Shape:
    """Counts on a model without memory."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    text: Any = config.get_text_config()
    output = model.get_output_embeddings()
    linear = [part for part in model.modules() if isinstance(part, torch.nn.Linear) and part is not output]
    heads = text.num_attention_heads
    return Shape(
        parameters=model.num_parameters(),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        keys=text.hidden_size // heads * (getattr(text, "num_key_value_heads", None) or heads),
        vocabulary=text.vocab_size,
        linear_widths=sum(layer.in_features + layer.out_features for layer in linear),
    )


def training_device_bytes(shape: Shape, job: TrainingJob) -> float:
    """What a worker's device holds at the height of a step: states + activations + logits."""
    return state_bytes(shape, job) + activation_bytes(shape, job) + loss_bytes(shape, job)


def state_bytes(shape: Shape, job: TrainingJob) -> float:
    """Weights, gradients and optimiser.

    Data parallel: 4N + 2N + 4Nt + 8Nt, and 4Nt more for averaged weights. The 2N are the bfloat16 copies of autocast,
    which the backward pass needs, and which ZeRO does not spread; activation checkpointing makes them anew, a layer at
    a time, and without bfloat16 hardware there are none. Under an adapter, whose base is bfloat16 in itself, 2N + 4Nt
    are the weights. ZeRO: 4N + 2N + 4Nt + 12Nt/W, with the gradients /W from stage 2 and the 4N /W from stage 3; what
    is offloaded is not there; plus buckets, and what stage 3 gathers.
    """
    weights, trained = shape.parameters, shape.trained(job.rank)
    number = weight_bytes(job)
    copied = weights / shape.layers if job.checkpointing else weights
    copies = 2 * copied if job.bf16 and job.rank is None else 0
    if job.zero is None:
        base = number * weights + (4 * trained if job.rank is not None else 0)
        return base + copies + 12 * trained + (4 * trained if job.averaged else 0)
    zero, workers = job.zero, job.workers
    base = 0.0 if zero.offload_weights else number * weights / (workers if zero.stage >= 3 else 1)
    gathered = number * min(weights, LIVE_WEIGHTS) if zero.stage >= 3 else 0
    gradients = 4 * trained / (workers if zero.stage >= 2 else 1)
    optimizer = 0.0 if zero.offload_optimizer else 12 * trained / (workers if zero.stage >= 1 else 1)
    return base + copies + gathered + gradients + optimizer + 4 * min(trained, REDUCED_AT_ONCE)


def weight_bytes(job: TrainingJob) -> int:
    """Of one weight: float32 where it is trained, what is fastest where an adapter leaves it alone."""
    return 2 if job.bf16 and job.rank is not None else 4


def layer_bytes(shape: Shape, job: TrainingJob) -> int:
    """What one Llama layer keeps of one token for the backward pass.

    Float32 weights under autocast, 34H + 8I: at each norm its input and what it normed in float32, 16H; the bfloat16
    inputs of q, k, v, gate and up, 10H; q, k, v and what attention makes of them, 8H; gate, its activation, up and
    their product, 8I. An adapter on bfloat16 weights, 28H + 8I: norms 4H each, and inputs of its own for each of the
    products. In float32 alone 40H + 16I. Attention keeps no [T, T] matrix.
    """
    if not job.bf16:
        return 40 * shape.hidden + 16 * shape.intermediate
    return (34 if job.rank is None else 28) * shape.hidden + 8 * shape.intermediate


def activation_bytes(shape: Shape, job: TrainingJob) -> int:
    """Of one micro-batch: L layers; with activation checkpointing the L inputs (4H a token, 2H where the weights are
    bfloat16) and one layer.
    """
    tokens = job.micro_batch * job.block_tokens
    if not job.checkpointing:
        return tokens * shape.layers * layer_bytes(shape, job)
    return tokens * (shape.layers * weight_bytes(job) * shape.hidden + layer_bytes(shape, job))


def loss_bytes(shape: Shape, job: TrainingJob) -> int:
    """Logits and their gradients, 10 bytes each for 1024 positions; 8VH of a trained output layer: its bfloat16 copy,
    its gradient, and what a chunk adds to that.
    """
    trained_output = 8 * shape.vocabulary * shape.hidden if job.rank is None else 0
    return 10 * LOSS_CHUNK * shape.vocabulary + trained_output


def training_host_bytes(shape: Shape, job: TrainingJob) -> float:
    """Of the first worker: the saved state 12Nt (ZeRO: 12Nt/W), the weights that it exports, 4N (beside an adapter what
    its base takes, and 4Nt), and what ZeRO offloads.
    """
    weights, trained, number = shape.parameters, shape.trained(job.rank), weight_bytes(job)
    share = job.workers if job.zero and job.zero.stage >= 1 else 1
    exported = number * weights + (4 * trained if job.rank is not None else 0)
    offloaded = 0.0
    if job.zero and job.zero.offload_optimizer:
        offloaded += 12 * trained / share
    if job.zero and job.zero.offload_weights:
        offloaded += number * weights / job.workers
    return 12 * trained / share + exported + offloaded


def scoring_bytes(shape: Shape, work: ScoringJob) -> float:
    """Of each device: the models (2N each; an adapter 2Nt) divided over the devices; of a batch the widest layer
    (3I + 6H a token) and three last hidden states; four float32 tensors of 256 x V; the cache of what is written,
    2 x keys a token and layer, for four prompts a block. Without bfloat16 hardware 4 bytes for 2.
    """
    number = 2 if work.bf16 else 4
    models = work.models * shape.parameters
    if work.rank is not None:
        models = shape.parameters + shape.trained(work.rank)
    tokens = work.batch * work.block_tokens * LONGER
    layer = tokens * (3 * shape.intermediate + 6 * shape.hidden + 3 * shape.hidden)
    logits = 4 * 4 * CHUNK * shape.vocabulary
    cache = PROMPTS_PER_BLOCK * work.batch * work.cached * 2 * shape.keys * shape.layers
    return number * (models / work.gpus + layer + cache / work.gpus) + logits
