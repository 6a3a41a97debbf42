/* Every slot of every ISA this CPU has, against the portable kernels, on random shapes with tails.
 *
 * Exact kernels must give the same bits; float ones stay within 1e-5 of the sum of |products|.  Operands end at an
 * unreadable page on Linux, so a read or write past them faults; elsewhere writes past the output are seen in the bytes
 * behind it.  usage: kernels_test [trials [seed]]; exit code 1 after any difference.  Runs on bare metal too. */
#if defined(__linux__)
#define _GNU_SOURCE
#include <sys/mman.h>
#endif
#include <stdarg.h>
#include <string.h>
#include "attrs.h"
#include "edgekit.h"
#include "format.h"
#include "kernels.h"
#include "oplist.h"
#include "portable.h"
#if __STDC_HOSTED__
#include <stdio.h>
#include <stdlib.h>
static void say(const char *text) { fputs(text, stdout); }
static void stop(void) { exit(2); }
#else
#include "port.h"
static void say(const char *text) { ek_port_print(text); }
static void stop(void) { ek_port_exit(2); }
#endif

uint32_t ek_cpu(void);

enum { BUFFERS = 6, BUFFER_BYTES = 1 << 16 };
static uint32_t seed = 1;
static unsigned failures;
static const char *isa_name;

static uint32_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}

static uint32_t range(uint32_t lo, uint32_t hi) { return lo + rnd() % (hi - lo + 1); }
static double size_of(double v) { return v < 0 ? -v : v; }

/* %u, %d, %f (six decimals) and %s into out, at most 159 characters */
static void format_va(char *out, const char *f, va_list args)
{
    char *end = out + 159, digits[24];
    for (; *f && out < end; f++) {
        if (*f != '%') {
            *out++ = *f;
            continue;
        }
        f++;
        const char *s = "";
        double v = 0;
        if (*f == 's')
            s = va_arg(args, const char *);
        else
            v = *f == 'u' ? (double)va_arg(args, unsigned) : *f == 'd' ? (double)va_arg(args, int) : va_arg(args, double);
        if (*f != 's') {
            unsigned i = sizeof digits;
            digits[--i] = 0;
            uint64_t whole = size_of(v) < 1e12 ? (uint64_t)(size_of(v) * (*f == 'f' ? 1e6 : 1)) : 0;
            for (unsigned n = 0; whole || n < (*f == 'f' ? 7u : 1u); n++, whole /= 10) {
                if (*f == 'f' && n == 6)
                    digits[--i] = '.';
                digits[--i] = (char)('0' + whole % 10);
            }
            if (v < 0)
                digits[--i] = '-';
            s = v != v ? "NaN" : size_of(v) < 1e12 ? digits + i : "huge";
        }
        while (*s && out < end)
            *out++ = *s++;
    }
    *out = 0;
}

static void format(char *out, const char *f, ...)
{
    va_list args;
    va_start(args, f);
    format_va(out, f, args);
    va_end(args);
}

static void report(const char *f, ...)
{
    char line[160];
    va_list args;
    va_start(args, f);
    format_va(line, f, args);
    va_end(args);
    say(line);
}

static float uniform(float lo, float hi) { return lo + (hi - lo) * (float)(rnd() >> 8) * 0x1p-24f; }

/* buffer i of n bytes, ending where reading faults (Linux) */
static uint8_t *buffer(unsigned i, size_t n)
{
#if defined(__linux__)
    static uint8_t *base[BUFFERS];
    if (!base[i]) {
        void *p = mmap(0, BUFFER_BYTES + 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED || mprotect((char *)p + BUFFER_BYTES, 65536, PROT_NONE))
            stop();
        base[i] = p;
    }
    if (n > BUFFER_BYTES)
        stop();
    return base[i] + BUFFER_BYTES - n;
#else
    static uint32_t base[BUFFERS][BUFFER_BYTES / 4];
    if (n > BUFFER_BYTES)
        stop();
    return (uint8_t *)base[i] + BUFFER_BYTES - n;
#endif
}

static void fail(const char *what, const char *detail, long at, double got, double want)
{
    if (failures++ < 20)
        report("%s %s (%s): at %u got %f, portable gives %f\n", isa_name, what, detail, (unsigned)at, got, want);
}

static void fill_s8(uint8_t *p, size_t n, int extreme)
{
    for (size_t i = 0; i < n; i++)
        p[i] = extreme ? (rnd() & 7 ? 0x80 : 0x7f) : (uint8_t)rnd();
}

static void fill_f32(uint8_t *p, size_t n, float lo, float hi)
{
    for (size_t i = 0; i < n; i++) {
        float v = uniform(lo, hi);
        memcpy(p + 4 * i, &v, 4);
    }
}

static void same_bytes(const char *what, const char *detail, const uint8_t *got, const uint8_t *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (got[i] != want[i]) {
            fail(what, detail, (long)i, (int8_t)got[i], (int8_t)want[i]);
            return;
        }
}

/* floats of got and want within tol[i] (tol 0: the same bits) */
static void near(const char *what, const char *detail, const float *got, const float *want, const double *tol, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!memcmp(got + i, want + i, 4) || (got[i] != got[i] && want[i] != want[i]))
            continue;
        if (!tol || !(size_of((double)got[i] - (double)want[i]) <= tol[i])) {
            fail(what, detail, (long)i, got[i], want[i]);
            return;
        }
    }
}

/* scales of a row of blocks: ordinary ones, or powers of two, where ties are frequent */
static void fill_scales(uint8_t *p, uint32_t nr, float top, int ties)
{
    for (uint32_t j = 0; j < nr; j++) {
        float s = ties ? (rnd() & 1 ? 0.5f : 0.0009765625f) : uniform(0.1f, 1.0f) * top;
        memcpy(p + 4 * j, &s, 4);
    }
}

static void bounds(float *lo, float *hi, int32_t *zero)
{
    *zero = (int32_t)range(0, 255) - 128;
    *lo = (float)(-128 - *zero);
    *hi = (float)(127 - *zero);
    if (rnd() & 1)
        *lo = *lo > 0 ? *lo : 0;
}

static uint32_t up(uint32_t n, uint32_t to) { return (n + to - 1) / to * to; }

