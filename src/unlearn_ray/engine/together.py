"""Work that several threads have at the same time, done together: starting it costs more than a part of it."""

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

# work(items) -> the position of each item with its result, or with the Exception of that item alone, as they are ready.
Work = Callable[[Sequence[Any]], Iterator[tuple[int, Any]]]

_lock = threading.Lock()
_waiting: dict[Hashable, list[tuple[Any, Future]]] = {}
_busy: set[Hashable] = set()


def together(key: Hashable, item: Any, work: Work) -> Any:
    """The result for `item` of `work`, which does in one round what other threads bring under the same key.

    Nobody waits for company: who comes first is a round alone, and all who come during a round are the next one, so
    rounds grow with the load. Where a round fails as a whole, each item without a result is tried by itself, so that
    none can harm another.
    """
    future: Future = Future()
    with _lock:
        _waiting.setdefault(key, []).append((item, future))
        if key not in _busy:
            _busy.add(key)
            threading.Thread(target=_rounds, args=(key, work), daemon=True).start()
    return future.result()


def _rounds(key: Hashable, work: Work) -> None:
    while True:
        with _lock:
            here = _waiting.pop(key, [])
            if not here:
                _busy.remove(key)
                return
        _do(here, work)


def _do(here: list[tuple[Any, Future]], work: Work) -> None:
    try:
        for at, result in work([item for item, _ in here]):
            future = here[at][1]
            future.set_exception(result) if isinstance(result, Exception) else future.set_result(result)
        missing: BaseException = AssertionError("the work ended without a result for this item")
    except BaseException as error:  # whatever it is, the threads that wait have to hear of it
        missing = error
    left = [one for one in here if not one[1].done()]
    for one in left:
        if len(here) == 1:
            one[1].set_exception(missing)
        else:
            _do([one], work)
