"""The actors of labelling: each goes from Arrow table to Arrow table, and from forget set to forget set."""

import json
from collections import Counter
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import torch
from peft import PeftModel

from unlearn_ray.engine.memory import free_memory
from unlearn_ray.labelling import PREPARED_SCHEMA, Labeller, LabelSettings, Preparer, label_text
from unlearn_ray.material import specific_tokens
from unlearn_ray.models import leading_ids
from unlearn_ray.stages.anchors import read_dictionary
from unlearn_ray.stages.baseline import open_model, open_reinforced, open_tokenizer
from unlearn_ray.stages.blocks import read_shard
from unlearn_ray.stages.shard_writer import ShardWriter, told

SHARD_SCHEMA = PREPARED_SCHEMA.append(pa.field("work", pa.string())).append(pa.field("problem", pa.string()))


@dataclass(frozen=True)
class OneSet:
    """What is a forget set's own in labelling: the folders of its steps."""

    blocks: str
    anchors: str
    reinforced: str
    out: str


class PrepareShard:
    """One shard -> its prepared blocks (SHARD_SCHEMA); of a block that cannot be prepared only id and problem."""

    def __init__(self, baseline: str, settings: LabelSettings, trust_remote_code: bool):
        self.tokenizer, self.settings = open_tokenizer(baseline, trust_remote_code), settings
        self.anchors = ""

    def __call__(self, shard: pa.Table) -> pa.Table:
        work = json.loads(shard["shard"][0].as_py())
        if work["set"]["anchors"] != self.anchors:
            self.anchors = work["set"]["anchors"]
            self.preparer = Preparer(read_dictionary(self.anchors), self.tokenizer, self.settings)
        mark = {"work": json.dumps({"set": work["set"], "name": work["name"]})}
        blocks = read_shard(work["set"]["blocks"], work).to_pylist()
        return pa.Table.from_pylist([self._prepare(block) | mark for block in blocks], SHARD_SCHEMA)

    def _prepare(self, block: dict) -> dict:
        try:
            return self.preparer.prepare(block)
        except Exception as error:
            return {"block_id": block["block_id"], "problem": told(error)}


class LabelShard:
    """The prepared blocks of one shard -> its file of labels. Holds the baseline, and what else the forget set of the
    last shard takes.
    """

    def __init__(
        self,
        baseline: str,
        settings: LabelSettings,
        block_tokens: int,
        batch_blocks: int | None,
        threads: int,
        trust_remote_code: bool,
    ):
        torch.set_num_threads(threads)
        self.trust_remote_code = trust_remote_code
        self.settings, self.block_tokens, self.batch_blocks = settings, block_tokens, batch_blocks
        self.tokenizer = open_tokenizer(baseline, trust_remote_code)
        self.model = open_model(baseline, trust_remote_code)
        self.label: Labeller | None = None
        self.writer = ShardWriter("")

    def __call__(self, shard: pa.Table) -> pa.Table:
        work = json.loads(shard["work"][0].as_py())
        if (one := OneSet(**work["set"])).out != self.writer.out:
            self._change_to(one)
        return self._write(work["name"], shard)

    def _change_to(self, one: OneSet) -> None:
        self._let_go()
        anchor_ids = set().union(*specific_tokens(self.tokenizer, read_dictionary(one.anchors)))
        self.label = Labeller(
            self.model,
            open_reinforced(one.reinforced, self.model, self.trust_remote_code),
            leading_ids(self.tokenizer),
            self.settings,
            anchor_ids=sorted(anchor_ids),
        )
        self.batch_blocks = self.batch_blocks or self.label.find_batch(self.block_tokens)
        self.label.batch_blocks = self.batch_blocks
        self.writer = ShardWriter(one.out)

    def _let_go(self) -> None:
        """Of what is the last set's own, before that of the next is loaded: the baseline as it was stays."""
        if self.label and isinstance(self.label.reinforced, PeftModel):
            self.label.reinforced.unload()  # type: ignore[operator]
        self.label = None
        free_memory()

    def _write(self, name: str, shard: pa.Table) -> pa.Table:
        assert self.label
        good = shard.filter(shard["problem"].is_null())
        counts = Counter({"labelled": len(good["positions"].combine_chunks().flatten())})
        for ignored in good["ignored"].to_pylist():
            counts.update(dict(ignored))
        problems = zip(shard["block_id"].to_pylist(), shard["problem"].to_pylist(), strict=True)
        bad = {block_id: problem for block_id, problem in problems if problem}
        return self.writer.write(name, self.label, good.select(PREPARED_SCHEMA.names), counts, bad)


class LabelRetainShard:
    """One shard of retain text -> its file of the baseline's soft labels."""

    def __init__(
        self, baseline: str, blocks: str, top_k: int, out: str, batch_blocks: int, threads: int, trust_remote_code: bool
    ):
        torch.set_num_threads(threads)
        self.label = partial(
            label_text,
            open_model(baseline, trust_remote_code),
            leading_ids(open_tokenizer(baseline, trust_remote_code)),
            top_k=top_k,
            batch_blocks=batch_blocks,
        )
        self.blocks, self.writer = blocks, ShardWriter(out)

    def __call__(self, shard: pa.Table) -> pa.Table:
        work = json.loads(shard["shard"][0].as_py())
        return self.writer.write(work["name"], self.label, read_shard(self.blocks, work), Counter(), {})
