#include "limit.h"


double
limit_take(limit_bucket *bucket, const limit_rate *limit, int64_t now)
{
    double  excess, drained;

    if (bucket->last == 0) {
        bucket->excess = 0;
        bucket->last = now ? now : 1;
        return 0;
    }

    excess = bucket->excess + 1000;
    drained = limit->rate * (double) (now - bucket->last) / 1000;

    /* whole thousandths, where they can be more than an integer holds */
    excess = drained < excess ? excess - (double) (int64_t) drained : 0;

    if (excess > limit->burst * 1000) {
        return -1;
    }

    bucket->excess = excess;
    bucket->last = now ? now : 1;

    if (limit->delay < 0 || excess <= limit->delay * 1000) {
        return 0;
    }

    return (excess - limit->delay * 1000) / limit->rate;
}
