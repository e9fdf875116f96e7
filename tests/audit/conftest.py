import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from unlearn_ray.audit.questions import Asked
from unlearn_ray.material import Question, TokenPrompt
from unlearn_ray.method.dictionary import Anchor, AnchorDictionary
from unlearn_ray.method.prompts import Prompt
from unlearn_ray.models import load_model, load_tokenizer

DICTIONARY = AnchorDictionary([Anchor("Alice", "Susan"), Anchor("Hatter", "Baker"), Anchor("Cheshire Cat", "Old Dog")])


@pytest.fixture
def model(tiny_model_folder: str) -> PreTrainedModel:
    return load_model(tiny_model_folder)


@pytest.fixture(scope="session")
def tokenizer(tiny_model_folder: str) -> PreTrainedTokenizerFast:
    return load_tokenizer(tiny_model_folder)


@pytest.fixture
def asked(tokenizer: PreTrainedTokenizerFast) -> Asked:
    return Asked(
        probability=[TokenPrompt("the garden was", [20, 90]), TokenPrompt("Off with", [7])],
        completion=[Prompt("book", "She sat by", ("the Hatter",)), Prompt("book", "It was the", ("Cheshire Cat",))],
        probes=[Question("the Mad", " Hatter"), Question("the White", " Rabbit")],
        completion_tokens=4,
        dictionary=DICTIONARY,
        themes=frozenset({"teapot"}),
    )