/* packed int8 weights of n outputs and k inputs; bias int32, or float for gemm_dyn */
static uint8_t *weights_s8(const ek_gemm *g, int extreme, int ties, int dyn)
{
    uint32_t blocks = (g->n + g->nr - 1u) / g->nr, kp = up(g->k, g->kr);
    size_t block = (size_t)g->nr * (8 + kp);
    uint8_t *w = buffer(1, blocks * block);
    for (uint32_t b = 0; b < blocks; b++) {
        uint8_t *p = w + b * block;
        for (uint32_t j = 0; j < g->nr; j++) {
            int32_t bias = (int32_t)range(0, 20000) - 10000;
            float real = uniform(-3, 3);
            memcpy(p + 4 * j, dyn ? (void *)&real : (void *)&bias, 4);
        }
        fill_scales(p + 4u * g->nr, g->nr, 0.02f / (float)(4 + g->k / 8), ties);
        fill_s8(p + 8u * g->nr, (size_t)g->nr * kp, extreme);
        for (uint32_t k = g->k; k < kp; k++)
            for (uint32_t j = 0; j < g->nr; j++)
                if (g->encoding == EK_ENC_PAIRS)
                    p[8u * g->nr + ek_pair_at(g->nr, j, k)] = j & 1 ? 0 : 128;
                else
                    p[8u * g->nr + ((size_t)(k / g->kr) * g->nr + j) * g->kr + k % g->kr] = 0;
    }
    return w;
}

#if EK_UNPACK
/* the same weights, their biases and scales apart */
static void part(ek_gemm *g)
{
    uint32_t blocks = (g->n + g->nr - 1u) / g->nr, head = 8u * g->nr, body = up(g->k, g->kr) * g->nr;
    uint8_t *w = buffer(4, (size_t)blocks * body), *heads = buffer(5, (size_t)blocks * head);
    for (uint32_t b = 0; b < blocks; b++) {
        memcpy(heads + (size_t)b * head, g->w + (size_t)b * (head + body), head);
        memcpy(w + (size_t)b * body, g->w + (size_t)b * (head + body) + head, body);
    }
    g->w = w;
    g->heads = heads;
}
#endif

static void shape(ek_gemm *g, uint32_t top_k)
{
    g->m = range(1, rnd() & 3 ? 19 : 3);
    g->n = range(1, rnd() & 1 ? 20 : 70);
    g->k = range(1, rnd() & 1 ? 20 : top_k);
}

/* the rows of a as the core widens them; what lies past k becomes 0 */
static uint32_t *widened(const ek_kernels *k, ek_gemm *g, uint32_t kp)
{
    uint32_t *pair = (uint32_t *)(void *)buffer(4, (size_t)(g->m + 1) / 2 * (8 + 4 * (size_t)kp));
    int8_t row[1280];
    uint32_t *first = pair;
    if (g->segment || (g->k % 4 == 0 && rnd() & 1))
        return first; /* the kernel does it */
    for (uint32_t m = 0; m < g->m; m++) {
        memset(row, 0, sizeof row);
        memcpy(row, (const int8_t *)g->a + (ptrdiff_t)m * g->lda, g->k);
        pair[m & 1] = (uint32_t)k->widen(row, kp, pair + 2 + (m & 1));
        if (m & 1)
            pair += 2 + kp;
    }
    g->a = 0;
    return first;
}

/* depth of a block that the kernels read */
static uint16_t s8_kr(const ek_kernels *k) { return k->s8_kr_too && !(rnd() & 3) ? k->s8_kr_too : k->s8_kr; }

/* Some GEMMs as windows, where the kernel reads them: sets g and k, returns the elements of a. */
static size_t windows(const ek_kernels *k, ek_gemm *g, int bit, uint32_t odd_k)
{
    const int wide = bit == 1 && k->widen; /* windows of one line */
    if (!(k->windows & bit || wide) || rnd() & 1)
        return 0;
    uint32_t runs = range(1, 4), odd = rnd() & 1 && odd_k;
    g->segment = odd ? range(1, 40) : g->kr * range(1, rnd() & 1 ? 4 : 40 / g->kr + 1);
    if (!(rnd() & 31) && odd_k) {
        g->segment = odd_k / runs;
        g->n = range(1, 30);
    }
    g->width = wide ? g->m : range(1, g->m);
    g->lda = (ptrdiff_t)range(1, 30);
    if (odd_k && !wide && !(rnd() & 3)) { /* 3x3 of three channels, some kernels' own way */
        runs = 3;
        g->segment = 9;
        g->lda = (ptrdiff_t)range(3, 7);
        g->width = g->m < 4 || !(rnd() & 3) ? g->width : 4 * range(1, g->m / 4);
    }
    g->k = runs * g->segment;
    g->gap = (ptrdiff_t)range(1, 70);
    g->line = (ptrdiff_t)range(1, 90);
    uint32_t lines = (g->m + g->width - 1) / g->width;
    return (size_t)((lines - 1) * g->line + (g->width - 1) * g->lda + (runs - 1) * g->gap) + g->segment;
}

/* the windows one after the other, for kernels that read none; g->lda and the rest are set */
static void gathered(ek_gemm *g, uint8_t *to, uint32_t kp, uint32_t size)
{
    memset(to, 0, (size_t)g->m * kp * size);
    for (uint32_t m = 0; m < g->m; m++)
        for (uint32_t i = 0; i * g->segment < g->k; i++) {
            ptrdiff_t at = m / g->width * g->line + m % g->width * g->lda + i * g->gap;
            memcpy(to + ((size_t)m * kp + i * g->segment) * size, (const uint8_t *)g->a + at * (ptrdiff_t)size, (size_t)g->segment * size);
        }
    g->a = to;
    g->lda = (ptrdiff_t)kp;
    g->width = g->segment = 0;
}

static void test_gemm_s8(const ek_kernels *k)
{
    ek_gemm g = { .nr = k->s8_nr, .kr = s8_kr(k), .xoff = k->s8_xoff, .encoding = k->s8_encoding };
    if (k->s8_xoff == EK_XOFF_ANY)
        g.xoff = rnd() & 1 ? 128 : 0;
    shape(&g, 150);
    if (!(rnd() & 15)) {
        g.n = range(1, 40);
        g.k = range(300, 1200); /* past the depth any kernel holds at once */
    }
    int extreme = !(rnd() & 3), ties = !(rnd() & 3);
    g.w_zero = rnd() & 3 ? 0 : (int32_t)range(0, 512) - 256;
    bounds(&g.lo, &g.hi, &g.zero);
    size_t an = windows(k, &g, 1, k->odd_k);
    uint32_t kp = up(g.k, g.kr), ldy = g.n + range(0, 3);
    if (!an) {
        g.lda = (ptrdiff_t)(kp + range(0, 5));
        an = (size_t)(g.m - 1) * (size_t)g.lda + kp;
    }
    size_t yn = (size_t)(g.m - 1) * ldy + g.n;
    uint8_t *a = buffer(0, an), *y = buffer(2, yn), *want = buffer(3, yn);
    fill_s8(a, an, extreme);
    fill_s8(y, yn, 0);
    memcpy(want, y, yn);
    g.a = a;
    g.w = weights_s8(&g, extreme, ties, 0);
    g.ldy = (ptrdiff_t)ldy;
    char detail[160];
    format(detail, "m %u n %u k %u xoff %d w_zero %d runs of %u", (unsigned)g.m, (unsigned)g.n, (unsigned)g.k,
             (int)g.xoff, (int)g.w_zero, (unsigned)g.segment);
    ek_gemm plain = g;
    if (g.segment)
        gathered(&plain, buffer(4, (size_t)g.m * kp), kp, 1);
    plain.y = want;
    ek_gemm_s8_portable(&plain);
    g.y = y;
    if (k->widen && (g.segment || rnd() & 1))
        g.wide = widened(k, &g, kp);
#if EK_UNPACK
    if (k->apart && rnd() & 1)
        part(&g);
#endif
    k->gemm_s8(&g);
    same_bytes(ek_heads(&g) ? "gemm_s8 apart" : "gemm_s8", detail, y, want, yn);
}

