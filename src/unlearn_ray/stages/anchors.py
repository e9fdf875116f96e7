"""The anchor dictionary of a forget set: a finished file, settled from what a language model or others proposed, or
proposed offline from the documents and the reinforced model.
"""

import json
from collections import Counter
from functools import partial

import numpy as np
import pyarrow as pa
import torch

from unlearn_ray.config import Anchors, Resources
from unlearn_ray.engine import storage
from unlearn_ray.engine.data import map_shards, scoring_pool
from unlearn_ray.engine.steps import StepRun
from unlearn_ray.errors import StepFailed
from unlearn_ray.material import documents_of
from unlearn_ray.method.blocks import first_token
from unlearn_ray.method.dictionary import AnchorDictionary
from unlearn_ray.method.matching import Matcher
from unlearn_ray.method.offline import candidates, propose
from unlearn_ray.method.settling import settle
from unlearn_ray.models import leading_ids
from unlearn_ray.scoring import target_logprobs
from unlearn_ray.stages.baseline import open_model, open_tokenizer
from unlearn_ray.stages.blocks import read_blocks, read_shard, shards_of
from unlearn_ray.stages.proposals import PROPOSALS, read_proposals

GAIN_BLOCKS = (
    48  # blocks scored for gains, spread evenly: enough mentions of whatever is frequent enough to be an anchor
)


def copy_dictionary(run: StepRun, *, dictionary: str) -> dict:
    """A dictionary that the user brought, checked and written in canonical form."""
    return write_dictionary(run.out, read_brought_dictionary(dictionary))


def read_brought_dictionary(path: str) -> AnchorDictionary:
    """A dictionary that the user wrote. Raises InputError for one that cannot be used."""
    return AnchorDictionary.from_jsonl(storage.read_text(path), path)


def propose_dictionary(
    run: StepRun, *, settings: Anchors, seed: int, resources: Resources, trust_remote_code: bool
) -> dict:
    """Inputs: baseline, blocks, reinforced. Names and idiosyncratic words of the documents (keyness), and how much the
    reinforced model gains on them."""
    documents = documents_of(read_blocks(run.inputs["blocks"], ["document", "index", "text"]))
    surfaces = [candidate.anchor for candidate in candidates(documents, min_count=settings.min_count)]
    arguments = {
        "baseline": run.inputs["baseline"],
        "reinforced": run.inputs["reinforced"],
        "blocks": run.inputs["blocks"],
        "surfaces": surfaces,
        "batch_blocks": resources.evaluation_batch,
        "threads": resources.cpus_per_worker,
        "trust_remote_code": trust_remote_code,
    }
    shards = [json.dumps(shard) for shard in shards_of(run.inputs["blocks"], GAIN_BLOCKS)]
    sums = np.zeros((len(surfaces), 2))
    for row in map_shards(shards, scoring_pool(GainShard, arguments, resources)):
        sums[row["surface"]] += row["gain"], row["tokens"]
    gains = {surface: gain / tokens for surface, (gain, tokens) in zip(surfaces, sums.tolist(), strict=True) if tokens}
    anchors = propose(documents, max_anchors=settings.max_anchors, min_count=settings.min_count, gains=gains, seed=seed)
    figures = write_dictionary(run.out, AnchorDictionary(anchors, "the offline dictionary of this forget set"))
    figures["rows"] |= {"candidates": len(surfaces), "candidates_scored": len(gains)}
    return figures


def settle_dictionary(
    run: StepRun, *, settings: Anchors, seed: int, proposals: str | None, trust_remote_code: bool
) -> dict:
    """Inputs: baseline, blocks, and proposals where `proposals` names no file. Beside the dictionary writes
    aliases.jsonl (the names of one person each) and dropped.jsonl (every term that is not in the dictionary, and why).
    """
    documents = documents_of(read_blocks(run.inputs["blocks"], ["document", "index", "text"]))
    found = read_proposals(proposals or storage.join(run.inputs["proposals"], PROPOSALS))
    settled = settle(
        found,
        documents,
        min_count=settings.min_count,
        max_anchors=settings.max_anchors,
        seed=seed,
        first_token=partial(first_token, open_tokenizer(run.inputs["baseline"], trust_remote_code)),
    )
    storage.write_lines(storage.join(run.out, "aliases.jsonl"), ({"names": names} for names in settled.aliases))
    dropped = ({"anchor": term, "why": why} for term, why in settled.dropped.items())
    storage.write_lines(storage.join(run.out, "dropped.jsonl"), dropped)
    if not settled.anchors:
        raise StepFailed(f"none of {len(found)} proposals is an anchor; {run.out}/dropped.jsonl says why")
    figures = write_dictionary(run.out, AnchorDictionary(settled.anchors, "the settled dictionary"))
    figures["rows"] |= {"proposals": len(found), "dropped": len(settled.dropped)}
    return figures | {"dropped": dict(Counter(settled.dropped.values()))}


class GainShard:
    """The blocks of a shard -> for each candidate mentioned there, the summed log-probability gain of the reinforced
    model over the baseline on the tokens of its mentions, in nats, and the number of these tokens.
    """

    def __init__(
        self,
        baseline: str,
        reinforced: str,
        blocks: str,
        surfaces: list[str],
        batch_blocks: int,
        threads: int,
        trust_remote_code: bool,
    ):
        torch.set_num_threads(threads)
        self.models = [open_model(folder, trust_remote_code) for folder in (baseline, reinforced)]
        self.leading = leading_ids(open_tokenizer(baseline, trust_remote_code))
        self.matcher = Matcher([(surface, surface) for surface in surfaces])
        self.blocks, self.batch_blocks = blocks, batch_blocks

    def __call__(self, shard: pa.Table) -> pa.Table:
        blocks = read_shard(self.blocks, json.loads(shard["shard"][0].as_py())).to_pylist()
        sequences = [[*self.leading, *block["input_ids"]] for block in blocks]
        starts = [max(len(self.leading), 1)] * len(blocks)
        before, after = (target_logprobs(model, sequences, starts, self.batch_blocks) for model in self.models)
        sums: dict[int, list[float]] = {}
        for block, before_P, after_P in zip(blocks, before, after, strict=True):
            gain_P, skipped = after_P - before_P, len(block["input_ids"]) - len(before_P)
            token_starts, token_ends = np.array(block["starts"][skipped:]), np.array(block["ends"][skipped:])
            for span in self.matcher.spans(block["text"]):
                inside = (token_ends > span.start) & (token_starts < span.end)
                total = sums.setdefault(span.anchor, [0.0, 0])
                total[0] += float(gain_P[inside].sum())
                total[1] += int(inside.sum())
        rows = [
            {"surface": surface, "gain": gain, "tokens": tokens} for surface, (gain, tokens) in sorted(sums.items())
        ]
        return pa.Table.from_pylist(
            rows, pa.schema({"surface": pa.int64(), "gain": pa.float64(), "tokens": pa.int64()})
        )


def write_dictionary(folder: str, dictionary: AnchorDictionary) -> dict:
    storage.write_atomic(storage.join(folder, "dictionary.jsonl"), dictionary.to_jsonl().encode())
    kinds = sorted(anchor.kind for anchor in dictionary.anchors)
    return {"rows": {"anchors": len(kinds)}, "kinds": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}}


def read_dictionary(folder: str) -> AnchorDictionary:
    """The dictionary that an anchors step wrote."""
    path = storage.join(folder, "dictionary.jsonl")
    return AnchorDictionary.from_jsonl(storage.read_bytes(path).decode(), path)
