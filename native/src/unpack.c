/* Constants in few bits, unpacked once when a session opens: section UNPK.  Its bytes are untrusted: a segment is measured
 * before it is read, and whatever its codes are, it writes what was measured. */
#include "session.h"
#include <string.h>

#if EK_UNPACK
static uint64_t load64(const uint8_t *p)
{
    uint64_t x;
    memcpy(&x, p, 8);
    return x;
}

/* bytes of a segment behind its record, and of what it unpacks to before that is padded; 0: not a segment */
static int measure(const ek_segment *s, uint64_t *in, uint64_t *out)
{
    if (s->kind == EK_SEGMENT_POWERS) {
        *in = 8;
        *out = 4ull * s->n;
        return s->n != 0;
    }
    if (s->kind == EK_SEGMENT_TEXT) {
        *in = s->n | (uint32_t)s->k << 16;
        *out = (uint32_t)s->low;
        return *out != 0;
    }
    if (s->kind != EK_SEGMENT_BLOCKS || !s->n || !s->nr || s->nr > 64 || !s->kr || s->kr > 64 || s->bias_bits > 32 || s->scale_bits > 16
        || (s->bits && s->bits != 4 && s->bits != 8))
        return 0;
    uint64_t deep = s->bits ? ek_up(s->k, s->kr) : 0, one = s->nr * (8 + deep);
    *in = ((uint64_t)s->n * (s->bias_bits + s->scale_bits) + 7) / 8 + ((uint64_t)s->n * deep * s->bits + 7) / 8;
    *out = (s->n + s->nr - 1u) / s->nr * one;
    return one % 4 == 0; /* biases and scales stay aligned */
}

/* t[i] = round(t[0] r^i), the product in 2^-32 */
static void powers(const ek_segment *s, const uint8_t *p, uint8_t *to)
{
    uint64_t x = (uint64_t)(uint32_t)s->low << 32, r = load64(p), half = 0xffffffffu;
    for (uint32_t i = 0; i < s->n; i++, to += 4) {
        uint32_t t = (uint32_t)((x + (1u << 31)) >> 32);
        memcpy(to, &t, 4);
        /* the upper half of x r, of which each is two words */
        volatile uint64_t a = (x & half) * (r & half); /* volatile: clang would call a product of 128 bits, which 32-bit cores lack */
        uint64_t b = (x >> 32) * (r & half), c = (x & half) * (r >> 32);
        uint64_t carry = (a >> 32) + (b & half) + (c & half);
        x = (x >> 32) * (r >> 32) + (b >> 32) + (c >> 32) + (carry >> 32);
    }
}

/* biases and scales of all outputs, blocks `step` bytes apart */
static void heads(const ek_segment *s, const uint8_t *p, uint8_t *to, size_t step)
{
    const uint32_t both = (uint32_t)s->bias_bits + s->scale_bits;
    const uint32_t low = s->bias_bits ? UINT32_MAX >> (32 - s->bias_bits) : 0, high = (1u << s->scale_bits) - 1;
    size_t at = 0;
    for (uint32_t n0 = 0; n0 < s->n; n0 += s->nr, to += step)
        for (uint32_t j = 0; j < s->nr && n0 + j < s->n; j++, at += both) {
            uint64_t code = load64(p + at / 8) >> at % 8;
            uint32_t scale = (s->base + ((uint32_t)(code >> s->bias_bits) & high)) << EK_SHORT_SCALE;
            uint32_t exponent = scale >> 23, shift = exponent < EK_SHORT_STEP ? EK_SHORT_STEP - exponent : 0;
            uint32_t bias = ((uint32_t)s->low + ((uint32_t)code & low)) << (shift < EK_SHORT_MOST ? shift : EK_SHORT_MOST);
            memcpy(to + 4 * j, &bias, 4);
            memcpy(to + 4 * (s->nr + j), &scale, 4);
        }
}

