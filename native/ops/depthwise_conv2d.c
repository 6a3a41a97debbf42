/* Depthwise 2-D convolution.  Runs of output pixels whose taps all exist go to the kernel in place; border pixels are
 * gathered into scratch, padded with the zero point. */
#include <string.h>
#include "attrs.h"
#include "gemm.h"
#include "portable.h"

typedef struct dwconv {
    const ek_ctx *c;
    const ek_attr_depthwise_conv2d *a;
    ek_view x, y; /* (n, h, w, c) */
    ek_dw d;      /* w, geometry and quantization filled; x, y, count are a run's */
    void (*fn)(const ek_dw *d);
    uint32_t elem;
    uint32_t band; /* output rows of a tile; 0: one row at a time */
    int padded, edges; /* edges: the kernel knows them, nothing is padded */
} dwconv;
EK_KEEPS(dwconv);

/* bytes of an element: 1 in builds without float kernels */
static inline uint32_t elem_of(const dwconv *v) { return EK_USES(DW_F32) ? v->elem : 1; }

static int setup(const ek_ctx *c, dwconv *v)
{
    const ek_attr_depthwise_conv2d *a = (const ek_attr_depthwise_conv2d *)c->attr;
    const ek_variant *w = 0;
    v->c = c;
    v->a = a;
    v->x = ek_in(c, 0);
    v->y = ek_out(c, 0);
    if (!v->x.rec || !v->y.rec || v->x.rank != 4 || v->y.rank != 4 || v->x.dims[3] != v->y.dims[3])
        return 0;
    int is_float = v->x.dtype == EK_F32;
    uint32_t nr = is_float ? c->k->dw_f32_nr : c->k->dw_s8_nr, ch = v->x.dims[3];
    const uint8_t *blob = ek_packed(c, 1, EK_ENC_PLAIN, nr, 1, 0, &w);
    if (!blob || w->kr != 1 || !ek_variant_ok(w, is_float ? EK_F32 : EK_I8, ch, (uint64_t)a->kernel[0] * a->kernel[1], 1))
        return 0;
    v->elem = is_float ? 4 : 1;
    v->d = (ek_dw){ .w = blob, .channels = ch, .kh = a->kernel[0], .kw = a->kernel[1], .nr = w->nr, .lo = a->lo,
                    .hi = a->hi, .zero = v->y.zero, .w_zero = is_float ? 0 : a->w_zero };
    if (w->nr == nr)
        v->fn = is_float ? c->k->dw_f32 : c->k->dw_s8;
    else
        v->fn = is_float ? (EK_USES(DW_F32) ? ek_dw_f32_portable : 0) : EK_USES(DW_S8) && EK_FOREIGN ? ek_dw_s8_portable : 0;
    return v->fn != 0;
}

/* one output pixel at a border: as many blocks of channels at a time as scratch holds the taps of */
static void border(const dwconv *v, const uint8_t *base, uint8_t *y, uint32_t oy, uint32_t ox, uint8_t *s)
{
    const ek_attr_depthwise_conv2d *a = v->a;
    const uint32_t *d = v->x.dims;
    uint32_t taps = (uint32_t)a->kernel[0] * a->kernel[1], nr = v->d.nr, most = v->c->granted / (taps * elem_of(v));
    size_t block = (size_t)nr * (elem_of(v) == 1 ? 8 + taps : 4 + 4 * taps);
    most = most < d[3] ? most / nr * nr : d[3];
    for (uint32_t c0 = 0; c0 < d[3]; c0 += most) {
        uint32_t ch = ek_min_u32(most, d[3] - c0), bytes = ch * elem_of(v);
        uint8_t *p = s;
        for (uint32_t i = 0; i < a->kernel[0]; i++) {
            uint32_t iy = oy * a->stride[0] + i * a->dilation[0] - a->pad[0]; /* before the image: larger */
            for (uint32_t j = 0; j < a->kernel[1]; j++, p += bytes) {
                uint32_t ix = ox * a->stride[1] + j * a->dilation[1] - a->pad[1];
                if (iy >= d[1] || ix >= d[2])
                    memset(p, elem_of(v) == 1 ? v->x.zero : 0, bytes);
                else
                    memcpy(p, base + (((size_t)iy * d[2] + ix) * d[3] + c0) * elem_of(v), bytes);
            }
        }
        ek_dw k = v->d;
        k.x = s;
        k.y = y + (size_t)c0 * elem_of(v);
        k.w += c0 / nr * block;
        k.channels = ch;
        k.rows = k.count = 1;
        k.dy = (ptrdiff_t)(a->kernel[1] * ch);
        k.dx = (ptrdiff_t)ch;
        v->fn(&k);
    }
}

