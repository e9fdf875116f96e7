"""Where things stand in the report's plots, and how its figures are written. The template draws them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 12, 34
LEAST_SPAN = 0.001  # of an axis, also where a model never gave a specific token any probability


def figure_text(figure: Mapping[str, Any], digits: int) -> str:
    """ "0.310 [0.201, 0.409]"; without brackets where there is no interval."""
    if figure["value"] is None:
        return "–"
    text = f"{figure['value']:.{digits}f}"
    return text if figure["low"] is None else f"{text} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"


def signed_percent(share: float | None) -> str:
    """ "−82%", "+3.1%": one decimal below ten per cent."""
    if share is None:
        return "–"
    percent = f"{share * 100:+.{0 if abs(share) >= 0.1 else 1}f}%"
    return percent.replace("-", "−")


def curve(title: str, figures: Mapping[str, Mapping[str, Any]], models: Sequence[str], digits: int) -> dict[str, Any]:
    """One metric over training as a plot: points with whiskers in SVG units, y ticks, and the reinforced model's level.

    Checkpoints stand at equal distances, in the order of `models`. A metric that hardly moves is not blown up: the axis
    spans at least a tenth of the baseline's value on either side. Familiarity begins at 0, which is its natural floor.
    """
    shown = [name for name in models if name in figures and figures[name]["value"] is not None]
    values = [bound for name in shown for bound in _bounds(figures[name])]
    reinforced = figures["reinforced"]["value"] if "reinforced" in figures else None
    values += [reinforced] if reinforced is not None else []
    first = figures[shown[0]]["value"] if shown else 1.0
    low, high = min([*values, first * 0.9]), max([*values, first * 1.1])
    if high < 1:
        low = 0.0
    high = max(high, low + LEAST_SPAN)
    ticks = nice_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])

    def y(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / (high - low)), 1)

    step = (WIDTH - LEFT - RIGHT - 40) / max(len(shown) - 1, 1)
    points = []
    for place, name in enumerate(shown):
        lower, upper = _bounds(figures[name])
        points.append(
            {
                "x": round(LEFT + 20 + step * place, 1),
                "y": y(figures[name]["value"]),
                "low": y(lower),
                "high": y(upper),
                "label": "start" if place == 0 else "final" if name == "unlearned" else name.removeprefix("step-"),
                "tip": f"{name}: {figure_text(figures[name], digits)}, n = {figures[name]['n']}",
            }
        )
    return {
        "title": title,
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "bottom": HEIGHT - BOTTOM,
        "points": points,
        "ticks": [{"y": y(tick), "text": f"{tick:g}"} for tick in ticks],
        "reinforced": None
        if reinforced is None
        else {"y": y(reinforced), "text": f"reinforced {reinforced:.{digits}f}"},
    }


def pareto(choice: Mapping[str, Any]) -> dict[str, Any]:
    """Every checkpoint by what it lost of the utility (right) and its familiarity (up), in SVG units; the best corner
    is at the bottom left."""
    candidates = choice["candidates"]
    across = nice_ticks(0, max([LEAST_SPAN, *(one["lost"] for one in candidates)]))
    up = nice_ticks(0, max([LEAST_SPAN, *(one["familiarity"] for one in candidates)]))
    top = 2 * TOP  # room for the label above a dot

    def x(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * value / across[-1], 1)

    def y(value: float) -> float:
        return round(top + (HEIGHT - top - BOTTOM) * (1 - value / up[-1]), 1)

    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "bottom": HEIGHT - BOTTOM,
        "columns": [{"x": x(tick), "text": f"{100 * tick:g}%"} for tick in across],
        "ticks": [{"y": y(tick), "text": f"{tick:g}"} for tick in up],
        "points": [
            {
                "x": x(one["lost"]),
                "y": y(one["familiarity"]),
                "label": one["model"],
                "chosen": one["model"] == choice["model"],
                "front": one["model"] in choice["pareto"],
                "tip": f"{one['model']}: familiarity {one['familiarity']:.4f}, {one['lost']:.1%} of a utility lost",
            }
            for one in candidates
        ],
    }


def recovery(relearning: Mapping[str, Any]) -> dict[str, Any]:
    """The familiarity of each model over steps of relearning: model -> points in SVG units, with ticks."""
    figures, steps = relearning["figures"], relearning["steps"]
    ticks = nice_ticks(0, max([LEAST_SPAN, *(one["value"] for of_model in figures.values() for one in of_model)]))

    def x(step: int) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT - 8) * step / max(steps[-1], 1), 1)

    def y(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / ticks[-1]), 1)

    return {
        "title": relearning["title"],
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "bottom": HEIGHT - BOTTOM,
        "ticks": [{"y": y(tick), "text": f"{tick:g}"} for tick in ticks],
        "columns": [{"x": x(step), "text": str(step)} for step in steps],
        "lines": {
            model: [
                {
                    "x": x(step),
                    "y": y(one["value"]),
                    "tip": f"{model}, step {step}: {figure_text(one, 4)}, n = {one['n']}",
                }
                for step, one in zip(steps, of_model, strict=True)
            ]
            for model, of_model in figures.items()
        },
    }


def nice_ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers from the last at or below `low` to the first at or above `high`."""
    rough = (high - low) / 4 or 1.0
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(magnitude * factor for factor in (1, 2, 5, 10) if magnitude * factor >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * place, 10) for place in range(first, last + 1)]


def _bounds(figure: Mapping[str, Any]) -> tuple[float, float]:
    value = figure["value"]
    return (value, value) if figure["low"] is None else (figure["low"], figure["high"])
