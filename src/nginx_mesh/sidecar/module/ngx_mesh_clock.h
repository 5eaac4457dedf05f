/* The clock of the module. Lua reads it too. */

#ifndef NGX_MESH_CLOCK_H
#define NGX_MESH_CLOCK_H

#include <stdint.h>

/* Microseconds of a monotonic clock, which nobody sets. */
int64_t ngx_mesh_now_us(void);

#endif
