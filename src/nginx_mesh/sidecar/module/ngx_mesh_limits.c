#include <ngx_http.h>

#include "ngx_mesh_buckets.h"
#include "ngx_mesh_limits.h"
#include "ngx_mesh_strings.h"


ngx_mesh_limit_t *
ngx_mesh_limit_new(ngx_pool_t *pool, const ngx_str_t *name, size_t policy_len, const limit_rate *rate)
{
    ngx_mesh_limit_t  *limit;

    limit = ngx_pcalloc(pool, sizeof(ngx_mesh_limit_t));

    if (limit == NULL
        || ngx_mesh_rule_init(&limit->rule, pool) != NGX_OK
        || ngx_array_init(&limit->addresses, pool, 2, sizeof(struct in6_addr)) != NGX_OK
        || ngx_mesh_str_dup(&limit->name, pool, name) != NGX_OK)
    {
        return NULL;
    }

    limit->policy.data = limit->name.data;
    limit->policy.len = policy_len;
    limit->hash = ngx_crc32_short(name->data, name->len);
    limit->rate = *rate;

    return limit;
}


ngx_mesh_rule_t *
ngx_mesh_ffi_limit_rule(ngx_mesh_limit_t *limit)
{
    return &limit->rule;
}


/* Writes an IPv4 address as IPv6 does (RFC 4291, 2.5.5.2). NGX_DECLINED: it is no IP address. */
static ngx_int_t
ngx_mesh_address(struct in6_addr *address, const struct sockaddr *sockaddr)
{
    switch (sockaddr->sa_family) {

    case AF_INET6:
        *address = ((struct sockaddr_in6 *) sockaddr)->sin6_addr;
        return NGX_OK;

    case AF_INET:
        ngx_memzero(address, sizeof(struct in6_addr));
        address->s6_addr[10] = address->s6_addr[11] = 0xff;
        ngx_memcpy(&address->s6_addr[12], &((struct sockaddr_in *) sockaddr)->sin_addr, 4);
        return NGX_OK;

    default:
        return NGX_DECLINED;
    }
}


ngx_int_t
ngx_mesh_ffi_limit_address(ngx_mesh_limit_t *limit, const char *address, size_t len)
{
    ngx_str_t         str = ngx_mesh_str(address, len);
    ngx_addr_t        addr;
    struct in6_addr  *added;

    if (ngx_parse_addr(limit->addresses.pool, &addr, str.data, str.len) != NGX_OK) {
        return NGX_DECLINED;
    }

    added = ngx_array_push(&limit->addresses);

    return added ? ngx_mesh_address(added, addr.sockaddr) : NGX_ERROR;
}


static int
ngx_mesh_address_compare(const void *one, const void *two)
{
    return ngx_memcmp(one, two, sizeof(struct in6_addr));
}


static ngx_uint_t
ngx_mesh_limit_is_at(ngx_mesh_limit_t *limit, const struct in6_addr *address)
{
    ngx_array_t  *known = &limit->addresses;

    if (!limit->sorted) {
        qsort(known->elts, known->nelts, sizeof(struct in6_addr), ngx_mesh_address_compare);
        limit->sorted = 1;
    }

    return bsearch(address, known->elts, known->nelts, sizeof(struct in6_addr), ngx_mesh_address_compare) != NULL;
}


/*
 * A limit that names callers (`named`) applies to a caller that proved one of its IDs and calls from one of its
 * addresses. Of the limits of one policy only the first that applies is used. `others` apply to callers that no limit
 * names in this way. Of the limits that are returned, those with `fit` apply to the caller at hand.
 */
static const ngx_array_t *
ngx_mesh_limits_choose(const ngx_array_t *named, const ngx_array_t *others, const struct sockaddr *sockaddr)
{
    ngx_str_t          *policy;
    ngx_uint_t          i, known;
    struct in6_addr     address;
    ngx_mesh_limit_t  **limit;

    policy = NULL;

    if (named) {
        limit = named->elts;
        known = (ngx_mesh_address(&address, sockaddr) == NGX_OK);

        for (i = 0; i < named->nelts; i++) {
            limit[i]->fit = known
                            && ngx_mesh_limit_is_at(limit[i], &address)
                            && !(policy && ngx_mesh_str_equal(policy, &limit[i]->policy));

            if (limit[i]->fit) {
                policy = &limit[i]->policy;
            }
        }
    }

    if (policy) {
        return named;
    }

    limit = others->elts;

    for (i = 0; i < others->nelts; i++) {
        limit[i]->fit = 1;
    }

    return others;
}


