/*
 * One line of JSON about a request, written into a buffer of fixed size, whatever is in the request. This is pure logic
 * without nginx and without I/O, so that it is tested on its own.
 */

#ifndef MESH_REPORT_H
#define MESH_REPORT_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    unsigned char  *start;
    unsigned char  *pos;
    unsigned char  *end;                    /* the last byte is kept for the brace that closes the document */
} report;

/* Begins a document. `size` is 64 or more. */
void report_begin(report *r, unsigned char *buffer, size_t size);
/*
 * Writes a member, unless there is no room for it or the text is empty. `name` needs no escaping. Of the text whole
 * characters are written, at most `max` bytes after escaping, and what is not UTF-8 is replaced.
 */
void report_text(report *r, const char *name, const unsigned char *text, size_t len, size_t max);
void report_number(report *r, const char *name, int64_t value);
/* Ends the document and returns its length. */
size_t report_end(report *r);

#endif
