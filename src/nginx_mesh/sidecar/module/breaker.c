#include "breaker.h"

#include <stdlib.h>


int
breaker_init(breaker *b, uint32_t errors, int64_t timeout)
{
    *b = (breaker) { .errors = errors, .timeout = timeout };

    b->failures = calloc(errors, sizeof(int64_t));

    return b->failures ? 0 : -1;
}


void
breaker_free(breaker *b)
{
    free(b->failures);
    b->failures = NULL;
}


static void
breaker_enter(breaker *b, breaker_state state)
{
    b->state = state;
    b->trying = 0;
    b->n = b->next = 0;
    b->epoch++;
}


static void
breaker_trip(breaker *b, int64_t now)
{
    breaker_enter(b, BREAKER_OPEN);

    b->since = now;
    b->trips++;
}


int
breaker_admit(breaker *b, uint64_t *ticket, int64_t now)
{
    if (b->state == BREAKER_CLOSED) {
        *ticket = b->epoch;
        return 1;
    }

    if (breaker_wait(b, now)) {
        return 0;
    }

    breaker_enter(b, BREAKER_HALF_OPEN);

    b->trying = 1;
    b->since = now;
    *ticket = b->epoch;

    return 1;
}


void
breaker_begun(breaker *b, uint64_t *ticket)
{
    if (*ticket == b->epoch && b->trying) {
        breaker_enter(b, BREAKER_CLOSED);
        *ticket = b->epoch;
    }
}


/* Whether there have been `errors` failures within the last `timeout`, this one included. */
static int
breaker_fails(breaker *b, int64_t now)
{
    b->failures[b->next] = now;
    b->next = (b->next + 1) % b->errors;

    if (b->n < b->errors) {
        b->n++;
    }

    return b->n == b->errors && now - b->failures[b->next] < b->timeout;
}


void
breaker_end(breaker *b, uint64_t ticket, breaker_outcome outcome, int64_t now)
{
    if (ticket != b->epoch) {
        return;
    }

    if (b->trying) {
        switch (outcome) {

        case BREAKER_SUCCEEDED:
            breaker_enter(b, BREAKER_CLOSED);
            return;

        case BREAKER_FAILED:
            breaker_trip(b, now);
            return;

        default:
            breaker_enter(b, BREAKER_HALF_OPEN);
            return;
        }
    }

    if (outcome == BREAKER_FAILED && breaker_fails(b, now)) {
        breaker_trip(b, now);
    }
}


breaker_state
breaker_seen(const breaker *b, int64_t now)
{
    return b->state == BREAKER_OPEN && now - b->since >= b->timeout ? BREAKER_HALF_OPEN : b->state;
}


int64_t
breaker_wait(const breaker *b, int64_t now)
{
    int64_t  left = b->since + b->timeout - now;

    return (b->state == BREAKER_OPEN || b->trying) && left > 0 ? left : 0;
}
