/*
 * Bytes that somebody sent, as text that a reader of JSON takes. Pure logic, no nginx and no I/O, so that it is tested
 * on its own.
 */

#ifndef MESH_TEXT_H
#define MESH_TEXT_H

#include <stddef.h>

/* How many bytes the character has that begins here, 0 when none does (RFC 3629: no overlong forms, no surrogates). */
size_t text_character(const unsigned char *p, size_t len);

/* How many bytes are no part of a character in UTF-8. */
size_t text_invalid(const unsigned char *data, size_t len);

/* The same text with U+FFFD for each such byte. `to` has room for `len` and twice `text_invalid`; how many bytes it has. */
size_t text_repair(unsigned char *to, const unsigned char *data, size_t len);

/*
 * The beginning of the text as one printable line of ASCII, for a log: all bytes but printable ASCII, `"` and `\` are
 * written as `\xHH`, and "..." is at the end of a text that was cut. `to` has room for `size` bytes, 16 or more; returns
 * how many were written.
 */
size_t text_printable(unsigned char *to, size_t size, const unsigned char *data, size_t len);

#endif
