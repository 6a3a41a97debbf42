#include <string.h>
#include "rnn.h"

int ek_rnn_weights(const ek_ctx *c, ek_rows *r, uint32_t i, const ek_view *y, uint32_t n, uint32_t k, int integer)
{
    if (!ek_rows_setup(c, r, i, EK_F32, y, n, k, 1) || r->room)
        return 0;
    r->g.lo = -3.0e38f;
    r->g.hi = 3.0e38f;
    return r->dynamic == integer;
}

int ek_rnn_setup(const ek_ctx *c, ek_rnn *r, uint32_t gates)
{
    memset(r, 0, sizeof *r);
    r->x = ek_in(c, 0);
    r->y = ek_out(c, 0);
    if (!r->x.rec || !r->y.rec || r->x.rank != 3 || r->y.rank != 3 || r->x.dtype != r->y.dtype)
        return 0;
    if (r->x.dtype != EK_F32 && r->x.dtype != EK_I8)
        return 0;
    r->batch = r->x.dims[0];
    r->time = r->x.dims[1];
    r->k = r->x.dims[2];
    r->u = r->y.dims[2];
    r->gates = gates;
    r->elem = r->x.dtype == EK_F32 ? 4 : 1;
    if (r->y.dims[0] != r->batch || r->y.dims[1] != r->time || !r->time || !r->k || !r->u)
        return 0;
    if (r->k > 0xffffffu || r->u > 0xffffffu / gates)
        return 0;
    return ek_rnn_weights(c, &r->wx, 1, &r->y, gates * r->u, r->k, r->elem == 1);
}

static uint64_t align16(uint64_t n) { return (n + 15) / 16 * 16; }

int ek_rnn_scratch(const ek_ctx *c, ek_rnn *r, uint32_t depth)
{
    r->kp = ek_up(r->k, r->wx.deep);
    r->up = ek_up(r->u, depth);
    uint64_t n = (uint64_t)r->gates * r->u * 4;
    uint64_t fixed = align16(n) + align16((uint64_t)r->u * 4) + align16((uint64_t)r->up * r->elem);
    uint64_t row = r->kp == r->k ? 0 : (uint64_t)r->kp * r->elem;
    r->block = ek_min_u32(r->time, 64);
    while (r->block && fixed + align16(r->block * 4u) + align16(r->block * n) + align16(r->block * row) > c->granted)
        r->block--;
    if (!r->block || !c->scratch)
        return r->block != 0;
    uint8_t *p = ek_scratch(c, 0);
    r->hp = (float *)(void *)p;
    r->state = p += align16(n);
    r->h = p += align16((uint64_t)r->u * 4);
    r->ones = (float *)(void *)(p += align16((uint64_t)r->up * r->elem));
    r->proj = (float *)(void *)(p += align16(r->block * 4u));
    r->rows = row ? p + align16(r->block * n) : 0;
    return 1;
}

int ek_rnn_state_ok(const ek_rnn *r, const ek_view *v, uint32_t dtype)
{
    return !v->rec || (v->dtype == dtype && v->rank == 2 && v->dims[0] == r->batch && v->dims[1] == r->u);
}

void ek_rnn_project(const ek_rnn *r, uint32_t b, uint32_t t0, uint32_t rows)
{
    const uint8_t *x = r->x.data + ((size_t)b * r->time + t0) * r->k * r->elem;
    ek_gemm g = r->wx.g;
    size_t from = (size_t)r->k * r->elem, to = (size_t)r->kp * r->elem;
    for (uint32_t i = 0; i < rows; i++)
        r->ones[i] = 1.0f;
    for (uint32_t i = 0; r->rows && i < rows; i++) {
        memcpy(r->rows + i * to, x + i * from, from);
        memset(r->rows + i * to + from, 0, to - from);
    }
    g.a = r->rows ? r->rows : x;
    g.lda = (ptrdiff_t)r->kp;
    g.m = rows;
    g.y = r->proj;
    g.ldy = (ptrdiff_t)g.n;
    g.row_scale = r->ones;
    r->wx.fn(&g);
}

void ek_rnn_recur(const ek_rnn *r, const ek_rows *w, const void *a, float *hp)
{
    ek_gemm g = w->g;
    g.a = a;
    g.lda = (ptrdiff_t)r->up;
    g.m = 1;
    g.y = hp;
    g.ldy = (ptrdiff_t)g.n;
    g.row_scale = r->ones;
    w->fn(&g);
}