static limit_bucket *
ngx_mesh_limit_bucket(ngx_mesh_limit_t *limit, int64_t now)
{
    return ngx_mesh_bucket_open(&limit->name, limit->hash, &limit->rate, now);
}


/* All limits are asked before any of them counts the request. */
static ngx_int_t
ngx_mesh_limits_take(const ngx_array_t *limits, int64_t now, ngx_str_t *by)
{
    ngx_uint_t           i;
    ngx_int_t            wait, longest;
    ngx_mesh_limit_t   **limit = limits->elts;
    limit_bucket        *b;

    for (i = 0; i < limits->nelts; i++) {

        if (!limit[i]->fit) {
            continue;
        }

        b = ngx_mesh_limit_bucket(limit[i], now);

        if (b == NULL || !limit_admits(b, &limit[i]->rate, now)) {
            *by = limit[i]->policy;
            return b ? NGX_BUSY : NGX_ERROR;
        }
    }

    longest = 0;

    for (i = 0; i < limits->nelts; i++) {

        if (!limit[i]->fit) {
            continue;
        }

        wait = limit_take(ngx_mesh_bucket_find(&limit[i]->name, limit[i]->hash), &limit[i]->rate, now);

        if (wait > longest) {
            longest = wait;
            *by = limit[i]->policy;
        }
    }

    return longest;
}


/* Of the limits that are returned, those with `fit` concern the request; NULL: none does. */
static const ngx_array_t *
ngx_mesh_limits_concern(const ngx_array_t *named, const ngx_array_t *others, ngx_http_request_t *r)
{
    ngx_uint_t           i, any;
    ngx_mesh_limit_t   **limit;
    const ngx_array_t   *limits;

    limits = ngx_mesh_limits_choose(named, others, r->connection->sockaddr);
    limit = limits->elts;
    any = 0;

    for (i = 0; i < limits->nelts; i++) {

        if (limit[i]->fit && !ngx_mesh_rule_matches(r, &limit[i]->rule, 1)) {
            limit[i]->fit = 0;
        }

        any |= limit[i]->fit;
    }

    return any ? limits : NULL;
}


ngx_int_t
ngx_mesh_limits_wait(const ngx_array_t *named, const ngx_array_t *others, ngx_http_request_t *r, ngx_str_t *by)
{
    ngx_int_t           wait;
    const ngx_array_t  *limits;

    ngx_str_null(by);

    limits = ngx_mesh_limits_concern(named, others, r);
    if (limits == NULL) {
        return 0;
    }

    ngx_mesh_buckets_lock();

    wait = ngx_mesh_limits_take(limits, (int64_t) ngx_current_msec, by);

    ngx_mesh_buckets_unlock();

    if (wait == NGX_ERROR) {
        ngx_log_error(NGX_LOG_ALERT, r->connection->log, 0, "no memory to count the rate limit \"%V\"", by);
    }

    return wait < 0 ? NGX_BUSY : wait;
}


/* Counts the request in a copy of the limit's bucket, and writes to `found` what comes of it. */
static void
ngx_mesh_limit_dry_run(ngx_mesh_dry_limit_t *found, ngx_mesh_limit_t *limit, int64_t now)
{
    limit_bucket   bucket = { .used = 0 };
    limit_bucket  *b;

    b = ngx_mesh_bucket_find(&limit->name, limit->hash);
    if (b) {
        bucket = *b;
    }

    found->name = ngx_mesh_ffi_str(&limit->name);
    found->policy = ngx_mesh_ffi_str(&limit->policy);
    found->rate = limit->rate.rate;
    found->burst = limit->rate.burst;
    found->delay = limit->rate.delay;
    found->admits = limit_admits(&bucket, &limit->rate, now);
    found->wait = limit_take(&bucket, &limit->rate, now);
    found->excess = bucket.excess;
}


ngx_uint_t
ngx_mesh_limits_dry_run(const ngx_array_t *named, const ngx_array_t *others, ngx_http_request_t *r,
    ngx_mesh_dry_limit_t *found, ngx_uint_t max)
{
    ngx_uint_t           i, n;
    ngx_mesh_limit_t   **limit;
    const ngx_array_t   *limits;

    limits = ngx_mesh_limits_concern(named, others, r);
    if (limits == NULL) {
        return 0;
    }

    limit = limits->elts;
    n = 0;

    ngx_mesh_buckets_lock();

    for (i = 0; i < limits->nelts; i++) {

        if (!limit[i]->fit) {
            continue;
        }

        if (n < max) {
            ngx_mesh_limit_dry_run(&found[n], limit[i], (int64_t) ngx_current_msec);
        }

        n++;
    }

    ngx_mesh_buckets_unlock();

    return n;
}
