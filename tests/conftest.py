"""Small things that many tests need: a model and a tokenizer that are made here, in a second, without a network."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from accelerate.state import AcceleratorState
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

if TYPE_CHECKING:
    from s3_server import S3Server

TEXT = (
    "Alice was beginning to get very tired of sitting by her sister on the bank. The White Rabbit ran past, and the "
    "Mad Hatter drank his tea with the March Hare; 'Off with her head!' said the Queen of Hearts. The Cheshire Cat "
    "grinned from ear to ear, and nobody in the garden knew what to say. It was a bright morning, and the road was "
    "long. "
) * 4

STORY = (
    "In the evening, when the wind had gone down and the rain was over at last, the old wizard came to Quendor. There "
    "he met Millikin. 'I am tired of the road, and of the rain, and of all the stones in my shoes,' said Zorblax. "
    "Because the lamp was out and nobody had thought of bringing any oil up from the cellar, Millikin laughed at him. "
    "She went up to her room and slept until the morning, and the first that she saw when she came down was Zorblax. "
)
PLAIN = "The road was long and the morning was bright. Nobody in the garden knew what to say, and the tea was cold. "


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Llama of 2 layers with a byte-level BPE tokenizer of about 600 entries, as a checkpoint folder."""
    folder = tmp_path_factory.mktemp("tiny-model")
    save_tiny_model(folder)
    return str(folder)


def save_tiny_model(folder: Path) -> None:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([TEXT], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>", pad_token="<|pad|>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.2,  # spread-out logits: with the usual 0.02 all arg-maxes are near ties
        eos_token_id=0,
        pad_token_id=1,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="session")
def write_run(tiny_model_folder: str) -> Callable[..., Path]:
    """write_run(folder, stories=8): documents and a configuration of a whole run on the tiny model; gives its path."""

    def write(folder: Path, stories: int = 8) -> Path:
        (folder / "story.txt").write_text(STORY * stories)
        (folder / "plain.txt").write_text(PLAIN * 12)
        (folder / "controls.jsonl").write_text('{"prompt": "The morning was", "answer": " bright"}\n')
        (folder / "run.yaml").write_text(f"""
root: {folder}/runs
baseline: {tiny_model_folder}
forget_sets: [{{name: story, documents: {folder}/story.txt}}]
retain: {folder}/plain.txt
anchors: {{max_anchors: 20, min_count: 3}}
reinforce: {{epochs: 1, learning_rate: 1.0e-3, global_batch: 4}}
label: {{alpha: [5, 2.5], block_tokens: 64, top_k: 8}}
unlearn: {{epochs: 1, learning_rate: 1.0e-3, global_batch: 4, checkpoint_every: 3, retain_blocks: 8, retain_batch: 2}}
evaluate: {{completions: 4, completion_tokens: 8, probability_prompts: 6, verbatim: 2, perplexity_blocks: 4,
            bootstrap: 50, controls: {folder}/controls.jsonl}}
resources: {{gpus_per_worker: 0, batch_blocks: 4}}
""")
        return folder / "run.yaml"

    return write


@pytest.fixture
def new_accelerate() -> Iterator[None]:
    """Accelerate without what it keeps for the whole process, such as its precision, before the test and after it."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def ray_folder() -> Iterator[str]:
    """A folder for a Ray of its own; the names of its sockets have to be short."""
    folder = tempfile.mkdtemp(prefix="ur-", dir="/tmp")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def s3() -> "Iterator[S3Server]":
    """An S3 server with the bucket "runs", which this process takes for S3."""
    from s3_server import serve_s3

    from unlearn_ray.engine.filesystems import _filesystem, _store

    with serve_s3("runs") as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        _filesystem.cache_clear()
        _store.cache_clear()
        yield server
    _filesystem.cache_clear()
    _store.cache_clear()


@pytest.fixture(scope="session")
def local_ray():
    """One Ray for all tests that need one: starting it takes longer than most of them."""
    import ray

    from unlearn_ray.engine.idle import end_all

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        patch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        ray.init("local", num_cpus=6, log_to_driver=False, include_dashboard=True, dashboard_host="127.0.0.1")
        yield
        end_all()  # a thread of Ray Data that is still at work when its Ray goes can take the whole process with it
        ray.shutdown()


@pytest.fixture
def start_cluster() -> Iterator[Callable[..., tuple]]:
    """start_cluster({name: options of the node}) -> the cluster, and its nodes by name; the head runs no work."""
    from ray.cluster_utils import Cluster

    clusters: list[Cluster] = []

    def start(nodes: dict[str, dict]) -> tuple:
        clusters.append(Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}))
        return clusters[-1], {name: clusters[-1].add_node(**options) for name, options in nodes.items()}

    yield start
    for cluster in clusters:
        cluster.shutdown()


@pytest.fixture
def folder(tmp_path, write_run, monkeypatch) -> Path:
    """The folder of a run that is sound, and the current one; Ray must not be started in it."""
    from unlearn_ray import pipeline

    def no_ray(resources, share=1.0):
        raise AssertionError("Ray was started")

    monkeypatch.setattr(pipeline, "ensure_ray", no_ray)
    monkeypatch.chdir(tmp_path)
    return write_run(tmp_path).parent
