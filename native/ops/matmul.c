/* Product of two activations: a (..., m, k) times b (..., k, n), or (..., n, k) with trans_b; leading axes broadcast.
 * Where scratch holds packed columns of b and enough rows share them, b is packed as weights are and goes to the GEMM
 * kernels, a panel of columns a tile; else plain loops. */
#include <string.h>
#include "attrs.h"
#include "format.h"
#include "op.h"

enum { CHUNK = 64, ROWS = 8, K_MAX = 32768 }; /* columns and rows of a tile; products an int32 sum can hold */
enum { PACK_ROWS = 4, COPY_ROWS = 16, ALIGN = 64 }; /* rows that pay for packing; copied at once: twin of edgekit/ops/matmul.py */

typedef struct mm {
    const ek_ctx *c;
    const ek_attr_matmul *a;
    ek_view x, w, y;
    uint32_t m, k, n, batch, blocks;           /* blocks of ROWS rows in m */
    uint32_t rank, dims[EK_MAX_RANK];          /* leading axes of y, innermost first */
    uint32_t step[2][EK_MAX_RANK];             /* matrices to move per index of x and w; 0: broadcast */
    void (*fn)(const ek_gemm *g);              /* of the packed way, with its layout; NULL: plain loops */
    uint32_t nr, kr, xoff, kp;
    size_t block;                              /* bytes of a packed block */
    uint32_t panel, panels;                    /* columns of a panel; panels in n */
} mm;

/* How b is packed: the GEMM kernel's own layout, as many blocks as scratch holds. */
static void setup_packed(mm *v)
{
    const ek_kernels *k = v->c->k;
    int s8 = v->y.dtype == EK_I8;
    v->nr = s8 ? k->s8_nr : k->f32_nr;
    if (!v->nr || v->m < PACK_ROWS || v->k > K_MAX) /* portable kernels would gain nothing */
        return;
    v->kr = s8 ? k->s8_kr : 1;
    v->xoff = s8 && k->s8_xoff != EK_XOFF_ANY ? k->s8_xoff : 0;
    v->kp = ek_up(v->k, v->kr);
    v->block = s8 ? (size_t)v->nr * (8 + v->kp) : (size_t)v->nr * 4 * (1 + v->k);
    uint64_t copy = v->kp != v->k ? COPY_ROWS * (uint64_t)v->kp : 0, room = v->c->granted;
    if (room < copy + ALIGN + v->block)
        return;
    uint32_t blocks = (v->n - 1) / v->nr + 1, most = (uint32_t)ek_div_u64(room - copy - ALIGN, (uint32_t)v->block);
    most = ek_min_u32(most, blocks);
    while (most > 1 && v->c->threads > 1 && v->batch * ((blocks - 1) / most + 1) < 4 * v->c->threads)
        most--; /* tiles for every thread */
    v->panel = most * v->nr;
    v->panels = (v->n - 1) / v->panel + 1;
    if ((uint64_t)v->batch * v->panels <= 0xffffffffu)
        v->fn = s8 ? k->gemm_s8 : k->gemm_f32;
}

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
    setup_packed(v);
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
           && (EK_W_ZERO || !v.w.zero) && v.a->scale > 0 && ek_finite(v.a->scale);
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

/* elements before the matrices of x (at[0]) and w (at[1]) that product b reads, in matrices */
static void matrices(const mm *v, uint32_t b, size_t at[2])
{
    at[0] = at[1] = 0;
    for (uint32_t i = 0; i < v->rank; b /= v->dims[i], i++)
        for (int j = 0; j < 2; j++)
            at[j] += (size_t)(b % v->dims[i]) * v->step[j][i];
}

/* ROWS rows of one matrix, a block of columns of w at a time */
static void tile(void *arg, unsigned t, unsigned thread)
{
    const mm *v = (const mm *)arg;
    uint32_t b = t / v->blocks, m0 = t % v->blocks * ROWS, m1 = ek_min_u32(m0 + ROWS, v->m);
    size_t at[2];
    (void)thread;
    matrices(v, b, at);
    for (uint32_t n0 = 0; n0 < v->n; n0 += CHUNK)
        for (uint32_t m = m0; m < m1; m++)
            row(v, (at[0] * v->m + m) * v->k, at[1] * v->k * v->n, ((size_t)b * v->m + m) * v->n, n0,
                ek_min_u32(CHUNK, v->n - n0));
}

/* columns [n0, n0 + nr) of w, those past n as zeros: no bias, [k][nr] */
static void pack_f32(const mm *v, const float *w, uint32_t n0, float *p)
{
    uint32_t nr = v->nr, n = ek_min_u32(nr, v->n - n0);
    memset(p, 0, n < nr ? v->block : nr * sizeof *p);
    p += nr;
    if (v->a->trans_b) {
        w += (size_t)n0 * v->k;
        for (uint32_t j = 0; j < n; j++)
            for (uint32_t i = 0; i < v->k; i++)
                p[(size_t)i * nr + j] = w[(size_t)j * v->k + i];
        return;
    }
    for (uint32_t i = 0; i < v->k; i++, p += nr)
        memcpy(p, w + (size_t)i * v->n + n0, n * sizeof *p);
}

