/*
 * W3C trace context: reading and writing `traceparent`, making IDs, and deciding whether a new trace is sampled. This
 * is pure logic without nginx and without I/O, so that it is tested on its own.
 */

#ifndef MESH_TRACE_H
#define MESH_TRACE_H

#include <stddef.h>
#include <stdint.h>

#define TRACE_PARENT_LEN    55              /* of version 00, which is what is written */

#define TRACE_FLAG_SAMPLED  0x01
#define TRACE_FLAG_RANDOM   0x02            /* the trace's id is random (level 2 of the specification) */

typedef struct {
    uint8_t   trace_id[16];
    uint8_t   span_id[8];
    uint8_t   flags;
} trace_context;

/* With `any`, a new trace is sampled when the last 8 bytes of its ID are at most `last`. */
typedef struct {
    int       any;
    uint64_t  last;
} trace_sampler;

/* The state of xoshiro256** (Blackman and Vigna). */
typedef struct {
    uint64_t  s[4];
} trace_random;

/* Whether the data is a valid traceparent, of this version or a later one. */
int trace_parse(trace_context *context, const unsigned char *data, size_t len);
/* Writes TRACE_PARENT_LEN bytes. */
void trace_format(unsigned char *out, const trace_context *context);
void trace_hex(unsigned char *out, const uint8_t *bytes, size_t n);
/* `ratio`, between 0 and 1, is the part of new traces that is sampled. */
trace_sampler trace_sampler_of(double ratio);
/* Decides as TraceIdRatioBased of OpenTelemetry does, so that all who see the trace decide alike. */
int trace_is_sampled(const trace_sampler *sampler, const trace_context *context);
/* The seed in `random` must not be all zeros. */
void trace_new_trace(trace_context *context, trace_random *random);
void trace_new_span(trace_context *context, trace_random *random);

#endif