/* one output row, border by border: for targets whose scratch holds the taps of one pixel only */
static void one_row(const dwconv *v, uint32_t t, uint8_t *s)
{
    const ek_attr_depthwise_conv2d *a = v->a;
    const uint32_t *d = v->x.dims;
    uint32_t oh = v->y.dims[1], ow = v->y.dims[2], oy = t % oh, b = t / oh;
    uint32_t y0, y1, x0, x1, row = d[3] * elem_of(v);
    ek_inside(d[1], oh, a->kernel[0], a->stride[0], a->dilation[0], a->pad[0], &y0, &y1);
    ek_inside(d[2], ow, a->kernel[1], a->stride[1], a->dilation[1], a->pad[1], &x0, &x1);
    if (oy < y0 || oy >= y1)
        x0 = x1 = ow;
    const uint8_t *base = v->x.data + (size_t)b * d[1] * d[2] * row;
    uint8_t *y = v->y.data + (size_t)t * ow * row;
    for (uint32_t ox = 0; ox < ow; ox++) {
        if (ox < x0 || ox >= x1) {
            border(v, base, y + (size_t)ox * row, oy, ox, s);
            continue;
        }
        ek_dw k = v->d;
        k.x = base + ((size_t)(oy * a->stride[0] - a->pad[0]) * d[2] + (ox * a->stride[1] - a->pad[1])) * row;
        k.y = y + (size_t)ox * row;
        k.rows = 1;
        k.count = x1 - ox;
        k.step = (ptrdiff_t)a->stride[1] * d[3];
        k.dy = (ptrdiff_t)a->dilation[0] * d[2] * d[3];
        k.dx = (ptrdiff_t)a->dilation[1] * d[3];
        v->fn(&k);
        ox = x1 - 1;
    }
}

static void row_tile(void *arg, unsigned t, unsigned thread)
{
    const dwconv *v = (const dwconv *)arg;
    one_row(v, t, ek_scratch(v->c, thread));
}

#if EK_BANDS
/* input rows and columns that `rows` output rows read, padding included */
static uint32_t band_rows(const dwconv *v, uint32_t rows)
{
    return (rows - 1) * v->a->stride[0] + (v->a->kernel[0] - 1u) * v->a->dilation[0] + 1;
}

static uint32_t band_cols(const dwconv *v)
{
    return (v->y.dims[2] - 1) * v->a->stride[1] + (v->a->kernel[1] - 1u) * v->a->dilation[1] + 1;
}

/* a band of v->band output rows in one call of the kernel: its weights are read once, no pixel is special */
static void one_band(const dwconv *v, uint32_t t, uint8_t *s)
{
    const ek_attr_depthwise_conv2d *a = v->a;
    const uint32_t *d = v->x.dims;
    uint32_t oh = v->y.dims[1], ow = v->y.dims[2], bands = (oh + v->band - 1) / v->band;
    uint32_t oy = t % bands * v->band, cols = v->padded ? band_cols(v) : d[2];
    size_t px = (size_t)d[3] * elem_of(v);
    const uint8_t *base = v->x.data + (size_t)(t / bands) * d[1] * d[2] * px;
    ek_dw k = v->d;
    k.rows = ek_min_u32(v->band, oh - oy);
    k.count = ow;
    k.step = (ptrdiff_t)a->stride[1] * d[3];
    k.dx = (ptrdiff_t)a->dilation[1] * d[3];
    k.dy = (ptrdiff_t)a->dilation[0] * cols * d[3];
    k.row_step = (ptrdiff_t)a->stride[0] * cols * d[3];
    k.x = v->padded ? s : base + (size_t)oy * a->stride[0] * d[2] * px;
    k.y = v->y.data + ((size_t)(t / bands) * oh + oy) * ow * px;
    if (v->padded)
        ek_copy_band(&v->x, base, (int64_t)oy * a->stride[0] - a->pad[0], band_rows(v, k.rows), a->pad[1], cols, s);
    v->fn(&k);
}

