"""How fast this device works on models of a given shape: measured, in seconds, on random ones of few layers. Free of
Ray.

Every further layer costs the same, so that a model of L layers takes t1 + (L - 1) (tk - t1) / (k - 1), where t1 is the
time of one layer and tk that of k: two, or where layers are small beside the embeddings so many that the difference is
no noise.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from unlearn_ray.errors import InputError
from unlearn_ray.labelling import Labeller, LabelSettings, blank_block, label_text
from unlearn_ray.models import compute_dtype, decoder, lm_head
from unlearn_ray.planning import shape_of
from unlearn_ray.scoring import PROMPTS_PER_BLOCK, target_logprobs
from unlearn_ray.training.examples import Example, text_example
from unlearn_ray.training.loop import LossModel

CPU_TOKENS, CPU_BLOCKS = 128, 4  # of a batch at most: enough for the rate of large matrices
CPU_WORK = 5e10  # parameters x tokens of a batch, at most, unless it is one block
LONGEST_S = 2.0  # that one kind of work is repeated for
REPEATS = 5
BUSY_SHARE = 0.2  # of the machine, from which on other work is worth a word
ANCHOR_TOKENS = 256
BYTES_A_PARAMETER = 16  # float32 weights, gradients and optimiser


@dataclass(frozen=True)
class Speed:
    """Seconds of the whole model: a token that is trained on (forward and backward), labelled by both models, labelled
    as retain text, or scored; one token for each of a batch of prompts; an optimiser step for one parameter.
    """

    device: str
    train_token: float
    optimizer_parameter: float
    label_token: float
    retain_token: float
    score_token: float
    decode_step: float


def measure(
    config: PreTrainedConfig,
    settings: LabelSettings,
    *,
    block_tokens: int,
    micro_batch: int,
    batch: int,
    threads: int,
    trust_remote_code: bool = False,
) -> Speed:
    """On the GPU where there is one, else on `threads` threads of the CPU, there with few tokens.

    Raises InputError where the small models do not fit the memory that is free.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    small = [_with_layers(config, layers) for layers in (1, _layers_compared(config, trust_remote_code))]
    parameters = sum(shape_of(one, trust_remote_code=trust_remote_code).parameters for one in small)
    _refuse_too_large(BYTES_A_PARAMETER * parameters, device)
    if device == "cpu":
        block_tokens = min(block_tokens, CPU_TOKENS)
        most = min(CPU_BLOCKS, max(1, int(CPU_WORK / parameters / block_tokens)))
        micro_batch, batch = min(micro_batch, most), min(batch, most)
    threads_before, before = torch.get_num_threads(), _cpu_seconds()
    torch.set_num_threads(threads)
    try:
        models = [_random_model(one, device, trust_remote_code) for one in small]
        layers = config.get_text_config().num_hidden_layers
        blocks = [text_example({"block_id": 0, "input_ids": [0] * block_tokens})] * micro_batch
        seconds = _training(models, layers, blocks) | _scoring(models, layers, settings, batch, block_tokens)
        return Speed(torch.cuda.get_device_name() if device == "cuda" else _cpus(threads, before), **seconds)
    finally:
        torch.set_num_threads(threads_before)


def _training(models: list[PreTrainedModel], layers: int, blocks: list[Example]) -> dict[str, float]:
    tokens = sum(len(block.input_ids_T) for block in blocks)
    train_token = _whole(models, layers, lambda model: _train(model, blocks)) / tokens
    [largest] = models[1:]
    optimizer = torch.optim.AdamW(largest.parameters())
    [seconds] = _fastest([optimizer.step])
    for model in models:
        model.zero_grad(set_to_none=True)
    return {"train_token": train_token, "optimizer_parameter": seconds / largest.num_parameters()}


