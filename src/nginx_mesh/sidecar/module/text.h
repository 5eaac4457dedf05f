/*
 * Bytes that somebody sent as text that others can read. This is pure logic without nginx and without I/O, so that it
 * is tested on its own.
 */

#ifndef MESH_TEXT_H
#define MESH_TEXT_H

#include <stddef.h>

/*
 * The number of bytes of the character that begins at `p`; 0: none does (by RFC 3629, without overlong forms and
 * surrogates).
 */
size_t text_character(const unsigned char *p, size_t len);

/* The number of bytes that are no part of a character in UTF-8. */
size_t text_invalid(const unsigned char *data, size_t len);

/*
 * Writes the text with U+FFFD for each such byte to `to`, which has room for `len` bytes and twice `text_invalid`.
 * Returns how many were written.
 */
size_t text_repair(unsigned char *to, const unsigned char *data, size_t len);

/*
 * Writes the beginning of the text as one printable line of ASCII, for a log, to `to`, which has room for `size` bytes,
 * 16 or more. Other bytes, quotes and backslashes are written as \xHH, and a text that was cut ends with "...". Returns
 * how many bytes were written.
 */
size_t text_printable(unsigned char *to, size_t size, const unsigned char *data, size_t len);

#endif
