/* Images to another size, nearest or bilinear.  Where each output row and column reads comes as a table from the host:
 * int32 index (oh), (ow); bilinear also fraction (oh), (ow), of 2048 for int8 and float32 bits otherwise. */
#include <string.h>
#include "attrs.h"
#include "move.h"

typedef struct resize {
    const ek_attr_resize *a;
    ek_view x, table, y; /* (n, h, w, c), (entries), (n, oh, ow, c) */
} resize;

static int check(const ek_ctx *c)
{
    const ek_attr_resize *a = (const ek_attr_resize *)c->attr;
    ek_view x = ek_in(c, 0), t = ek_in(c, 1), y = ek_out(c, 0);
    if (!ek_same_type(&x, &y) || x.rank != 4 || y.rank != 4 || x.dims[0] != y.dims[0] || x.dims[3] != y.dims[3]
        || !ek_is(&t, EK_I32, 1) || a->mode >= EK_RESIZE_MODE_COUNT)
        return 0;
    uint64_t lines = (uint64_t)y.dims[1] + y.dims[2];
    if (a->mode == EK_RESIZE_MODE_NEAREST)
        return t.count == lines;
    return (x.dtype == EK_F32 || x.dtype == EK_I8) && t.count == 2 * lines;
}

/* entry i of the table; weights are never trusted, so an index is kept below n */
static uint32_t index_at(const resize *v, uint32_t i, uint32_t n)
{
    uint32_t at;
    memcpy(&at, v->table.data + (size_t)i * 4, 4);
    return at < n ? at : n - 1;
}

static int32_t weight_at(const resize *v, uint32_t i)
{
    uint32_t f;
    memcpy(&f, v->table.data + (size_t)i * 4, 4);
    return (int32_t)(f < 2048 ? f : 2048);
}

static float fraction_at(const resize *v, uint32_t i)
{
    float f;
    memcpy(&f, v->table.data + (size_t)i * 4, 4);
    return f;
}

static void row_nearest(const resize *v, const uint8_t *base, uint8_t *y, uint32_t oy)
{
    uint32_t oh = v->y.dims[1], ow = v->y.dims[2], w = v->x.dims[2];
    size_t pixel = (size_t)ek_axis_bytes(&v->x, 2);
    const uint8_t *line = base + (size_t)index_at(v, oy, v->x.dims[1]) * w * pixel;
    for (uint32_t ox = 0; ox < ow; ox++)
        memmove(y + ox * pixel, line + index_at(v, oh + ox, w) * pixel, pixel);
}

/* four neighbours of an output pixel: elements from the start of an image */
typedef struct corners { size_t at[4]; } corners;

static corners corners_of(const resize *v, uint32_t oy, uint32_t ox)
{
    uint32_t h = v->x.dims[1], w = v->x.dims[2], ch = v->x.dims[3];
    uint32_t y0 = index_at(v, oy, h), x0 = index_at(v, v->y.dims[1] + ox, w);
    uint32_t y1 = y0 + 1 < h ? y0 + 1 : y0, x1 = x0 + 1 < w ? x0 + 1 : x0;
    return (corners){ { ((size_t)y0 * w + x0) * ch, ((size_t)y0 * w + x1) * ch, ((size_t)y1 * w + x0) * ch,
                        ((size_t)y1 * w + x1) * ch } };
}

static void row_s8(const resize *v, const int8_t *x, int8_t *y, uint32_t oy)
{
    uint32_t oh = v->y.dims[1], ow = v->y.dims[2], ch = v->x.dims[3];
    int32_t fy = weight_at(v, oh + ow + oy);
    for (uint32_t ox = 0; ox < ow; ox++, y += ch) {
        int32_t fx = weight_at(v, 2 * oh + ow + ox);
        int32_t w3 = fy * fx, w2 = fy * 2048 - w3, w1 = fx * 2048 - w3, w0 = (2048 << 11) - w1 - w2 - w3;
        corners k = corners_of(v, oy, ox);
        const int8_t *a = x + k.at[0], *b = x + k.at[1], *c = x + k.at[2], *d = x + k.at[3];
        for (uint32_t i = 0; i < ch; i++)
            y[i] = (int8_t)ek_asr(a[i] * w0 + b[i] * w1 + c[i] * w2 + d[i] * w3 + (1 << 21), 22);
    }
}

static void row_f32(const resize *v, const float *x, float *y, uint32_t oy)
{
    uint32_t oh = v->y.dims[1], ow = v->y.dims[2], ch = v->x.dims[3];
    float fy = fraction_at(v, oh + ow + oy);
    for (uint32_t ox = 0; ox < ow; ox++, y += ch) {
        float fx = fraction_at(v, 2 * oh + ow + ox);
        corners k = corners_of(v, oy, ox);
        const float *a = x + k.at[0], *b = x + k.at[1], *c = x + k.at[2], *d = x + k.at[3];
        for (uint32_t i = 0; i < ch; i++) {
            float top = a[i] + (b[i] - a[i]) * fx, low = c[i] + (d[i] - c[i]) * fx;
            y[i] = top + (low - top) * fy;
        }
    }
}

/* one output row */
static void tile(void *arg, unsigned t, unsigned thread)
{
    const resize *v = (const resize *)arg;
    uint32_t oh = v->y.dims[1], oy = t % oh;
    const uint8_t *x = v->x.data + (size_t)(t / oh) * (size_t)ek_axis_bytes(&v->x, 0);
    uint8_t *y = v->y.data + (size_t)t * (size_t)ek_axis_bytes(&v->y, 1);
    (void)thread;
    if (v->a->mode == EK_RESIZE_MODE_NEAREST)
        row_nearest(v, x, y, oy);
    else if (v->x.dtype == EK_I8)
        row_s8(v, (const int8_t *)x, (int8_t *)y, oy);
    else
        row_f32(v, (const float *)(const void *)x, (float *)(void *)y, oy);
}

static int run(const ek_ctx *c)
{
    resize v = { (const ek_attr_resize *)c->attr, ek_in(c, 0), ek_in(c, 1), ek_out(c, 0) };
    ek_for(c, tile, &v, v.y.dims[0] * v.y.dims[1]);
    return 1;
}

const ek_op_def ek_op_resize = { EK_OP_RESIZE, 1, sizeof(ek_attr_resize), 2, 2, 1, 1, "resize", check, run, 0 };
