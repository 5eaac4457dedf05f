#include "split.h"


size_t
split_pick(const split_share *shares, size_t n, uint64_t random)
{
    size_t    i;
    uint64_t  sum;

    sum = 0;

    for (i = 0; i < n; i++) {
        sum += shares[i].usable ? shares[i].weight : 0;
    }

    if (sum == 0) {
        return n;
    }

    random %= sum;

    for (i = 0; i < n; i++) {
        if (!shares[i].usable) {
            continue;
        }

        if (random < shares[i].weight) {
            break;
        }

        random -= shares[i].weight;
    }

    return i;
}
