"""Memory and time of labelling many forget sets: python benchmarks/many_labels.py [--small] [--baseline MODEL]

Three ways: whole reinforced models with a new actor for each set (as many separate runs do it); whole models with all
sets through one actor, as a run does it; adapters on one baseline with all sets through one actor.
Reinforced models are random changes of the baseline, since only their size matters here. The memory of an actor is what
it has for itself, as the kernel counts it (USS) twice a second, its growth that from the end of the first set to
the end of the last. Prints a table, and last a JSON object; adapter_memory_share is that growth for each further set,
as a share of a whole model.
"""

import argparse
import json
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import psutil
import torch
from peft import LoraConfig, PeftModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from wordfreq import top_n_list

from unlearn_ray.config import Resources
from unlearn_ray.engine import idle, storage
from unlearn_ray.engine.session import ensure_ray
from unlearn_ray.engine.steps import StepRun
from unlearn_ray.labelling import LabelSettings
from unlearn_ray.method.blocks import cut_blocks
from unlearn_ray.method.dictionary import Anchor, AnchorDictionary
from unlearn_ray.models import load_model, load_tokenizer, save_checkpoint
from unlearn_ray.stages.anchors import write_dictionary
from unlearn_ray.stages.blocks import write_parquet
from unlearn_ray.stages.label import label
from unlearn_ray.stages.label_actors import OneSet

SETTINGS = LabelSettings((5.0,), "restore", "original", "all", "keep", 64)
BLOCK_TOKENS = 128
RANK = 16
EVERY_S = 0.5
WHOLE = {"sets": 20, "alone": 5, "blocks": 8}
SMALL = {"sets": 3, "alone": 1, "blocks": 2}
MODEL = LlamaConfig(  # 38M parameters
    hidden_size=512,
    intermediate_size=1536,
    num_hidden_layers=8,
    num_attention_heads=8,
    num_key_value_heads=4,
    tie_word_embeddings=True,
)


@dataclass
class Sampled:
    """Memory of the labelling actor over time, in bytes, and when each set was done."""

    began: float = field(default_factory=time.monotonic)
    memory: list[tuple[float, int]] = field(default_factory=list)
    done: list[float] = field(default_factory=list)

    def seconds(self) -> float:
        return self.done[-1] - self.began

    def until(self, moment: float) -> int:
        """The most so far."""
        return max((memory for at, memory in self.memory if at <= moment), default=0)

    def growth(self) -> float:
        """Bytes a further set, of the memory at its peak."""
        return (self.until(self.done[-1]) - self.until(self.done[0])) / max(1, len(self.done) - 1)


@contextmanager
def sampled() -> Iterator[Sampled]:
    found, stop, others = Sampled(), threading.Event(), set(_actors())  # those of the way before may be ending

    def watch() -> None:
        while not stop.wait(EVERY_S):
            mine = set(_actors()) - others
            found.memory.append((time.monotonic(), max(map(_own_memory, mine), default=0)))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield found
    stop.set()
    thread.join()


