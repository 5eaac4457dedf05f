#include "limit.h"

#define ONE  1000                           /* a request, in thousandths */


/*
 * Milliseconds since the bucket was last used. Another worker's clock may be somewhat ahead of this one: then no time
 * has passed. A clock that is far behind was set back: then the bucket goes on from now.
 */
static int64_t
elapsed(const limit_bucket *bucket, int64_t now)
{
    int64_t  ms = now - bucket->last;

    if (ms < -60000) {
        return 1;
    }

    return ms < 0 ? 0 : ms;
}


static uint64_t
drained(const limit_rate *limit, int64_t ms)
{
    return (uint64_t) ms > UINT64_MAX / limit->rate ? UINT64_MAX : limit->rate * (uint64_t) ms / 1000;
}


/* The excess with the request at hand. The first request of a bucket is no excess. */
static uint64_t
excess_with(const limit_bucket *bucket, const limit_rate *limit, int64_t ms)
{
    uint64_t  gone, excess;

    if (!bucket->used) {
        return 0;
    }

    excess = bucket->excess + ONE;
    gone = drained(limit, ms);

    return gone < excess ? excess - gone : 0;
}


int
limit_admits(const limit_bucket *bucket, const limit_rate *limit, int64_t now)
{
    return excess_with(bucket, limit, elapsed(bucket, now)) <= limit->burst;
}


uint64_t
limit_take(limit_bucket *bucket, const limit_rate *limit, int64_t now)
{
    int64_t  ms = elapsed(bucket, now);

    bucket->excess = excess_with(bucket, limit, ms);

    if (ms || !bucket->used) {
        bucket->last = now;
    }

    bucket->used = 1;

    return bucket->excess <= limit->delay ? 0 : (bucket->excess - limit->delay) * 1000 / limit->rate;
}


int
limit_is_idle(const limit_bucket *bucket, const limit_rate *limit, int64_t now)
{
    return !bucket->used || drained(limit, elapsed(bucket, now)) >= bucket->excess + ONE;
}
