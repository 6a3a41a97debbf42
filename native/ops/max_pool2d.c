/* Largest element of each window; padding never wins. */
#include <string.h>
#include "attrs.h"
#include "pool.h"

typedef struct pool {
    const ek_ctx *c;
    const ek_attr_max_pool2d *a;
    ek_view x, y; /* (n, h, w, c) */
} pool;

static int check(const ek_ctx *c)
{
    const ek_attr_max_pool2d *a = (const ek_attr_max_pool2d *)c->attr;
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    return x.rec && y.rec && x.dtype == y.dtype && (x.dtype == EK_F32 || x.dtype == EK_I8)
           && ek_window_ok(&x, &y, a->stride, a->dilation, a->pad, a->kernel) && x.dims[3] == y.dims[3];
}

/* smallest value there is: of a window that lies in the padding */
static void lowest(uint8_t *y, uint32_t n, uint32_t dtype)
{
    static const uint32_t minus_infinity = 0xff800000u;
    if (dtype == EK_I8)
        memset(y, 0x80, n);
    else
        for (uint32_t i = 0; i < n; i++)
            memcpy(y + (size_t)i * 4, &minus_infinity, 4);
}

/* one output row */
static void tile(void *arg, unsigned t, unsigned thread)
{
    const pool *v = (const pool *)arg;
    const ek_attr_max_pool2d *a = v->a;
    uint32_t h = v->x.dims[1], w = v->x.dims[2], ch = v->x.dims[3], oh = v->y.dims[1], ow = v->y.dims[2];
    size_t pixel = (size_t)ch * (v->x.dtype == EK_F32 ? 4 : 1);
    const uint8_t *base = v->x.data + (size_t)(t / oh) * h * w * pixel;
    uint8_t *y = v->y.data + (size_t)t * ow * pixel;
    int32_t top = (int32_t)(t % oh * a->stride[0]) - a->pad[0];
    ek_taps rows = ek_taps_in(top, 0, (int32_t)h, a->kernel[0], a->dilation[0]);
    (void)thread;
    for (uint32_t ox = 0; ox < ow; ox++, y += pixel) {
        int32_t left = (int32_t)(ox * a->stride[1]) - a->pad[1];
        ek_taps cols = ek_taps_in(left, 0, (int32_t)w, a->kernel[1], a->dilation[1]);
        int first = 1;
        for (uint32_t i = rows.first; i < rows.end; i++)
            for (uint32_t j = cols.first; j < cols.end; j++) {
                uint32_t iy = (uint32_t)top + i * a->dilation[0], ix = (uint32_t)left + j * a->dilation[1];
                const uint8_t *x = base + ((size_t)iy * w + ix) * pixel;
                if (first)
                    memmove(y, x, pixel);
                else if (v->x.dtype == EK_I8)
                    v->c->k->max_s8((int8_t *)y, (const int8_t *)x, ch);
                else
                    v->c->k->max_f32((float *)(void *)y, (const float *)(const void *)x, ch);
                first = 0;
            }
        if (first)
            lowest(y, ch, v->x.dtype);
    }
}

static int run(const ek_ctx *c)
{
    pool v = { c, (const ek_attr_max_pool2d *)c->attr, ek_in(c, 0), ek_out(c, 0) };
    ek_for(c, tile, &v, v.y.dims[0] * v.y.dims[1]);
    return 1;
}

static unsigned kernel(const ek_ctx *c) { return ek_in(c, 0).dtype == EK_F32 ? EK_K_MAX_F32 : EK_K_MAX_S8; }

const ek_op_def ek_op_max_pool2d = {
    EK_OP_MAX_POOL2D, 1, sizeof(ek_attr_max_pool2d), 1, 1, 1, 1, "max_pool2d", check, run, kernel,
};
