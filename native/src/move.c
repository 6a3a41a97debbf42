#include "move.h"
#include <string.h>

void ek_move_axis(ek_move *m, uint32_t n, ptrdiff_t from, ptrdiff_t to)
{
    if (n == 1)
        return;
    uint32_t r = m->rank;
    if (r && m->from[r - 1] == (ptrdiff_t)n * from && m->to[r - 1] == (ptrdiff_t)n * to) {
        m->dims[r - 1] *= n;
        r--;
    } else {
        m->dims[r] = n;
        m->rank++;
    }
    m->from[r] = from;
    m->to[r] = to;
}

/* through a local: a package may place source and destination over each other, which memcpy forbids */
static void row_1(const uint8_t *s, uint8_t *d, uint32_t n, ptrdiff_t from, ptrdiff_t to)
{
    for (uint32_t i = 0; i < n; i++)
        d[(ptrdiff_t)i * to] = s[(ptrdiff_t)i * from];
}

static void row_2(const uint8_t *s, uint8_t *d, uint32_t n, ptrdiff_t from, ptrdiff_t to)
{
    for (uint32_t i = 0; i < n; i++) {
        uint16_t v;
        memcpy(&v, s + (ptrdiff_t)i * from, 2);
        memcpy(d + (ptrdiff_t)i * to, &v, 2);
    }
}

static void row_4(const uint8_t *s, uint8_t *d, uint32_t n, ptrdiff_t from, ptrdiff_t to)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, s + (ptrdiff_t)i * from, 4);
        memcpy(d + (ptrdiff_t)i * to, &v, 4);
    }
}

static void row_8(const uint8_t *s, uint8_t *d, uint32_t n, ptrdiff_t from, ptrdiff_t to)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t v;
        memcpy(&v, s + (ptrdiff_t)i * from, 8);
        memcpy(d + (ptrdiff_t)i * to, &v, 8);
    }
}

static void row(const uint8_t *s, uint8_t *d, uint32_t n, ptrdiff_t from, ptrdiff_t to, uint32_t elem)
{
    if (from == (ptrdiff_t)elem && to == (ptrdiff_t)elem) {
        memmove(d, s, (size_t)n * elem);
        return;
    }
    switch (elem) {
    case 1: row_1(s, d, n, from, to); break;
    case 2: row_2(s, d, n, from, to); break;
    case 4: row_4(s, d, n, from, to); break;
    default: row_8(s, d, n, from, to); break;
    }
}

/* The planes of an image to pixels: loops that compilers turn into vectors. */
static void pixels_1(const uint8_t *s, uint8_t *d, size_t n, size_t plane)
{
    for (size_t i = 0; i < n; i++, d += 3) {
        uint8_t r = s[i], g = s[plane + i], b = s[2 * plane + i];
        d[0] = r;
        d[1] = g;
        d[2] = b;
    }
}

static void pixels_4(const uint8_t *s, uint8_t *d, size_t n, size_t plane)
{
    for (size_t i = 0; i < n; i++, d += 12, s += 4) {
        uint32_t v[3];
        memcpy(v, s, 4);
        memcpy(v + 1, s + plane, 4);
        memcpy(v + 2, s + 2 * plane, 4);
        memcpy(d, v, 12);
    }
}

/* whether the two inner axes make pixels of three planes */
static int is_pixels(const ek_move *m, ptrdiff_t elem)
{
    uint32_t i = m->rank - 1;
    return (elem == 1 || elem == 4) && i && m->dims[i - 1] == 3 && m->from[i - 1] > 0 && m->to[i - 1] == elem && m->from[i] == elem
           && m->to[i] == 3 * elem;
}

static void swap(ptrdiff_t *v, uint32_t i, uint32_t j)
{
    ptrdiff_t t = v[i];
    v[i] = v[j];
    v[j] = t;
}

/* a longer axis innermost where that one is short: fewer, longer rows */
static void lengthen(ek_move *m)
{
    uint32_t last = m->rank - 1, best = last;
    for (uint32_t i = 0; i < last; i++)
        best = m->dims[i] > m->dims[best] ? i : best;
    if (m->dims[last] > 8 || m->dims[best] < 4 * m->dims[last])
        return;
    uint32_t n = m->dims[last];
    m->dims[last] = m->dims[best];
    m->dims[best] = n;
    swap(m->from, last, best);
    swap(m->to, last, best);
}

static void run(const ek_move *given, const uint8_t *src, uint8_t *dst, uint32_t elem)
{
    if (!given->rank) {
        memmove(dst, src, elem);
        return;
    }
    ek_move order = *given, *m = &order;
    uint32_t last = m->rank - 1, index[EK_MOVE_RANK] = { 0 };
    if (m->from[last] != (ptrdiff_t)elem || m->to[last] != (ptrdiff_t)elem)
        lengthen(m);
    int pixels = is_pixels(m, (ptrdiff_t)elem);
    uint32_t n = m->dims[last];
    last -= (uint32_t)pixels;
    for (;;) {
        if (pixels && elem == 1)
            pixels_1(src, dst, n, (size_t)m->from[last]);
        else if (pixels)
            pixels_4(src, dst, n, (size_t)m->from[last]);
        else
            row(src, dst, n, m->from[last], m->to[last], elem);
        uint32_t r = last;
        for (;;) {
            if (!r--)
                return;
            if (++index[r] < m->dims[r])
                break;
            src -= (ptrdiff_t)(m->dims[r] - 1) * m->from[r];
            dst -= (ptrdiff_t)(m->dims[r] - 1) * m->to[r];
            index[r] = 0;
        }
        src += m->from[r];
        dst += m->to[r];
    }
}

#if EK_BANDS
typedef struct shared { const ek_move *m; const uint8_t *src; uint8_t *dst; uint32_t elem, axis; } shared;

/* indices [first, first + n) of the axis that threads share */
static void part(const void *arg, uint32_t first, uint32_t n)
{
    const shared *v = (const shared *)arg;
    ek_move m = *v->m;
    m.dims[v->axis] = n;
    run(&m, v->src + (ptrdiff_t)first * m.from[v->axis], v->dst + (ptrdiff_t)first * m.to[v->axis], v->elem);
}
#endif

void ek_move_run(const ek_ctx *c, const ek_move *m, const uint8_t *src, uint8_t *dst, uint32_t elem)
{
#if EK_BANDS
    if (c->threads > 1 && m->rank) {
        shared v = { m, src, dst, elem, 0 };
        uint32_t last = m->rank - 1;
        uint64_t each = elem;
        for (uint32_t i = 0; i <= last; i++)
            v.axis = m->dims[i] > m->dims[v.axis] ? i : v.axis;
        for (uint32_t i = 0; i <= last; i++)
            each *= i == v.axis ? 1 : m->dims[i];
        int whole = m->from[last] == (ptrdiff_t)elem && m->to[last] == (ptrdiff_t)elem; /* rows are copied: much faster */
        ek_spans(c, part, &v, m->dims[v.axis], 1, whole ? (each + 3) / 4 : each);
        return;
    }
#endif
    (void)c;
    run(m, src, dst, elem);
}

ptrdiff_t ek_axis_bytes(const ek_view *v, uint32_t i)
{
    ptrdiff_t n = (ptrdiff_t)ek_dtype_bytes(v->dtype);
    for (uint32_t r = i + 1; r < v->rank; r++)
        n *= (ptrdiff_t)v->dims[r];
    return n;
}

int ek_same_type(const ek_view *x, const ek_view *y)
{
    return x->rec && y->rec && x->dtype == y->dtype && ek_dtype_bytes(x->dtype);
}
