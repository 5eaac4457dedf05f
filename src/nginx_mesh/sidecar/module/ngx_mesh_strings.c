#include "ngx_mesh_strings.h"


void *
ngx_mesh_alloc(size_t size, size_t strings)
{
    return ngx_calloc(size + strings, ngx_cycle->log);
}


u_char *
ngx_mesh_str_copy(ngx_str_t *to, u_char *room, const ngx_str_t *from)
{
    to->data = room;
    to->len = from->len;

    return ngx_cpymem(room, from->data, from->len);
}


ngx_int_t
ngx_mesh_str_dup(ngx_str_t *to, ngx_pool_t *pool, const ngx_str_t *from)
{
    u_char  *room;

    room = ngx_pnalloc(pool, from->len);
    if (room == NULL) {
        ngx_str_null(to);
        return NGX_ERROR;
    }

    (void) ngx_mesh_str_copy(to, room, from);

    return NGX_OK;
}


ngx_uint_t
ngx_mesh_str_equal(const ngx_str_t *a, const ngx_str_t *b)
{
    return a->len == b->len && ngx_memcmp(a->data, b->data, a->len) == 0;
}


ngx_mesh_ffi_str_t
ngx_mesh_ffi_str(const ngx_str_t *s)
{
    return (ngx_mesh_ffi_str_t) { s->len, (const char *) s->data };
}
