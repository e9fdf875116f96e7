"""What labelling costs beside its floor: python benchmarks/label.py --baseline MODEL --reinforced MODEL --text FILE

On the same blocks of the same text with the same two models: (1) our kernel, which turns prepared blocks into labels;
(2) the floor, the forward passes and LM-head products of the same batches and nothing else; (3) the obvious way, as
the script released with the paper does it: float32 models, one block at a time, whole logits; (4) our stage on Ray, in
its steady state, which is what it does after its first shard. The paper's formula, so two forward passes a block. The
models are folders, .gguf files or hub ids; without --dictionary the offline one of the text is used. Kernel, floor and
stage take turns, slice by slice of the text. On CPUs memory is allocated as the workers of a run do it; the obvious way
is a process of its own with the allocator as it comes, and so is what the memory of each way is measured in.
--random-7b (CUDA) puts two random models of that shape in the place of the given ones, whose tokenizer is still used.
"""

import argparse
import gc
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import psutil
import pyarrow as pa
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from unlearn_ray.engine.environment import KEEP_MEMORY
from unlearn_ray.labelling import READ, Labeller, LabelSettings, Preparer, batches, hidden_states, padded
from unlearn_ray.material import specific_tokens
from unlearn_ray.method.blocks import cut_blocks
from unlearn_ray.method.dictionary import AnchorDictionary
from unlearn_ray.method.labels import CHUNK
from unlearn_ray.method.offline import propose
from unlearn_ray.models import compute_dtype, leading_ids, load_model, load_tokenizer, save_checkpoint

SETTINGS = LabelSettings((5.0,), "restore", "skip", "all", "keep", 0)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMALL_BLOCKS, OBVIOUS_BLOCKS = 8, 4
ROUNDS = 7
SLICE_BATCHES = 2  # what each way does before it is another's turn
RANDOM_7B = "random 7B "
Way = Callable[[pa.Table, list[dict]], object]
Seconds = Callable[[slice], float]  # that a way takes for these of the blocks


def load(path: str, dtype: torch.dtype) -> PreTrainedModel:
    """A model, or random weights in the shape of Llama 2 7B with the vocabulary in its name."""
    if not path.startswith(RANDOM_7B):
        model = load_model(path, dtype=dtype, device=DEVICE)
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()  # weights that are mapped from a file come into memory when read
        return model
    with torch.device(DEVICE):
        config = LlamaConfig(dtype=dtype, vocab_size=int(path.removeprefix(RANDOM_7B)))
        return LlamaForCausalLM(config).to(dtype).eval()


