/* (x - mean) / sqrt(variance + eps) * gamma + beta over the last axis; rms: x / sqrt(mean square + eps).
 * int8: integer sums, then float32 steps in a fixed order, the twin of edgekit/ops/layer_norm.py. */
#include "attrs.h"
#include "fmath.h"
#include "op.h"

enum { N_MAX = 1 << 20 }; /* int8: n * sum of squares stays below 2^57 */

typedef struct norm {
    const ek_attr_layer_norm *a;
    ek_view x, gamma, beta, y;
    const ek_kernels *k;
    uint32_t n, rows, tile;
    ek_norm p;
} norm;

static int check(const ek_ctx *c)
{
    const ek_attr_layer_norm *a = (const ek_attr_layer_norm *)c->attr;
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    if (!x.rec || !y.rec || !x.rank || x.dtype != y.dtype || !ek_same_shape(&x, &y))
        return 0;
    uint32_t n = x.dims[x.rank - 1];
    for (uint32_t i = 1; i < 3; i++) {
        ek_view p = ek_in(c, i);
        if (p.rec ? !ek_is(&p, EK_F32, 1) || p.count != n : x.dtype == EK_I8)
            return 0;
    }
    if (x.dtype == EK_F32)
        return 1;
    return x.dtype == EK_I8 && n <= N_MAX && ek_quant_ok(&x) && ek_quant_ok(&y) && a->eps_q > 0 && ek_finite(a->eps_q);
}

static void row_f32(const norm *v, const float *x, float *y)
{
    const float *g = (const float *)(const void *)v->gamma.data, *b = (const float *)(const void *)v->beta.data;
    float n = (float)v->n, mean = 0, square = 0;
    if (!v->a->rms) {
        for (uint32_t i = 0; i < v->n; i++)
            mean += x[i];
        mean /= n;
    }
    for (uint32_t i = 0; i < v->n; i++)
        square += (x[i] - mean) * (x[i] - mean);
    float r = 1.0f / ek_sqrt_f32(square / n + v->a->eps);
    for (uint32_t i = 0; i < v->n; i++) {
        float t = (x[i] - mean) * r;
        t = v->gamma.rec ? t * g[i] : t;
        y[i] = v->beta.rec ? t + b[i] : t;
    }
}

static void row_s8(const norm *v, const int8_t *x, int8_t *y)
{
    const float *g = (const float *)(const void *)v->gamma.data, *b = (const float *)(const void *)v->beta.data;
    float lo = (float)(-128 - v->y.zero), hi = (float)(127 - v->y.zero);
    int32_t zero = v->x.zero, sum = 0, scale = v->a->rms ? 1 : (int32_t)v->n;
    int64_t square = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        int32_t d = x[i] - zero;
        sum += d;
        square += d * d;
    }
    float r = ek_norm_s8_scale(v->n, v->a->rms != 0, v->a->eps_q, square, &sum);
    for (uint32_t i = 0; i < v->n; i++) {
        float t = ek_mul_f32((float)((x[i] - zero) * scale - sum), r);
        t = ek_mul_f32(t, g[i]) + b[i];
        EK_ROUND(t);
        y[i] = (int8_t)(ek_rint_f32(ek_clamp_f32(t, lo, hi)) + v->y.zero);
    }
}

static void tile(void *arg, unsigned t, unsigned thread)
{
    const norm *v = (const norm *)arg;
    uint32_t end = ek_min_u32((t + 1) * v->tile, v->rows);
    (void)thread;
    for (uint32_t r = t * v->tile; r < end; r++) {
        size_t at = (size_t)r * v->n;
        const float *x = (const float *)(const void *)v->x.data + at;
        if (v->x.dtype == EK_F32 && v->k->norm_f32)
            v->k->norm_f32(x, (float *)(void *)v->y.data + at, &v->p);
        else if (v->x.dtype == EK_F32)
            row_f32(v, x, (float *)(void *)v->y.data + at);
        else if (v->k->norm_s8)
            v->k->norm_s8((const int8_t *)v->x.data + at, (int8_t *)v->y.data + at, &v->p);
        else
            row_s8(v, (const int8_t *)v->x.data + at, (int8_t *)v->y.data + at);
    }
}

static int run(const ek_ctx *c)
{
    norm v = { (const ek_attr_layer_norm *)c->attr, ek_in(c, 0), ek_in(c, 1), ek_in(c, 2), ek_out(c, 0), c->k, 0, 0, 0, { 0 } };
    v.n = v.x.dims[v.x.rank - 1];
    v.rows = v.x.count / v.n;
    v.p = (ek_norm){ v.gamma.rec ? (const float *)(const void *)v.gamma.data : 0, v.beta.rec ? (const float *)(const void *)v.beta.data : 0,
                     v.n, v.a->rms != 0, v.x.dtype == EK_F32 ? v.a->eps : v.a->eps_q, v.x.zero, v.y.zero };
    v.tile = v.n > 2048 ? 1 : 2048 / v.n;
    ek_for(c, tile, &v, (v.rows - 1) / v.tile + 1);
    return 1;
}

static unsigned kernel(const ek_ctx *c) { return ek_in(c, 0).dtype == EK_F32 ? EK_K_NORM_F32 : EK_K_NORM_S8; }

const ek_op_def ek_op_layer_norm = {
    EK_OP_LAYER_NORM, 1, sizeof(ek_attr_layer_norm), 1, 3, 1, 1, "layer_norm", check, run, kernel,
};
