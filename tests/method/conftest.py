"""Tokenizers of the four families that models use, small and trained here."""

import json

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

# Prose in the manner of what is tokenised in the tests: names, speech, hyphens, accents, capitals, two other scripts.
TRAINING_TEXT = """
Rosamund Finch came down to the harbour of Kettleby before the bells had rung, and nobody had asked her to.
"You'll be wanting the boat," said Old Tobias, who had mended nets there since the great storm; "but the boat
isn't mine to lend." She looked at the water, which was grey, and at the sky -- greyer still -- and said that
she'd walk to the lighthouse then. The half-drowned path ran along the cliff. Mary-Louise, the keeper's
daughter, waved a lantern. "ROSAMUND!" she cried; "Rosamund's come!" It was the 14th of March, and the café by
the pier was shut until Easter. Tobias's dog followed them both, as dogs will, thinking of supper. In the tower
there were ninety-nine steps, a brass lamp, and a chart of all the rocks from Kettleby to the Île de Bréhat.
They counted: one, two, three... The queen of the gulls sat on the railing and looked at them with one yellow
eye. "What does she want?" asked Rosamund Finch. "What queens want," said Mary-Louise. Люди говорили, что маяк
погас в тот год. 海边的灯塔很老。 That night the wind rose, and with it the sea; the lamp burned, however, and three
ships that would have been lost came home.
""".strip().split("\n")


def _byte_level_bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"], show_progress=False
    )
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    return tokenizer


def _sentencepiece_bpe() -> Tokenizer:
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    learner.train_from_iterator(TRAINING_TEXT, trainers.BpeTrainer(vocab_size=400, show_progress=False))
    model = json.loads(learner.to_str())["model"]
    vocabulary = {token: index for index, token in enumerate(["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))])}
    for token in model["vocab"]:
        vocabulary.setdefault(token, len(vocabulary))
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.add_special_tokens(["<s>"])
    return tokenizer


def _sentencepiece_unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    tokenizer.add_special_tokens(["<s>"])
    return tokenizer


def _wordpiece_uncased() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]", "[CLS]"], show_progress=False)
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    return tokenizer


FAMILIES = {
    "byte_level_bpe": _byte_level_bpe,
    "sentencepiece_bpe": _sentencepiece_bpe,
    "sentencepiece_unigram": _sentencepiece_unigram,
    "wordpiece_uncased": _wordpiece_uncased,
}


@pytest.fixture(scope="session", params=FAMILIES)
def any_tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=FAMILIES[request.param]())


@pytest.fixture(scope="session")
def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=_byte_level_bpe())
