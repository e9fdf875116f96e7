"""How near unlearning comes to never having read the text: python benchmarks/quality.py --books FOLDER --work FOLDER

A pretrained model is fine-tuned on two novels until it knows both (the target), and on the kept one alone, by the same
batches, steps and rate (the gold reference: what exact unlearning would give). Then the other novel is unlearned from
the target, by our method and by the usual alternatives, each with as many steps over as many forget blocks, and as many
retain blocks (of the kept novel) where it uses any. With --passages some are tried with twice as many, of the kept
novel and of passages on everything (bench_data.py writes those of BoolQ). One row a model:

- distance to gold: the mean over the forget metrics of |m - m(gold)| / |m(target) - m(gold)|, perplexities by their
  logarithm: 1 is nothing unlearned, 0 like gold. Metrics in which target and gold do not differ (95% interval of the
  paired difference) do not count.
- utility: the mean of kept perplexity, perplexity of other prose and control facts relative to the target, each at
  most 1.

Of the settings of a method the one with the least distance is chosen (*), among those that keep nine tenths of gold's
utility. The last table sets beside every setting of the alternatives the least distance of ours at equal or better
utility. Models and finished rows are kept in --work, and a killed run goes on from there. books.py makes the novels;
questions.json has questions on some of them.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import torch
from alternatives import ForgetLoss, InferenceFormula, ascent, npo, unlearn_by
from gold import Measure, Row, choose, figures_of, print_beside, print_tables
from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel

from unlearn_ray.config import Evaluate
from unlearn_ray.engine.environment import KEEP_MEMORY
from unlearn_ray.labelling import Labeller, LabelSettings, Preparer, alpha_column, label_text
from unlearn_ray.material import Question, documents_of, prepare, specific_tokens
from unlearn_ray.method.blocks import cut_blocks
from unlearn_ray.method.dictionary import AnchorDictionary
from unlearn_ray.method.metrics import Items
from unlearn_ray.method.offline import propose
from unlearn_ray.models import compute_dtype, leading_ids, load_model, load_tokenizer, save_checkpoint
from unlearn_ray.training.examples import Examples, hard_example, soft_example, text_example
from unlearn_ray.training.layout import Layout, make_accelerator
from unlearn_ray.training.loop import TrainSettings, train

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HERE = Path(__file__).parent
DEMO = Path("data/demo")
BLOCK_TOKENS = 128
Model = PreTrainedModel | InferenceFormula
BATCH = 4  # blocks of a step, and as many of the retain text


@dataclass(frozen=True)
class Size:
    """blocks: of each novel, or None for all but the last fifth; epochs: of the target, and of each unlearning."""

    blocks: int | None
    target_epochs: int
    epochs: int
    prompts: int
    verbatim: int
    perplexity_blocks: int
    completion_tokens: int = 24
    passages: int = 48
    controls: int | None = None
    settings: int | None = None  # of each method, or None for all


SMALL = Size(4, 1, 1, 8, 4, 4, completion_tokens=4, passages=4, controls=8, settings=1)
DEFAULT = Size(24, 4, 2, 48, 16, 16)
FULL = Size(None, 4, 2, 96, 48, 64, passages=480)


@dataclass(frozen=True)
class Ours:
    """One setting of our method; rank: of LoRA; retain_targets: as in the configuration; passages: held as well."""

    label: LabelSettings
    soft: bool
    rate: float
    retain_weight: float = 0.0
    retain_targets: str = "baseline"
    warmup: float = 0.0
    average: float = 0.0
    rank: int | None = None
    passages: bool = False


@dataclass(frozen=True)
class Theirs:
    """One setting of an alternative; the retain term is the cross-entropy of its text."""

    loss: ForgetLoss
    rate: float
    retain_weight: float = 1.0
    passages: bool = False


PAPER = LabelSettings((5.0,), "paper", "skip", "all", "keep", 0)
RESTORE = LabelSettings((5.0,), "restore", "original", "all", "keep", 32)
FORBID = replace(RESTORE, unnamed_anchors="forbid")
SHIPPED = LabelSettings((20.0,), "restore", "original", "anchors", "forbid", 32)
HELD_TO_TEXT = {"soft": True, "retain_weight": 1.0, "retain_targets": "text", "warmup": 0.1}
HELD_TWICE = HELD_TO_TEXT | {"retain_weight": 2.0}
SHIPPED_TRAINING = {"soft": True, "retain_weight": 2.0, "warmup": 0.3, "average": 0.5}
PASSAGES = ", passages"
OURS = {
    "paper, hard": [Ours(PAPER, False, 1e-4)],
    "restore, hard": [Ours(RESTORE, False, 1e-4)],
    "restore, soft": [Ours(RESTORE, rate=4e-4, **HELD_TO_TEXT)],
    "forbid, soft": [Ours(FORBID, rate=rate, **HELD_TO_TEXT) for rate in (4e-4, 6e-4)],
    "forbid, soft, alpha 10": [
        Ours(replace(FORBID, alphas=(10.0,)), rate=rate, **HELD_TO_TEXT) for rate in (4e-4, 3e-4)
    ],
    "forbid, soft, capped": [
        Ours(replace(FORBID, recitation_cap=0.1), rate=rate, **HELD_TWICE) for rate in (4e-4, 6e-4)
    ],
    "forbid, soft, capped" + PASSAGES: [
        Ours(replace(FORBID, recitation_cap=cap), rate=rate, passages=True, **HELD_TWICE)
        for cap, rate in ((0.01, 8e-4), (0.03, 6e-4), (0.01, 1.2e-3))
    ],
    "forbid, soft, retain weight 2": [Ours(FORBID, rate=4e-4, **HELD_TWICE)],
    "forbid, soft, LoRA": [Ours(FORBID, rate=2e-3, rank=16, **HELD_TO_TEXT)],
    "shipped": [Ours(SHIPPED, rate=rate, **SHIPPED_TRAINING) for rate in (4e-4, 2e-4)],
}
THEIRS = {
    "gradient ascent": [Theirs(ascent, rate, retain_weight=0.0) for rate in (2e-5, 6e-5)],
    "gradient difference": [Theirs(ascent, rate) for rate in (6e-5, 1e-4, 2e-5)],
    "gradient difference" + PASSAGES: [Theirs(ascent, rate, 2.0, passages=True) for rate in (2e-4, 4e-4, 1e-4)],
    "NPO": [Theirs(npo, rate) for rate in (2e-4, 1e-4, 6e-5)],
    "NPO" + PASSAGES: [Theirs(npo, rate, 2.0, passages=True) for rate in (4e-4, 8e-4, 2e-4)],
}
FORMULA, FORMULA_ALPHAS = "formula at inference", (1.0, 0.3, 5.0)


class Bench:
    """The texts, the models that all methods start from, and what every model is measured on."""

    def __init__(self, options: argparse.Namespace, size: Size):
        self.size, self.work, self.model, self.seed = size, options.work, options.model, options.seed
        self.tokenizer = load_tokenizer(self.model)
        self.leading = leading_ids(self.tokenizer)
        cut = lambda path: cut_blocks(path.stem, path.read_text("utf-8"), self.tokenizer, BLOCK_TOKENS)
        novel = cut(options.books / f"{options.forget}.txt")
        kept = cut(options.books / f"{options.keep}.txt")
        read = min(size.blocks or len(novel), len(novel) * 4 // 5)
        self.forget, unseen = novel.slice(0, read), novel.slice(len(novel) - min(read, len(novel) - read))
        self.kept = kept.slice(0, min(size.blocks or len(kept), len(kept)))
        documents = documents_of(self.forget)
        self.dictionary = AnchorDictionary(propose(documents, max_anchors=400, min_count=2, seed=0))
        asked = json.loads((HERE / "questions.json").read_text("utf-8")).get(options.forget, [])
        lines = (HERE.parent / "configs/demo/controls.jsonl").read_text("utf-8").splitlines()
        wanted = Evaluate(
            completions=size.prompts,
            completion_tokens=size.completion_tokens,
            probability_prompts=size.prompts,
            verbatim=size.verbatim,
            perplexity_blocks=size.perplexity_blocks,
        )
        material = prepare(
            wanted,
            blocks=self.forget,
            other_texts={"retain": pa.concat_tables([cut(path) for path in options.other])},
            probes=[Question(*question) for question in asked if question[1].strip() in documents[options.forget]],
            controls=[Question(**json.loads(line)) for line in lines[: size.controls]],
            dictionary=self.dictionary,
            tokenizer=self.tokenizer,
        )
        texts = material.texts | {
            "forget": self.forget["input_ids"].to_pylist(),
            "nonmembers": spread(unseen, size.perplexity_blocks),
            "kept": spread(self.kept, size.perplexity_blocks),
        }
        self.measure = Measure(self.tokenizer, self.dictionary, replace(material, shown=[], texts=texts))
        self.passages = self._passages(options.passages) if options.passages else None
        self.labels, self.held = cache(self._labels), cache(self._held)

    def _passages(self, file: Path) -> pa.Table:
        """The first blocks of passages at equal distances in the file, of those that fill a block."""
        texts = dict.fromkeys(json.loads(line)["passage"] for line in file.read_text("utf-8").splitlines())
        first = lambda n, text: cut_blocks(f"passage {n}", text, self.tokenizer, BLOCK_TOKENS)[:1]
        blocks = [first(n, text) for n, text in enumerate(texts)]
        whole = pa.concat_tables([block for block in blocks if len(block["input_ids"][0]) == BLOCK_TOKENS])
        return at_distances(whole, self.size.passages)

    def retain(self, passages: bool) -> tuple[pa.Table, int]:
        """The kept novel, or the passages as well, and how many of these blocks a step holds."""
        return (pa.concat_tables([self.kept, self.passages]), 2 * BATCH) if passages else (self.kept, BATCH)

    def fine_tuned(self, name: str, start: str, examples: pa.Table, settings: TrainSettings, retain=None) -> str:
        """The folder of a model trained on the text of the blocks, made where it is not there yet."""
        folder = self.work / name
        if not folder.exists():
            print(f"training {name}", file=sys.stderr, flush=True)
            model = load_model(start, device=DEVICE)
            self.train(model, Examples(examples, text_example), settings, retain and Examples(retain, text_example))
            save_checkpoint(model, self.tokenizer, f"{folder}.part")
            os.replace(f"{folder}.part", folder)
        return str(folder)

    def settings(self, epochs: int, rate: float, **others) -> TrainSettings:
        return TrainSettings(epochs=epochs, learning_rate=rate, global_batch=BATCH, seed=self.seed, **others)

    def make_models(self) -> None:
        known = self.settings(self.size.target_epochs, 3e-4, warmup_share=0.1)
        both = replace(known, retain_weight=1.0, retain_batch=BATCH)
        self.gold = self.fine_tuned("gold", self.model, self.kept, known)
        self.target = self.fine_tuned("target", self.model, self.kept, both, retain=self.forget)
        more = self.settings(self.size.epochs, 1e-4, warmup_share=0.1)
        self.reinforced = self.fine_tuned("reinforced", self.target, self.forget, more)

    def train(self, model, examples: Examples, settings: TrainSettings, retain: Examples | None = None) -> None:
        accelerator = make_accelerator(Layout(), max_grad_norm=settings.max_grad_norm, processes=1)
        layout = Layout(micro_batch=2 * BATCH)
        train(model, self.leading, examples, settings, accelerator, layout=layout, retain=retain)

    def _labels(self, settings: LabelSettings) -> pa.Table:
        """Generic labels of the forget blocks."""
        models = self.load(self.target), self.load(self.reinforced)
        anchor_ids = sorted(set().union(*specific_tokens(self.tokenizer, self.dictionary)))
        label = Labeller(*models, self.leading, settings, anchor_ids=anchor_ids)
        return label(Preparer(self.dictionary, self.tokenizer, settings)(self.forget))

    def _held(self, top_k: int, passages: bool) -> pa.Table:
        """The target's own soft labels of the retain text."""
        return label_text(self.load(self.target), self.leading, self.retain(passages)[0], top_k)

    def load(self, folder: str) -> PreTrainedModel:
        """For reading alone."""
        return load_model(folder, dtype=compute_dtype(DEVICE), device=DEVICE)

    def ours(self, how: Ours) -> PreTrainedModel:
        model = load_model(self.target, device=DEVICE)
        if how.rank:
            torch.manual_seed(0)
            lora = LoraConfig(r=how.rank, lora_alpha=2 * how.rank, target_modules="all-linear", task_type="CAUSAL_LM")
            model = PeftModel(model, lora)
        decode = soft_example if how.soft else partial(hard_example, column=alpha_column(how.label.alphas[0]))
        retain, retain_batch = self.retain(how.passages)
        settings = self.settings(
            self.size.epochs,
            how.rate,
            warmup_share=how.warmup,
            retain_weight=how.retain_weight,
            retain_batch=retain_batch,
            average_share=how.average,
        )
        held = None
        if how.retain_weight and how.retain_targets == "text":
            held = Examples(retain, text_example)
        elif how.retain_weight:
            held = Examples(self.held(how.label.top_k, how.passages), soft_example)
        self.train(model, Examples(self.labels(how.label), decode), settings, held)
        return model.merge_and_unload() if isinstance(model, PeftModel) else model

    def theirs(self, how: Theirs) -> PreTrainedModel:
        model = load_model(self.target, device=DEVICE)
        retain, retain_batch = self.retain(how.passages)
        settings = self.settings(self.size.epochs, how.rate, retain_weight=how.retain_weight, retain_batch=retain_batch)
        forget, kept = (table["input_ids"].to_pylist() for table in (self.forget, retain))
        unlearn_by(how.loss, model, self.leading, forget, kept, settings)
        return model

    def formula(self, alpha: float) -> InferenceFormula:
        return InferenceFormula(self.load(self.target), self.load(self.reinforced), alpha)

    def row(self, name: str, settings: dict, make: Callable[[], Model]) -> Row:
        """The metrics of a model; its file in --work is its memory. One of other settings is made anew."""
        file = self.work / "rows" / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        if not file.exists() or json.loads(file.read_text())["settings"] != json.loads(json.dumps(settings)):
            start = time.monotonic()
            model = make().eval()
            made = time.monotonic()
            if isinstance(model, PreTrainedModel):
                torch.nn.Module.to(model, compute_dtype(DEVICE))
            row = self.measure(model)
            seconds = {"making": made - start, "measuring": time.monotonic() - made}
            print(f"{name}: {seconds}", file=sys.stderr, flush=True)
            items = {metric: (found.values_N.tolist(), found.weights_N.tolist(), found.exponential)
                     for metric, found in row.items()}  # fmt: skip
            file.write_text(json.dumps({"settings": settings, "seconds": seconds, "items": items}))
        stored = json.loads(file.read_text())["items"]
        return {name: Items(*(np.array(part) for part in found[:2]), found[2]) for name, found in stored.items()}


