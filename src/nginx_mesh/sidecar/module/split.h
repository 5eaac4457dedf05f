/* Shares of traffic: pure logic, no nginx and no I/O, so that it is tested on its own. */

#ifndef MESH_SPLIT_H
#define MESH_SPLIT_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t  weight;
    uint32_t  usable;                       /* 0: its share goes to the others */
} split_share;

/* The index of a share, chosen by weight with a random number of 62 bits or more; `n` when there is none to choose. */
size_t split_pick(const split_share *shares, size_t n, uint64_t random);

#endif
