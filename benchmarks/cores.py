"""What it costs processes to share cores: python benchmarks/cores.py

One training of a model of the demo's shape (random weights), and several side by side, each with a thread for every
core: with threads that spin while they wait for one another, the default, and with threads that sleep, which is what
workers on CPUs are given where several may be at work (engine/environment.py). Two processes on the same cores take
twice as long at best.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from unlearn_ray.engine.environment import SHARE_CORES

CORES = psutil.cpu_count(logical=False) or 1
SHAPE = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
         "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True}  # fmt: skip
BLOCKS, BLOCK_TOKENS, NEW_TOKENS = 4, 128, 16


def measured() -> dict[str, float]:
    """Seconds of a training step of 4 blocks, and of 16 tokens after each of them, in this process."""
    torch.set_num_threads(CORES)
    model: Any = LlamaForCausalLM(LlamaConfig(**SHAPE))
    ids_BT = torch.randint(0, SHAPE["vocab_size"], (BLOCKS, BLOCK_TOKENS))

    def step() -> None:
        model(input_ids=ids_BT, labels=ids_BT).loss.backward()
        model.zero_grad()

    def complete() -> None:
        model.generate(ids_BT, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)

    return {"training": seconds(step), "completing": seconds(complete)}


def seconds(work, times: int = 2) -> float:
    work()  # the first time is another
    start = time.monotonic()
    for _ in range(times):
        work()
    return (time.monotonic() - start) / times


def side_by_side(processes: int, environment: dict[str, str]) -> dict[str, float]:
    """The mean of what so many processes measure that start at one time."""
    clean = {name: value for name, value in os.environ.items() if name not in SHARE_CORES}
    command = [sys.executable, __file__, "--measure"]
    started = [
        subprocess.Popen(command, env=clean | environment, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    found = [json.loads(process.communicate()[0]) for process in started]
    return {what: sum(one[what] for one in found) / processes for what in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, help="side by side (2)")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured()))
        return
    result: dict[str, float] = {"cores": CORES, "processes": options.processes}
    for name, environment in {"spinning": {}, "sleeping": SHARE_CORES}.items():
        alone, shared = (side_by_side(processes, environment) for processes in (1, options.processes))
        for what in alone:
            result[f"{what}_{name}_s"] = round(alone[what], 3)
            result[f"{what}_{name}_shared_over_alone"] = round(shared[what] / alone[what], 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