/* random sparse weights in the encoding that g asks for; what was not asked of a block is another's */
static uint8_t *weights_sparse(const ek_gemm *g, int extreme, int ties)
{
    uint32_t size = (uint32_t)g->nr * g->kr, blocks = (g->n + g->nr - 1u) / g->nr, groups = (g->k + g->kr - 1u) / g->kr;
    uint32_t steps = up(g->k, EK_CHUNK) / EK_CHUNK * (g->slots / g->kr), count[80];
    size_t bytes = 0;
    for (uint32_t b = 0; b < blocks; b++) {
        count[b] = rnd() & 3 ? range(0, groups) : 0;
        bytes += 8u * g->nr + (g->encoding == EK_ENC_NM ? (size_t)steps * 2 * size : 4 + up(count[b], 2) * 2 + (size_t)count[b] * size);
    }
    uint8_t *w = buffer(1, bytes), *p = w;
    for (uint32_t b = 0; b < blocks; b++) {
        for (uint32_t j = 0; j < g->nr; j++, p += 4) {
            int32_t bias = (int32_t)range(0, 20000) - 10000;
            memcpy(p, &bias, 4);
        }
        fill_scales(p, g->nr, 0.02f / (float)(4 + g->k / 8), ties);
        p += 4u * g->nr;
        if (g->encoding == EK_ENC_NM) {
            for (uint32_t s = 0; s < steps; s++, p += 2 * size) {
                for (uint32_t i = 0; i < size; i++)
                    p[i] = (uint8_t)range(0, EK_CHUNK - 1);
                fill_s8(p + size, size, extreme);
            }
            continue;
        }
        memcpy(p, &count[b], 4);
        p += 4;
        for (uint32_t i = 0; i < up(count[b], 2); i++, p += 2) {
            uint16_t place = (uint16_t)range(0, groups - 1);
            memcpy(p, &place, 2);
        }
        fill_s8(p, (size_t)count[b] * size, extreme);
        for (uint32_t i = 0; i < count[b]; i++, p += size) { /* nothing meets what lies past the depth */
            uint16_t place;
            memcpy(&place, p - (size_t)i * size - 2 * (up(count[b], 2) - i), 2);
            for (uint32_t e = 0; e < size; e++)
                if ((uint32_t)place * g->kr + e % g->kr >= g->k)
                    p[e] = 0;
        }
    }
    return w;
}

static void test_gemm_sparse(const ek_kernels *k, uint8_t encoding, uint8_t nr, uint8_t kr)
{
    if (!nr)
        return;
    ek_gemm g = { .nr = nr, .kr = kr, .xoff = k->s8_xoff, .encoding = encoding };
    if (k->s8_xoff == EK_XOFF_ANY)
        g.xoff = 128;
    shape(&g, 300);
    g.slots = encoding == EK_ENC_NM ? (uint8_t)(kr * range(1, 16u / kr)) : 0;
    bounds(&g.lo, &g.hi, &g.zero);
    uint32_t kp = up(g.k, encoding == EK_ENC_NM ? EK_CHUNK : kr), ldy = g.n + range(0, 3);
    g.lda = (ptrdiff_t)(kp + range(0, 5));
    size_t an = (size_t)(g.m - 1) * (size_t)g.lda + kp, yn = (size_t)(g.m - 1) * ldy + g.n;
    uint8_t *a = buffer(0, an), *y = buffer(2, yn), *want = buffer(3, yn);
    int extreme = !(rnd() & 3);
    fill_s8(a, an, extreme);
    fill_s8(y, yn, 0);
    memcpy(want, y, yn);
    g.a = a;
    g.w = weights_sparse(&g, extreme, !(rnd() & 3));
    g.ldy = (ptrdiff_t)ldy;
    char detail[160];
    format(detail, "encoding %u m %u n %u k %u slots %u", encoding, (unsigned)g.m, (unsigned)g.n, (unsigned)g.k, g.slots);
    g.y = want;
    ek_gemm_sparse_portable(&g);
    g.y = y;
    k->gemm_sparse(&g);
    same_bytes("gemm_sparse", detail, y, want, yn);
}

static void fill_s16(uint8_t *p, size_t n, int extreme)
{
    for (size_t i = 0; i < n; i++)
        ((int16_t *)(void *)p)[i] = (int16_t)(extreme ? (rnd() & 1 ? -32768 : 32767) : (int32_t)(rnd() & 0xffff) - 32768);
}

/* blocks of EK_NR16 with biases below 2^30 and scales that spread over int16 or int8 */
static uint8_t *weights_s16(uint32_t n, uint32_t depth, uint32_t size, int extreme)
{
    uint32_t blocks = up(n, EK_NR16) / EK_NR16;
    size_t bytes = (size_t)blocks * EK_NR16 * (8 + depth);
    uint8_t *w = buffer(1, bytes), *p = w;
    fill_s8(w, bytes, extreme);
    for (uint32_t b = 0; b < blocks; b++, p += (size_t)EK_NR16 * (8 + depth))
        for (uint32_t j = 0; j < EK_NR16; j++) {
            ((int32_t *)(void *)p)[j] = (int32_t)range(0, 0x7ffffffe) - 0x3fffffff;
            ((float *)(void *)p)[EK_NR16 + j] = (size == 1 ? 127.0f : 32767.0f) / (float)range(1 << 20, 1 << 30);
        }
    return w;
}

static void bounds_s16(uint32_t size, float *lo, float *hi, int32_t *zero)
{
    bounds(lo, hi, zero);
    if (size == 2) {
        *zero = 0;
        *lo = rnd() & 1 ? -32768.0f : 0;
        *hi = rnd() & 1 ? 32767.0f : 6000.0f;
    }
}

