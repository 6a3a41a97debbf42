/* y = x w' + b over the last axis.  float32, int8, or float32 rows quantized here (dynamic) against int8 weights. */
#include <string.h>
#include "attrs.h"
#include "gemm.h"

typedef struct linear {
    const ek_ctx *c;
    int one;         /* all is one call of rows.fn with rows.g as it is */
    ek_rows rows;
    ek_view x, y;    /* (m, k), (m, n) with leading axes folded */
    uint32_t m, k, kp, n, elem;
    uint32_t floats; /* dynamic: beside the int8 of a row, the scales of its groups and their sums */
    int dynamic, wide;
    uint32_t tiles;
} linear;
EK_KEEPS(linear);

/* bytes of an element: 1 in builds without float kernels */
static inline uint32_t elem_of(const linear *v) { return EK_USES(GEMM_F32) || EK_USES(GEMM_DYN) ? v->elem : 1; }

static int setup(const ek_ctx *c, linear *v)
{
    const ek_attr_linear *a = (const ek_attr_linear *)c->attr;
    v->c = c;
    v->x = ek_in(c, 0);
    v->y = ek_out(c, 0);
    if (!v->x.rec || !v->y.rec || !v->x.rank || !v->y.rank)
        return 0;
    v->k = v->x.dims[v->x.rank - 1];
    v->n = v->y.dims[v->y.rank - 1];
    v->m = v->x.count / v->k;
    v->elem = v->x.dtype == EK_F32 ? 4 : 1;
    if (v->k > 0xffffffu || !ek_rows_setup(c, &v->rows, 1, v->x.dtype, &v->y, v->n, v->k, 1))
        return 0;
    v->kp = ek_up(v->k, v->rows.deep);
    v->dynamic = EK_USES(GEMM_DYN) && v->rows.dynamic;
    v->floats = v->rows.group ? (v->k + v->rows.group - 1) / v->rows.group + v->rows.g.nr : 1;
    v->rows.g.lo = a->lo;
    v->rows.g.hi = a->hi;
    v->rows.g.w_zero = elem_of(v) == 1 ? a->w_zero : 0;
    return 1;
}

/* scratch of one row: dynamic rows hold kp int8 and their floats */
static uint32_t row_bytes(const linear *v)
{
    return v->dynamic ? v->kp + 4 * v->floats : v->k == v->kp ? 0 : v->kp * elem_of(v);
}

/* setup and how the rows and outputs are shared out; its scratch is enough */
static void plan(linear *v)
{
    const ek_ctx *c = v->c;
    v->wide = EK_WIDE && v->k == v->kp && v->m > 1 && ek_takes_pairs(c, &v->rows, ek_wide_bytes(v->k));
    uint32_t most = v->wide ? v->m : ek_tile_rows(c, &v->rows, row_bytes(v), v->m);
    while (v->dynamic && most > 1 && most * v->kp + ek_up(most * 4 * v->floats, 16) + v->rows.room > c->granted)
        most--;
    v->tiles = ek_rows_share(c, &v->rows, v->m, 1, most);
    v->one = v->tiles == 1 && !v->dynamic && !v->wide && v->k == v->kp && !v->rows.room;
    v->rows.g.m = v->m;
    v->rows.g.a = v->x.data;
    v->rows.g.y = v->y.data;
    v->rows.g.lda = (ptrdiff_t)v->k;
    v->rows.g.ldy = (ptrdiff_t)v->n;
}

static int check(const ek_ctx *c)
{
    linear v;
    const ek_attr_linear *a = (const ek_attr_linear *)c->attr;
    if (!setup(c, &v) || !ek_ends_ok(&v.x, &v.y, a->lo, a->hi, a->w_zero) || (uint64_t)v.m * v.n != v.y.count)
        return 0;
    if (c->granted < (uint64_t)row_bytes(&v) + v.rows.room + (v.dynamic ? 16u : 0u))
        return 0;
    if (EK_KEEP)
        plan(&v);
    ek_keep(c, &v, sizeof v);
    return 1;
}