/* The same in int8: the bias takes x's zero point, and the offset that the kernel adds to x, off.
 * sum (x - zx) (w - zw) = sum (x + xoff) (w - zw) - (zx + xoff) (sum w - k zw) */
static void pack_s8(const mm *v, const int8_t *w, uint32_t n0, uint8_t *p)
{
    uint32_t nr = v->nr, kr = v->kr, n = ek_min_u32(nr, v->n - n0);
    uint32_t off = (uint32_t)(v->x.zero + (int32_t)v->xoff);
    size_t down = v->a->trans_b ? 1 : v->n, right = v->a->trans_b ? v->k : 1; /* to the next k and n */
    int32_t *bias = (int32_t *)(void *)p;
    float *scale = (float *)(void *)(p + nr * 4u);
    memset(p, 0, n < nr || v->k < v->kp ? v->block : nr * 8u);
    for (uint32_t j = 0; j < n; j++) {
        const int8_t *from = w + (n0 + j) * right;
        int8_t *to = (int8_t *)p + nr * 8u + j * kr;
        int32_t sum = 0;
        if (v->c->k->s8_encoding == EK_ENC_PAIRS)
            for (uint32_t i = 0; i < v->k; i++, from += down) {
                sum += *from;
                ((int8_t *)p + nr * 8u)[ek_pair_at(nr, j, i)] = (int8_t)(*from ^ (j & 1 ? 0 : -128));
            }
        else for (uint32_t i = 0; i < v->k; i += kr, to += (size_t)nr * kr) {
            uint32_t some = ek_min_u32(kr, v->k - i);
            for (uint32_t l = 0; l < some; l++, from += down)
                sum += to[l] = *from;
        }
        bias[j] = (int32_t)(0u - off * ((uint32_t)sum - v->k * (uint32_t)v->w.zero));
        scale[j] = v->a->scale;
    }
}

static float infinite(void)
{
    uint32_t bits = 0x7f800000u;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* one panel of columns of one product: packed once, used for all rows */
static void panel(void *arg, unsigned t, unsigned thread)
{
    const mm *v = (const mm *)arg;
    uint32_t b = t / v->panels, n0 = t % v->panels * v->panel, elem = v->y.dtype == EK_F32 ? 4 : 1;
    uint8_t *s = ek_scratch(v->c, thread), *copy;
    s += (0u - (uintptr_t)s) % ALIGN;
    ek_gemm g = { .w = s, .lda = (ptrdiff_t)v->k, .ldy = (ptrdiff_t)v->n, .m = v->m, .k = v->k, .nr = (uint16_t)v->nr,
                  .kr = (uint16_t)v->kr, .xoff = (int32_t)v->xoff, .n = ek_min_u32(v->panel, v->n - n0),
                  .lo = -infinite(), .hi = infinite() };
    size_t at[2];
    matrices(v, b, at);
    const uint8_t *w = v->w.data + at[1] * v->k * v->n * elem, *x = v->x.data + at[0] * v->m * v->k * elem;
    for (uint32_t n = n0; n < n0 + g.n; n += v->nr, s += v->block) {
        if (elem == 4)
            pack_f32(v, (const float *)(const void *)w, n, (float *)(void *)s);
        else
            pack_s8(v, (const int8_t *)w, n, s);
    }
    if (elem == 1) {
        g.w_zero = v->w.zero;
        g.zero = v->y.zero;
        g.lo = (float)(-128 - g.zero);
        g.hi = (float)(127 - g.zero);
    }
    uint8_t *y = v->y.data + ((size_t)b * v->m * v->n + n0) * elem;
    g.a = x;
    g.y = y;
    if (v->kp == v->k) {
        v->fn(&g);
        return;
    }
    g.a = copy = s; /* rows that end with what meets weights of 0 */
    g.lda = (ptrdiff_t)v->kp;
    for (uint32_t m = 0; m < v->m; m += COPY_ROWS) {
        g.m = ek_min_u32(COPY_ROWS, v->m - m);
        for (uint32_t i = 0; i < g.m; i++) {
            memcpy(copy + (size_t)i * v->kp, x + (size_t)(m + i) * v->k, v->k);
            memset(copy + (size_t)i * v->kp + v->k, 0, v->kp - v->k);
        }
        g.y = y + (size_t)m * v->n;
        v->fn(&g);
    }
}

static int run(const ek_ctx *c)
{
    mm v;
    if (!setup(c, &v))
        return 0;
    if (v.fn)
        ek_for(c, panel, &v, v.batch * v.panels);
    else
        ek_for(c, tile, &v, v.batch * v.blocks);
    return 1;
}

static unsigned kernel(const ek_ctx *c)
{
    mm v;
    if (!setup(c, &v) || !v.fn)
        return EK_K_NONE;
    return v.y.dtype == EK_F32 ? EK_K_GEMM_F32 : EK_K_GEMM_S8;
}

const ek_op_def ek_op_matmul = { EK_OP_MATMUL, 1, sizeof(ek_attr_matmul), 2, 2, 1, 1, "matmul", check, run, kernel };