static void test_gemm_s16(const ek_kernels *k)
{
    ek_gemm16 g = { .m = range(1, 14), .n = range(1, 30), .k = range(1, rnd() & 3 ? 100 : 800), .size = range(1, 2) };
    uint32_t kp = up(g.k, EK_KR16), ldy = g.n + range(0, 3);
    bounds_s16(g.size, &g.lo, &g.hi, &g.zero);
    g.lda = (ptrdiff_t)(kp + range(0, 5));
    g.ldy = (ptrdiff_t)ldy;
    size_t an = (size_t)(g.m - 1) * (size_t)g.lda + kp, yn = ((size_t)(g.m - 1) * ldy + g.n) * g.size;
    uint8_t *a = buffer(0, an * 2), *y = buffer(2, yn), *want = buffer(3, yn);
    int extreme = !(rnd() & 3);
    fill_s16(a, an, extreme);
    fill_s8(y, yn, 0);
    memcpy(want, y, yn);
    g.a = (const int16_t *)(const void *)a;
    g.w = weights_s16(g.n, kp, g.size, extreme);
    char detail[160];
    format(detail, "m %u n %u k %u size %u", (unsigned)g.m, (unsigned)g.n, (unsigned)g.k, (unsigned)g.size);
    g.y = want;
    ek_gemm_s16_portable(&g);
    g.y = y;
    k->gemm_s16(&g);
    same_bytes("gemm_s16", detail, y, want, yn);
}

static void test_dw_s16(const ek_kernels *k)
{
    const int16_t *taps[300];
    ek_dw16 d = { .taps = taps, .channels = range(1, 40), .count = range(1, rnd() & 7 ? 25 : 300), .size = range(1, 2) };
    size_t yn = (size_t)d.channels * d.size;
    bounds_s16(d.size, &d.lo, &d.hi, &d.zero);
    uint8_t *x = buffer(0, (size_t)d.count * d.channels * 2), *y = buffer(2, yn), *want = buffer(3, yn);
    int extreme = !(rnd() & 3);
    fill_s16(x, (size_t)d.count * d.channels, extreme);
    fill_s8(y, yn, 0);
    memcpy(want, y, yn);
    for (uint32_t t = 0; t < d.count; t++)
        taps[t] = (const int16_t *)(const void *)x + (size_t)range(0, d.count - 1) * d.channels;
    d.w = weights_s16(d.channels, d.count, d.size, extreme);
    char detail[160];
    format(detail, "channels %u taps %u size %u", (unsigned)d.channels, (unsigned)d.count, (unsigned)d.size);
    d.y = want;
    ek_dw_s16_portable(&d);
    d.y = y;
    k->dw_s16(&d);
    same_bytes("dw_s16", detail, y, want, yn);
}

/* windows of an image against the same rows gathered */
static void test_windows(const ek_kernels *k)
{
    if (!(k->windows & 1))
        return;
    ek_gemm g = { .nr = k->s8_nr, .kr = k->s8_kr, .xoff = k->s8_xoff == EK_XOFF_ANY ? (rnd() & 1 ? 128 : 0) : k->s8_xoff };
    uint32_t runs = range(1, 4);
    shape(&g, 1);
    g.segment = g.kr * range(1, 4);
    g.k = runs * g.segment;
    g.width = range(1, 5);
    g.lda = (ptrdiff_t)range(1, 40);
    g.line = (ptrdiff_t)range(0, 300);
    g.gap = (ptrdiff_t)range(0, 200);
    g.w_zero = rnd() & 3 ? 0 : (int32_t)range(0, 512) - 256;
    bounds(&g.lo, &g.hi, &g.zero);
    uint32_t ldy = g.n + range(0, 3), last = (g.m - 1) / g.width, most = g.m < g.width ? g.m : g.width;
    size_t an = (size_t)((ptrdiff_t)last * g.line + (ptrdiff_t)(most - 1) * g.lda + (ptrdiff_t)(runs - 1) * g.gap) + g.segment;
    size_t yn = (size_t)(g.m - 1) * ldy + g.n;
    uint8_t *a = buffer(0, an), *y = buffer(2, yn), *want = buffer(3, yn), *rows = buffer(4, (size_t)g.m * g.k);
    fill_s8(a, an, !(rnd() & 3));
    fill_s8(y, yn, 0);
    memcpy(want, y, yn);
    for (uint32_t m = 0; m < g.m; m++)
        for (uint32_t r = 0; r < runs; r++)
            memcpy(rows + (size_t)m * g.k + r * g.segment,
                   a + (ptrdiff_t)(m / g.width) * g.line + (ptrdiff_t)(m % g.width) * g.lda + (ptrdiff_t)r * g.gap, g.segment);
    g.w = weights_s8(&g, 0, 0, 0);
    g.ldy = (ptrdiff_t)ldy;
    char detail[160];
    format(detail, "m %u n %u, %u runs of %u, width %u, w_zero %d", (unsigned)g.m, (unsigned)g.n, (unsigned)runs,
           (unsigned)g.segment, (unsigned)g.width, (int)g.w_zero);
    ek_gemm p = g;
    p.a = rows;
    p.lda = (ptrdiff_t)g.k;
    p.width = p.segment = 0;
    p.line = p.gap = 0;
    p.y = want;
    ek_gemm_s8_portable(&p);
    g.a = a;
    g.y = y;
    k->gemm_s8(&g);
    same_bytes("windows", detail, y, want, yn);
}

static void test_gemm_dyn(const ek_kernels *k)
{
    ek_gemm g = { .nr = k->s8_nr, .kr = s8_kr(k), .encoding = k->s8_encoding, .lo = -1e9f, .hi = 1e9f };
    shape(&g, 150);
    if (rnd() & 1) {
        g.lo = -1.0f;
        g.hi = 6.0f;
    }
    uint32_t kp = up(g.k, g.kr), ldy = g.n + range(0, 3);
    g.lda = (ptrdiff_t)(kp + range(0, 5));
    size_t an = (size_t)(g.m - 1) * (size_t)g.lda + kp, yn = (size_t)(g.m - 1) * ldy + g.n;
    uint8_t *a = buffer(0, an), *y = buffer(2, 4 * yn), *want = buffer(3, 4 * yn), *scale = buffer(4, 4 * g.m);
    int extreme = !(rnd() & 3);
    fill_s8(a, an, extreme);
    fill_s8(y, 4 * yn, 0);
    memcpy(want, y, 4 * yn);
    fill_scales(scale, g.m, 2.0f, 0);
    g.row_scale = (const float *)(const void *)scale;
    g.a = a;
    g.w = weights_s8(&g, extreme, 0, 1);
    g.ldy = (ptrdiff_t)ldy;
    char detail[160];
    format(detail, "m %u n %u k %u", (unsigned)g.m, (unsigned)g.n, (unsigned)g.k);
    g.y = want;
    ek_gemm_dyn_portable(&g);
    g.y = y;
    k->gemm_dyn(&g);
    same_bytes("gemm_dyn", detail, y, want, 4 * yn);
}

