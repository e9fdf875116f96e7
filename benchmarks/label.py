"""What labelling costs beside its floor: python benchmarks/label.py --baseline MODEL --reinforced MODEL --text FILE

On the same blocks of the same text with the same two models: (1) our kernel, which turns prepared blocks into labels;
(2) the floor, the forward passes and LM-head products of the same batches and nothing else; (3) the obvious way, as
the script released with the paper does it: float32 models, one block at a time, whole logits; (4) our stage on Ray, in
its steady state, which is what it does after its first shard. The paper's formula, so two forward passes a block. The
models are folders, .gguf files or hub ids; without --dictionary the offline one of the text is used.
"""

import argparse
import gc
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow as pa
import torch

from unlearn_ray.labelling import Labeller, LabelSettings, Preparer, hidden_states
from unlearn_ray.material import specific_tokens
from unlearn_ray.method.blocks import cut_blocks
from unlearn_ray.method.dictionary import AnchorDictionary
from unlearn_ray.method.labels import CHUNK
from unlearn_ray.method.offline import propose
from unlearn_ray.models import compute_dtype, leading_ids, load_model, load_tokenizer, save_checkpoint

SETTINGS = LabelSettings((5.0,), "restore", "skip", "all", "keep", 0)
SMALL_BLOCKS, OBVIOUS_BLOCKS = 24, 4
SHARDS = 4
ROUNDS = 3  # kernel and floor in turns, of which the fastest of each counts


@contextmanager
def peak_memory() -> Iterator[Callable[[], float]]:
    """Gives a function that tells how much more memory, in GB, was in use at the worst moment than at the start."""
    if torch.cuda.is_available():
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


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds and extra memory (GB) of the work."""
    with peak_memory() as peak:
        _synchronize()
        start = time.perf_counter()
        work()
        _synchronize()
        return time.perf_counter() - start, peak()


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@torch.inference_mode()
def floor(labeller: Labeller, rows: list[dict], batch_blocks: int) -> None:
    """The batches of the kernel, each through both decoders and both heads at the positions that get a label."""
    order = sorted(rows, key=lambda row: (len(row["translated_ids"]), row["block_id"]))
    for start in range(0, len(order), batch_blocks):
        batch = order[start : start + batch_blocks]
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


def kernel_and_floor(
    paths: tuple[str, str], leading: list[int], prepared: pa.Table, anchor_ids: list[int], batch_blocks: int
) -> dict[str, tuple[float, float]]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    baseline, reinforced = (load_model(path, dtype=compute_dtype(device), device=device) for path in paths)
    labeller = Labeller(baseline, reinforced, leading, SETTINGS, anchor_ids=anchor_ids, batch_blocks=batch_blocks)
    rows = prepared.to_pylist()
    kernel, bare = (lambda: labeller(prepared)), (lambda: floor(labeller, rows, batch_blocks))
    kernel_rounds, floor_rounds = zip(*[(timed(kernel), timed(bare)) for _ in range(ROUNDS)], strict=True)
    return {"kernel": min(kernel_rounds), "floor": min(floor_rounds)}


def stage_seconds(folders: tuple[str, str], blocks: pa.Table, dictionary: AnchorDictionary, batch_blocks: int) -> float:
    """Seconds a block of the stage on a local Ray, from the end of its first shard to the end of its last."""
    from unlearn_ray.config import Resources
    from unlearn_ray.engine.data import Pool, map_shards
    from unlearn_ray.engine.session import ensure_ray
    from unlearn_ray.stages.anchors import write_dictionary
    from unlearn_ray.stages.blocks import write_parquet
    from unlearn_ray.stages.label import LabelShard, PrepareShard

    with tempfile.TemporaryDirectory() as root:
        write_dictionary(f"{root}/anchors", dictionary)
        write_parquet(f"{root}/blocks/text.parquet", blocks)
        common = {
            "baseline": folders[0],
            "anchors": f"{root}/anchors",
            "settings": SETTINGS,
            "trust_remote_code": False,
        }
        threads = torch.get_num_threads()
        resources = Resources(workers=1, cpus_per_worker=threads)
        gpus = int(torch.cuda.is_available())
        scoring = {"reinforced": folders[1], "out": f"{root}/labels", "batch_blocks": batch_blocks, "threads": threads}
        pools = (
            Pool(PrepareShard, common | {"blocks": f"{root}/blocks"}, cpus=0.5),
            Pool(LabelShard, common | scoring, cpus=threads, gpus=gpus),
        )
        per_shard = -(-blocks.num_rows // SHARDS)
        shards = [
            {"name": f"part-{at}.parquet", "rows": {"text.parquet": list(rows)}}
            for at, start in enumerate(range(0, blocks.num_rows, per_shard))
            if (rows := range(start, min(start + per_shard, blocks.num_rows)))
        ]
        ends = []
        with ensure_ray(resources):
            for row in map_shards("labels", [json.dumps(shard) for shard in shards], *pools):
                ends.append((time.perf_counter(), row["blocks"]))
    return (ends[-1][0] - ends[0][0]) / sum(count for _, count in ends[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", required=True)
    parser.add_argument("--reinforced", required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--dictionary", type=Path)
    parser.add_argument("--block-tokens", type=int, default=512)
    parser.add_argument("--batch-blocks", type=int, default=4)
    parser.add_argument("--small", action="store_true", help=f"{SMALL_BLOCKS} blocks of the text instead of all")
    parser.add_argument("--no-ray", action="store_true", help="leave the stage out")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
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
    paths = (arguments.baseline, arguments.reinforced)
    anchor_ids = sorted(set().union(*specific_tokens(tokenizer, dictionary)))
    seconds, memory = {}, {}
    for name, (spent, extra) in kernel_and_floor(paths, leading, prepared, anchor_ids, arguments.batch_blocks).items():
        seconds[name], memory[name] = spent, extra
    plain = [load_model(path, dtype=torch.float32, device=device) for path in paths]
    some = rows[: min(OBVIOUS_BLOCKS, len(rows))]
    spent, memory["obvious"] = timed(lambda: obvious(plain[0], plain[1], leading, some))
    seconds["obvious"] = spent / len(some) * len(rows)
    if not arguments.no_ray:
        with tempfile.TemporaryDirectory() as folder:
            folders = (f"{folder}/baseline", f"{folder}/reinforced")
            for model, path in zip(plain, folders, strict=True):
                save_checkpoint(model, tokenizer, path)
            plain.clear()
            seconds["stage"] = stage_seconds(folders, blocks, dictionary, arguments.batch_blocks) * len(rows)
    print(f"{len(rows)} blocks of {arguments.block_tokens} tokens on {device}, batches of {arguments.batch_blocks}")
    for name, spent in seconds.items():
        extra = f"{memory[name]:8.2f} GB beside the models" if name in memory else ""
        print(f"{name:10}{len(rows) / spent:8.2f} blocks/s{extra}")
    figures = {
        "kernel_over_floor": seconds["floor"] / seconds["kernel"],
        "stage_over_floor": seconds["floor"] / seconds["stage"] if "stage" in seconds else None,
        "over_obvious": seconds["obvious"] / seconds["kernel"],
        "extra_memory_gb": memory["kernel"],
    }
    print(json.dumps({key: value if value is None else round(float(value), 3) for key, value in figures.items()}))


if __name__ == "__main__":
    main()
