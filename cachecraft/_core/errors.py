"""Every error cachecraft raises, each also the builtin it resembles; knows nothing of the rest of the house.

A message names the parameter and says the remedy. It shows no value, no argument of a call and no password: what raises
may end in a log.
"""

from __future__ import annotations


class CacheError(Exception):
    """The root of all errors that cachecraft itself raises. A loader's own errors are never wrapped in it."""


class OptionError(CacheError, ValueError):
    """An option's value cannot be used: a ttl of zero, an unknown URL scheme, jitter bounds out of order."""


class OptionTypeError(CacheError, TypeError):
    """An option, or the thing decorated, is of a type that cannot be used."""


class TemplateError(OptionError):
    """A key, tag or pattern template does not fit the signature, or could render two calls alike."""


class PatternError(OptionError):
    """A pattern is empty or made of wildcards alone; ``clear()`` is the way to say "everything"."""


class UnkeyableError(CacheError, TypeError):
    """An argument has no stable identity, so no key can be made of it."""


class UnserializableError(CacheError, TypeError):
    """A value cannot be stored so that it comes back equal and of the same type."""


class CorruptError(CacheError, ValueError):
    """Stored bytes are damaged, foreign, oversized or of an unknown version; readers count it as a miss."""


class BackendError(CacheError, ConnectionError):
    """The backend failed or could not be reached.

    ``ping`` raises it; so does what invalidates, by hand or by ``f.invalidate`` and its like, where the invalidation is
    not kept to be made up for, or with ``on_unreachable="raise"``; and with that, functions that ``invalidates``
    decorates. All else goes on without the backend.
    """


class BackendTimeout(BackendError, TimeoutError):
    """The backend did not answer within its deadline."""


class BackendRefused(BackendError):
    """The backend answered, and would not do it. Other commands that left with the one it refused may be done."""


class ClosedError(CacheError, RuntimeError):
    """The cache was used after ``close()``."""


def told(error: BaseException) -> str:
    """An error as a log may show it: ours in words, another's by class and place, since its words may hold a value."""
    if isinstance(error, CacheError):
        return str(error)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
    return f"{type(error).__qualname__}{place}"