static void band_tile(void *arg, unsigned t, unsigned thread)
{
    const dwconv *v = (const dwconv *)arg;
    one_band(v, t, ek_scratch(v->c, thread));
}

/* rows [oy, oy + rows) of an image by a kernel that knows edges: nothing is copied */
static void edge_tile(void *arg, unsigned t, unsigned thread)
{
    const dwconv *v = (const dwconv *)arg;
    const ek_attr_depthwise_conv2d *a = v->a;
    const uint32_t *d = v->x.dims;
    uint32_t oh = v->y.dims[1], ow = v->y.dims[2], bands = (oh + v->band - 1) / v->band, oy = t % bands * v->band;
    ek_dw k = v->d;
    (void)thread;
    k.rows = ek_min_u32(v->band, oh - oy);
    k.count = ow;
    k.step = (ptrdiff_t)a->stride[1] * d[3];
    k.dx = (ptrdiff_t)a->dilation[1] * d[3];
    k.dy = (ptrdiff_t)a->dilation[0] * d[2] * d[3];
    k.row_step = (ptrdiff_t)a->stride[0] * d[2] * d[3];
    k.h = d[1];
    k.columns = d[2];
    k.row_stride = a->stride[0];
    k.top = a->pad[0] - oy * a->stride[0];
    k.left = a->pad[1];
    k.fill = v->x.zero;
    k.x = v->x.data + (size_t)(t / bands) * d[1] * d[2] * d[3] * elem_of(v);
    k.y = v->y.data + ((size_t)(t / bands) * oh + oy) * ow * d[3] * elem_of(v);
    v->fn(&k);
}

/* output rows of a band: what scratch holds padded, any number without padding; 0 where not even one fits */
static uint32_t band_of(const dwconv *v)
{
    uint32_t oh = v->y.dims[1], n = ek_min_u32(oh, 32);
    uint64_t row = (uint64_t)band_cols(v) * v->x.dims[3] * elem_of(v);
    if (!v->c->k->dw_rows || v->fn == ek_dw_s8_portable || v->fn == ek_dw_f32_portable)
        return 0;
    while (v->padded && n && (uint64_t)band_rows(v, n) * row > v->c->granted)
        n--;
    return n;
}

/* whether the kernel takes rows as they lie: see EK_EDGES_F32 */
static int knows_edges(const dwconv *v)
{
    const ek_attr_depthwise_conv2d *a = v->a;
    const ek_kernels *k = v->c->k;
    const uint32_t *d = v->x.dims;
    int is_float = elem_of(v) == 4;
    if (is_float ? v->fn != k->dw_f32 : v->fn != k->dw_s8)
        return 0;
    if (is_float && k->dw_edges & EK_EDGES_F32)
        return 1;
    if (!is_float && k->dw_edges & EK_EDGES_S8)
        return a->kernel[0] == a->kernel[1] && (a->kernel[0] == 3 || a->kernel[0] == 5) && a->dilation[1] == 1 && a->stride[1] <= 2
               && !v->d.w_zero;
    return k->dw_edges & (is_float ? EK_EDGES_F32_9 : EK_EDGES_S8_9) && a->kernel[0] == 3 && a->kernel[1] == 3 && a->dilation[0] == 1
           && a->dilation[1] == 1 && a->stride[1] <= 2 && a->pad[1] <= 1 && d[2] >= 2 && !(d[3] % (is_float ? 4 : 8)) && !v->d.w_zero
           && (v->y.dims[2] - 1) * a->stride[1] + 2 - a->pad[1] <= d[2];
}

