"""What a step of our train loop costs beside a bare one: python benchmarks/train.py --model MODEL

Both train the same model on the same blocks of random tokens, weights in float32 and arithmetic in bfloat16 where the
hardware is fast at it, AdamW and clipped gradients: (1) our loop, (2) the loop that everyone writes, with the model's
own loss over whole logits. Every measurement is a process of its own, in turns; speed is that of the fastest step,
memory the highest of the process beside what it had with the model loaded. MODEL is a folder, a .gguf file or a hub id;
--random-7b puts random weights in the shape of Llama 2 7B in its place, --random-vocabulary one of 150,000 tokens on a
small model.
"""

import argparse
import json
import multiprocessing
import os
import resource
import sys
import time
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from unlearn_ray.engine.environment import KEEP_MEMORY
from unlearn_ray.models import compute_dtype, load_model
from unlearn_ray.training.examples import Examples, text_example
from unlearn_ray.training.layout import Layout, make_accelerator
from unlearn_ray.training.loop import BETAS, TrainSettings, train

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RANDOM = {
    "7b": LlamaConfig(),
    "vocabulary": LlamaConfig(
        vocab_size=150_000,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=6,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    ),
}


@dataclass(frozen=True)
class Work:
    """blocks of a step, tokens of a block, steps after a first one that does not count."""

    model: str
    blocks: int
    tokens: int
    steps: int
    checkpointing: bool


def load(name: str) -> PreTrainedModel:
    if name not in RANDOM:
        return load_model(name, device=DEVICE)
    torch.manual_seed(0)
    with torch.device(DEVICE):
        return LlamaForCausalLM(RANDOM[name])


def ours(model: PreTrainedModel, ids_NT: torch.Tensor, work: Work) -> list[float]:
    """Seconds of each step."""
    ends = [time.monotonic()]
    train(
        model,
        [],
        Examples(pa.table({"block_id": range(len(ids_NT)), "input_ids": ids_NT.tolist()}), text_example),
        TrainSettings(epochs=1, learning_rate=1e-6, global_batch=work.blocks, seed=0),
        make_accelerator(Layout(), max_grad_norm=1.0, processes=1),
        layout=Layout(micro_batch=work.blocks, activation_checkpointing=work.checkpointing),
        on_step=lambda log: ends.append(time.monotonic()),
    )
    return [end - start for start, end in pairwise(ends)]


def bare(model: PreTrainedModel, ids_NT: torch.Tensor, work: Work) -> list[float]:
    """Seconds of each step."""
    if work.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, betas=BETAS, weight_decay=0.0)
    seconds = []
    for ids_BT in ids_NT.split(work.blocks):
        start = time.monotonic()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=compute_dtype(DEVICE) == torch.bfloat16):
            loss = model(input_ids=ids_BT.to(DEVICE), labels=ids_BT.to(DEVICE)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for a GPU, as a loop that prints its loss does
        seconds.append(time.monotonic() - start)
    return seconds


WAYS = {"ours": ours, "bare": bare}


def measured(way: str, work: Work) -> dict[str, float]:
    """Tokens a second, and GB beside the loaded model."""
    torch.set_num_threads(os.cpu_count() or 1)
    model = load(work.model)
    for weight in model.parameters():
        weight.data = weight.data.clone()  # weights that are mapped from a file come into memory when read
    generator = torch.Generator().manual_seed(0)
    ids_NT = torch.randint(
        10, model.config.vocab_size, ((work.steps + 1) * work.blocks, work.tokens), generator=generator
    )
    before = peak_memory()
    seconds = WAYS[way](model, ids_NT, work)
    attention = 12 * model.config.num_hidden_layers * model.config.hidden_size * work.tokens
    return {
        "tokens_per_s": work.blocks * work.tokens / min(seconds[1:]),
        "memory_gb": peak_memory() - before,
        "flop_per_token": 6 * model.num_parameters() + attention,
    }


def peak_memory() -> float:
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = parser.add_mutually_exclusive_group(required=True)
    models.add_argument("--model")
    models.add_argument("--random-7b", dest="model", action="store_const", const="7b")
    models.add_argument("--random-vocabulary", dest="model", action="store_const", const="vocabulary")
    parser.add_argument("--blocks", type=int, default=4, help="of a step")
    parser.add_argument("--tokens", type=int, default=512, help="of a block")
    parser.add_argument("--steps", type=int, default=3, help="of which the fastest counts")
    parser.add_argument("--rounds", type=int, default=2, help="of both in turns")
    parser.add_argument("--checkpointing", action="store_true", help="of activations")
    parser.add_argument("--peak-tflops", type=float, help="of the GPU, for the model FLOP utilisation (H200: 989)")
    parser.add_argument("--small", action="store_true", help="two minutes on 2 cores")
    options = parser.parse_args()
    work = Work(options.model, options.blocks, options.tokens, options.steps, options.checkpointing)
    if options.small:
        work, options.rounds = Work(options.model, 2, 256, 2, options.checkpointing), 1
    if DEVICE == "cpu" and not KEEP_MEMORY.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_MEMORY)  # as the workers of a run
    results: dict[str, list[dict]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way, found in results.items():
            with multiprocessing.get_context("spawn").Pool(1) as process:
                found.append(process.apply(measured, (way, work)))
    speed = {way: max(one["tokens_per_s"] for one in found) for way, found in results.items()}
    memory = {way: max(one["memory_gb"] for one in found) for way, found in results.items()}
    print(f"{work}, {DEVICE}, {options.rounds} rounds")
    for way in WAYS:
        print(f"{way:5}  {speed[way]:9.1f} tokens/s  {memory[way]:6.2f} GB beside the weights")
    figures = {
        "over_bare_loop": speed["ours"] / speed["bare"],
        "peak_memory_over_bare_loop": memory["ours"] / memory["bare"],
        "tokens_per_s": speed["ours"],
    }
    if options.peak_tflops:
        flops = speed["ours"] * results["ours"][0]["flop_per_token"]
        figures["model_flop_utilisation"] = flops / options.peak_tflops / 1e12
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
