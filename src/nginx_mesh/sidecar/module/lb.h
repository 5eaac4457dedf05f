/*
 * Load balancing. This is pure logic without nginx and without I/O, so that it is tested on its own.
 *
 * A pool holds the endpoints among which one decision chooses. Time is passed in as microseconds of a monotonic clock.
 * The ten methods and their names are those of NGINX Service Mesh.
 */

#ifndef MESH_LB_H
#define MESH_LB_H

#include <stddef.h>
#include <stdint.h>

/* An endpoint that failed gets no requests for so long, then one request as a trial (as with nginx's max_fails=1). */
#define LB_FAIL_TIMEOUT_US  (10 * 1000000LL)

/*
 * The time in which an average without new measurements falls to about 1/e. So an endpoint that was slow is tried
 * again, the later the slower it was (as with the peak EWMA of Finagle and Linkerd).
 */
#define LB_DECAY_US         (2 * 1000000LL)

typedef enum {
    LB_ROUND_ROBIN = 0,
    LB_LEAST_CONN,
    LB_LEAST_TIME,                          /* to the first byte */
    LB_LEAST_TIME_LAST_BYTE,
    LB_LEAST_TIME_LAST_BYTE_INFLIGHT,       /* an unfinished request counts with its age */
    LB_RANDOM,
    LB_RANDOM_TWO,                          /* of two, the one with fewer connections */
    LB_RANDOM_TWO_LEAST_CONN,
    LB_RANDOM_TWO_LEAST_TIME,
    LB_RANDOM_TWO_LEAST_TIME_LAST_BYTE,
    LB_METHODS
} lb_method;

typedef struct {
    double   us;                            /* moving average, microseconds */
    int64_t  at;                            /* when it was last measured; 0: never */
} lb_average;

typedef struct {
    uint32_t    active;                     /* requests or connections under way */
    int64_t     started_sum;                /* the sum of their start times */
    uint32_t    fails;                      /* failures since the last success */
    int64_t     down_until;                 /* when fails > 0, it is not chosen before this */
    lb_average  first_byte;
    lb_average  last_byte;
} lb_endpoint;

typedef struct {
    lb_endpoint  **items;
    size_t         n;
    size_t         capacity;
    size_t         cursor;                  /* where round robin goes on */
    uint64_t       rng;                     /* state of the random numbers, not 0 */
    lb_average     first_byte;              /* over all endpoints */
    lb_average     last_byte;
} lb_pool;

/* The endpoints that were tried for the request at hand. They are not chosen again. */
typedef struct {
    lb_endpoint *const  *items;
    size_t               n;
} lb_tried;

void lb_pool_init(lb_pool *pool, uint64_t seed);
void lb_pool_free(lb_pool *pool);

/* Returns 0, or -1 when memory is short. */
int lb_pool_add(lb_pool *pool, lb_endpoint *endpoint);
void lb_pool_remove(lb_pool *pool, const lb_endpoint *endpoint);

/*
 * Chooses the endpoint for a request; NULL: every endpoint was tried. Endpoints that failed lately are passed over
 * while there is any other. When all of them failed, they are chosen nevertheless, because refusing the request would
 * be worse.
 */
lb_endpoint *lb_pick(lb_pool *pool, lb_method method, lb_tried tried, int64_t now);

/* The microseconds for which an endpoint is still passed over. */
int64_t lb_down(const lb_endpoint *e, int64_t now);

void lb_begin(lb_endpoint *endpoint, int64_t now);

/* `started` is the `now` that was given to lb_begin. */
void lb_first_byte(lb_pool *pool, lb_endpoint *endpoint, int64_t started, int64_t now);

typedef enum {
    LB_DONE = 0,                            /* a whole response */
    LB_FAILED,                              /* refused, reset or timed out */
    LB_ABANDONED                            /* the caller left, or a kept connection was stale: this tells nothing */
} lb_outcome;

void lb_end(lb_pool *pool, lb_endpoint *endpoint, lb_outcome outcome, int64_t started, int64_t now);

#endif
