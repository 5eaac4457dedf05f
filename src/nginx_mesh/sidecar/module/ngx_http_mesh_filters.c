/* Filters: bodies that are too long, and the beginning of answers. */

#include "ngx_http_mesh.h"

static ngx_http_output_header_filter_pt  ngx_http_mesh_next_header_filter;
static ngx_http_request_body_filter_pt   ngx_http_mesh_next_request_body_filter;

static ngx_int_t ngx_http_mesh_header_filter(ngx_http_request_t *r);
static ngx_int_t ngx_http_mesh_request_body_filter(ngx_http_request_t *r, ngx_chain_t *in);


void
ngx_http_mesh_filters_init(void)
{
    ngx_http_mesh_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_mesh_header_filter;

    ngx_http_mesh_next_request_body_filter = ngx_http_top_request_body_filter;
    ngx_http_top_request_body_filter = ngx_http_mesh_request_body_filter;
}


/* Counts a body whose length was not announced. */
static ngx_int_t
ngx_http_mesh_request_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_chain_t          *cl;
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    if (ctx && ctx->body_limit) {

        for (cl = in; cl; cl = cl->next) {
            ctx->body_seen += ngx_buf_size(cl->buf);
        }

        if (ctx->body_seen > ctx->body_limit) {
            ngx_log_error(NGX_LOG_INFO, r->connection->log, 0, "client sent a body of more than %O bytes",
                          ctx->body_limit);
            return NGX_HTTP_REQUEST_ENTITY_TOO_LARGE;
        }
    }

    return ngx_http_mesh_next_request_body_filter(r, in);
}


static ngx_int_t
ngx_http_mesh_header_filter(ngx_http_request_t *r)
{
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    if (ctx && ctx->balanced) {
        ngx_mesh_attempts_first_byte(&ctx->attempts);

        if (ctx->tickets && ngx_http_mesh_outcome(r, ctx) == BREAKER_SUCCEEDED) {
            ngx_mesh_tickets_begun(ctx->tickets);
        }
    }

    return ngx_http_mesh_next_header_filter(r);
}
