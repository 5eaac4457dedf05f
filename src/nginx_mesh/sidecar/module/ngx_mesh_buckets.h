/*
 * What rate limits have counted, in memory that all workers share. Buckets are kept under the limits' names, so that
 * neither the end of a worker nor a change of the state resets them.
 */

#ifndef NGX_MESH_BUCKETS_H
#define NGX_MESH_BUCKETS_H

#include <ngx_config.h>
#include <ngx_core.h>

#include "limit.h"

/* Reserves the memory while nginx.conf is read. `tag` is the nginx module that owns it. */
ngx_int_t ngx_mesh_buckets_configure(ngx_conf_t *cf, void *tag);

/* Buckets may be touched between these two only. */
void ngx_mesh_buckets_lock(void);
void ngx_mesh_buckets_unlock(void);

/* The bucket under the name, whose CRC32 is `hash`; NULL: nothing was counted under it. */
limit_bucket *ngx_mesh_bucket_find(ngx_str_t *name, uint32_t hash);
/* The same, made if it is missing, for a request at `now` (milliseconds) by the rate. NULL: out of memory. */
limit_bucket *ngx_mesh_bucket_open(ngx_str_t *name, uint32_t hash, const limit_rate *rate, int64_t now);

#endif
