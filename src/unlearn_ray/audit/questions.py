"""What an attacked model is asked, and how its answers are measured: the same for every attack."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from unlearn_ray.evaluation import Readings
from unlearn_ray.material import Question, TokenPrompt, specific_tokens, token_prompt
from unlearn_ray.method.dictionary import AnchorDictionary
from unlearn_ray.method.judge import judge, words
from unlearn_ray.method.metrics import POINTS
from unlearn_ray.method.prompts import Prompt
from unlearn_ray.scoring import PROMPTS_PER_BLOCK, answer_probability, complete, specific_mass

PROBABILITY, PROBES, COMPLETION = "probability_familiarity", "probe_probability", "completion_familiarity"


@dataclass(frozen=True)
class Asked:
    """The prompts of the probability familiarity and of the completion familiarity, and the probes; `themes` are the
    words of the judge's grade 2."""

    probability: list[TokenPrompt]
    completion: list[Prompt]
    probes: list[Question]
    completion_tokens: int
    dictionary: AnchorDictionary
    themes: frozenset[str]

    def framed(self, tokenizer: PreTrainedTokenizerFast, frame: Callable[[str], str]) -> "Asked":
        """Every prompt inside `frame`, which may put anything before it. What the frame gives away no longer counts as
        known: neither the anchors that it names nor the probes whose answer it holds."""
        tokens_of = specific_tokens(tokenizer, self.dictionary)
        told = set(words(frame("")))
        return replace(
            self,
            probability=[token_prompt(frame(one.text), tokens_of, self.dictionary) for one in self.probability],
            completion=[replace(one, text=frame(one.text)) for one in self.completion],
            probes=[replace(one, prompt=frame(one.prompt)) for one in self.probes if not told & set(words(one.answer))],
        )

    def outside(self, text: str) -> "Asked":
        """Without the prompts that `text` holds."""
        text = " ".join(text.split())
        return replace(
            self,
            probability=[one for one in self.probability if one.text not in text],
            completion=[one for one in self.completion if one.text not in text],
        )


def ask(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, batch_size: int, *, asked: Asked, condition: str
) -> Readings:
    """Readings of one condition by the three measures of familiarity, one an item, points 0 to 5 of the completion
    familiarity by the dictionary's judge; and the completions themselves."""
    prompt_batch = PROMPTS_PER_BLOCK * batch_size
    texts = [prompt.text for prompt in asked.completion]
    completions = complete(model, tokenizer, texts, asked.completion_tokens, prompt_batch)
    grades = [
        judge(text, completion, asked.dictionary, asked.themes).grade
        for text, completion in zip(texts, completions, strict=True)
    ]
    return {
        f"{condition}|{PROBABILITY}": specific_mass(model, tokenizer, asked.probability, prompt_batch),
        f"{condition}|{PROBES}": answer_probability(model, tokenizer, asked.probes, prompt_batch),
        f"{condition}|{COMPLETION}": POINTS[np.array(grades, dtype=np.int64)],
        f"{condition}|text": np.array(completions, dtype=np.str_),
    }


def ask_framed(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    batch_size: int,
    *,
    asked: Asked,
    frames: Sequence[tuple[str, str, bool]],
) -> Readings:
    """One condition a frame (name, text, whether it is an instruction): an instruction is given as the system prompt
    where the model has a chat template, anything else stands right before the prompt."""
    readings = {}
    for condition, text, instruction in frames:
        frame = _frame(tokenizer, text, instruction)
        readings |= ask(model, tokenizer, batch_size, asked=asked.framed(tokenizer, frame), condition=condition)
    return readings


def _frame(tokenizer: PreTrainedTokenizerFast, text: str, instruction: bool) -> Callable[[str], str]:
    """What puts `text` before a prompt. In a chat the prompt is the beginning of the answer, so that the next token is
    asked for in the same place as without a frame."""
    if not (instruction and tokenizer.chat_template):
        return lambda prompt: f"{text}\n\n{prompt}"
    turns = [{"role": "system", "content": text}, {"role": "user", "content": "Continue the text."}]
    opening = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    # The ids that lead every sequence are put in front anyway.
    opening = opening.removeprefix(str(tokenizer.bos_token or ""))
    return lambda prompt: opening + prompt
