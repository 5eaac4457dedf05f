/*
 * Rate limits: the leaky bucket of nginx's limit_req, exact to the millisecond and the thousandth of a request. This is
 * pure logic without nginx and without I/O, so that it is tested on its own.
 */

#ifndef MESH_LIMIT_H
#define MESH_LIMIT_H

#include <stdint.h>

/* burst, delay, excess: thousandths of a request */
typedef struct {
    uint64_t  rate;                         /* requests in 1000 s; not 0 */
    uint64_t  burst;
    uint64_t  delay;                        /* the part of the burst that does not wait */
} limit_rate;

typedef struct {
    uint64_t  used;                         /* 0: no request was counted yet */
    uint64_t  excess;
    int64_t   last;                         /* milliseconds of a clock */
} limit_bucket;

/* Whether a request at `now` is within the limit. */
int limit_admits(const limit_bucket *bucket, const limit_rate *limit, int64_t now);
/* Counts a request that limit_admits, and returns the milliseconds that it has to wait. */
uint64_t limit_take(limit_bucket *bucket, const limit_rate *limit, int64_t now);
/* Whether a new bucket would count the next request in just the same way. */
int limit_is_idle(const limit_bucket *bucket, const limit_rate *limit, int64_t now);

#endif
