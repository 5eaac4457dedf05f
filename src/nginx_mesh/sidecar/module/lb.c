#include "lb.h"

#include <stdlib.h>

/* Weight of a new measurement in a moving average. */
#define LB_ALPHA  0.1


void
lb_pool_init(lb_pool *pool, uint64_t seed)
{
    *pool = (lb_pool) { .rng = seed ? seed : 1 };
}


void
lb_pool_free(lb_pool *pool)
{
    free(pool->items);
    pool->items = NULL;
    pool->n = pool->capacity = 0;
}


/* xorshift64, which is random enough for spreading load. */
static uint64_t
lb_random(lb_pool *pool)
{
    pool->rng ^= pool->rng << 13;
    pool->rng ^= pool->rng >> 7;
    pool->rng ^= pool->rng << 17;

    return pool->rng;
}


int
lb_pool_add(lb_pool *pool, lb_endpoint *endpoint)
{
    size_t         capacity;
    lb_endpoint  **items;

    if (pool->n == pool->capacity) {
        capacity = pool->capacity ? pool->capacity * 2 : 4;

        items = realloc(pool->items, capacity * sizeof(lb_endpoint *));
        if (items == NULL) {
            return -1;
        }

        pool->items = items;
        pool->capacity = capacity;
    }

    pool->items[pool->n++] = endpoint;

    if (pool->n == 1) {
        return 0;
    }

    /* Callers that share a service start at different endpoints. */
    pool->cursor = lb_random(pool) % pool->n;

    return 0;
}


void
lb_pool_remove(lb_pool *pool, const lb_endpoint *endpoint)
{
    size_t  i;

    for (i = 0; i < pool->n; i++) {
        if (pool->items[i] == endpoint) {
            break;
        }
    }

    if (i == pool->n) {
        return;
    }

    for (pool->n--; i < pool->n; i++) {
        pool->items[i] = pool->items[i + 1];
    }

    if (pool->cursor >= pool->n) {
        pool->cursor = 0;
    }
}


/*
 * An endpoint's first measurement is weighed against the average over all endpoints, so that one outlier does not
 * decide.
 */
static void
lb_average_feed(lb_average *own, lb_average *pool, double us, int64_t now)
{
    if (own->at == 0) {
        own->us = pool->at ? pool->us : us;
    }

    if (pool->at == 0) {
        pool->us = us;
    }

    own->us += LB_ALPHA * (us - own->us);
    pool->us += LB_ALPHA * (us - pool->us);
    own->at = pool->at = now ? now : 1;
}


/*
 * The time to expect of an endpoint, in microseconds. A new endpoint is expected to be twice as good as the others:
 * then it is tried at once, but by no more than two requests at a time before it has been measured.
 */
static double
lb_expected(const lb_average *own, const lb_average *pool, int64_t now)
{
    double  age;

    if (own->at == 0) {
        return pool->us / 2;
    }

    age = now > own->at ? (double) (now - own->at) / LB_DECAY_US : 0;

    /* This is close to exp(-age), and cheap. */
    return own->us / (1 + age + age * age / 2);
}


/*
 * The endpoint with the lowest score is the best. One microsecond is added to the times, so that the number of requests
 * counts even when all times are 0.
 */
static double
lb_score(const lb_pool *pool, const lb_endpoint *e, lb_method method, int64_t now)
{
    double  expected, age;

    switch (method) {

    case LB_LEAST_TIME:
    case LB_RANDOM_TWO_LEAST_TIME:
        expected = lb_expected(&e->first_byte, &pool->first_byte, now);
        break;

    case LB_LEAST_TIME_LAST_BYTE:
    case LB_RANDOM_TWO_LEAST_TIME_LAST_BYTE:
        expected = lb_expected(&e->last_byte, &pool->last_byte, now);
        break;

    case LB_LEAST_TIME_LAST_BYTE_INFLIGHT:
        expected = lb_expected(&e->last_byte, &pool->last_byte, now);

        if (e->active) {
            age = (double) now - (double) e->started_sum / e->active;
            if (age > expected) {
                expected = age;
            }
        }

        break;

    default:
        return e->active;
    }

    return (expected + 1) * (e->active + 1);
}


static int
lb_was_tried(const lb_endpoint *e, lb_tried tried)
{
    size_t  i;

    for (i = 0; i < tried.n; i++) {
        if (tried.items[i] == e) {
            return 1;
        }
    }

    return 0;
}


int64_t
lb_down(const lb_endpoint *e, int64_t now)
{
    return e->fails && now < e->down_until ? e->down_until - now : 0;
}


static int
lb_usable(const lb_endpoint *e, lb_tried tried, int64_t now, int forgive)
{
    if (!forgive && lb_down(e, now)) {
        return 0;
    }

    return !lb_was_tried(e, tried);
}


/* The first usable endpoint at or after `start` that is not `other`. */
static lb_endpoint *
lb_scan(const lb_pool *pool, size_t start, const lb_endpoint *other, lb_tried tried, int64_t now, int forgive)
{
    size_t        i;
    lb_endpoint  *e;

    for (i = 0; i < pool->n; i++) {
        e = pool->items[(start + i) % pool->n];

        if (e != other && lb_usable(e, tried, now, forgive)) {
            return e;
        }
    }

    return NULL;
}


