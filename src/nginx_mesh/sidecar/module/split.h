/* Shares of traffic. This is pure logic without nginx and without I/O, so that it is tested on its own. */

#ifndef MESH_SPLIT_H
#define MESH_SPLIT_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t  weight;
    uint32_t  usable;                       /* 0: the others get its share */
} split_share;

/*
 * Chooses one of the shares by their weights with a random number of 62 bits or more, and returns its index; `n`: there
 * is none to choose.
 */
size_t split_pick(const split_share *shares, size_t n, uint64_t random);

#endif
