"""Translate a block: every anchor term replaced, and where each character of the block has gone."""

from dataclasses import dataclass

from unlearn_ray.method.dictionary import AnchorDictionary


@dataclass(frozen=True)
class Segment:
    """text[start:end] lies in anchor number `anchor` and became translated[out_start:out_end].

    whole is False where the anchor runs on into the next block, so that this text ends strictly inside it.
    """

    start: int
    end: int
    out_start: int
    out_end: int
    anchor: int
    whole: bool


@dataclass(frozen=True)
class Translation:
    """The translated text and, in order, the segments that differ; between them the text is as it was."""

    text: str
    segments: tuple[Segment, ...]


def translate(text: str, dictionary: AnchorDictionary, before: str = "", after: str = "") -> Translation:
    """Replace the anchors in `text`, which stands between `before` and `after` in its document.

    The context decides what is a word and what is an anchor at the cut ("Ali|ce", "White |Rabbit"). An anchor that
    the cut divides is replaced by its whole generic translation on both sides: half a name would be no English, and
    the block on either side must read as a text about the generic thing.
    """
    pieces: list[str] = []
    segments: list[Segment] = []
    done = out = 0
    for span in dictionary.spans(before + text + after):
        start, end = max(span.start - len(before), 0), span.end - len(before)
        whole = end <= len(text)
        end = min(end, len(text))
        if start >= end:
            continue
        pieces += [text[done:start], span.replacement]
        out += start - done
        segments.append(Segment(start, end, out, out + len(span.replacement), span.anchor, whole))
        out += len(span.replacement)
        done = end
    return Translation("".join(pieces) + text[done:], tuple(segments))
