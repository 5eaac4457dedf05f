/*
 * What a request's path may mean: applications differ, and what is granted must be granted by every reading. Pure logic,
 * no nginx and no I/O, so that it is tested on its own.
 */

#ifndef MESH_PATH_H
#define MESH_PATH_H

#include <stddef.h>

/*
 * Whether a request target as it was sent has a path that cannot be matched in good conscience: with a segment that is
 * "." or ".." for somebody, with a backslash, "#" or control character, or with an encoded slash, backslash, semicolon or
 * control character, anything that was encoded twice, or bytes by which overlong UTF-8 hides all these.
 */
int path_is_ambiguous(const unsigned char *target, size_t len);

/* The path without empty segments ("//"). `to` has room for `len` bytes; how many it has then. */
size_t path_merge_slashes(unsigned char *to, const unsigned char *path, size_t len);

/* The path without what follows ";" in each segment, which is parameters for some. The same of `to`. */
size_t path_cut_parameters(unsigned char *to, const unsigned char *path, size_t len);

#endif
