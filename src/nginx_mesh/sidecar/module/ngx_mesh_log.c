#include "ngx_mesh_log.h"
#include "text.h"

#define NGX_MESH_LOG_TEXT_MAX  200
#define NGX_MESH_LOG_TEXTS     8


ngx_str_t *
ngx_mesh_log_text(const u_char *data, size_t len)
{
    ngx_str_t         *s;
    static ngx_uint_t  next;
    static ngx_str_t   texts[NGX_MESH_LOG_TEXTS];
    static u_char      rooms[NGX_MESH_LOG_TEXTS][NGX_MESH_LOG_TEXT_MAX];

    s = &texts[next];
    s->data = rooms[next];
    s->len = text_printable(s->data, NGX_MESH_LOG_TEXT_MAX, data, len);

    next = (next + 1) % NGX_MESH_LOG_TEXTS;

    return s;
}