static void test_gemm_f32(const ek_kernels *k)
{
    ek_gemm g = { .nr = k->f32_nr, .kr = 1, .lo = -1e30f, .hi = 1e30f };
    shape(&g, 60);
    if (rnd() & 1) {
        g.lo = 0.0f;
        g.hi = 6.0f;
    }
    size_t an = windows(k, &g, 2, 40);
    uint32_t ldy = g.n + range(0, 3), blocks = (g.n + g.nr - 1u) / g.nr;
    if (!an) {
        g.lda = (ptrdiff_t)(g.k + range(0, 5));
        an = (size_t)(g.m - 1) * (size_t)g.lda + g.k;
    }
    size_t yn = (size_t)(g.m - 1) * ldy + g.n;
    size_t wn = (size_t)blocks * g.nr * (1 + g.k);
    uint8_t *a = buffer(0, 4 * an), *w = buffer(1, 4 * wn), *y = buffer(2, 4 * yn), *want = buffer(3, 4 * yn);
    static double tol[BUFFER_BYTES / 4];
    fill_f32(a, an, -2, 2);
    fill_f32(w, wn, -1, 1);
    fill_f32(y, yn, -1, 1);
    memcpy(want, y, 4 * yn);
    g.a = a;
    g.w = w;
    g.ldy = (ptrdiff_t)ldy;
    ek_gemm plain = g;
    if (g.segment)
        gathered(&plain, buffer(4, 4 * (size_t)g.m * g.k), g.k, 4);
    memset(tol, 0, yn * sizeof *tol);
    for (uint32_t m = 0; m < g.m; m++)
        for (uint32_t n = 0; n < g.n; n++) {
            const float *b = (const float *)(const void *)w + (size_t)(n / g.nr) * g.nr * (1 + g.k) + n % g.nr;
            const float *x = (const float *)plain.a + (ptrdiff_t)m * plain.lda;
            double sum = size_of((double)b[0]);
            for (uint32_t i = 0; i < g.k; i++)
                sum += size_of((double)x[i] * (double)b[(size_t)(1 + i) * g.nr]);
            tol[(size_t)m * ldy + n] = 1e-5 * sum;
        }
    char detail[160];
    format(detail, "m %u n %u k %u runs of %u", (unsigned)g.m, (unsigned)g.n, (unsigned)g.k, (unsigned)g.segment);
    plain.y = want;
    ek_gemm_f32_portable(&plain);
    g.y = y;
    k->gemm_f32(&g);
    near("gemm_f32", detail, (float *)(void *)y, (float *)(void *)want, tol, yn);
}

static size_t dw_shape(const ek_kernels *k, ek_dw *d)
{
    int square = rnd() & 1;
    d->kh = square ? 3 : range(1, rnd() & 7 ? 5 : 9);
    d->kw = square ? 3 : range(1, rnd() & 7 ? 5 : 9);
    d->count = range(1, 9);
    d->channels = range(1, rnd() & 1 ? 40 : 20);
    d->dx = (ptrdiff_t)(d->channels * range(1, 2));
    d->dy = d->dx * (ptrdiff_t)(d->kw + range(0, 3));
    d->step = (ptrdiff_t)(d->channels * range(1, 2));
    d->rows = k->dw_rows ? range(1, 4) : 1;
    d->row_step = (ptrdiff_t)(d->channels * range(0, 30));
    return (size_t)((d->rows - 1) * d->row_step + (d->count - 1) * d->step + (d->kh - 1) * d->dy + (d->kw - 1) * d->dx) + d->channels;
}

/* weights of a depthwise kernel */
static uint8_t *weights_dw_s8(const ek_dw *d, int extreme, int ties)
{
    uint32_t taps = d->kh * d->kw, blocks = (d->channels + d->nr - 1) / d->nr;
    size_t block = (size_t)d->nr * (8 + taps);
    uint8_t *w = buffer(1, blocks * block);
    for (uint32_t b = 0; b < blocks; b++) {
        uint8_t *p = w + b * block;
        for (uint32_t j = 0; j < d->nr; j++) {
            int32_t bias = (int32_t)range(0, 20000) - 10000;
            memcpy(p + 4 * j, &bias, 4);
        }
        fill_scales(p + 4 * d->nr, d->nr, 0.01f, ties);
        fill_s8(p + 8 * d->nr, (size_t)d->nr * taps, extreme);
    }
    return w;
}

static void test_dw_s8(const ek_kernels *k)
{
    ek_dw d = { .nr = k->dw_s8_nr };
    size_t xn = dw_shape(k, &d), yn = (size_t)d.rows * d.count * d.channels;
    int extreme = !(rnd() & 3), ties = !(rnd() & 3);
    d.w_zero = rnd() & 3 ? 0 : (int32_t)range(0, 512) - 256;
    bounds(&d.lo, &d.hi, &d.zero);
    uint8_t *x = buffer(0, xn), *y = buffer(2, yn), *want = buffer(3, yn);
    fill_s8(x, xn, extreme);
    fill_s8(y, yn, 0);
    memcpy(want, y, yn);
    d.x = x;
    d.w = weights_dw_s8(&d, extreme, ties);
    char detail[160];
    format(detail, "%ux%u, %u channels, %u pixels, w_zero %d", (unsigned)d.kh, (unsigned)d.kw,
             (unsigned)d.channels, (unsigned)d.count, (int)d.w_zero);
    d.y = want;
    ek_dw_s8_portable(&d);
    d.y = y;
    k->dw_s8(&d);
    same_bytes("dw_s8", detail, y, want, yn);
}

/* an image against the portable kernel on a padded copy of it */
static void test_dw_image(const ek_kernels *k)
{
    uint32_t stride = range(1, 2), bottom = range(0, 1), right = range(0, 1);
    int extreme = !(rnd() & 3), ties = !(rnd() & 3);
    ek_dw d = { .nr = k->dw_s8_nr, .kh = 3, .kw = 3, .h = range(3, 9), .columns = range(2, 12), .row_stride = range(1, 2) };
    if (!k->dw_image)
        return;
    d.top = range(0, 1);
    d.left = range(0, 1);
    uint32_t ph = d.h + d.top + bottom, pw = d.columns + d.left + right;
    if (ph < 3 || pw < 3)
        return;
    d.channels = 4 * range(1, 10);
    d.rows = (ph - 3) / d.row_stride + 1;
    d.count = (pw - 3) / stride + 1;
    d.fill = (int32_t)range(0, 255) - 128;
    d.w_zero = rnd() & 3 ? 0 : (int32_t)range(0, 512) - 256;
    bounds(&d.lo, &d.hi, &d.zero);
    size_t xn = (size_t)d.h * d.columns * d.channels, yn = (size_t)d.rows * d.count * d.channels, line = d.columns * d.channels;
    uint8_t *x = buffer(0, xn), *y = buffer(2, yn), *want = buffer(3, yn), *copy = buffer(4, (size_t)ph * pw * d.channels);
    fill_s8(x, xn, extreme);
    d.w = weights_dw_s8(&d, extreme, ties);
    memset(copy, d.fill, (size_t)ph * pw * d.channels);
    for (uint32_t i = 0; i < d.h; i++)
        memcpy(copy + ((size_t)(i + d.top) * pw + d.left) * d.channels, x + i * line, line);
    fill_s8(y, yn, 0);
    ek_dw p = d;
    p.x = copy;
    p.y = want;
    p.dx = (ptrdiff_t)d.channels;
    p.step = (ptrdiff_t)(stride * d.channels);
    p.dy = (ptrdiff_t)(pw * d.channels);
    p.row_step = (ptrdiff_t)d.row_stride * p.dy;
    ek_dw_s8_portable(&p);
    d.x = x;
    d.y = y;
    static uint32_t room[512];
    d.room = (uint8_t *)room;
    d.room_bytes = range(4 * 200, sizeof room);
    d.dx = p.dx;
    d.step = p.step;
    d.dy = (ptrdiff_t)line;
    char detail[160];
    format(detail, "%ux%u, %u channels, stride %u, left %u, w_zero %d", (unsigned)d.h, (unsigned)d.columns, (unsigned)d.channels,
           (unsigned)stride, (unsigned)d.left, (int)d.w_zero);
    if (k->dw_image(&d))
        same_bytes("dw_image", detail, y, want, yn);
    else if (d.channels >= 4 && d.lo <= (float)(-128 - d.zero) && d.hi >= (float)(127 - d.zero))
        fail("dw_image", detail, 0, 0, 1);
    int32_t large = 1 << 30; /* a bias that floats do not hold */
    memcpy((uint8_t *)(uintptr_t)d.w, &large, 4);
    ek_dw_s8_portable(&p);
    if (k->dw_image(&d))
        same_bytes("dw_image", "large bias", y, want, yn);
}

