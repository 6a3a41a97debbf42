/* exp(beta x) / sum over the last axis; float32 (also its logarithm), or int8 by a table of exponentials. */
#include "attrs.h"
#include "fmath.h"
#include "op.h"

typedef struct soft {
    const ek_ctx *c;
    const ek_attr_softmax *a;
    ek_view x, table, y;
    uint32_t n, rows, tile; /* row length, rows, rows of a tile */
} soft;

static int check(const ek_ctx *c)
{
    const ek_attr_softmax *a = (const ek_attr_softmax *)c->attr;
    ek_view x = ek_in(c, 0), t = ek_in(c, 1), y = ek_out(c, 0);
    if (!x.rec || !y.rec || !x.rank || x.dtype != y.dtype || !ek_same_shape(&x, &y))
        return 0;
    if (x.dtype == EK_F32)
        return EK_USES(SOFTMAX_F32);
    return x.dtype == EK_I8 && ek_quant_ok(&y) && ek_is(&t, EK_I32, 1) && t.count == 256 && !a->log && a->scale > 0
           && ek_finite(a->scale);
}

static void row_f32(const soft *v, const float *x, float *y)
{
    if (v->c->k->softmax_f32 && !v->a->log) {
        v->c->k->softmax_f32(x, y, v->n, v->a->beta);
        return;
    }
    float top = x[0], sum = 0;
    for (uint32_t i = 1; i < v->n; i++)
        top = x[i] > top ? x[i] : top;
    for (uint32_t i = 0; i < v->n; i++)
        y[i] = (x[i] - top) * v->a->beta;
    if (v->a->log) {
        for (uint32_t i = 0; i < v->n; i++)
            sum += ek_exp_f32(y[i]);
        sum = ek_log_f32(sum);
        for (uint32_t i = 0; i < v->n; i++)
            y[i] -= sum;
        return;
    }
    if (EK_USES(UNARY_F32))
        v->c->k->unary_f32(y, y, v->n, EK_UNARY_KIND_EXP, 0, 0);
    for (uint32_t i = 0; i < v->n; i++)
        sum += EK_USES(UNARY_F32) ? y[i] : (y[i] = ek_exp_f32(y[i]));
    float inv = 1.0f / sum;
    for (uint32_t i = 0; i < v->n; i++)
        y[i] *= inv;
}

/* distances are taken modulo 256: where a package lays y over x, x may have changed since `top` was found */
static void row_s8(const soft *v, const int8_t *x, int8_t *y)
{
    const uint32_t *t = (const uint32_t *)(const void *)v->table.data;
    float lo = (float)(-128 - v->y.zero), hi = (float)(127 - v->y.zero);
    int32_t top = -128;
    uint32_t sum = 0;
    for (uint32_t i = 0; i < v->n; i++)
        top = x[i] > top ? x[i] : top;
    for (uint32_t i = 0; i < v->n; i++)
        sum += t[(uint8_t)(top - x[i])];
    uint64_t inv = ek_div_u64((uint64_t)1 << 40, sum ? sum : 1);
    for (uint32_t i = 0; i < v->n; i++) {
        uint64_t p = (t[(uint8_t)(top - x[i])] * inv + (1u << 15)) >> 16; /* probability in 2^-24 */
        y[i] = ek_requant(p > 1u << 24 ? 1 << 24 : (int32_t)p, v->a->scale, lo, hi, v->y.zero);
    }
}

static void tile(void *arg, unsigned t, unsigned thread)
{
    const soft *v = (const soft *)arg;
    uint32_t end = ek_min_u32((t + 1) * v->tile, v->rows);
    ek_softmax p = { (const uint32_t *)(const void *)v->table.data, v->n, v->a->scale, v->y.zero };
    int fast = v->c->k->softmax_s8 && v->x.dtype == EK_I8 && p.table[0] >> 9; /* 2^40 / sum fits 32 bits */
    (void)thread;
    for (uint32_t r = t * v->tile; r < end; r++) {
        size_t at = (size_t)r * v->n;
        if (EK_USES(SOFTMAX_F32) && v->x.dtype == EK_F32)
            row_f32(v, (const float *)(const void *)v->x.data + at, (float *)(void *)v->y.data + at);
        else if (fast)
            v->c->k->softmax_s8((const int8_t *)v->x.data + at, (int8_t *)v->y.data + at, &p);
        else
            row_s8(v, (const int8_t *)v->x.data + at, (int8_t *)v->y.data + at);
    }
}

static int run(const ek_ctx *c)
{
    soft v = { c, (const ek_attr_softmax *)c->attr, ek_in(c, 0), ek_in(c, 1), ek_out(c, 0), 0, 0, 0 };
    v.n = v.x.dims[v.x.rank - 1];
    v.rows = v.x.count / v.n;
    v.tile = v.n > 2048 ? 1 : 2048 / v.n;
    ek_for(c, tile, &v, (v.rows - 1) / v.tile + 1);
    return 1;
}

static unsigned kernel(const ek_ctx *c) { return ek_in(c, 0).dtype == EK_F32 ? EK_K_SOFTMAX_F32 : EK_K_SOFTMAX_S8; }

const ek_op_def ek_op_softmax = { EK_OP_SOFTMAX, 1, sizeof(ek_attr_softmax), 1, 2, 1, 1, "softmax", check, run, kernel };
