/*
 * Circuit breakers: pure logic, no nginx and no I/O, so that it is tested on its own. Time is passed in as milliseconds
 * of a monotonic clock.
 *
 * Closed, everything passes; `errors` failures in any `timeout` open the circuit. Open, nothing passes for `timeout`.
 * Then it is half-open: one request at a time passes as a trial. One that succeeds closes the circuit, one that fails
 * opens it again, and one that says nothing, or nothing for `timeout`, leaves the trial to the next.
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
    uint64_t       epoch;                   /* of a ticket that counts; every change of state begins another */
    uint64_t       trips;                   /* times it opened */
    int64_t       *failures;                /* a ring of the times of the last ones */
    uint32_t       n;
    uint32_t       next;
} breaker;

/* 0, or -1 when memory is short. */
int breaker_init(breaker *b, uint32_t errors, int64_t timeout);
void breaker_free(breaker *b);

/* Whether a request may pass; then `ticket` is for telling its outcome. */
int breaker_admit(breaker *b, uint64_t *ticket, int64_t now);

/* An answer that may take long has begun well: of a trial that is success. `ticket` is for how it ends. */
void breaker_begun(breaker *b, uint64_t *ticket);

/* Outcomes of requests that began before the state last changed do not count. */
void breaker_end(breaker *b, uint64_t ticket, breaker_outcome outcome, int64_t now);

/* The state that a request would meet. */
breaker_state breaker_seen(const breaker *b, int64_t now);

/* Milliseconds until a request may pass; 0: now. */
int64_t breaker_wait(const breaker *b, int64_t now);

#endif
