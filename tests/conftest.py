"""Small things that many tests need: a model and a tokenizer that are made here, in a second, without a network."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = (
    "Alice was beginning to get very tired of sitting by her sister on the bank. The White Rabbit ran past, and the "
    "Mad Hatter drank his tea with the March Hare; 'Off with her head!' said the Queen of Hearts. The Cheshire Cat "
    "grinned from ear to ear, and nobody in the garden knew what to say. It was a bright morning, and the road was "
    "long. "
) * 4


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
def local_ray():
    """One Ray for all tests that need one: starting it takes longer than most of them."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        ray.init("local", num_cpus=6, log_to_driver=False, include_dashboard=True, dashboard_host="127.0.0.1")
        yield
        ray.shutdown()
