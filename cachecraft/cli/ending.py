"""How a subcommand ends: with its exit code, or with one line for an error that has a remedy; never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from cachecraft._core.errors import CacheError, OptionError, OptionTypeError

DONE: Final = 0
FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell reports it


def ended(work: Callable[[], int]) -> int:
    """The exit code of ``work``, whatever happens in it."""
    try:
        return work()
    except (OptionError, OptionTypeError) as error:
        return explained(error, MISUSED)
    except CacheError as error:
        return explained(error, FAILED)
    except KeyboardInterrupt:
        return explained("interrupted", INTERRUPTED)


def explained(message: object, code: int) -> int:
    """Say on stderr why it ends so."""
    print(f"cachecraft: {message}", file=sys.stderr)
    return code
