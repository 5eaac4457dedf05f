#include "ngx_mesh_breakers.h"

#include "ngx_mesh_clock.h"
#include "ngx_mesh_log.h"
#include "ngx_mesh_names.h"
#include "ngx_mesh_strings.h"

struct ngx_mesh_breaker_s {
    ngx_str_node_t        node;         /* of ngx_mesh_breakers, while the breaker is in force */
    ngx_uint_t            refs;
    breaker               breaker;
    ngx_str_t             fallback;     /* an allocation of its own */
};

struct ngx_mesh_tickets_s {
    struct {
        ngx_mesh_breaker_t  *breaker;   /* a reference */
        uint64_t             number;
    } items[NGX_MESH_BREAKERS_MAX];

    ngx_uint_t            n;
};

static ngx_mesh_names_t  ngx_mesh_breakers;


static int64_t
ngx_mesh_now_ms(void)
{
    return ngx_mesh_now_us() / 1000;
}


static void
ngx_mesh_breaker_release(ngx_mesh_breaker_t *b)
{
    if (--b->refs == 0) {
        breaker_free(&b->breaker);
        ngx_free(b->fallback.data);
        ngx_free(b);
    }
}


ngx_uint_t
ngx_mesh_breakers_n(void)
{
    return ngx_mesh_breakers.n;
}


ngx_mesh_breaker_t *
ngx_mesh_breaker_find(const ngx_str_t *service)
{
    return (ngx_mesh_breaker_t *) ngx_mesh_names_find(&ngx_mesh_breakers, service);
}


const ngx_str_t *
ngx_mesh_breaker_service(const ngx_mesh_breaker_t *b)
{
    return &b->node.str;
}


const ngx_str_t *
ngx_mesh_breaker_fallback(const ngx_mesh_breaker_t *b)
{
    return &b->fallback;
}


static void
ngx_mesh_breaker_delete(const ngx_str_t *service)
{
    ngx_mesh_breaker_t  *b;

    b = ngx_mesh_breaker_find(service);
    if (b) {
        ngx_mesh_names_delete(&ngx_mesh_breakers, &b->node);
        ngx_mesh_breaker_release(b);
    }
}


void
ngx_mesh_ffi_breaker_delete(const char *service, size_t len)
{
    ngx_str_t  name = ngx_mesh_str(service, len);

    ngx_mesh_breaker_delete(&name);
}


ngx_int_t
ngx_mesh_ffi_breaker_put(const char *service, size_t len, uint32_t errors, int64_t timeout, const char *fallback,
    size_t fallback_len)
{
    u_char              *room;
    ngx_str_t            name = ngx_mesh_str(service, len);
    ngx_str_t            fallback_name = ngx_mesh_str(fallback, fallback_len);
    ngx_mesh_breaker_t  *b;

    /* One byte more, so that an empty name is an allocation too. */
    room = ngx_alloc(fallback_len + 1, ngx_cycle->log);
    if (room == NULL) {
        return NGX_ERROR;
    }

    b = ngx_mesh_breaker_find(&name);

    if (b && b->breaker.errors == errors && b->breaker.timeout == timeout) {
        ngx_free(b->fallback.data);
        (void) ngx_mesh_str_copy(&b->fallback, room, &fallback_name);
        return NGX_OK;
    }

    b = ngx_mesh_alloc(sizeof(ngx_mesh_breaker_t), len);

    if (b == NULL || breaker_init(&b->breaker, errors, timeout) != 0) {
        ngx_free(b);
        ngx_free(room);
        return NGX_ERROR;
    }

    ngx_mesh_breaker_delete(&name);

    (void) ngx_mesh_str_copy(&b->node.str, (u_char *) (b + 1), &name);
    (void) ngx_mesh_str_copy(&b->fallback, room, &fallback_name);
    b->refs = 1;

    ngx_mesh_names_insert(&ngx_mesh_breakers, &b->node);

    return NGX_OK;
}