/*
 * Chooses among the usable endpoints, each with the same probability. After a few throws that hit none it counts them;
 * taking the next usable one instead would favour the neighbours of endpoints that failed.
 */
static lb_endpoint *
lb_pick_random(lb_pool *pool, const lb_endpoint *other, lb_tried tried, int64_t now, int forgive)
{
    size_t        i, usable, nth;
    lb_endpoint  *e;

    for (i = 0; i < 4; i++) {
        e = pool->items[lb_random(pool) % pool->n];

        if (e != other && lb_usable(e, tried, now, forgive)) {
            return e;
        }
    }

    usable = 0;

    for (i = 0; i < pool->n; i++) {
        e = pool->items[i];
        usable += (e != other && lb_usable(e, tried, now, forgive));
    }

    if (usable == 0) {
        return NULL;
    }

    nth = lb_random(pool) % usable;

    for (i = 0; i < pool->n; i++) {
        e = pool->items[i];

        if (e != other && lb_usable(e, tried, now, forgive) && nth-- == 0) {
            return e;
        }
    }

    return NULL;
}


static lb_endpoint *
lb_pick_two(lb_pool *pool, lb_method method, lb_tried tried, int64_t now, int forgive)
{
    lb_endpoint  *a, *b;

    a = lb_pick_random(pool, NULL, tried, now, forgive);
    if (a == NULL) {
        return NULL;
    }

    b = lb_pick_random(pool, a, tried, now, forgive);
    if (b == NULL) {
        return a;
    }

    return lb_score(pool, b, method, now) < lb_score(pool, a, method, now) ? b : a;
}


/* Chooses the endpoint with the lowest score. Endpoints with equal scores take turns. */
static lb_endpoint *
lb_pick_least(lb_pool *pool, lb_method method, lb_tried tried, int64_t now, int forgive)
{
    size_t        i, at, chosen;
    double        score, best_score;
    lb_endpoint  *e, *best;

    best = NULL;
    best_score = 0;
    chosen = 0;

    for (i = 0; i < pool->n; i++) {
        at = (pool->cursor + i) % pool->n;
        e = pool->items[at];

        if (!lb_usable(e, tried, now, forgive)) {
            continue;
        }

        score = lb_score(pool, e, method, now);

        if (best == NULL || score < best_score) {
            best = e;
            best_score = score;
            chosen = at;
        }
    }

    if (best) {
        pool->cursor = (chosen + 1) % pool->n;
    }

    return best;
}


static lb_endpoint *
lb_pick_round_robin(lb_pool *pool, lb_tried tried, int64_t now, int forgive)
{
    size_t        i;
    lb_endpoint  *e;

    e = lb_scan(pool, pool->cursor, NULL, tried, now, forgive);

    if (e) {
        for (i = 0; pool->items[(pool->cursor + i) % pool->n] != e; i++) { /* void */ }
        pool->cursor = (pool->cursor + i + 1) % pool->n;
    }

    return e;
}


static lb_endpoint *
lb_pick_by(lb_pool *pool, lb_method method, lb_tried tried, int64_t now, int forgive)
{
    switch (method) {

    case LB_ROUND_ROBIN:
        return lb_pick_round_robin(pool, tried, now, forgive);

    case LB_RANDOM:
        return lb_pick_random(pool, NULL, tried, now, forgive);

    case LB_RANDOM_TWO:
    case LB_RANDOM_TWO_LEAST_CONN:
    case LB_RANDOM_TWO_LEAST_TIME:
    case LB_RANDOM_TWO_LEAST_TIME_LAST_BYTE:
        return lb_pick_two(pool, method, tried, now, forgive);

    default:
        return lb_pick_least(pool, method, tried, now, forgive);
    }
}


lb_endpoint *
lb_pick(lb_pool *pool, lb_method method, lb_tried tried, int64_t now)
{
    lb_endpoint  *e;

    if (pool->n == 0) {
        return NULL;
    }

    e = lb_pick_by(pool, method, tried, now, 0);

    if (e == NULL) {
        e = lb_pick_by(pool, method, tried, now, 1);
    }

    if (e && e->fails) {
        /* This request is a trial. The others wait for its result. */
        e->down_until = now + LB_FAIL_TIMEOUT_US;
    }

    return e;
}


void
lb_begin(lb_endpoint *endpoint, int64_t now)
{
    endpoint->active++;
    endpoint->started_sum += now;
}


void
lb_first_byte(lb_pool *pool, lb_endpoint *endpoint, int64_t started, int64_t now)
{
    lb_average_feed(&endpoint->first_byte, &pool->first_byte, (double) (now - started), now);
}


void
lb_end(lb_pool *pool, lb_endpoint *endpoint, lb_outcome outcome, int64_t started, int64_t now)
{
    endpoint->active--;
    endpoint->started_sum -= started;

    switch (outcome) {

    case LB_DONE:
        endpoint->fails = 0;
        lb_average_feed(&endpoint->last_byte, &pool->last_byte, (double) (now - started), now);
        break;

    case LB_FAILED:
        endpoint->fails++;
        endpoint->down_until = now + LB_FAIL_TIMEOUT_US;
        break;

    case LB_ABANDONED:
        break;
    }
}