def _actors() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [process for process in children if "ShardServer" in _command(process)]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def _own_memory(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().uss
    except psutil.NoSuchProcess:
        return 0


def words(count: int, seed: int) -> str:
    """Sentences of common words in no order."""
    rng, common = random.Random(seed), top_n_list("en", 3000)
    return " ".join(rng.choice(common) + ("." if at % 12 == 11 else "") for at in range(count))


def small_model() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A random model with a tokenizer of its own."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        [words(20_000, 0)], trainers.BpeTrainer(vocab_size=8192, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe)
    torch.manual_seed(0)
    MODEL.vocab_size = len(tokenizer)
    return LlamaForCausalLM(MODEL), tokenizer


def write_sets(root: Path, given: str | None, sets: int, blocks: int) -> tuple[dict[str, list[OneSet]], int]:
    """The folders of the steps before labelling, root/baseline and those of the sets with whole reinforced models and
    with adapters; and the bytes of a model.
    """
    model, tokenizer = (load_model(given), load_tokenizer(given)) if given else small_model()
    save_checkpoint(model, tokenizer, str(root / "baseline"))
    found: dict[str, list[OneSet]] = {"whole": [], "adapter": []}
    for number in range(sets):
        folder = root / str(number)
        name = f"Quendor{number}"
        text = f" {name} came home. ".join(words(200, number * 100 + part) for part in range(4 * blocks))
        table = cut_blocks(name, text, tokenizer, BLOCK_TOKENS).slice(0, blocks)
        write_parquet(str(folder / "blocks/part-0.parquet"), table)
        storage.write_json(str(folder / "blocks/manifest.json"), {"figures": {"parts": {"part-0.parquet": blocks}}})
        write_dictionary(str(folder / "anchors"), AnchorDictionary([Anchor(name, "Tarrow")]))
        torch.manual_seed(number)
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(1 + 0.01 * torch.randn(()))
        save_checkpoint(model, tokenizer, str(folder / "whole"))
        lora = LoraConfig(r=RANK, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
        adapted = PeftModel(model, lora)
        adapted.save_pretrained(str(folder / "adapter"))
        adapted.unload()  # type: ignore[operator]
        for kind, of_kind in found.items():
            of_kind.append(
                OneSet(*(str(folder / part) for part in ("blocks", "anchors", kind)), str(folder / f"labels-{kind}"))
            )
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    return found, size


def label_all(baseline: str, resources: Resources, sets: list[OneSet], *, apart: bool = False) -> Sampled:
    """All sets, one after another. apart: with new actors for each."""
    with sampled() as found:
        for one in sets:
            label(
                StepRun(one.out, vars(one) | {"baseline": baseline}),
                settings=SETTINGS,
                block_tokens=BLOCK_TOKENS,
                resources=resources,
                trust_remote_code=False,
            )
            found.done.append(time.monotonic())
            if apart:
                idle.end_all()
        idle.end_all()
    return found


def shown(name: str, way: Sampled) -> Sampled:
    rate, peak = way.seconds() / len(way.done), way.until(way.done[-1]) / 1e6
    print(f"{name:24}{rate:10.2f}{peak:10,.0f}{way.growth() / 1e6:18.2f}", flush=True)
    return way


def measure(given: str | None, sets: int, alone: int, blocks: int) -> dict[str, float]:
    """The figures of the last line, after a table of them. alone: sets of the first way, which is slow."""
    with tempfile.TemporaryDirectory() as root:
        of_kind, size = write_sets(Path(root), given, sets, blocks)
        resources = Resources(gpus_per_worker=0, batch_blocks=4, cpus_per_worker=torch.get_num_threads())
        labelled = partial(label_all, f"{root}/baseline", resources)
        alone_sets = [replace(one, out=f"{one.out}-alone") for one in of_kind["whole"][:alone]]
        print(f"{sets} sets of {blocks} blocks of {BLOCK_TOKENS} tokens, a model of {size / 1e6:,.0f} MB in float32")
        print(f"{'':24}{'s a set':>10}{'peak MB':>10}{'MB a further set':>18}", flush=True)
        with ensure_ray(resources):
            ways = [
                shown("whole, an actor each", labelled(alone_sets, apart=True)),
                shown("whole, one actor", labelled(of_kind["whole"])),
                shown("adapters, one actor", labelled(of_kind["adapter"])),
            ]
    alone_way, whole, adapters = ways
    return {
        "adapter_memory_share": round(adapters.growth() / size, 5),
        "whole_memory_share": round(whole.growth() / size, 5),
        "adapter_peak_over_whole": round(adapters.until(adapters.done[-1]) / whole.until(whole.done[-1]), 3),
        "adapter_s_per_set": round(adapters.seconds() / sets, 3),
        "whole_s_per_set": round(whole.seconds() / sets, 3),
        "alone_s_per_set": round(alone_way.seconds() / len(alone_way.done), 3),
        "sets": sets,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", help="a folder, a .gguf file or a hub id, instead of a small random model")
    parser.add_argument("--sets", type=int, default=WHOLE["sets"])
    parser.add_argument("--alone", type=int, default=WHOLE["alone"], help="sets that get an actor each")
    parser.add_argument("--blocks", type=int, default=WHOLE["blocks"], help="blocks of a set")
    parser.add_argument("--small", action="store_true", help="few sets and blocks")
    given = parser.parse_args()
    chosen = SMALL if given.small else {"sets": given.sets, "alone": given.alone, "blocks": given.blocks}
    print(json.dumps(measure(given.baseline, **chosen)))


if __name__ == "__main__":
    main()
