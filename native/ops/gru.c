/* GRU over a sequence, float32: see edgekit/ops/gru.py.
 * Operands: x, packed w (3u, k), packed r of z and r (2u, u), packed r of n (u, u), h0.  Results: y, h. */
#include <string.h>
#include "attrs.h"
#include "fmath.h"
#include "rnn.h"

typedef struct gru {
    ek_rnn r;
    ek_rows zr, n;           /* (2u, u), (u, u) */
    ek_view h0, hn;
    const ek_attr_gru *a;
} gru;

static int setup(const ek_ctx *c, gru *v)
{
    v->a = (const ek_attr_gru *)c->attr;
    v->h0 = ek_in(c, 4);
    v->hn = ek_out(c, 1);
    return ek_rnn_setup(c, &v->r, 3) && v->r.elem == 4 && ek_rnn_weights(c, &v->zr, 2, &v->r.y, 2 * v->r.u, v->r.u, 0)
           && ek_rnn_weights(c, &v->n, 3, &v->r.y, v->r.u, v->r.u, 0) && ek_rnn_scratch(c, &v->r, 1);
}

static int check(const ek_ctx *c)
{
    gru v;
    return setup(c, &v) && v.a->reverse <= 1 && v.a->linear_before_reset <= 1 && ek_rnn_state_ok(&v.r, &v.h0, EK_F32)
           && ek_rnn_state_ok(&v.r, &v.hn, EK_F32);
}

/* one step from the projected input p (3, u) */
static void step(const gru *v, const float *p)
{
    const ek_rnn *r = &v->r;
    uint32_t u = r->u;
    float *h = (float *)(void *)r->h, *q = r->hp, *kept = (float *)(void *)r->state;
    int before = v->a->linear_before_reset != 0;
    ek_rnn_recur(r, &v->zr, h, q);
    for (uint32_t j = 0; j < u; j++) {
        q[j] = ek_sigmoid_f32(p[j] + q[j]);
        q[u + j] = ek_sigmoid_f32(p[u + j] + q[u + j]);
        kept[j] = before ? h[j] : q[u + j] * h[j];
    }
    ek_rnn_recur(r, &v->n, kept, q + 2 * u);
    for (uint32_t j = 0; j < u; j++) {
        float n = ek_tanh_f32(p[2 * u + j] + (before ? q[u + j] * q[2 * u + j] : q[2 * u + j]));
        h[j] = (1.0f - q[j]) * n + q[j] * h[j];
    }
}

static int run(const ek_ctx *c)
{
    gru v;
    if (!setup(c, &v))
        return 0;
    const ek_rnn *r = &v.r;
    size_t row = (size_t)r->u * 4;
    for (uint32_t b = 0; b < r->batch; b++) {
        if (v.h0.rec)
            memcpy(r->h, v.h0.data + b * row, row);
        else
            memset(r->h, 0, row);
        for (uint32_t done = 0; done < r->time;) {
            uint32_t n = ek_min_u32(r->block, r->time - done);
            uint32_t t0 = v.a->reverse ? r->time - done - n : done;
            ek_rnn_project(r, b, t0, n);
            for (uint32_t i = 0; i < n; i++) {
                uint32_t j = v.a->reverse ? n - 1 - i : i;
                step(&v, r->proj + (size_t)j * 3 * r->u);
                memcpy(r->y.data + ((size_t)b * r->time + t0 + j) * row, r->h, row);
            }
            done += n;
        }
        if (v.hn.rec)
            memcpy(v.hn.data + b * row, r->h, row);
    }
    return 1;
}

static unsigned kernel(const ek_ctx *c)
{
    gru v;
    return setup(c, &v) ? ek_rows_slot(c, &v.r.wx) : EK_K_NONE;
}

const ek_op_def ek_op_gru = { EK_OP_GRU, 1, sizeof(ek_attr_gru), 4, 5, 1, 2, "gru", check, run, kernel };