@contextmanager
def peak_memory() -> Iterator[Callable[[], float]]:
    """Gives a function that tells how much more memory, in GB, was in use at the worst moment than at the start."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        yield lambda: (torch.cuda.max_memory_allocated() - start) / 1e9
        return
    gc.collect()
    process, seen, ended = psutil.Process(), [0], threading.Event()
    start = process.memory_info().rss

    def watch() -> None:
        while not ended.wait(0.01):
            seen[0] = max(seen[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield lambda: max(seen[0] - start, 0) / 1e9
    ended.set()
    watcher.join()


def seconds_of(work: Callable[[], object]) -> float:
    _synchronize()
    start = time.perf_counter()
    work()
    _synchronize()
    return time.perf_counter() - start


def _synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


@torch.inference_mode()
def floor(labeller: Labeller, rows: list[dict], batch_blocks: int) -> None:
    """The batches of the kernel, each through both decoders and both heads at the positions that get a label."""
    for chosen in batches(rows, READ, labeller.leading, batch_blocks):
        batch = [rows[at] for at in chosen]
        reinforced = hidden_states(labeller.reinforced, labeller.leading, [row["input_ids"] for row in batch])
        baseline = hidden_states(labeller.baseline, labeller.leading, [row["translated_ids"] for row in batch])
        for row, reinforced_TH, baseline_UH in zip(batch, reinforced, baseline, strict=True):
            for head, hidden_PH in (
                (labeller.heads[0], baseline_UH[row["targets"]]),
                (labeller.heads[1], reinforced_TH[row["positions"]]),
            ):
                for part_PH in hidden_PH.split(CHUNK):
                    head(part_PH)


@torch.inference_mode()
def obvious(baseline, reinforced, leading: list[int], rows: list[dict]) -> None:
    for row in rows:
        with_first = lambda ids: torch.tensor([[*leading, *ids]], device=baseline.device)
        v_baseline_UV = baseline(with_first(row["translated_ids"])).logits[0, len(leading) :].float()
        v_reinforced_TV = reinforced(with_first(row["input_ids"])).logits[0, len(leading) :].float()
        aligned_TV = v_baseline_UV[row["targets"]]
        (aligned_TV - 5.0 * torch.relu(v_reinforced_TV[row["positions"]] - aligned_TV)).argmax(dim=1)


def ways(paths: tuple[str, str], leading: list[int], anchor_ids: list[int], batch_blocks: int) -> dict[str, Way]:
    """The kernel and the floor, ready to be given prepared blocks, as a table and as the rows of it."""
    labeller = Labeller(
        *(load(path, compute_dtype(DEVICE)) for path in paths),
        leading,
        SETTINGS,
        anchor_ids=anchor_ids,
        batch_blocks=batch_blocks,
    )
    return {
        "kernel": lambda prepared, rows: labeller(prepared),
        "floor": lambda prepared, rows: floor(labeller, rows, batch_blocks),
    }


def seconds_of_prepared(way: Way, prepared: pa.Table) -> Seconds:
    def seconds(blocks: slice) -> float:
        part = prepared.slice(blocks.start, blocks.stop - blocks.start)
        return seconds_of(partial(way, part, part.to_pylist()))

    return seconds


def seconds_in_turns(ours: dict[str, Seconds], blocks: int, at_once: int) -> dict[str, float]:
    """Seconds of each way for all blocks: of every slice the fastest of ROUNDS. The ways take turns slice by slice, so
    that a machine that slows down for a while slows down all.
    """
    totals = dict.fromkeys(ours, 0.0)
    for start in range(0, blocks, at_once):
        part = slice(start, min(start + at_once, blocks))
        turns = [{name: seconds(part) for name, seconds in ours.items()} for _ in range(ROUNDS)]
        totals = {name: total + min(turn[name] for turn in turns) for name, total in totals.items()}
    return totals


def obvious_way(paths: tuple[str, str], leading: list[int], prepared: pa.Table) -> Callable[[], object]:
    models = [load(path, torch.float32) for path in paths]
    for model in models:
        model.set_attn_implementation("sdpa")  # what transformers has by itself
    return partial(obvious, *models, leading, prepared.to_pylist())


def alone(make: Callable[[], Callable[[], object]]) -> tuple[float, float]:
    """GB beside the models, and the seconds of the fastest of ROUNDS, in a process of its own that frees what it no
    longer needs.
    """
    kept = {name: os.environ.pop(name) for name in KEEP_MEMORY if name in os.environ}
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        os.environ |= kept
        return pool.apply(_alone, (make, torch.get_num_threads()))


def _alone(make: Callable[[], Callable[[], object]], threads: int) -> tuple[float, float]:
    torch.set_num_threads(threads)
    work = make()
    with peak_memory() as peak:
        seconds = min(seconds_of(work) for _ in range(ROUNDS))
        return peak(), seconds


def model_flops(model: PreTrainedModel, rows: list[dict]) -> float:
    """Floating-point operations of both forward passes and of the LM heads at the positions that get a label: two for
    each weight and position, and those of causal attention."""
    config = model.config
    head = config.hidden_size * config.vocab_size
    embedding = 0 if config.tie_word_embeddings else head
    body = model.num_parameters() - head - embedding
    lengths = [len(row[name]) for row in rows for name in ("input_ids", "translated_ids")]
    attention = sum(2 * config.num_hidden_layers * config.hidden_size * length**2 for length in lengths)
    return 2 * body * sum(lengths) + attention + 2 * 2 * head * sum(len(row["positions"]) for row in rows)


@contextmanager
def stage(
    paths: tuple[str, str], blocks: pa.Table, dictionary: AnchorDictionary, batch_blocks: int
) -> Iterator[Seconds]:
    """The stage on a local Ray, under way: before every slice a batch goes through it that is not counted."""
    from unlearn_ray.config import Resources
    from unlearn_ray.engine import idle
    from unlearn_ray.engine.data import Pool, map_shards
    from unlearn_ray.engine.session import ensure_ray
    from unlearn_ray.stages.anchors import write_dictionary
    from unlearn_ray.stages.blocks import write_parquet
    from unlearn_ray.stages.label_actors import LabelShard, OneSet, PrepareShard

    idle.LINGER_S = 600  # its actors wait while the others take their turns
    with tempfile.TemporaryDirectory() as root:
        folders, tokenizer = (f"{root}/baseline", f"{root}/reinforced"), load_tokenizer(paths[0])
        for path, folder in zip(paths, folders, strict=True):
            save_checkpoint(load_model(path), tokenizer, folder)
        write_dictionary(f"{root}/anchors", dictionary)
        write_parquet(f"{root}/blocks/text.parquet", blocks)
        common = {"baseline": folders[0], "settings": SETTINGS, "trust_remote_code": False}
        threads = torch.get_num_threads()
        scoring = {"block_tokens": 0, "batch_blocks": batch_blocks, "threads": threads}
        pools = (
            Pool(PrepareShard, common, cpus=0.5),
            Pool(LabelShard, common | scoring, cpus=threads, gpus=int(DEVICE == "cuda")),
        )
        one = vars(OneSet(f"{root}/blocks", f"{root}/anchors", folders[1], f"{root}/labels"))

        def seconds(part: slice) -> float:
            ends = []
            shards = [
                json.dumps({"set": one, "name": f"{name}.parquet", "rows": {"text.parquet": rows}})
                for name, rows in (("before", list(range(batch_blocks))), ("part", list(range(part.start, part.stop))))
            ]
            for _ in map_shards(shards, *pools):
                ends.append(time.perf_counter())
            return ends[1] - ends[0]

        with ensure_ray(Resources(workers=1, cpus_per_worker=threads)):
            yield seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", required=True)
    parser.add_argument("--reinforced", required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--dictionary", type=Path)
    parser.add_argument("--block-tokens", type=int, help="512, or 256 with --small")
    parser.add_argument("--batch-blocks", type=int, default=4)
    parser.add_argument("--small", action="store_true", help=f"{SMALL_BLOCKS} short blocks of the text instead of all")
    parser.add_argument("--no-ray", action="store_true", help="leave the stage out")
    parser.add_argument("--random-7b", action="store_true", help="kernel and floor of two random models, on CUDA")
    parser.add_argument("--peak-tflops", type=float, help="of the GPU, for the model FLOP utilisation (H200: 989)")
    arguments = parser.parse_args()
    arguments.block_tokens = arguments.block_tokens or (256 if arguments.small else 512)
    if DEVICE == "cpu" and not KEEP_MEMORY.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_MEMORY)
    torch.set_num_threads(psutil.cpu_count(logical=False) or 1)
    tokenizer, text = load_tokenizer(arguments.baseline), arguments.text.read_text("utf-8")
    if arguments.dictionary:
        dictionary = AnchorDictionary.from_jsonl(arguments.dictionary.read_text("utf-8"), str(arguments.dictionary))
    else:
        dictionary = AnchorDictionary(propose({"text": text}, max_anchors=1000, min_count=3, seed=0))
    blocks = cut_blocks("text", text, tokenizer, arguments.block_tokens)
    blocks = blocks.slice(0, SMALL_BLOCKS) if arguments.small else blocks
    prepared = Preparer(dictionary, tokenizer, SETTINGS)(blocks)
    rows, leading = prepared.to_pylist(), leading_ids(tokenizer)
    anchor_ids = sorted(set().union(*specific_tokens(tokenizer, dictionary)))
    paths = (f"{RANDOM_7B}{len(tokenizer)}",) * 2 if arguments.random_7b else (arguments.baseline, arguments.reinforced)
    make = partial(ways, paths, leading, anchor_ids, arguments.batch_blocks)
    with ExitStack() as running:
        ours = {name: seconds_of_prepared(way, prepared) for name, way in make().items()}
        if not arguments.no_ray and not arguments.random_7b:
            ours["stage"] = running.enter_context(stage(paths, blocks, dictionary, arguments.batch_blocks))
        seconds = seconds_in_turns(ours, len(rows), SLICE_BATCHES * arguments.batch_blocks)
        del ours
    first = prepared.slice(0, arguments.batch_blocks)
    memory = {name: alone(partial(_one_of, make, name, first))[0] for name in ("kernel", "floor")}
    if not arguments.random_7b:
        few = prepared.slice(0, OBVIOUS_BLOCKS)
        memory["obvious"], spent = alone(partial(obvious_way, paths, leading, few))
        seconds["obvious"] = spent * len(rows) / len(few)
    lengths = [len(leading) + len(row[column]) for row in rows for column in READ]
    padding = 1 - sum(lengths) / sum(map(padded, lengths))
    print(f"{len(rows)} blocks of {arguments.block_tokens} tokens on {DEVICE}, batches of {arguments.batch_blocks}, "
          f"{padding:.1%} of them padding")  # fmt: skip
    for name, spent in seconds.items():
        extra = f"{memory[name]:8.2f} GB beside the models" if name in memory else ""
        print(f"{name:10}{len(rows) / spent:8.2f} blocks/s{extra}")
    ratio = lambda slow, fast: seconds[slow] / seconds[fast] if {slow, fast} <= seconds.keys() else None
    figures = {
        "kernel_over_floor": ratio("floor", "kernel"),
        "stage_over_floor": ratio("floor", "stage"),
        "over_obvious": ratio("obvious", "kernel"),
        "extra_memory_gb": memory["kernel"],
    }
    if arguments.peak_tflops:
        flops = model_flops(load(paths[0], compute_dtype(DEVICE)), rows)
        figures["model_flop_utilisation"] = flops / seconds["kernel"] / (arguments.peak_tflops * 1e12)
    print(json.dumps({key: value if value is None else round(float(value), 3) for key, value in figures.items()}))


def _one_of(make: Callable[[], dict[str, Way]], name: str, prepared: pa.Table) -> Callable[[], object]:
    return partial(make()[name], prepared, prepared.to_pylist())


if __name__ == "__main__":
    main()
