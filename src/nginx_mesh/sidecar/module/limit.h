/*
 * Rate limits: the leaky bucket of nginx's limit_req, in its units (thousandths of a request). Pure logic, no nginx and
 * no I/O, so that it is tested on its own.
 */

#ifndef MESH_LIMIT_H
#define MESH_LIMIT_H

#include <stdint.h>

typedef struct {
    double   rate;                          /* requests in 1000 s */
    double   burst;
    double   delay;                         /* requests of the burst that do not wait; negative: none waits */
} limit_rate;

typedef struct {
    double   excess;
    int64_t  last;                          /* milliseconds of a monotonic clock; 0: never */
} limit_bucket;

/* Takes a request in. Seconds that it has to wait, or -1 when it is over the limit. */
double limit_take(limit_bucket *bucket, const limit_rate *limit, int64_t now);

#endif
