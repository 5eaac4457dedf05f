#include "metric.h"

const uint32_t  metric_bounds[METRIC_BOUNDS] = { 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000 };

static const struct {
    uint16_t  first;
    uint16_t  last;
} metric_registered[] = {
    { 100, 104 }, { 200, 208 }, { 226, 226 }, { 300, 308 }, { 400, 418 }, { 421, 426 }, { 428, 429 }, { 431, 431 },
    { 451, 451 }, { 499, 508 }, { 510, 511 },
};


size_t
metric_bucket(uint64_t ms)
{
    size_t  i;

    for (i = 0; i < METRIC_BOUNDS && ms > metric_bounds[i]; i++) { /* void */ }

    return i;
}


void
metric_observe(metric_histogram *h, uint64_t ms)
{
    h->sum += ms;
    h->buckets[metric_bucket(ms)]++;
}


unsigned
metric_status(unsigned status)
{
    size_t  i;

    if (status < 100 || status > 599) {
        return 500;
    }

    for (i = 0; i < sizeof(metric_registered) / sizeof(metric_registered[0]); i++) {
        if (status >= metric_registered[i].first && status <= metric_registered[i].last) {
            return status;
        }
    }

    return status - status % 100;
}
