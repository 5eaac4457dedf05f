/*
 * What a request's path may mean. Applications read paths differently, and a grant must hold for every reading. This is
 * pure logic without nginx and without I/O, so that it is tested on its own.
 */

#ifndef MESH_PATH_H
#define MESH_PATH_H

#include <stddef.h>

/*
 * Whether a request target, as it was sent, has a path whose meaning applications disagree about: with a segment that
 * some read as "." or "..", with a backslash, "#" or control character, with an encoded slash, backslash, semicolon or
 * control character, with anything that was encoded twice, or with bytes of overlong UTF-8, which can hide all of
 * these.
 */
int path_is_ambiguous(const unsigned char *target, size_t len);

/*
 * Writes the path without empty segments ("//") to `to`, which has room for `len` bytes. Returns how many were written.
 */
size_t path_merge_slashes(unsigned char *to, const unsigned char *path, size_t len);

/* The same without what follows ";" in each segment, which some applications read as parameters. */
size_t path_cut_parameters(unsigned char *to, const unsigned char *path, size_t len);

#endif
