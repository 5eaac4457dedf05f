"""Whether text is a regular expression to the library that matches it in the sidecars."""

from __future__ import annotations

import ctypes
import re
import warnings
from functools import cache, lru_cache

MAX_PATTERN = 4096
"""Characters that a pattern may have."""

_SONAME = "libpcre2-8.so.0"
_MAX_MESSAGE = 256
# What Python says in these words is wrong in PCRE2 as well, which knows more than Python.
_WRONG_IN_PCRE2 = (
    "missing )",
    "unbalanced parenthesis",
    "nothing to repeat",
    "unterminated character set",
    "bad character range",
    "bad escape (end of pattern)",
    "min repeat greater than max repeat",
)


@lru_cache(maxsize=4096)
def pattern_fault(pattern: str) -> str | None:
    """Why sidecars could not match this, or None. It is compiled as they do it: as bytes, without options.

    Where PCRE2 is not installed, Python's own parser finds what is plainly wrong.
    """
    if len(pattern) > MAX_PATTERN:
        return f"is longer than {MAX_PATTERN} characters"
    library = _library()
    reason = _python_fault(pattern) if library is None else _fault(library, pattern.encode(errors="surrogatepass"))
    return None if reason is None else f'"{pattern}" is not a regular expression: {reason}'


@cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(_SONAME)
    except OSError:
        return None
    size = ctypes.c_size_t
    library.pcre2_compile_8.restype = ctypes.c_void_p
    library.pcre2_compile_8.argtypes = [
        ctypes.c_char_p,
        size,
        ctypes.c_uint32,
        ctypes.POINTER(ctypes.c_int),
        ctypes.POINTER(size),
        ctypes.c_void_p,
    ]
    library.pcre2_code_free_8.restype = None
    library.pcre2_code_free_8.argtypes = [ctypes.c_void_p]
    library.pcre2_get_error_message_8.restype = ctypes.c_int
    library.pcre2_get_error_message_8.argtypes = [ctypes.c_int, ctypes.c_char_p, size]
    return library


def _fault(library: ctypes.CDLL, pattern: bytes) -> str | None:
    error, offset = ctypes.c_int(), ctypes.c_size_t()
    code = library.pcre2_compile_8(pattern, len(pattern), 0, ctypes.byref(error), ctypes.byref(offset), None)
    if code is not None:
        library.pcre2_code_free_8(code)
        return None
    message = ctypes.create_string_buffer(_MAX_MESSAGE)
    library.pcre2_get_error_message_8(error, message, _MAX_MESSAGE)
    return f"{message.value.decode(errors='replace')} at position {offset.value}"


def _python_fault(pattern: str) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
    except re.error as error:
        return str(error) if error.msg.startswith(_WRONG_IN_PCRE2) else None
    except (RecursionError, OverflowError):
        return "it is too complex"
    return None
