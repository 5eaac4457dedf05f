/*
 * Rate limits: the leaky bucket of nginx's limit_req, to the millisecond and the thousandth of a request. Pure logic, no
 * nginx and no I/O, so that it is tested on its own.
 */

#ifndef MESH_LIMIT_H
#define MESH_LIMIT_H

#include <stdint.h>

/* burst, delay, excess: thousandths of a request */
typedef struct {
    uint64_t  rate;                         /* requests in 1000 s; not 0 */
    uint64_t  burst;
    uint64_t  delay;                        /* what of the burst does not wait */
} limit_rate;

typedef struct {
    uint64_t  used;                         /* 0: no request was taken in yet */
    uint64_t  excess;
    int64_t   last;                         /* milliseconds of a clock */
} limit_bucket;

/* Whether a request would be within the limit. */
int limit_admits(const limit_bucket *bucket, const limit_rate *limit, int64_t now);
/* Takes a request in that limit_admits. Milliseconds that it has to wait. */
uint64_t limit_take(limit_bucket *bucket, const limit_rate *limit, int64_t now);
/* Whether the next request would be taken in just as by a new bucket. */
int limit_is_idle(const limit_bucket *bucket, const limit_rate *limit, int64_t now);

#endif
