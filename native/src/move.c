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

void ek_move_run(const ek_move *m, const uint8_t *src, uint8_t *dst, uint32_t elem)
{
    if (!m->rank) {
        memmove(dst, src, elem);
        return;
    }
    uint32_t last = m->rank - 1, index[EK_MOVE_RANK] = { 0 };
    for (;;) {
        row(src, dst, m->dims[last], m->from[last], m->to[last], elem);
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