/* rows as they lie, from any row on, against the portable kernel on a padded copy of the image */
static void test_dw_edges(const ek_kernels *k, int is_float)
{
    int any = k->dw_edges & (is_float ? EK_EDGES_F32 : EK_EDGES_S8);
    uint32_t side = any && rnd() & 1 ? 5 : 3, most = any ? side : 1;
    uint32_t stride = range(1, 2), right = range(0, most), bottom = range(0, 2), elem = is_float ? 4 : 1;
    ek_dw d = { .nr = is_float ? k->dw_f32_nr : k->dw_s8_nr, .kh = side, .kw = side, .h = range(1, 9), .columns = range(any ? 1 : 2, 12),
                .row_stride = range(1, 2), .lo = 0, .hi = 6 };
    if (!any && !(k->dw_edges & (is_float ? EK_EDGES_F32_9 : EK_EDGES_S8_9)))
        return;
    d.top = range(0, 2);
    d.left = range(0, most);
    uint32_t ph = d.h + d.top + bottom, pw = d.columns + d.left + right;
    if (ph < side || pw < side)
        return;
    d.channels = any ? range(1, is_float || rnd() & 1 ? 20 : 150) : is_float ? 4 * range(1, 9) : 8 * range(1, 7);
    d.rows = (ph - side) / d.row_stride + 1;
    d.count = (pw - side) / stride + 1;
    if (!is_float) {
        d.fill = (int32_t)range(0, 255) - 128;
        bounds(&d.lo, &d.hi, &d.zero);
    }
    size_t pixel = d.channels * elem, line = d.columns * pixel, xn = d.h * line, yn = (size_t)d.rows * d.count * d.channels;
    size_t wn = (size_t)((d.channels + d.nr - 1) / d.nr) * d.nr * (1 + side * side);
    uint8_t *x = buffer(0, xn), *y = buffer(2, yn * elem), *want = buffer(3, yn * elem), *copy = buffer(4, ph * pw * pixel);
    static double tol[BUFFER_BYTES / 4];
    if (is_float) {
        d.w = buffer(1, 4 * wn);
        fill_f32((uint8_t *)(uintptr_t)d.w, wn, -1, 1);
        fill_f32(x, xn / 4, -2, 2);
        memset(copy, 0, ph * pw * pixel);
        for (size_t i = 0; i < yn; i++)
            tol[i] = 1e-5 * (1 + 2 * side * side);
    } else {
        int extreme = !(rnd() & 3);
        fill_s8(x, xn, extreme);
        d.w = weights_dw_s8(&d, extreme, !(rnd() & 3));
        if (!(rnd() & 7)) { /* results beyond 32 bits */
            float scale = 3e6f;
            memcpy((uint8_t *)(uintptr_t)d.w + 4 * d.nr, &scale, 4);
        }
        memset(copy, d.fill, ph * pw * pixel);
    }
    for (uint32_t i = 0; i < d.h; i++)
        memcpy(copy + ((size_t)(i + d.top) * pw + d.left) * pixel, x + i * line, line);
    d.dx = (ptrdiff_t)d.channels;
    d.step = (ptrdiff_t)(stride * d.channels);
    ek_dw p = d;
    p.x = copy;
    p.y = want;
    p.dy = (ptrdiff_t)(pw * d.channels);
    p.row_step = (ptrdiff_t)d.row_stride * p.dy;
    p.columns = 0;
    (is_float ? ek_dw_f32_portable : ek_dw_s8_portable)(&p);
    d.x = x;
    d.dy = (ptrdiff_t)(d.columns * d.channels);
    d.row_step = (ptrdiff_t)d.row_stride * d.dy;
    char detail[160];
    format(detail, "side %u, %ux%u, %u channels, strides %u %u, top %u, left %u, %ux%u out", (unsigned)side, (unsigned)d.h, (unsigned)d.columns,
           (unsigned)d.channels, (unsigned)d.row_stride, (unsigned)stride, (unsigned)d.top, (unsigned)d.left, (unsigned)d.rows,
           (unsigned)d.count);
    for (uint32_t r = 0, rows = d.rows; r < rows; r += d.rows, d.top -= d.rows * d.row_stride) {
        d.rows = range(1, rows - r);
        d.y = y + (size_t)r * d.count * pixel;
        (is_float ? k->dw_f32 : k->dw_s8)(&d);
    }
    if (is_float)
        near("dw_f32 at edges", detail, (float *)(void *)y, (float *)(void *)want, tol, yn);
    else
        same_bytes("dw_s8 at edges", detail, y, want, yn);
}

static void test_dw_f32(const ek_kernels *k)
{
    ek_dw d = { .nr = k->dw_f32_nr, .lo = -1e30f, .hi = 1e30f };
    size_t xn = dw_shape(k, &d), yn = (size_t)d.rows * d.count * d.channels;
    if (xn * 4 > BUFFER_BYTES)
        return;
    if (rnd() & 1) {
        d.lo = 0;
        d.hi = 6;
    }
    uint32_t taps = d.kh * d.kw, blocks = (d.channels + d.nr - 1) / d.nr;
    size_t wn = (size_t)blocks * d.nr * (1 + taps);
    uint8_t *x = buffer(0, 4 * xn), *w = buffer(1, 4 * wn), *y = buffer(2, 4 * yn), *want = buffer(3, 4 * yn);
    static double tol[BUFFER_BYTES / 4];
    fill_f32(x, xn, -2, 2);
    fill_f32(w, wn, -1, 1);
    fill_f32(y, yn, -1, 1);
    memcpy(want, y, 4 * yn);
    for (size_t i = 0; i < yn; i++)
        tol[i] = 1e-5 * (1 + 2 * (double)taps);
    d.x = x;
    d.w = w;
    char detail[160];
    format(detail, "%ux%u, %u channels, %u pixels", (unsigned)d.kh, (unsigned)d.kw, (unsigned)d.channels,
             (unsigned)d.count);
    d.y = want;
    ek_dw_f32_portable(&d);
    d.y = y;
    k->dw_f32(&d);
    near("dw_f32", detail, (float *)(void *)y, (float *)(void *)want, tol, yn);
}