/* how rows are shared out */
static void plan(dwconv *v)
{
    uint32_t oh = v->y.dims[1];
    v->padded = v->a->pad[0] | v->a->pad[1] | v->a->pad[2] | v->a->pad[3];
    v->edges = knows_edges(v);
    v->band = v->edges ? oh : band_of(v);
    if (v->band && v->y.bytes >= 2 * EK_SHARE)
        v->band = ek_even(v->c, oh, v->band);
}

/* 1: done in bands */
static int in_bands(dwconv *v)
{
    if (v->band)
        ek_for(v->c, v->edges ? edge_tile : band_tile, v, v->y.dims[0] * ((v->y.dims[1] + v->band - 1) / v->band));
    return v->band != 0;
}
#else
static void plan(dwconv *v) { (void)v; }
static int in_bands(dwconv *v) { (void)v; return 0; }
#endif

/* 1: done by a kernel that reads images with their padding */
static int in_image(const dwconv *v)
{
    const ek_attr_depthwise_conv2d *a = v->a;
    const uint32_t *d = v->x.dims, *o = v->y.dims;
    ek_dw k = v->d;
    if (!v->c->k->dw_image || v->fn != v->c->k->dw_s8 || a->dilation[0] != 1 || a->dilation[1] != 1)
        return 0;
    k.rows = o[1];
    k.count = o[2];
    k.dx = (ptrdiff_t)d[3];
    k.dy = (ptrdiff_t)d[2] * k.dx;
    k.step = (ptrdiff_t)a->stride[1] * k.dx;
    k.h = d[1];
    k.columns = d[2];
    k.row_stride = a->stride[0];
    k.top = a->pad[0];
    k.left = a->pad[1];
    k.fill = v->x.zero;
    k.room = ek_scratch(v->c, 0);
    k.room_bytes = v->c->granted;
    for (uint32_t b = 0; b < d[0]; b++) {
        k.x = v->x.data + (size_t)b * d[1] * d[2] * d[3];
        k.y = v->y.data + (size_t)b * o[1] * o[2] * d[3];
        if (!v->c->k->dw_image(&k))
            return 0;
    }
    return 1;
}

static int check(const ek_ctx *c)
{
    dwconv v;
    const ek_attr_depthwise_conv2d *a = (const ek_attr_depthwise_conv2d *)c->attr;
    if (!setup(c, &v) || !ek_window_ok(&v.x, &v.y, a->stride, a->dilation, a->pad, a->kernel)
        || !ek_ends_ok(&v.x, &v.y, a->lo, a->hi, a->w_zero))
        return 0;
    int padded = a->pad[0] | a->pad[1] | a->pad[2] | a->pad[3];
    if (padded && c->granted < (uint64_t)a->kernel[0] * a->kernel[1] * ek_min_u32(v.d.nr, v.d.channels) * elem_of(&v))
        return 0;
    if (EK_KEEP)
        plan(&v);
    ek_keep(c, &v, sizeof v);
    return 1;
}

static int run(const ek_ctx *c)
{
    dwconv own, *v = (dwconv *)ek_kept(c);
    if (!v) {
        if (!setup(c, v = &own))
            return 0;
        plan(v);
    }
    if (!in_image(v) && !in_bands(v))
        ek_for(c, row_tile, v, v->y.dims[0] * v->y.dims[1]);
    return 1;
}

static unsigned kernel(const ek_ctx *c)
{
    dwconv v;
    if (!setup(c, &v))
        return EK_K_NONE;
    return v.fn == c->k->dw_s8 ? EK_K_DW_S8 : v.fn == c->k->dw_f32 ? EK_K_DW_F32 : EK_K_NONE;
}

const ek_op_def ek_op_depthwise_conv2d = {
    EK_OP_DEPTHWISE_CONV2D, 1, sizeof(ek_attr_depthwise_conv2d), 2, 2, 1, 1, "depthwise_conv2d", check, run, kernel,
};