def at_distances(blocks: pa.Table, count: int) -> pa.Table:
    """`count` blocks at equal distances."""
    return blocks.take(np.linspace(0, len(blocks) - 1, min(count, len(blocks))).astype(int))


def spread(blocks: pa.Table, count: int) -> list[list[int]]:
    """The ids of `count` blocks at equal distances."""
    return at_distances(blocks, count)["input_ids"].to_pylist()


def tries_of(bench: Bench, methods: Sequence[str] | None) -> dict[str, list[tuple[str, dict, Callable]]]:
    """Method -> its settings: a name, what a finished row must agree with, and what makes the model."""
    tries = {method: [(f"{how.rate:g}", asdict(how), partial(bench.ours, how)) for how in OURS[method]]
             for method in OURS}  # fmt: skip
    for method, those in THEIRS.items():
        tries[method] = [(f"{how.rate:g}", asdict(how) | {"loss": method}, partial(bench.theirs, how)) for how in those]
    tries[FORMULA] = [(f"alpha {alpha:g}", {}, partial(bench.formula, alpha)) for alpha in FORMULA_ALPHAS]
    wanted = [method for method in methods or tries if bench.passages or not method.endswith(PASSAGES)]
    return {method: tries[method][: bench.size.settings] for method in wanted}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=Path, required=True, help="the folder that benchmarks/books.py wrote")
    parser.add_argument("--forget", default="burgess-busterbrown", help="the novel to unlearn, a .txt file there")
    parser.add_argument("--keep", default="carroll-alice", help="the novel to keep")
    parser.add_argument("--other", type=Path, nargs="+", default=[DEMO / "thursday.txt", DEMO / "stories.txt"])
    parser.add_argument("--model", default=str(DEMO / "SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--work", type=Path, required=True, help="where models and rows are kept; one for each size")
    parser.add_argument("--blocks", type=int, help=f"of each novel, of {BLOCK_TOKENS} tokens")
    parser.add_argument("--passages", type=Path, help="a .jsonl file, a passage a line: more text to keep")
    parser.add_argument("--seed", type=int, default=0, help="of the order of blocks in every training")
    named = {"choices": [*OURS, *THEIRS, FORMULA], "metavar": "METHOD"}
    parser.add_argument("--methods", nargs="+", **named, help="as the table names them; all where not given")
    parser.add_argument("--settings", type=int, help="tried of each method; all where not given")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--small", dest="size", action="store_const", const=SMALL, help="one step of each: minutes")
    sizes.add_argument("--full", dest="size", action="store_const", const=FULL, help="the whole novels: hours")
    parser.set_defaults(size=DEFAULT)
    options = parser.parse_args()
    if not options.passages and any(method.endswith(PASSAGES) for method in options.methods or ()):
        parser.error("--methods: those that hold passages need --passages")
    if DEVICE == "cpu" and not KEEP_MEMORY.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_MEMORY)
    torch.set_num_threads(psutil.cpu_count(logical=False) or 1)
    size = replace(options.size, **{key: given for key in ("blocks", "settings") if (given := getattr(options, key))})
    asked = dict.fromkeys(("work", "methods", "settings"))
    identity = vars(options) | asked | {"size": asdict(replace(size, settings=None))}
    same = json.loads(json.dumps(identity, default=str))
    options.work.mkdir(parents=True, exist_ok=True)
    memory = options.work / "run.json"
    if memory.exists() and json.loads(memory.read_text()) != same:
        parser.error(f"{options.work} holds a run of other options: {memory.read_text()}")
    memory.write_text(json.dumps(same))
    bench = Bench(options, size)
    bench.make_models()
    rows = {name: bench.row(name, {}, partial(bench.load, getattr(bench, name))) for name in ("target", "gold")}
    tries = tries_of(bench, options.methods)
    for at in range(max(map(len, tries.values()))):  # the first of every method first
        for method, those in tries.items():
            for name, settings, make in those[at : at + 1]:
                rows[f"{method}, {name}"] = bench.row(f"{method}, {name}", settings, make)
    methods = {method: [f"{method}, {name}" for name, *_ in those] for method, those in tries.items()}
    report(bench, rows, methods)