static void test_add_s8(const ek_kernels *k, const ek_kernels *ref)
{
    size_t n = range(0, 300);
    uint8_t *a = buffer(0, n), *b = buffer(1, n), *y = buffer(2, n), *want = buffer(3, n);
    ek_add_s8 p;
    float lo, hi;
    p.shift = range(1, 24);
    int32_t top = p.shift > 20 ? 1 << 21 : 1 << (p.shift + 1);
    p.ma = (int32_t)range(0, 2 * (uint32_t)top) - top;
    p.mb = (int32_t)range(0, 2 * (uint32_t)top) - top;
    p.bias = (int32_t)range(0, 1u << 30) - (1 << 29);
    if (rnd() & 1)
        p.bias >>= 29 - p.shift + 1;
    bounds(&lo, &hi, &p.zero);
    p.lo = (int32_t)lo;
    p.hi = (int32_t)hi;
    fill_s8(a, n, !(rnd() & 7));
    fill_s8(b, n, !(rnd() & 7));
    fill_s8(y, n, 0);
    int in_place = rnd() & 1;
    if (in_place)
        memcpy(y, a, n);
    memcpy(want, y, n);
    ref->add_s8((const int8_t *)a, (const int8_t *)b, (int8_t *)want, n, &p);
    k->add_s8((const int8_t *)(in_place ? y : a), (const int8_t *)b, (int8_t *)y, n, &p);
    same_bytes("add_s8", in_place ? "in place" : "apart", y, want, n);
}

/* no portable kernel: the rule is ek_requant */
static void test_mul_s8(const ek_kernels *k)
{
    size_t n = range(1, rnd() & 15 ? 200 : 1100), rows = range(1, 20), count = n * rows;
    uint8_t *a = buffer(0, count), *b = buffer(1, n), *y = buffer(2, count), *want = buffer(3, count);
    ek_mul_s8 p = { .a_zero = (int32_t)range(0, 255) - 128, .b_zero = (int32_t)range(0, 255) - 128, .scale = uniform(1e-5f, 0.1f) };
    if (!(rnd() & 15))
        p.scale *= 1e7f; /* results beyond 32 bits */
    if (!k->mul_s8)
        return;
    bounds(&p.lo, &p.hi, &p.zero);
    fill_s8(a, count, !(rnd() & 7));
    fill_s8(b, n, !(rnd() & 7));
    for (size_t i = 0; i < count; i++)
        want[i] = (uint8_t)ek_requant(((int8_t)a[i] - p.a_zero) * ((int8_t)b[i % n] - p.b_zero), p.scale, p.lo, p.hi, p.zero);
    k->mul_s8((const int8_t *)a, (const int8_t *)b, (int8_t *)y, n, rows, &p);
    same_bytes("mul_s8", rows > 1 ? "rows" : "one row", y, want, count);
}

static void test_bytes(const ek_kernels *k, const ek_kernels *ref)
{
    size_t n = range(0, 300);
    uint8_t *x = buffer(0, n), *table = buffer(1, 256), *y = buffer(2, n), *want = buffer(3, n);
    fill_s8(x, n, 0);
    fill_s8(table, 256, 0);
    fill_s8(y, n, 0);
    memcpy(want, y, n);
    if (rnd() & 1) {
        memcpy(y, x, n);
        ref->lut_s8((int8_t *)x, (int8_t *)table, (int8_t *)want, n);
        k->lut_s8((int8_t *)y, (int8_t *)table, (int8_t *)y, n);
        same_bytes("lut_s8", "in place", y, want, n);
    } else {
        ref->lut_s8((int8_t *)x, (int8_t *)table, (int8_t *)want, n);
        k->lut_s8((int8_t *)x, (int8_t *)table, (int8_t *)y, n);
        same_bytes("lut_s8", "apart", y, want, n);
    }
    memcpy(want, y, n);
    ref->max_s8((int8_t *)want, (int8_t *)x, n);
    k->max_s8((int8_t *)y, (int8_t *)x, n);
    same_bytes("max_s8", "", y, want, n);
    uint8_t *sum = buffer(4, 4 * n), *sum_want = buffer(5, 4 * n);
    fill_s8(sum, 4 * n, 0);
    for (size_t i = 0; i < n; i++)
        sum[4 * i + 3] = 0;
    memcpy(sum_want, sum, 4 * n);
    ref->sum_s8((int32_t *)(void *)sum_want, (int8_t *)x, n);
    k->sum_s8((int32_t *)(void *)sum, (int8_t *)x, n);
    same_bytes("sum_s8", "", sum, sum_want, 4 * n);
    if (k->sum_rows_s8) {
        size_t rows = range(0, 600), step = range(0, 40);
        x = buffer(0, rows ? (rows - 1) * step + n : 0);
        fill_s8(x, rows ? (rows - 1) * step + n : 0, !(rnd() & 7));
        for (size_t r = 0; r < rows; r++)
            ref->sum_s8((int32_t *)(void *)sum_want, (int8_t *)x + r * step, n);
        k->sum_rows_s8((int32_t *)(void *)sum, (int8_t *)x, n, rows, step);
        same_bytes("sum_rows_s8", "", sum, sum_want, 4 * n);
    }
}

static void test_floats(const ek_kernels *k, const ek_kernels *ref)
{
    size_t n = range(0, 200);
    float scale = uniform(0.001f, 0.1f);
    if (rnd() & 1)
        scale = 0.25f;
    int32_t zero = (int32_t)range(0, 255) - 128;
    uint8_t *x = buffer(0, 4 * n), *q = buffer(1, n), *q_want = buffer(2, n);
    uint8_t *y = buffer(3, 4 * n), *want = buffer(4, 4 * n);
    fill_f32(x, n, -20, 20);
    float *xf = (float *)(void *)x;
    for (size_t i = 0; i < n; i++) {
        if (!(rnd() & 3))
            xf[i] = (float)((int32_t)range(0, 400) - 200) * scale * 0.5f;
        if (!(rnd() & 31))
            xf[i] = rnd() & 1 ? __builtin_inff() : rnd() & 1 ? -__builtin_inff() : __builtin_nanf("");
    }
    fill_s8(q, n, 0);
    memcpy(q_want, q, n);
    ref->quantize(xf, (int8_t *)q_want, n, scale, zero);
    k->quantize(xf, (int8_t *)q, n, scale, zero);
    same_bytes("quantize", "", q, q_want, n);
    fill_f32(y, n, -1, 1);
    memcpy(want, y, 4 * n);
    ref->dequantize((int8_t *)q, (float *)(void *)want, n, scale, zero);
    k->dequantize((int8_t *)q, (float *)(void *)y, n, scale, zero);
    same_bytes("dequantize", "", y, want, 4 * n);
    ref->max_f32((float *)(void *)want, xf, n);
    k->max_f32((float *)(void *)y, xf, n);
    near("max_f32", "", (float *)(void *)y, (float *)(void *)want, 0, n);
    fill_f32(x, n, -20, 20);
    ref->sum_f32((float *)(void *)want, xf, n);
    k->sum_f32((float *)(void *)y, xf, n);
    near("sum_f32", "", (float *)(void *)y, (float *)(void *)want, 0, n);
}

