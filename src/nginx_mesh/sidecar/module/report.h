/*
 * One line of JSON about a request, written into a buffer of fixed size whatever is in the request. Pure logic, no nginx
 * and no I/O, so that it is tested on its own.
 */

#ifndef MESH_REPORT_H
#define MESH_REPORT_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    unsigned char  *start;
    unsigned char  *pos;
    unsigned char  *end;                    /* the last bytes are kept for what closes the document */
} report;

/* `size` is 64 or more. */
void report_begin(report *r, unsigned char *buffer, size_t size);
/*
 * A member, left out when there is no room. `name` needs no escaping; of the text at most `max` bytes are written, after
 * escaping, and no half character. What is not UTF-8 is replaced. An empty text is left out.
 */
void report_text(report *r, const char *name, const unsigned char *text, size_t len, size_t max);
void report_number(report *r, const char *name, int64_t value);
/* The length of the document. */
size_t report_end(report *r);

#endif
