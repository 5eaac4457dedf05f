/*
 * The policy of an inbound port: who may do what, and how often. Lua builds it from the state (lua/mesh/state.lua); it
 * is never changed, only replaced.
 */

#include <ngx_http.h>

#define PCRE2_CODE_UNIT_WIDTH  8
#include <pcre2.h>

#include "limit.h"
#include "ngx_mesh.h"

/* A pattern that backtracks without end costs a caller's request, not the pod. */
#define NGX_MESH_REGEX_LIMIT  100000

/* Segments that are "." or ".." once decoded and cut at ";", encoded slashes, backslashes. */
#define NGX_MESH_AMBIGUOUS    "^[^?]*(?:/(?:\\.|%2e){1,2}(?:[/;?]|$)|%2f|%5c|\\\\)"

typedef struct {
    ngx_str_t           name;
    pcre2_code         *regex;          /* NULL: it does not compile, and matches nothing */
} ngx_mesh_header_match_t;

/* Parts that are not given hold for everything; all of them must hold. */
typedef struct {
    ngx_uint_t          has_path;
    pcre2_code         *path;
    ngx_array_t         methods;        /* ngx_str_t */
    ngx_array_t         headers;        /* ngx_mesh_header_match_t */
} ngx_mesh_match_t;

/* What a grant and a limit have in common. */
typedef struct {
    ngx_array_t         sources;        /* ngx_str_t: SPIFFE IDs */
    ngx_array_t         matches;        /* ngx_mesh_match_t: any of them; none: every request */
    limit_rate          rate;
    limit_bucket       *bucket;         /* NULL: a grant */
} ngx_mesh_rule_t;

struct ngx_mesh_policy_s {
    ngx_pool_t         *pool;
    ngx_uint_t          restricted;     /* what no grant allows is denied */
    ngx_array_t         grants;         /* ngx_mesh_rule_t */
    ngx_array_t         limits;         /* ngx_mesh_rule_t */
    ngx_mesh_rule_t    *rule;           /* the one that is being built */
};

/* Buckets outlive policies, so that a changed state is no reset of limits. */
typedef struct {
    ngx_str_node_t      node;
    limit_bucket        bucket;
} ngx_mesh_bucket_t;

static ngx_rbtree_t             ngx_mesh_buckets;
static ngx_rbtree_node_t        ngx_mesh_buckets_sentinel;

static pcre2_match_data        *ngx_mesh_match_data;
static pcre2_match_context     *ngx_mesh_match_context;