/* inputs of every size class; 16 ulp: the two sides may differ in fused steps, each within 4 ulp of the truth */
static void test_unary(const ek_kernels *k, const ek_kernels *ref)
{
    static double tol[300];
    size_t n = range(0, 200);
    unsigned kind = range(0, EK_UNARY_KIND_COUNT - 1);
    float wide = rnd() & 3 ? 8.0f : rnd() & 1 ? 100.0f : 0.01f, alpha = uniform(-1, 1), beta = uniform(1, 2);
    uint8_t *x = buffer(0, 4 * n), *y = buffer(1, 4 * n), *want = buffer(2, 4 * n);
    fill_f32(x, n, -wide, wide);
    float *xf = (float *)(void *)x;
    for (size_t i = 0; i < n; i++)
        if (!(rnd() & 31))
            xf[i] = rnd() & 1 ? 0.0f : rnd() & 1 ? __builtin_inff() : rnd() & 1 ? -__builtin_inff() : __builtin_nanf("");
    ref->unary_f32(xf, (float *)(void *)want, n, kind, alpha, beta);
    int in_place = rnd() & 1;
    if (in_place)
        memcpy(y, x, 4 * n);
    k->unary_f32(in_place ? (float *)(void *)y : xf, (float *)(void *)y, n, kind, alpha, beta);
    for (size_t i = 0; i < n; i++) {
        double v = size_of((double)((float *)(void *)want)[i]), in = size_of((double)xf[i]) < 1e30 ? size_of((double)xf[i]) : 1;
        int cancels = kind == EK_UNARY_KIND_GELU || kind == EK_UNARY_KIND_GELU_TANH || kind == EK_UNARY_KIND_ELU
                      || kind == EK_UNARY_KIND_LOG || kind == EK_UNARY_KIND_SOFTPLUS || kind == EK_UNARY_KIND_MISH
                      || kind == EK_UNARY_KIND_SIN || kind == EK_UNARY_KIND_COS || kind == EK_UNARY_KIND_HARDSIGMOID;
        tol[i] = 2e-6 * (v + (cancels ? 1 + in : 0)) + 1e-37;
    }
    char detail[160];
    format(detail, "kind %u, alpha %f, beta %f", kind, (double)alpha, (double)beta);
    near("unary_f32", detail, (float *)(void *)y, (float *)(void *)want, tol, n);
}

static void test_binary(const ek_kernels *k, const ek_kernels *ref)
{
    size_t n = range(0, 200);
    unsigned kind = range(0, EK_BINARY_KIND_COUNT - 1);
    uint8_t *a = buffer(0, 4 * n), *b = buffer(1, 4 * n), *y = buffer(2, 4 * n), *want = buffer(3, 4 * n);
    static double tol[300];
    fill_f32(a, n, kind == EK_BINARY_KIND_POW ? 0.1f : -8, 8);
    fill_f32(b, n, -3, 3);
    ref->binary_f32((float *)(void *)a, (float *)(void *)b, (float *)(void *)want, n, kind);
    if (rnd() & 1) {
        memcpy(y, a, 4 * n);
        a = y;
    }
    k->binary_f32((float *)(void *)a, (float *)(void *)b, (float *)(void *)y, n, kind);
    for (size_t i = 0; i < n; i++)
        tol[i] = kind == EK_BINARY_KIND_POW ? 1e-5 * size_of((double)((float *)(void *)want)[i]) : 0;
    char detail[160];
    format(detail, "kind %u", kind);
    near("binary_f32", detail, (float *)(void *)y, (float *)(void *)want, tol, n);
}

static void test_table(const ek_kernels *k, const ek_kernels *ref, unsigned trials)
{
    for (unsigned i = 0; i < trials; i++) {
        test_gemm_s8(k);
        test_windows(k);
        test_gemm_sparse(k, EK_ENC_NM, k->nm_nr, k->nm_kr);
        test_gemm_sparse(k, EK_ENC_BLOCKS, k->blocks_nr, k->blocks_kr);
        test_gemm_s16(k);
        test_dw_s16(k);
        test_gemm_dyn(k);
        test_gemm_f32(k);
        test_dw_s8(k);
        test_dw_image(k);
        test_dw_f32(k);
        test_dw_edges(k, 0);
        test_dw_edges(k, 1);
        test_add_s8(k, ref);
        test_mul_s8(k);
        test_bytes(k, ref);
        test_floats(k, ref);
        test_unary(k, ref);
        test_binary(k, ref);
    }
}

/* the layouts the table asks for, one line a table: the host's isa.toml must say the same */
static void print_table(const ek_kernels *k)
{
    unsigned own = 0;
    for (unsigned i = 0; i < EK_K_COUNT; i++)
        own += k->isa[i] != EK_ISA_PORTABLE;
    report("%s: %u of %u slots, s8 %u %u %u, f32 %u, dw %u %u, windows %u %u\n", isa_name, own, (unsigned)EK_K_COUNT, k->s8_nr,
           k->s8_kr, k->s8_xoff, k->f32_nr, k->dw_s8_nr, k->dw_f32_nr, k->windows & 1, k->odd_k);
}

static int test(unsigned trials)
{
    ek_kernels k, ref;
    ek_kernels_portable(&ref);
    k = ref;
    for (const ek_overlay *o = ek_overlays; o->apply; o++) {
        isa_name = ek_isa_name(o->isa);
        if (!(ek_cpu() >> o->isa & 1)) {
            report("%s: absent\n", isa_name);
            continue;
        }
        o->apply(&k);
        print_table(&k);
        test_table(&k, &ref, trials);
    }
    report("%u failures\n", failures);
    return failures != 0;
}

#if __STDC_HOSTED__
int main(int argc, char **argv)
{
    if (argc > 2)
        seed = (uint32_t)strtoul(argv[2], 0, 10) | 1u;
    return test(argc > 1 ? (unsigned)strtoul(argv[1], 0, 10) : 300);
}
#else
int main(void) { return test(200); }
#endif
