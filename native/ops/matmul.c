/* Product of two activations: a (..., m, k) times b (..., k, n), or (..., n, k) with trans_b; leading axes broadcast. */
#include <string.h>
#include "attrs.h"
#include "op.h"

enum { CHUNK = 64, ROWS = 8, K_MAX = 32768 }; /* columns and rows of a tile; products an int32 sum can hold */

typedef struct mm {
    const ek_ctx *c;
    const ek_attr_matmul *a;
    ek_view x, w, y;
    uint32_t m, k, n, batch, blocks;           /* blocks of ROWS rows in m */
    uint32_t rank, dims[EK_MAX_RANK];          /* leading axes of y, innermost first */
    uint32_t step[2][EK_MAX_RANK];             /* matrices to move per index of x and w; 0: broadcast */
} mm;

static int setup(const ek_ctx *c, mm *v)
{
    memset(v, 0, sizeof *v);
    v->c = c;
    v->a = (const ek_attr_matmul *)c->attr;
    v->x = ek_in(c, 0);
    v->w = ek_in(c, 1);
    v->y = ek_out(c, 0);
    if (!v->x.rec || !v->w.rec || !v->y.rec || v->x.rank < 2 || v->w.rank < 2 || v->y.rank < 2)
        return 0;
    const uint32_t *w = v->w.dims + v->w.rank - 2, *y = v->y.dims + v->y.rank - 2;
    v->m = v->x.dims[v->x.rank - 2];
    v->k = v->x.dims[v->x.rank - 1];
    v->n = w[v->a->trans_b ? 0 : 1];
    if (w[v->a->trans_b ? 1 : 0] != v->k || y[0] != v->m || y[1] != v->n || v->x.rank > v->y.rank || v->w.rank > v->y.rank)
        return 0;
    v->rank = v->y.rank - 2;
    v->batch = 1;
    uint32_t stride[2] = { 1, 1 };
    for (uint32_t i = 0; i < v->rank; i++) {
        v->dims[i] = v->y.dims[v->rank - 1 - i];
        v->batch *= v->dims[i];
        for (int j = 0; j < 2; j++) {
            const ek_view *t = j ? &v->w : &v->x;
            uint32_t d = i + 2 < t->rank ? t->dims[t->rank - 3 - i] : 1;
            if (d != 1 && d != v->dims[i])
                return 0;
            v->step[j][i] = d == 1 ? 0 : stride[j];
            stride[j] *= d;
        }
    }
    v->blocks = (v->m - 1) / ROWS + 1;
    return (uint64_t)v->batch * v->blocks <= 0xffffffffu;
}

static int check(const ek_ctx *c)
{
    mm v;
    if (!setup(c, &v) || v.x.dtype != v.y.dtype || v.w.dtype != v.y.dtype)
        return 0;
    if (v.y.dtype == EK_F32)
        return 1;
    return v.y.dtype == EK_I8 && v.k <= K_MAX && ek_quant_ok(&v.x) && ek_quant_ok(&v.w) && ek_quant_ok(&v.y)
           && v.a->scale > 0 && ek_finite(v.a->scale);
}

/* y[0..n) = sum_k x[k] * w[k][0..n): whole rows of w, so that the inner loop is contiguous */
static void row_f32(const float *x, const float *w, float *y, uint32_t k, uint32_t n, uint32_t ldw)
{
    float acc[CHUNK] = { 0 };
    for (uint32_t i = 0; i < k; i++) {
        const float *p = w + (size_t)i * ldw;
        float f = x[i];
        for (uint32_t j = 0; j < n; j++)
            acc[j] += f * p[j];
    }
    memcpy(y, acc, (size_t)n * 4);
}

/* four lanes: closer than one running sum, and a compiler may use them side by side */
static float dot_f32(const float *x, const float *w, uint32_t k)
{
    float s[4] = { 0 };
    uint32_t i = 0;
    for (; i + 4 <= k; i += 4)
        for (uint32_t j = 0; j < 4; j++)
            s[j] += x[i + j] * w[i + j];
    for (; i < k; i++)
        s[0] += x[i] * w[i];
    return (s[0] + s[1]) + (s[2] + s[3]);
}

static void row_s8(const mm *v, const int8_t *x, const int8_t *w, int8_t *y, uint32_t n)
{
    int32_t acc[CHUNK] = { 0 }, zx = v->x.zero, zw = v->w.zero;
    float lo = (float)(-128 - v->y.zero), hi = (float)(127 - v->y.zero);
    if (v->a->trans_b) {
        for (uint32_t j = 0; j < n; j++) {
            const int8_t *p = w + (size_t)j * v->k;
            for (uint32_t i = 0; i < v->k; i++)
                acc[j] += (x[i] - zx) * (p[i] - zw);
        }
    } else {
        for (uint32_t i = 0; i < v->k; i++) {
            const int8_t *p = w + (size_t)i * v->n;
            int32_t f = x[i] - zx;
            for (uint32_t j = 0; j < n; j++)
                acc[j] += f * (p[j] - zw);
        }
    }
    for (uint32_t j = 0; j < n; j++)
        y[j] = ek_requant(acc[j], v->a->scale, lo, hi, v->y.zero);
}

/* columns [n0, n0 + n) of one row */
static void row(const mm *v, size_t x0, size_t w0, size_t y0, uint32_t n0, uint32_t n)
{
    size_t wat = w0 + (v->a->trans_b ? (size_t)n0 * v->k : n0);
    if (v->y.dtype == EK_I8) {
        row_s8(v, (const int8_t *)v->x.data + x0, (const int8_t *)v->w.data + wat, (int8_t *)v->y.data + y0 + n0, n);
        return;
    }
    const float *x = (const float *)(const void *)v->x.data + x0, *w = (const float *)(const void *)v->w.data + wat;
    float *y = (float *)(void *)v->y.data + y0 + n0;
    if (!v->a->trans_b) {
        row_f32(x, w, y, v->k, n, v->n);
        return;
    }
    for (uint32_t j = 0; j < n; j++)
        y[j] = dot_f32(x, w + (size_t)j * v->k, v->k);
}

/* ROWS rows of one matrix, a block of columns of w at a time */
static void tile(void *arg, unsigned t, unsigned thread)
{
    const mm *v = (const mm *)arg;
    uint32_t b = t / v->blocks, m0 = t % v->blocks * ROWS, m1 = ek_min_u32(m0 + ROWS, v->m), rest = b;
    size_t at[2] = { 0, 0 };
    (void)thread;
    for (uint32_t i = 0; i < v->rank; rest /= v->dims[i], i++)
        for (int j = 0; j < 2; j++)
            at[j] += (size_t)(rest % v->dims[i]) * v->step[j][i];
    for (uint32_t n0 = 0; n0 < v->n; n0 += CHUNK)
        for (uint32_t m = m0; m < m1; m++)
            row(v, (at[0] * v->m + m) * v->k, at[1] * v->k * v->n, ((size_t)b * v->m + m) * v->n, n0,
                ek_min_u32(CHUNK, v->n - n0));
}

static int run(const ek_ctx *c)
{
    mm v;
    if (!setup(c, &v))
        return 0;
    ek_for(c, tile, &v, v.batch * v.blocks);
    return 1;
}

const ek_op_def ek_op_matmul = { EK_OP_MATMUL, 1, sizeof(ek_attr_matmul), 2, 2, 1, 1, "matmul", check, run, 0 };
