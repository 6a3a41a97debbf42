/* LSTM over a sequence, float32 or exact int8: see edgekit/ops/lstm.py.
 * Operands: x, packed w (4u, k), packed r (4u, u), tables (2, 513) int16 (int8 only), h0, c0.  Results: y, h, c. */
#include <string.h>
#include "attrs.h"
#include "fmath.h"
#include "rnn.h"

enum { GATE_BITS = 12, LAST = 512 };

typedef struct lstm {
    ek_rnn r;
    ek_rows wr;              /* (4u, u) */
    ek_view h0, c0, hn, cn;
    const int16_t *sig, *tan; /* (513) each */
    const ek_attr_lstm *a;
} lstm;

static int setup(const ek_ctx *c, lstm *v)
{
    v->a = (const ek_attr_lstm *)c->attr;
    v->h0 = ek_in(c, 4);
    v->c0 = ek_in(c, 5);
    v->hn = ek_out(c, 1);
    v->cn = ek_out(c, 2);
    if (!ek_rnn_setup(c, &v->r, 4) || !ek_rnn_weights(c, &v->wr, 2, &v->r.y, 4 * v->r.u, v->r.u, v->r.elem == 1))
        return 0;
    ek_view t = ek_in(c, 3);
    if (v->r.elem == 1 && (!t.rec || t.dtype != EK_I16 || t.count != 2 * (LAST + 1)))
        return 0;
    v->sig = (const int16_t *)(const void *)t.data;
    v->tan = t.data ? v->sig + LAST + 1 : 0;
    return ek_rnn_scratch(c, &v->r, v->wr.deep);
}

static int check(const ek_ctx *c)
{
    lstm v;
    if (!setup(c, &v) || v.a->reverse > 1)
        return 0;
    uint32_t hidden = v.r.x.dtype, cell = hidden == EK_I8 ? EK_I16 : EK_F32;
    if (!ek_rnn_state_ok(&v.r, &v.h0, hidden) || !ek_rnn_state_ok(&v.r, &v.hn, hidden)
        || !ek_rnn_state_ok(&v.r, &v.c0, cell) || !ek_rnn_state_ok(&v.r, &v.cn, cell))
        return 0;
    if (hidden == EK_F32)
        return ek_finite(v.a->cell_clip);
    return ek_quant_ok(&v.r.x) && ek_quant_ok(&v.r.y) && v.a->cell_bits >= 6 && v.a->cell_bits <= 15 && v.a->limit >= 0
           && v.a->limit <= 32768 && v.a->scale > 0 && ek_finite(v.a->scale);
}

static int32_t clamp_i32(int32_t x, int32_t lo, int32_t hi) { return x < lo ? lo : x > hi ? hi : x; }

/* f(x * 2^-bits) in 2^-15, linear between table entries 1/64 apart; |result| <= 32768 whatever the table holds */
static int32_t lookup(const int16_t *table, int32_t x, unsigned bits, int32_t mirror)
{
    int32_t a = x < 0 ? -x : x;
    unsigned n = bits - 6;
    int32_t at = a >> n, frac = a & ((1 << n) - 1);
    if (at > LAST)
        at = LAST;
    int32_t lo = table[at], hi = table[at < LAST ? at + 1 : LAST];
    int32_t y = lo + ek_asr((hi - lo) * frac + ((1 << n) >> 1), n);
    return clamp_i32(x < 0 ? mirror - y : y, -32768, 32768);
}

static int32_t gate(float p, float q)
{
    int32_t a = ek_rint_f32(ek_clamp_f32(p, -32768.0f, 32767.0f)), b = ek_rint_f32(ek_clamp_f32(q, -32768.0f, 32767.0f));
    return clamp_i32(a + b, -32768, 32767);
}

