/* How answers are counted. This is pure logic without nginx and without I/O, so that it is tested on its own. */

#ifndef MESH_METRIC_H
#define MESH_METRIC_H

#include <stddef.h>
#include <stdint.h>

#define METRIC_BOUNDS   13
#define METRIC_BUCKETS  (METRIC_BOUNDS + 1)     /* the last has no bound */

/* Upper bounds of the buckets, milliseconds. */
extern const uint32_t  metric_bounds[METRIC_BOUNDS];

typedef struct {
    uint64_t  sum;                              /* milliseconds */
    uint32_t  buckets[METRIC_BUCKETS];          /* not cumulative */
} metric_histogram;

/* The index of the bucket that a time falls into. */
size_t metric_bucket(uint64_t ms);
void metric_observe(metric_histogram *h, uint64_t ms);

/*
 * The status that an answer is counted as. A status that is not registered counts as the first of its class (RFC 9110,
 * 15), and a number that is no status as 500. So an endpoint that answers with every number there is does not make a
 * series of each.
 */
unsigned metric_status(unsigned status);

#endif
