"""How a subcommand ends: with its exit code, or with one line for an error that has a remedy; never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Final

from cachecraft._core.errors import BackendError, BackendRefused, CacheError, OptionError, OptionTypeError
from cachecraft.cli.terminal import shown

DONE: Final = 0
FAILED: Final = 1
"""Something is bad, or not there."""
MISUSED: Final = 2
UNREACHABLE: Final = 3
"""No server, no answer in time, or none that lets us in."""
INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell reports it
UNREAD: Final = 141  # 128 + SIGPIPE: whoever read our output has gone


def ended(work: Callable[[], int]) -> int:
    """The exit code of ``work``, whatever happens in it."""
    try:
        code = work()
        sys.stdout.flush()
    except (OptionError, OptionTypeError) as error:
        return explained(error, MISUSED)
    except BackendError as error:
        return explained(error, FAILED if isinstance(error, BackendRefused) else UNREACHABLE)
    except CacheError as error:
        return explained(error, FAILED)
    except BrokenPipeError:
        # What is still in the buffer has nowhere to go, and Python would complain of that at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    except KeyboardInterrupt:
        return explained("interrupted", INTERRUPTED)
    return code


def explained(message: object, code: int) -> int:
    """Say on stderr why it ends so."""
    print(f"cachecraft: {shown(str(message))}", file=sys.stderr)
    return code
