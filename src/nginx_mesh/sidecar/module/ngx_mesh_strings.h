/* Strings that outlive a pool or come from Lua, and the allocations that hold them. */

#ifndef NGX_MESH_STRINGS_H
#define NGX_MESH_STRINGS_H

#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mesh_lua.h"

/* A zeroed allocation of `size` bytes with `strings` bytes behind it for copies of strings. NULL: out of memory. */
void *ngx_mesh_alloc(size_t size, size_t strings);
/* Makes `to` a copy of `from` in `room`, and returns the end of the copy. */
u_char *ngx_mesh_str_copy(ngx_str_t *to, u_char *room, const ngx_str_t *from);
/* Makes `to` a copy of `from` in the pool. On NGX_ERROR `to` is empty. */
ngx_int_t ngx_mesh_str_dup(ngx_str_t *to, ngx_pool_t *pool, const ngx_str_t *from);
ngx_uint_t ngx_mesh_str_equal(const ngx_str_t *a, const ngx_str_t *b);

/* A string of Lua's as one of nginx's. The bytes stay where they are, and are only read. */
#define ngx_mesh_str(data, len)  ((ngx_str_t) { (len), (u_char *) (uintptr_t) (data) })

/* The opposite. */
ngx_mesh_ffi_str_t ngx_mesh_ffi_str(const ngx_str_t *s);

#endif