/* one step of unit vectors: p, q (4, u) are the two projections; cell int16 (u), h int8 (u) */
static void step_s8(const lstm *v, const float *p)
{
    const float *q = v->r.hp;
    int16_t *cell = (int16_t *)(void *)v->r.state;
    int8_t *h = (int8_t *)v->r.h;
    uint32_t u = v->r.u;
    unsigned bits = v->a->cell_bits;
    int32_t zero = v->r.y.zero;
    for (uint32_t j = 0; j < u; j++) {
        int32_t i = lookup(v->sig, gate(p[j], q[j]), GATE_BITS, 32768);
        int32_t f = lookup(v->sig, gate(p[u + j], q[u + j]), GATE_BITS, 32768);
        int32_t g = lookup(v->tan, gate(p[2 * u + j], q[2 * u + j]), GATE_BITS, 0);
        int32_t o = lookup(v->sig, gate(p[3 * u + j], q[3 * u + j]), GATE_BITS, 32768);
        int32_t c = ek_asr(f * cell[j] + (1 << 14), 15) + ek_asr(i * g + (1 << (29 - bits)), 30 - bits);
        c = clamp_i32(clamp_i32(c, -32768, 32767), -v->a->limit, v->a->limit);
        cell[j] = (int16_t)c;
        h[j] = ek_requant(o * lookup(v->tan, c, bits, 0), v->a->scale, (float)(-128 - zero), (float)(127 - zero), zero);
    }
}

static void step_f32(const lstm *v, const float *p)
{
    const float *q = v->r.hp;
    float *cell = (float *)(void *)v->r.state, *h = (float *)(void *)v->r.h, clip = v->a->cell_clip;
    uint32_t u = v->r.u;
    for (uint32_t j = 0; j < u; j++) {
        float i = ek_sigmoid_f32(p[j] + q[j]), f = ek_sigmoid_f32(p[u + j] + q[u + j]);
        float g = ek_tanh_f32(p[2 * u + j] + q[2 * u + j]), o = ek_sigmoid_f32(p[3 * u + j] + q[3 * u + j]);
        float c = f * cell[j] + i * g;
        if (clip > 0)
            c = ek_clamp_f32(c, -clip, clip);
        cell[j] = c;
        h[j] = o * ek_tanh_f32(c);
    }
}

static void start(const lstm *v, uint32_t b)
{
    const ek_rnn *r = &v->r;
    size_t n = (size_t)r->u * r->elem, m = (size_t)r->u * (r->elem == 1 ? 2 : 4);
    memset(r->h, 0, (size_t)r->up * r->elem);
    if (v->h0.rec)
        memcpy(r->h, v->h0.data + b * n, n);
    else if (r->elem == 1)
        memset(r->h, (uint8_t)r->y.zero, n);
    if (v->c0.rec)
        memcpy(r->state, v->c0.data + b * m, m);
    else
        memset(r->state, 0, m);
}

static void finish(const lstm *v, uint32_t b)
{
    const ek_rnn *r = &v->r;
    size_t n = (size_t)r->u * r->elem, m = (size_t)r->u * (r->elem == 1 ? 2 : 4);
    if (v->hn.rec)
        memcpy(v->hn.data + b * n, r->h, n);
    if (v->cn.rec)
        memcpy(v->cn.data + b * m, r->state, m);
}

static int run(const ek_ctx *c)
{
    lstm v;
    if (!setup(c, &v))
        return 0;
    const ek_rnn *r = &v.r;
    size_t row = (size_t)r->u * r->elem;
    for (uint32_t b = 0; b < r->batch; b++) {
        start(&v, b);
        for (uint32_t done = 0; done < r->time;) {
            uint32_t n = ek_min_u32(r->block, r->time - done);
            uint32_t t0 = v.a->reverse ? r->time - done - n : done;
            ek_rnn_project(r, b, t0, n);
            for (uint32_t i = 0; i < n; i++) {
                uint32_t j = v.a->reverse ? n - 1 - i : i;
                const float *p = r->proj + (size_t)j * 4 * r->u;
                ek_rnn_recur(r, &v.wr, r->h, r->hp);
                if (r->elem == 1)
                    step_s8(&v, p);
                else
                    step_f32(&v, p);
                memcpy(r->y.data + ((size_t)b * r->time + t0 + j) * row, r->h, row);
            }
            done += n;
        }
        finish(&v, b);
    }
    return 1;
}

static unsigned kernel(const ek_ctx *c)
{
    lstm v;
    return setup(c, &v) ? ek_rows_slot(c, &v.r.wx) : EK_K_NONE;
}

const ek_op_def ek_op_lstm = { EK_OP_LSTM, 1, sizeof(ek_attr_lstm), 3, 6, 1, 3, "lstm", check, run, kernel };
