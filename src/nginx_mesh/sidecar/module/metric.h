/* How answers are counted: pure logic, no nginx and no I/O, so that it is tested on its own. */

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
    uint32_t  buckets[METRIC_BUCKETS];          /* each without those below it */
} metric_histogram;

/* The index of the bucket that a time falls into. */
size_t metric_bucket(uint64_t ms);
void metric_observe(metric_histogram *h, uint64_t ms);

/*
 * The status that an answer counts as. One that is not registered counts as its class's first (RFC 9110, 15), one that
 * is none as 500: an endpoint that answers with every number makes no series of each.
 */
unsigned metric_status(unsigned status);

#endif
