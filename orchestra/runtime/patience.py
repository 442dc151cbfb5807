"""Patience: operations of the store, again and again while it is away."""

import logging
import time
from collections.abc import Callable
from itertools import chain, repeat
from typing import TypeVar

from orchestra.errors import StoreUnavailable

logger = logging.getLogger(__name__)
T = TypeVar("T")

_WAITS_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 5.0)


def patiently(operation: Callable[[], T], sleep: Callable[[float], None] = time.sleep, *, for_ever: bool = False) -> T:
    """Do a store operation, again and again while the store is away: a body that finished must not run twice for it."""
    for wait in chain(_WAITS_S, repeat(_WAITS_S[-1]) if for_ever else ()):
        try:
            return operation()
        except StoreUnavailable as error:
            logger.warning("%s; trying again in %g s", error, wait)
            sleep(wait)
    return operation()