/* weights of all outputs; nibbles are stored plus 8 */
static void weights(const ek_segment *s, const uint8_t *p, uint8_t *to, size_t step)
{
    size_t at = 0, line = (size_t)s->nr * s->kr;
    for (uint32_t n0 = 0; n0 < s->n; n0 += s->nr, to += step) {
        size_t real = (size_t)ek_min_u32(s->nr, s->n - n0) * s->kr;
        uint8_t *w = to + 8u * s->nr;
        for (uint32_t i = 0; i < s->k; i += s->kr, w += line, at += real) {
            if (s->bits == 8)
                memcpy(w, p + at, real);
            else
                for (size_t j = 0; j < real; j++)
                    w[j] = (uint8_t)((p[(at + j) / 2] >> (at + j) % 2 * 4 & 15) - 8);
        }
    }
}

/* a length: 4 bits of a token, or where those are 15 bytes to add, up to the first that is not 255; UINT32_MAX: past the end */
static uint32_t length(uint32_t n, const uint8_t **p, const uint8_t *end)
{
    for (uint32_t more = n == 15 ? 255 : 0; more == 255; n += more) {
        if (*p == end || n > 0x7fffffffu)
            return UINT32_MAX;
        more = *(*p)++;
    }
    return n;
}

/* Tokens: literals << 4 | length - 3, the literals, then a distance of 7 bits, or of 15 where its first byte has bit 7, and that
 * many bytes of what came before once more.  The last has literals alone where they end it.  1: they make all of `to`. */
static int text(const uint8_t *p, const uint8_t *end, uint8_t *to, uint8_t *stop)
{
    uint8_t *const start = to;
    while (to < stop && p < end) {
        uint32_t token = *p++, n = length(token >> 4, &p, end);
        if (n > (size_t)(end - p) || n > (size_t)(stop - to))
            return 0;
        memcpy(to, p, n);
        to += n;
        p += n;
        if (to == stop)
            break;
        uint32_t far = p < end ? *p++ : 0;
        if (far & 0x80) {
            if (p == end)
                return 0;
            far = (far & 0x7f) | (uint32_t)*p++ << 7;
        }
        n = length(token & 15, &p, end);
        if (!far || far > (size_t)(to - start) || n > 0x7fffffffu || n + 3 > (size_t)(stop - to))
            return 0;
        for (n += 3; n; n--, to++)
            *to = to[-(ptrdiff_t)far];
    }
    return to == stop && p == end;
}

int ek_unpack(const uint8_t *p, uint64_t bytes, uint8_t *to, uint64_t room)
{
    while (room) {
        ek_segment s;
        uint64_t in, out;
        if (bytes < sizeof s + EK_SEGMENT_SLACK)
            return 0;
        memcpy(&s, p, sizeof s);
        p += sizeof s;
        bytes -= sizeof s;
        if (!measure(&s, &in, &out) || in > bytes - EK_SEGMENT_SLACK || out > room)
            return 0;
        uint64_t whole = (out + EK_UNIT - 1) / EK_UNIT * EK_UNIT; /* at most room, which is a multiple too */
        if (s.kind == EK_SEGMENT_POWERS) {
            powers(&s, p, to);
        } else if (s.kind == EK_SEGMENT_TEXT) {
            if (!text(p, p + in, to, to + out))
                return 0;
        } else {
            size_t step = (size_t)s.nr * (8u + (s.bits ? ek_up(s.k, s.kr) : 0));
            if (s.n % s.nr)
                memset(to, 0, (size_t)out);
            heads(&s, p, to, step);
            if (s.bits)
                weights(&s, p + ((size_t)s.n * ((size_t)s.bias_bits + s.scale_bits) + 7) / 8, to, step);
        }
        memset(to + (size_t)out, 0, (size_t)(whole - out));
        p += in;
        bytes -= in;
        to += whole;
        room -= whole;
    }
    return bytes >= EK_SEGMENT_SLACK;
}
#else
typedef int ek_no_unpack; /* a translation unit must not be empty */
#endif
