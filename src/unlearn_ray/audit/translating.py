"""Was the text forgotten or merely translated? A model trained on generic labels may now know the generic names."""

from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from unlearn_ray.evaluation import Readings
from unlearn_ray.material import TokenPrompt, specific_tokens, telling_first_tokens
from unlearn_ray.method.dictionary import AnchorDictionary
from unlearn_ray.method.judge import given_anchors
from unlearn_ray.method.translation import translate
from unlearn_ray.scoring import PROMPTS_PER_BLOCK, specific_mass

GENERIC = "generic_probability"


@dataclass(frozen=True)
class Translated:
    """Prompts with the first tokens of the generic translations that they do not give away."""

    original: list[TokenPrompt]
    translated: list[TokenPrompt]


def translated(
    prompts: list[TokenPrompt], dictionary: AnchorDictionary, tokenizer: PreTrainedTokenizerFast
) -> Translated:
    """The prompts as they are, and translated; tokens that also begin an anchor tell nothing and are left out."""
    generics = telling_first_tokens(tokenizer, [entry.generic for entry in dictionary.anchors])
    anchors = set().union(*specific_tokens(tokenizer, dictionary))

    def asked(text: str, given: set[int]) -> TokenPrompt:
        new = set().union(*(tokens for anchor, tokens in enumerate(generics) if anchor not in given))
        told = set().union(*(generics[anchor] for anchor in given))
        return TokenPrompt(text, sorted(new - told - anchors))

    given = [given_anchors(prompt.text, dictionary) for prompt in prompts]
    return Translated(
        [asked(prompt.text, known) for prompt, known in zip(prompts, given, strict=True)],
        [asked(translate(prompt.text, dictionary).text, known) for prompt, known in zip(prompts, given, strict=True)],
    )


def ask_translated(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, batch_size: int, *, asked: Translated
) -> Readings:
    """The probability that the next token begins a generic name, in the document's own words and in translated ones."""
    prompt_batch = PROMPTS_PER_BLOCK * batch_size
    return {
        f"own words|{GENERIC}": specific_mass(model, tokenizer, asked.original, prompt_batch),
        f"translated words|{GENERIC}": specific_mass(model, tokenizer, asked.translated, prompt_batch),
    }