def report(bench: Bench, rows: dict[str, Row], methods: dict[str, list[str]]) -> None:
    figures = {name: figures_of(row, rows["target"], rows["gold"]) for name, row in rows.items()}
    chosen = [choose(names, figures) for names in methods.values()]
    print(f"{len(bench.forget)} blocks of the forget novel, {len(bench.kept)} of the kept one")
    order = ["target", "gold", *(name for names in methods.values() for name in names)]
    counts = {name: len(items.values_N) for name, items in rows["target"].items()}
    print_tables({name: figures[name] for name in order}, chosen, counts)
    ours = [name for method, names in methods.items() if method in OURS for name in names]
    others = [name for method, names in methods.items() if method not in OURS for name in names]
    print_beside(others, ours, figures)
    (bench.work / "figures.json").write_text(json.dumps({"figures": figures, "chosen": chosen}, indent=1))
    best_other = choose(others, figures)
    best = choose(ours, figures, figures[best_other]["utility"] if best_other else None)
    figure = lambda name, key: round(figures[name][key], 4) if name else None
    result = {
        "gold_distance_ours": figure(best, "distance"),
        "gold_distance_best_alternative": figure(best_other, "distance"),
        "utility_ours": figure(best, "utility"),
        "utility_best_alternative": figure(best_other, "utility"),
    }
    print(json.dumps(result | {"ours": best, "best_alternative": best_other}))


if __name__ == "__main__":
    main()