def _scoring(
    models: list[PreTrainedModel], layers: int, settings: LabelSettings, batch: int, block_tokens: int
) -> dict[str, float]:
    for model in models:
        torch.nn.Module.to(model.eval(), compute_dtype(model.device.type))
    blocks, rows, tokens = [blank_block(block_tokens)] * batch, [[0] * block_tokens] * batch, batch * block_tokens
    text = pa.table({"block_id": list(range(batch)), "input_ids": rows})
    prompts_B1 = torch.zeros(PROMPTS_PER_BLOCK * batch, 1, dtype=torch.long, device=models[0].device)

    def label(model: PreTrainedModel) -> None:
        Labeller(model, model, [], settings, anchor_ids=range(ANCHOR_TOKENS)).label(blocks)

    return {
        "label_token": _whole(models, layers, label) / tokens,
        "retain_token": _whole(models, layers, lambda m: label_text(m, [], text, settings.top_k or 1)) / tokens,
        "score_token": _whole(models, layers, lambda m: target_logprobs(m, rows, [1] * batch, batch)) / tokens,
        "decode_step": _whole(models, layers, lambda m: _decode(m, prompts_B1)),
    }


def _train(model: PreTrainedModel, blocks: list[Example]) -> None:
    """A forward and a backward pass. Gradients stay, as an optimiser needs them."""
    device = model.device.type
    with torch.autocast(device, torch.bfloat16, enabled=compute_dtype(device) == torch.bfloat16):
        loss = LossModel(model, [])(blocks, [1.0] * len(blocks))
    loss.backward()


@torch.inference_mode()
def _decode(model: PreTrainedModel, ids_B1: torch.Tensor) -> None:
    lm_head(model)(decoder(model)(input_ids=ids_B1, use_cache=False).last_hidden_state)


def _whole(models: list[PreTrainedModel], layers: int, work: Callable[[PreTrainedModel], Any]) -> float:
    """Seconds of the work on a model of so many layers."""
    one, several = _fastest([lambda model=model: work(model) for model in models])
    compared: int = models[1].config.get_text_config().num_hidden_layers
    return one + (layers - 1) * max(several - one, 0) / (compared - 1)


def _fastest(works: list[Callable[[], Any]]) -> list[float]:
    """Seconds of each at its fastest. They take turns, so that what disturbs falls on all of them; the first turn sets
    things up and does not count.
    """
    turns: list[list[float]] = []
    while len(turns) < 3 or (len(turns) <= REPEATS and sum(map(sum, turns)) < LONGEST_S):
        turns.append([_seconds(work) for work in works])
    return [min(times) for times in zip(*turns[1:], strict=True)]


def _seconds(work: Callable[[], Any]) -> float:
    """On CPUs what the threads computed, divided by their number: what they waited for other programs does not count,
    which on a busy machine is most of the time.
    """
    if not torch.cuda.is_available():
        started = time.process_time()
        work()
        return (time.process_time() - started) / torch.get_num_threads()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def _cpu_seconds() -> tuple[float, float, float]:
    """Of the machine altogether, of all programs on it, and of this one."""
    times = psutil.cpu_times()
    total = sum(times)
    return total, total - times.idle, time.process_time()


def _cpus(threads: int, before: tuple[float, float, float]) -> str:
    """The name of this device, with what other programs took since `before` where that was much."""
    total, busy, own = (now - then for now, then in zip(_cpu_seconds(), before, strict=True))
    others = (busy - own) / max(total, 1e-9)
    warning = f" with other work on {others:.0%} of the machine, which makes estimates too long"
    return f"{threads} CPU threads" + (warning if others > BUSY_SHARE else "")


def _layers_compared(config: PreTrainedConfig, trust_remote_code: bool) -> int:
    """k: one layer, and as many as weigh what is not layers."""
    one, two = (
        shape_of(_with_layers(config, layers), trust_remote_code=trust_remote_code).parameters for layers in (1, 2)
    )
    return 1 + max(1, round((2 * one - two) / (two - one)))


def _with_layers(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    small = copy.deepcopy(config)
    text: Any = small.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    return small


def _random_model(config: PreTrainedConfig, device: str, trust_remote_code: bool) -> PreTrainedModel:
    with torch.device(device), no_init_weights():  # its normal distribution takes longer than the measurement
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=trust_remote_code)
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -0.02, 0.02)
    return model


def _refuse_too_large(needed: int, device: str) -> None:
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"the probe trains models of one and two layers, which needs {needed / 1e9:.0f} GB; {free / 1e9:.0f} GB "
            "are free here: plan with --no-probe"
        )