static ngx_int_t
ngx_mesh_str_copy(ngx_str_t *to, ngx_pool_t *pool, const u_char *data, size_t len)
{
    to->data = ngx_pnalloc(pool, len);
    if (to->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(to->data, data, len);
    to->len = len;

    return NGX_OK;
}


static ngx_int_t
ngx_mesh_str_push(ngx_array_t *strings, const u_char *data, size_t len)
{
    ngx_str_t  *s;

    s = ngx_array_push(strings);

    return s ? ngx_mesh_str_copy(s, strings->pool, data, len) : NGX_ERROR;
}


static void
ngx_mesh_regex_free(void *data)
{
    pcre2_code_free(data);
}


/* NULL when it is no pattern. */
static ngx_int_t
ngx_mesh_regex_compile(pcre2_code **code, ngx_pool_t *pool, const u_char *data, size_t len, uint32_t options)
{
    int                  error;
    size_t               offset;
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    *code = pcre2_compile(data, len, options, &error, &offset, NULL);

    if (*code) {
        cln->handler = ngx_mesh_regex_free;
        cln->data = *code;

        /* without it patterns are interpreted */
        (void) pcre2_jit_compile(*code, PCRE2_JIT_COMPLETE);
    }

    return NGX_OK;
}


/* `if_unsure`: the answer where it took too long to tell. What is no pattern matches nothing. */
static ngx_uint_t
ngx_mesh_regex_matches(pcre2_code *code, const ngx_str_t *s, ngx_uint_t if_unsure)
{
    int  rc;

    if (code == NULL) {
        return 0;
    }

    if (ngx_mesh_match_data == NULL) {
        ngx_mesh_match_context = pcre2_match_context_create(NULL);
        ngx_mesh_match_data = pcre2_match_data_create(1, NULL);

        if (ngx_mesh_match_context == NULL || ngx_mesh_match_data == NULL) {
            return if_unsure;
        }

        pcre2_set_match_limit(ngx_mesh_match_context, NGX_MESH_REGEX_LIMIT);
    }

    rc = pcre2_match(code, s->data, s->len, 0, 0, ngx_mesh_match_data, ngx_mesh_match_context);

    return rc >= 0 || (rc != PCRE2_ERROR_NOMATCH && if_unsure);
}


/* FFI. NULL: out of memory. */
ngx_mesh_policy_t *
ngx_mesh_ffi_policy_new(ngx_uint_t restricted)
{
    ngx_pool_t         *pool;
    ngx_mesh_policy_t  *policy;

    pool = ngx_create_pool(1024, ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    policy = ngx_pcalloc(pool, sizeof(ngx_mesh_policy_t));

    if (policy == NULL
        || ngx_array_init(&policy->grants, pool, 4, sizeof(ngx_mesh_rule_t)) != NGX_OK
        || ngx_array_init(&policy->limits, pool, 2, sizeof(ngx_mesh_rule_t)) != NGX_OK)
    {
        ngx_destroy_pool(pool);
        return NULL;
    }

    policy->pool = pool;
    policy->restricted = restricted;

    return policy;
}


void
ngx_mesh_policy_free(ngx_mesh_policy_t *policy)
{
    if (policy) {
        ngx_destroy_pool(policy->pool);
    }
}


static ngx_int_t
ngx_mesh_policy_rule(ngx_mesh_policy_t *policy, ngx_array_t *rules)
{
    ngx_mesh_rule_t  *rule;

    rule = ngx_array_push(rules);
    if (rule == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(rule, sizeof(ngx_mesh_rule_t));
    policy->rule = rule;

    if (ngx_array_init(&rule->sources, policy->pool, 2, sizeof(ngx_str_t)) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_array_init(&rule->matches, policy->pool, 2, sizeof(ngx_mesh_match_t));
}


static limit_bucket *
ngx_mesh_bucket(const u_char *name, size_t len)
{
    ngx_str_t           str = { len, (u_char *) name };
    uint32_t            hash;
    ngx_mesh_bucket_t  *b;

    if (ngx_mesh_buckets.root == NULL) {
        ngx_rbtree_init(&ngx_mesh_buckets, &ngx_mesh_buckets_sentinel, ngx_str_rbtree_insert_value);
    }

    hash = ngx_crc32_short(str.data, len);
    b = (ngx_mesh_bucket_t *) ngx_str_rbtree_lookup(&ngx_mesh_buckets, &str, hash);

    if (b == NULL) {
        b = ngx_calloc(sizeof(ngx_mesh_bucket_t) + len, ngx_cycle->log);
        if (b == NULL) {
            return NULL;
        }

        b->node.str.data = (u_char *) b + sizeof(ngx_mesh_bucket_t);
        b->node.str.len = len;
        ngx_memcpy(b->node.str.data, name, len);

        b->node.node.key = hash;
        ngx_rbtree_insert(&ngx_mesh_buckets, &b->node.node);
    }

    return &b->bucket;
}


/* FFI. Begins a grant; what follows is about it. */
ngx_int_t
ngx_mesh_ffi_policy_grant(ngx_mesh_policy_t *policy)
{
    return ngx_mesh_policy_rule(policy, &policy->grants);
}


/* FFI. Begins a limit, counted under its name; what follows is about it. */
ngx_int_t
ngx_mesh_ffi_policy_limit(ngx_mesh_policy_t *policy, const u_char *name, size_t len, double rate, double burst,
    double delay)
{
    if (ngx_mesh_policy_rule(policy, &policy->limits) != NGX_OK) {
        return NGX_ERROR;
    }

    policy->rule->rate = (limit_rate) { .rate = rate, .burst = burst, .delay = delay };
    policy->rule->bucket = ngx_mesh_bucket(name, len);

    return policy->rule->bucket ? NGX_OK : NGX_ERROR;
}


/* FFI */
ngx_int_t
ngx_mesh_ffi_policy_source(ngx_mesh_policy_t *policy, const u_char *id, size_t len)
{
    return ngx_mesh_str_push(&policy->rule->sources, id, len);
}


/* FFI. Begins a match of the rule. `path`: a pattern; empty: every path. */
ngx_int_t
ngx_mesh_ffi_policy_match(ngx_mesh_policy_t *policy, const u_char *path, size_t len)
{
    ngx_mesh_match_t  *match;

    match = ngx_array_push(&policy->rule->matches);
    if (match == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(match, sizeof(ngx_mesh_match_t));
    match->has_path = (len != 0);

    if (ngx_array_init(&match->methods, policy->pool, 2, sizeof(ngx_str_t)) != NGX_OK
        || ngx_array_init(&match->headers, policy->pool, 2, sizeof(ngx_mesh_header_match_t)) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return len ? ngx_mesh_regex_compile(&match->path, policy->pool, path, len, 0) : NGX_OK;
}


static ngx_mesh_match_t *
ngx_mesh_policy_last_match(ngx_mesh_policy_t *policy)
{
    ngx_mesh_match_t  *matches = policy->rule->matches.elts;

    return &matches[policy->rule->matches.nelts - 1];
}


/* FFI. Of the match that was begun last: a method that it is for, "*" for all. */
ngx_int_t
ngx_mesh_ffi_policy_method(ngx_mesh_policy_t *policy, const u_char *name, size_t len)
{
    return ngx_mesh_str_push(&ngx_mesh_policy_last_match(policy)->methods, name, len);
}


/* FFI. Of the match that was begun last: a header that must be there, and a pattern for its value. */
ngx_int_t
ngx_mesh_ffi_policy_header(ngx_mesh_policy_t *policy, const u_char *name, size_t name_len, const u_char *regex,
    size_t regex_len)
{
    ngx_mesh_header_match_t  *header;

    header = ngx_array_push(&ngx_mesh_policy_last_match(policy)->headers);

    if (header == NULL || ngx_mesh_str_copy(&header->name, policy->pool, name, name_len) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_mesh_regex_compile(&header->regex, policy->pool, regex, regex_len, 0);
}


static ngx_uint_t
ngx_mesh_str_in(const ngx_array_t *strings, const ngx_str_t *s)
{
    ngx_uint_t  i;
    ngx_str_t  *member = strings->elts;

    for (i = 0; i < strings->nelts; i++) {
        if (member[i].len == s->len && ngx_memcmp(member[i].data, s->data, s->len) == 0) {
            return 1;
        }
    }

    return 0;
}


static ngx_uint_t
ngx_mesh_rule_names(const ngx_mesh_rule_t *rule, const ngx_str_t *id)
{
    return id->len && ngx_mesh_str_in(&rule->sources, id);
}


static ngx_uint_t
ngx_mesh_methods_match(const ngx_array_t *methods, const ngx_str_t *method)
{
    static ngx_str_t  all = ngx_string("*");

    return methods->nelts == 0 || ngx_mesh_str_in(methods, method) || ngx_mesh_str_in(methods, &all);
}


/* The next value of a header, from `*i` of `*part` on; NULL: there is no more. */
static ngx_str_t *
ngx_mesh_header_next(ngx_list_part_t **part, ngx_uint_t *i, const ngx_str_t *name)
{
    ngx_table_elt_t  *h;

    for ( ; *part; *part = (*part)->next, *i = 0) {
        while (*i < (*part)->nelts) {
            h = (ngx_table_elt_t *) (*part)->elts + (*i)++;

            if (h->key.len == name->len && ngx_strncasecmp(h->key.data, name->data, name->len) == 0) {
                return &h->value;
            }
        }
    }

    return NULL;
}


/*
 * A header that was sent more than once is its values with commas between, valid until the next call: a caller may send
 * a hundred thousand, and rules ask again and again. NGX_DECLINED: it was not sent.
 */
static ngx_int_t
ngx_mesh_header_value(ngx_http_request_t *r, const ngx_str_t *name, ngx_str_t *value)
{
    u_char           *p;
    size_t            len;
    ngx_str_t        *next;
    ngx_uint_t        i, n;
    ngx_list_part_t  *part;
    static u_char    *joined;
    static size_t     room;

    n = 0;
    len = 0;
    i = 0;
    part = &r->headers_in.headers.part;

    while ((next = ngx_mesh_header_next(&part, &i, name)) != NULL) {
        *value = *next;
        len += next->len + 1;
        n++;
    }

    if (n < 2) {
        return n ? NGX_OK : NGX_DECLINED;
    }

    if (len > room) {
        ngx_free(joined);
        room = 0;

        joined = ngx_alloc(len, r->connection->log);
        if (joined == NULL) {
            return NGX_ERROR;
        }

        room = len;
    }

    p = joined;
    i = 0;
    part = &r->headers_in.headers.part;

    while ((next = ngx_mesh_header_next(&part, &i, name)) != NULL) {
        p = ngx_cpymem(p, next->data, next->len);
        *p++ = ',';
    }

    value->data = joined;
    value->len = len - 1;

    return NGX_OK;
}


static ngx_uint_t
ngx_mesh_headers_match(ngx_http_request_t *r, const ngx_array_t *headers, ngx_uint_t if_unsure)
{
    ngx_str_t                 value;
    ngx_uint_t                i;
    ngx_mesh_header_match_t  *header = headers->elts;

    for (i = 0; i < headers->nelts; i++) {
        if (ngx_mesh_header_value(r, &header[i].name, &value) != NGX_OK
            || !ngx_mesh_regex_matches(header[i].regex, &value, if_unsure))
        {
            return 0;
        }
    }

    return 1;
}


/*
 * The path goes to the application as it was sent. What it means when it must be normalised first is not for us to
 * guess: applications differ, and one may take /public/..;/admin for what another takes it not. A path of which this
 * cannot be told is ambiguous too.
 */
static ngx_uint_t
ngx_mesh_path_is_ambiguous(const ngx_str_t *sent)
{
    size_t              i;
    static pcre2_code  *ambiguous;

    for (i = 0; i < sent->len; i++) {
        if (sent->data[i] == '%' || sent->data[i] == '\\'
            || (sent->data[i] == '/' && i + 1 < sent->len && sent->data[i + 1] == '.'))
        {
            break;
        }
    }

    if (i == sent->len) {
        return 0;
    }

    if (ambiguous == NULL
        && (ngx_mesh_regex_compile(&ambiguous, ngx_cycle->pool, (u_char *) NGX_MESH_AMBIGUOUS,
                                   sizeof(NGX_MESH_AMBIGUOUS) - 1, PCRE2_CASELESS) != NGX_OK
            || ambiguous == NULL))
    {
        return 1;
    }

    return ngx_mesh_regex_matches(ambiguous, sent, 1);
}


/* `if_unsure`: what is said when applications may take the path for one or another, or a pattern takes too long. */
static ngx_uint_t
ngx_mesh_rule_matches(ngx_http_request_t *r, const ngx_mesh_rule_t *rule, ngx_uint_t if_unsure)
{
    ngx_uint_t         i;
    ngx_mesh_match_t  *match = rule->matches.elts;

    if (rule->matches.nelts == 0) {
        return 1;
    }

    for (i = 0; i < rule->matches.nelts; i++) {

        if (!ngx_mesh_methods_match(&match[i].methods, &r->method_name)
            || !ngx_mesh_headers_match(r, &match[i].headers, if_unsure))
        {
            continue;
        }

        if (!match[i].has_path) {
            return 1;
        }

        if (ngx_mesh_path_is_ambiguous(&r->unparsed_uri)) {
            if (if_unsure) {
                return 1;
            }

        } else if (ngx_mesh_regex_matches(match[i].path, &r->uri, if_unsure)) {
            return 1;
        }
    }

    return 0;
}


ngx_uint_t
ngx_mesh_policy_allows(ngx_mesh_policy_t *policy, const ngx_str_t *id, ngx_http_request_t *r)
{
    ngx_uint_t        i;
    ngx_mesh_rule_t  *grant;

    if (policy == NULL || !policy->restricted) {
        return 1;
    }

    grant = policy->grants.elts;

    for (i = 0; i < policy->grants.nelts; i++) {
        if (ngx_mesh_rule_names(&grant[i], id)
            && (r ? ngx_mesh_rule_matches(r, &grant[i], 0) : grant[i].matches.nelts == 0))
        {
            return 1;
        }
    }

    return 0;
}


double
ngx_mesh_policy_wait(ngx_mesh_policy_t *policy, const ngx_str_t *id, ngx_http_request_t *r)
{
    double            seconds, wait;
    ngx_uint_t        i, named;
    ngx_mesh_rule_t  *limit;

    if (policy == NULL || policy->limits.nelts == 0) {
        return 0;
    }

    limit = policy->limits.elts;
    named = 0;

    for (i = 0; i < policy->limits.nelts; i++) {
        named |= ngx_mesh_rule_names(&limit[i], id);
    }

    wait = 0;

    for (i = 0; i < policy->limits.nelts; i++) {

        /* one without sources is for callers that no other limit names */
        if (limit[i].sources.nelts ? !ngx_mesh_rule_names(&limit[i], id) : named) {
            continue;
        }

        if (!ngx_mesh_rule_matches(r, &limit[i], 1)) {
            continue;
        }

        seconds = limit_take(limit[i].bucket, &limit[i].rate, (int64_t) ngx_current_msec);

        if (seconds < 0) {
            return -1;
        }

        wait = ngx_max(wait, seconds);
    }

    return wait;
}
