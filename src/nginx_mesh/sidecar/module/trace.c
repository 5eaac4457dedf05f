#include <string.h>

#include "trace.h"


/* The value of a hexadecimal digit; -1: it is none. Capital letters are not allowed here. */
static int
digit(unsigned char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }

    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}


static int
read_hex(uint8_t *out, const unsigned char *data, size_t n)
{
    int     high, low;
    size_t  i;

    for (i = 0; i < n; i++) {
        high = digit(data[2 * i]);
        low = digit(data[2 * i + 1]);

        if (high < 0 || low < 0) {
            return 0;
        }

        out[i] = (uint8_t) (high << 4 | low);
    }

    return 1;
}


static int
is_zero(const uint8_t *bytes, size_t n)
{
    size_t  i;

    for (i = 0; i < n; i++) {
        if (bytes[i]) {
            return 0;
        }
    }

    return 1;
}


int
trace_parse(trace_context *context, const unsigned char *data, size_t len)
{
    uint8_t  version;

    /* The format is version-trace_id-span_id-flags. Later versions may have more behind it. */

    if (len < TRACE_PARENT_LEN || data[2] != '-' || data[35] != '-' || data[52] != '-'
        || !read_hex(&version, data, 1) || version == 0xff
        || (len > TRACE_PARENT_LEN && (version == 0 || data[TRACE_PARENT_LEN] != '-')))
    {
        return 0;
    }

    return read_hex(context->trace_id, data + 3, 16) && !is_zero(context->trace_id, 16)
           && read_hex(context->span_id, data + 36, 8) && !is_zero(context->span_id, 8)
           && read_hex(&context->flags, data + 53, 1);
}


void
trace_hex(unsigned char *out, const uint8_t *bytes, size_t n)
{
    size_t             i;
    static const char  digits[] = "0123456789abcdef";

    for (i = 0; i < n; i++) {
        out[2 * i] = (unsigned char) digits[bytes[i] >> 4];
        out[2 * i + 1] = (unsigned char) digits[bytes[i] & 0xf];
    }
}


void
trace_format(unsigned char *out, const trace_context *context)
{
    /* Other flags are not passed on, because it is not known what they mean. */
    uint8_t  flags = context->flags & (TRACE_FLAG_SAMPLED | TRACE_FLAG_RANDOM);

    memcpy(out, "00-", 3);
    trace_hex(out + 3, context->trace_id, 16);
    out[35] = '-';
    trace_hex(out + 36, context->span_id, 8);
    out[52] = '-';
    trace_hex(out + 53, &flags, 1);
}


trace_sampler
trace_sampler_of(double ratio)
{
    double         bound = ratio * 18446744073709551616.0;      /* 2^64, which makes the product exact */
    trace_sampler  sampler = { 1, UINT64_MAX };

    if (ratio >= 1) {
        return sampler;
    }

    if (bound < 4503599627370496.0) {                           /* below 2^52 there may be a fraction */
        bound += 0.5;
    }

    if (!(bound >= 1)) {
        sampler.any = 0;
        return sampler;
    }

    sampler.last = (uint64_t) bound - 1;

    return sampler;
}


int
trace_is_sampled(const trace_sampler *sampler, const trace_context *context)
{
    size_t    i;
    uint64_t  end = 0;

    for (i = 8; i < 16; i++) {
        end = end << 8 | context->trace_id[i];
    }

    return sampler->any && end <= sampler->last;
}


static uint64_t
rotate(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}


static uint64_t
next(trace_random *random)
{
    uint64_t  *s = random->s;
    uint64_t   result = rotate(s[1] * 5, 7) * 9;
    uint64_t   t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);

    return result;
}


static void
fill(uint8_t *bytes, trace_random *random)
{
    uint64_t  value;

    do {
        value = next(random);
    } while (value == 0);

    memcpy(bytes, &value, 8);
}


void
trace_new_trace(trace_context *context, trace_random *random)
{
    fill(context->trace_id, random);
    fill(context->trace_id + 8, random);
    context->flags = TRACE_FLAG_RANDOM;
}


void
trace_new_span(trace_context *context, trace_random *random)
{
    fill(context->span_id, random);
}
