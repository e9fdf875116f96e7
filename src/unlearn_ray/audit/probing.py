"""Is the knowledge still inside? A linear classifier reads from hidden states which entity comes next.

A model may no longer say a name and still carry it in its hidden states. What the text alone tells is shown by the same
classifier on a model that never read it, and by always guessing the most frequent entity.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from unlearn_ray.evaluation import Readings
from unlearn_ray.method.dictionary import AnchorDictionary
from unlearn_ray.method.prompts import Prompt
from unlearn_ray.scoring import PROMPTS_PER_BLOCK, last_states

ACCURACY = "accuracy"
ENTITIES, LEAST_EXAMPLES = 8, 6
DEPTHS = (0.25, 0.5, 0.75, 1.0)  # of the layers


@dataclass(frozen=True)
class Probed:
    """Pieces of the documents, each cut right before an entity that it does not name, and the number of that entity;
    every second one of an entity, in random order, is held out to test."""

    texts: list[str]
    entities_N: np.ndarray
    test_N: np.ndarray
    names: list[str]


def probed(prompts: Sequence[Prompt], dictionary: AnchorDictionary, seed: int) -> Probed | None:
    """From prompts that were cut before anchors: those of the most frequent ENTITIES of which there are enough; None
    where there are not two of them."""
    following = [dictionary.spans(prompt.references[0]) for prompt in prompts]
    anchors = [spans[0].anchor if spans and spans[0].start == 0 else -1 for spans in following]
    counts = Counter(anchor for anchor in anchors if anchor >= 0)
    chosen = [anchor for anchor, count in counts.most_common(ENTITIES) if count >= LEAST_EXAMPLES]
    if len(chosen) < 2:
        return None
    kept = [place for place, anchor in enumerate(anchors) if anchor in chosen]
    entities_N = np.array([chosen.index(anchors[place]) for place in kept])
    test_N = np.zeros(len(kept), dtype=bool)
    rng = np.random.default_rng(seed)
    for entity in range(len(chosen)):
        test_N[rng.permutation(np.flatnonzero(entities_N == entity))[::2]] = True
    names = [dictionary.anchors[anchor].anchor for anchor in chosen]
    return Probed([prompts[place].text for place in kept], entities_N, test_N, names)


def probe(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, batch_size: int, *, asked: Probed) -> Readings:
    """One condition a layer, and one for guessing: for each held-out text whether its entity was told, 0 or 1.

    Needs scikit-learn."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    states_NLH = last_states(model, tokenizer, asked.texts, DEPTHS, PROMPTS_PER_BLOCK * batch_size)
    train_N, right_N = ~asked.test_N, asked.entities_N[asked.test_N]
    guess = np.bincount(asked.entities_N[train_N]).argmax()
    readings = {f"guessing|{ACCURACY}": (right_N == guess).astype(float)}
    for place, depth in enumerate(DEPTHS):
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
        classifier.fit(states_NLH[train_N, place], asked.entities_N[train_N])
        told_N = classifier.predict(states_NLH[asked.test_N, place])
        readings[f"{depth:.0%} of the layers|{ACCURACY}"] = (told_N == right_N).astype(float)
    return readings
