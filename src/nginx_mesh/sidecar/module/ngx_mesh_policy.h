/* The policy of an inbound port: who may do what, and how often. It is never changed, only replaced. */

#ifndef NGX_MESH_POLICY_H
#define NGX_MESH_POLICY_H

#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mesh_lua.h"

/*
 * Whether the policy, which may be NULL, allows the caller with the SPIFFE ID `id` (empty: it proved none) the request,
 * or with `r` NULL a TCP connection, for which only grants without conditions on requests count. `by` is the name of
 * the first grant that allows it, valid as long as the policy; it is empty when none does or none is needed.
 */
ngx_uint_t ngx_mesh_policy_allows(ngx_mesh_policy_t *policy, const ngx_str_t *id, ngx_http_request_t *r, ngx_str_t *by);
/*
 * Counts the request in its rate limits. Returns the milliseconds that it has to wait, or NGX_BUSY when it is over a
 * limit, which then does not count it. `by` is the name of the RateLimit that decided, valid as long as the policy.
 */
ngx_int_t ngx_mesh_policy_wait(ngx_mesh_policy_t *policy, const ngx_str_t *id, ngx_http_request_t *r, ngx_str_t *by);
/* How many limits would count the request; `found` gets the first `max` of them. Nothing is counted. */
ngx_uint_t ngx_mesh_policy_dry_run(ngx_mesh_policy_t *policy, const ngx_str_t *id, ngx_http_request_t *r,
    ngx_mesh_dry_limit_t *found, ngx_uint_t max);
void ngx_mesh_policy_free(ngx_mesh_policy_t *policy);

#endif