/* symmetric int8 of one row: q = round(x * (127 / max|x|)), returns max|x| / 127 */
static float quantize_row(const float *x, int8_t *q, uint32_t k, uint32_t kp)
{
    float top = 0;
    for (uint32_t i = 0; i < k; i++) {
        float a = x[i] < 0 ? -x[i] : x[i];
        top = a > top ? a : top;
    }
    float inv = top > 0 ? 127.0f / top : 0.0f;
    for (uint32_t i = 0; i < k; i++)
        q[i] = (int8_t)ek_rint_f32(ek_clamp_f32(ek_mul_f32(x[i], inv), -127.0f, 127.0f));
    memset(q + k, 0, kp - k);
    return top / 127.0f;
}

static void tile(void *arg, unsigned t, unsigned thread)
{
    const linear *v = (const linear *)arg;
    uint32_t m0 = t / ek_rows_parts(&v->rows) * v->rows.tile, m = ek_min_u32(v->rows.tile, v->m - m0);
    uint8_t *room = ek_scratch(v->c, thread), *s = room + v->rows.room;
    const uint8_t *x = v->x.data + (size_t)m0 * v->k * elem_of(v);
    ek_gemm g = v->rows.g;
    g.m = m;
    g.y = v->y.data + (size_t)m0 * v->n * elem_of(v);
    g.a = x;
    ek_rows_part(&v->rows, &g, t % ek_rows_parts(&v->rows));
    if (EK_WIDE && v->wide) {
        g.wide = (uint32_t *)(void *)s;
    } else if (EK_USES(GEMM_DYN) && v->dynamic) {
        float *scale = (float *)(void *)s;
        int8_t *q = (int8_t *)(s + ek_up(v->rows.tile * 4 * v->floats, 16));
        uint32_t group = v->rows.group ? v->rows.group : v->k;
        for (uint32_t k0 = 0, j = 0; k0 < v->k; k0 += group, j++) {
            uint32_t k = ek_min_u32(group, v->k - k0), kp = ek_min_u32(group, v->kp - k0);
            for (uint32_t i = 0; i < m; i++)
                scale[j * v->rows.tile + i] = quantize_row((const float *)(const void *)x + (size_t)i * v->k + k0,
                                                           q + (size_t)i * v->kp + k0, k, v->rows.group ? kp : v->kp);
        }
        g.a = q;
        g.lda = (ptrdiff_t)v->kp;
        g.row_scale = scale;
        if (v->rows.group) {
            ek_rows_run_groups(&v->rows, &g, room, scale + (size_t)(v->floats - g.nr) * v->rows.tile);
            return;
        }
    } else if (v->k != v->kp) {
        for (uint32_t i = 0; i < m; i++) {
            memcpy(s + (size_t)i * v->kp * elem_of(v), x + (size_t)i * v->k * elem_of(v), (size_t)v->k * elem_of(v));
            memset(s + ((size_t)i * v->kp + v->k) * elem_of(v), 0, (size_t)(v->kp - v->k) * elem_of(v));
        }
        g.a = s;
        g.lda = (ptrdiff_t)v->kp;
    }
    ek_rows_run(&v->rows, &g, room);
}

static int run(const ek_ctx *c)
{
    linear own, *v = (linear *)ek_kept(c);
    if (!v) {
        if (!setup(c, v = &own))
            return 0;
        plan(v);
    }
    if (v->one)
        v->rows.fn(&v->rows.g);
    else
        ek_for(c, tile, v, v->tiles);
    return 1;
}

static unsigned kernel(const ek_ctx *c)
{
    linear v;
    return setup(c, &v) ? ek_rows_slot(c, &v.rows) : EK_K_NONE;
}

const ek_op_def ek_op_linear = { EK_OP_LINEAR, 1, sizeof(ek_attr_linear), 2, 2, 1, 1, "linear", check, run, kernel };