ngx_int_t
ngx_mesh_ffi_breaker_state(const char *service, size_t len)
{
    ngx_str_t            name = ngx_mesh_str(service, len);
    ngx_mesh_breaker_t  *b;

    b = ngx_mesh_breaker_find(&name);

    return b ? (ngx_int_t) breaker_seen(&b->breaker, ngx_mesh_now_ms()) : NGX_ERROR;
}


ngx_uint_t
ngx_mesh_ffi_breaker_trips_take(const char *service, size_t len)
{
    ngx_str_t            name = ngx_mesh_str(service, len);
    ngx_uint_t           trips;
    ngx_mesh_breaker_t  *b;

    b = ngx_mesh_breaker_find(&name);
    if (b == NULL) {
        return 0;
    }

    trips = b->breaker.trips;
    b->breaker.trips = 0;

    return trips;
}


static void
ngx_mesh_tickets_cleanup(void *data)
{
    ngx_mesh_tickets_t  *tickets = data;

    ngx_mesh_tickets_end(tickets, BREAKER_UNKNOWN);
}


static ngx_mesh_tickets_t *
ngx_mesh_tickets_new(ngx_pool_t *pool)
{
    ngx_mesh_tickets_t  *tickets;
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(pool, sizeof(ngx_mesh_tickets_t));
    if (cln == NULL) {
        return NULL;
    }

    tickets = cln->data;
    tickets->n = 0;
    cln->handler = ngx_mesh_tickets_cleanup;

    return tickets;
}


static const char *
ngx_mesh_breaker_state_name(const ngx_mesh_breaker_t *b)
{
    static const char  *names[] = { [BREAKER_CLOSED] = "closed", [BREAKER_OPEN] = "open",
                                    [BREAKER_HALF_OPEN] = "half-open" };

    return names[breaker_seen(&b->breaker, ngx_mesh_now_ms())];
}


ngx_int_t
ngx_mesh_breaker_admit(ngx_mesh_breaker_t *b, ngx_mesh_tickets_t **tickets, ngx_pool_t *pool)
{
    ngx_mesh_tickets_t  *t;

    if (*tickets == NULL) {
        *tickets = ngx_mesh_tickets_new(pool);
        if (*tickets == NULL) {
            return NGX_ERROR;
        }
    }

    t = *tickets;

    if (!breaker_admit(&b->breaker, &t->items[t->n].number, ngx_mesh_now_ms())) {
        ngx_mesh_log_decision(pool->log, "the circuit breaker of \"%V\" is %s and lets nothing pass", &b->node.str,
                              ngx_mesh_breaker_state_name(b));
        return NGX_DECLINED;
    }

    ngx_mesh_log_decision(pool->log, "the circuit breaker of \"%V\" is %s and lets it pass", &b->node.str,
                          ngx_mesh_breaker_state_name(b));

    t->items[t->n++].breaker = b;
    b->refs++;

    return NGX_OK;
}


ngx_int_t
ngx_mesh_breaker_dry_run(ngx_mesh_breaker_t *b, ngx_mesh_dry_t *dry)
{
    int64_t                  now = ngx_mesh_now_ms();
    ngx_mesh_dry_breaker_t  *seen;

    seen = &dry->breakers[dry->nbreakers++];
    seen->service = ngx_mesh_ffi_str(&b->node.str);
    seen->state = breaker_seen(&b->breaker, now);
    seen->wait = breaker_wait(&b->breaker, now);

    return seen->wait ? NGX_DECLINED : NGX_OK;
}


void
ngx_mesh_tickets_begun(ngx_mesh_tickets_t *tickets)
{
    ngx_uint_t  i;

    for (i = 0; i < tickets->n; i++) {
        breaker_begun(&tickets->items[i].breaker->breaker, &tickets->items[i].number);
    }
}


void
ngx_mesh_tickets_end(ngx_mesh_tickets_t *tickets, breaker_outcome outcome)
{
    ngx_mesh_breaker_t  *b;

    while (tickets->n) {
        tickets->n--;
        b = tickets->items[tickets->n].breaker;

        breaker_end(&b->breaker, tickets->items[tickets->n].number, outcome, ngx_mesh_now_ms());
        ngx_mesh_breaker_release(b);
    }
}
