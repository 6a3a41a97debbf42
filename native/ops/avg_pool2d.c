/* Mean of each window over the elements that exist and the padding that counts. */
#include <string.h>
#include "attrs.h"
#include "pool.h"

enum { CHUNK = 64, COUNT_MAX = 1 << 22 }; /* channels summed at a time; elements an int32 sum can hold */

typedef struct pool {
    const ek_ctx *c;
    const ek_attr_avg_pool2d *a;
    ek_view x, y; /* (n, h, w, c) */
} pool;

static int check(const ek_ctx *c)
{
    const ek_attr_avg_pool2d *a = (const ek_attr_avg_pool2d *)c->attr;
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    if (!x.rec || !y.rec || !ek_ends_ok(&x, &y, a->lo, a->hi, 0) || !ek_window_ok(&x, &y, a->stride, a->dilation, a->pad, a->kernel)
        || x.dims[3] != y.dims[3] || (uint32_t)a->kernel[0] * a->kernel[1] > COUNT_MAX)
        return 0;
    for (int i = 0; i < 4; i++)
        if (a->counted[i] > a->pad[i])
            return 0;
    if (x.dtype == EK_F32)
        return EK_USES(SUM_F32) && a->lo <= a->hi;
    return a->rounding < EK_AVG_POOL2D_ROUNDING_COUNT && (a->rounding != EK_AVG_POOL2D_ROUNDING_AWAY || x.zero == y.zero)
           && a->scale > 0 && ek_finite(a->scale);
}

/* a window: its first existing tap, the taps that exist, and how many elements count */
typedef struct window {
    const uint8_t *x;
    uint32_t rows, cols, count;
    size_t dy, dx; /* bytes */
} window;

/* sum / count of stored values, ties away from zero: |sum| <= 2^22 * 2^7 */
static int32_t mean_away(int32_t sum, int32_t count)
{
    return sum < 0 ? -((-sum + count / 2) / count) : (sum + count / 2) / count;
}

static void mean_s8(const pool *v, const window *w, int8_t *y)
{
    const ek_attr_avg_pool2d *a = v->a;
    uint32_t ch = v->x.dims[3];
    float scale = ek_div_f32(a->scale, (float)w->count);
    int away = a->rounding == EK_AVG_POOL2D_ROUNDING_AWAY;
    int32_t start = away ? 0 : -v->x.zero * (int32_t)(w->rows * w->cols);
    int32_t lo = (int32_t)a->lo + v->y.zero, hi = (int32_t)a->hi + v->y.zero;
    for (uint32_t c0 = 0; c0 < ch; c0 += CHUNK) {
        int32_t acc[CHUNK];
        uint32_t n = ek_min_u32(CHUNK, ch - c0);
        for (uint32_t i = 0; i < n; i++)
            acc[i] = start;
        int whole = EK_BANDS && v->c->k->sum_rows_s8;
        for (uint32_t i = 0; whole && i < w->rows; i++)
            v->c->k->sum_rows_s8(acc, (const int8_t *)(w->x + i * w->dy + c0), n, w->cols, w->dx);
        for (uint32_t i = 0; !whole && i < w->rows; i++)
            for (uint32_t j = 0; j < w->cols; j++)
                v->c->k->sum_s8(acc, (const int8_t *)(w->x + i * w->dy + j * w->dx + c0), n);
        for (uint32_t i = 0; i < n && !away; i++)
            y[c0 + i] = ek_requant(acc[i], scale, a->lo, a->hi, v->y.zero);
        for (uint32_t i = 0; i < n && away; i++) {
            int32_t m = mean_away(acc[i], (int32_t)w->count);
            y[c0 + i] = (int8_t)(m < lo ? lo : m > hi ? hi : m);
        }
    }
}

static void mean_f32(const pool *v, const window *w, float *y)
{
    uint32_t ch = v->x.dims[3];
    memset(y, 0, (size_t)ch * 4);
    for (uint32_t i = 0; i < w->rows; i++)
        for (uint32_t j = 0; j < w->cols; j++)
            v->c->k->sum_f32(y, (const float *)(const void *)(w->x + i * w->dy + j * w->dx), ch);
    for (uint32_t i = 0; i < ch; i++)
        y[i] = ek_clamp_f32(y[i] / (float)w->count, v->a->lo, v->a->hi);
}

/* one output row */
static void tile(void *arg, unsigned t, unsigned thread)
{
    const pool *v = (const pool *)arg;
    const ek_attr_avg_pool2d *a = v->a;
    uint32_t h = v->x.dims[1], w = v->x.dims[2], oh = v->y.dims[1], ow = v->y.dims[2];
    size_t pixel = (size_t)v->x.dims[3] * (EK_USES(SUM_F32) && v->x.dtype == EK_F32 ? 4 : 1);
    const uint8_t *base = v->x.data + (size_t)(t / oh) * h * w * pixel;
    uint8_t *y = v->y.data + (size_t)t * ow * pixel;
    int32_t top = (int32_t)(t % oh * a->stride[0]) - a->pad[0];
    ek_taps rows = ek_taps_in(top, 0, (int32_t)h, a->kernel[0], a->dilation[0]);
    ek_taps high = ek_taps_in(top, -(int32_t)a->counted[0], (int32_t)h + a->counted[2], a->kernel[0], a->dilation[0]);
    (void)thread;
    for (uint32_t ox = 0; ox < ow; ox++, y += pixel) {
        int32_t left = (int32_t)(ox * a->stride[1]) - a->pad[1];
        ek_taps cols = ek_taps_in(left, 0, (int32_t)w, a->kernel[1], a->dilation[1]);
        ek_taps wide = ek_taps_in(left, -(int32_t)a->counted[1], (int32_t)w + a->counted[3], a->kernel[1], a->dilation[1]);
        window win = { base, rows.end - rows.first, cols.end - cols.first, (high.end - high.first) * (wide.end - wide.first),
                       (size_t)a->dilation[0] * w * pixel, (size_t)a->dilation[1] * pixel };
        if (win.rows && win.cols)
            win.x += ((size_t)(top + (int32_t)(rows.first * a->dilation[0])) * w
                      + (size_t)(left + (int32_t)(cols.first * a->dilation[1]))) * pixel;
        if (!win.count)
            win.count = 1;
        if (!EK_USES(SUM_F32) || v->x.dtype == EK_I8)
            mean_s8(v, &win, (int8_t *)y);
        else
            mean_f32(v, &win, (float *)(void *)y);
    }
}

static int run(const ek_ctx *c)
{
    pool v = { c, (const ek_attr_avg_pool2d *)c->attr, ek_in(c, 0), ek_out(c, 0) };
    ek_for(c, tile, &v, v.y.dims[0] * v.y.dims[1]);
    return 1;
}

static unsigned kernel(const ek_ctx *c) { return ek_in(c, 0).dtype == EK_F32 ? EK_K_SUM_F32 : EK_K_SUM_S8; }

const ek_op_def ek_op_avg_pool2d = {
    EK_OP_AVG_POOL2D, 1, sizeof(ek_attr_avg_pool2d), 1, 1, 1, 1, "avg_pool2d", check, run, kernel,
};
