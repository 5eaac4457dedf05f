/*
 * Circuit breakers. This is pure logic without nginx and without I/O, so that it is tested on its own. Time is passed
 * in as milliseconds of a monotonic clock.
 *
 * A closed circuit lets everything pass, and opens when there are `errors` failures within `timeout`. An open circuit
 * lets nothing pass for `timeout`. Then it is half-open and lets one request at a time pass as a trial: a request that
 * succeeds closes the circuit, and one that fails opens it again. When the outcome of a trial is unknown, or is not
 * told within `timeout`, the next request is the trial.
 */

#ifndef MESH_BREAKER_H
#define MESH_BREAKER_H

#include <stdint.h>

typedef enum {
    BREAKER_CLOSED = 0,
    BREAKER_OPEN,
    BREAKER_HALF_OPEN
} breaker_state;

typedef enum {
    BREAKER_SUCCEEDED = 0,
    BREAKER_FAILED,
    BREAKER_UNKNOWN                         /* the caller left, or nobody was asked */
} breaker_outcome;

typedef struct {
    uint32_t       errors;                  /* 1 or more */
    int64_t        timeout;                 /* milliseconds */
    breaker_state  state;
    int64_t        since;                   /* when it opened, or the trial began */
    unsigned       trying;                  /* a trial is under way */
    uint64_t       epoch;                   /* of tickets that count; a change of state begins a new one */
    uint64_t       trips;                   /* times it opened */
    int64_t       *failures;                /* a ring of the times of the last ones */
    uint32_t       n;
    uint32_t       next;
} breaker;

/* Returns 0, or -1 when memory is short. */
int breaker_init(breaker *b, uint32_t errors, int64_t timeout);
void breaker_free(breaker *b);

/* Whether a request may pass. If it may, its outcome is told with `ticket`. */
int breaker_admit(breaker *b, uint64_t *ticket, int64_t now);

/*
 * An answer has begun, and is no failure so far: a trial has succeeded by that. Later its end is told with the new
 * `ticket`.
 */
void breaker_begun(breaker *b, uint64_t *ticket);

/* Tells how a request ended. The outcome does not count when the request began before the state last changed. */
void breaker_end(breaker *b, uint64_t ticket, breaker_outcome outcome, int64_t now);

/* The state in which a request at `now` would find the breaker. */
breaker_state breaker_seen(const breaker *b, int64_t now);

/* Milliseconds until a request may pass; 0: now. */
int64_t breaker_wait(const breaker *b, int64_t now);

#endif
