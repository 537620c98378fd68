"""Compression with a bound on what comes out; knows nothing of what the bytes mean."""

from __future__ import annotations

import importlib
import zlib
from typing import Any, Literal

from cachecraft._core.errors import CorruptError, OptionError

Codec = Literal["zlib", "zstd"]

_LEAST_WINDOW = 2**20


def compress(data: bytes, *, codec: Codec) -> bytes:
    """Compress. Raises OptionError for an unknown codec, or for "zstd" without the package it needs."""
    if codec == "zlib":
        return zlib.compress(data)
    compressed: bytes = _zstd(codec).ZstdCompressor().compress(data)
    return compressed


def decompress(data: bytes, *, codec: Codec, limit: int) -> bytes:
    """Decompress to at most `limit` bytes, in memory proportional to it.

    Raises CorruptError for anything that is not exactly one compressed piece of at most that size, and OptionError
    as `compress` does.
    """
    expand = _expand_zlib if codec == "zlib" else _expand_zstd(_zstd(codec))
    try:
        return expand(data, limit)
    except CorruptError:
        raise
    except Exception as error:
        raise CorruptError(f"stored bytes are not {codec}: {error}") from error


def _expand_zlib(data: bytes, limit: int) -> bytes:
    stream = zlib.decompressobj()
    expanded = stream.decompress(data, limit + 1)
    if len(expanded) > limit:
        raise CorruptError(f"stored bytes expand to more than {limit} bytes")
    if not stream.eof or stream.unused_data:
        raise CorruptError("stored bytes are cut off or have something after them")
    return expanded


def _expand_zstd(zstd: Any) -> Any:
    def expand(data: bytes, limit: int) -> bytes:
        # A frame says its size, and the decompressor holds it to that. One of unknown size gives the greatest number.
        if zstd.get_frame_parameters(data).content_size > limit:
            raise CorruptError(f"stored bytes expand to more than {limit} bytes")
        decompressor = zstd.ZstdDecompressor(max_window_size=max(limit, _LEAST_WINDOW))
        expanded: bytes = decompressor.decompress(data, allow_extra_data=False)
        return expanded

    return expand


def _zstd(codec: str) -> Any:
    if codec != "zstd":
        raise OptionError(f'codec must be "zlib" or "zstd", not {codec!r}')
    try:
        return importlib.import_module("zstandard")
    except ImportError as error:
        raise OptionError(
            'codec="zstd" needs the zstandard package: install cachecraft with its extra [zstd]'
        ) from error
