"""How much people are asked, and how their answers are put together. No part of what a result is: what people decide
is, and that lies in the run (docs/review.md)."""

from typing import Annotated, Literal

from pydantic import Field

from unlearn_ray.config.base import Count, Section


class Review(Section):
    """What `unlearn-ray review export` asks of people, and how `review import` reads several answers to one task."""

    terms: Annotated[int, Field(ge=0)] = 200
    """The most terms of the dictionary about which a decision is asked: those with the most mentions and doubt."""
    passages: Annotated[int, Field(ge=0)] = 40
    """Passages in which people correct and complete the marked terms."""
    passage_characters: Annotated[int, Field(ge=100)] = 500
    """Length of a passage; a longer one has to be scrolled."""
    labels: Annotated[int, Field(ge=0)] = 300
    """The most labels that are asked about: those of which the baseline is least sure."""
    label_probability: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Only labels to which the baseline gives less than this."""
    completions: Annotated[int, Field(ge=0)] = 120
    """Completions that people grade, evenly from every grade of the judge and every subtlety."""
    gold: Annotated[int, Field(ge=0)] = 6
    """Tasks of each project whose answer is known, to rate the annotators; nothing else is made of the answers."""
    overlap: Count = 2
    """How many people a task wants."""
    aggregate: Literal["majority", "dawid-skene"] = "majority"
    """`majority`: what more than half of a task's annotators say; `dawid-skene`: weighs them by how often they agree
    with the others (needs unlearn-ray[review])."""
    least_confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.8
    """dawid-skene: an answer less probable than this stays open."""
