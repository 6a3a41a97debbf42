/* 2-D convolution as tiles of GEMM rows.  Pointwise inputs are read where they lie.  Kernels that read windows get bands of
 * output rows over the input, or over a padded copy of its rows; for others the inputs of each output pixel are gathered
 * (im2col) into scratch, a tile at a time, padded with the zero point. */
#include <string.h>
#include "attrs.h"
#include "gemm.h"

typedef struct conv {
    const ek_ctx *c;
    const ek_attr_conv2d *a;
    ek_view x, y;      /* (n, h, w, c) */
    ek_rows rows;
    uint32_t elem;     /* bytes of an element */
    uint32_t run;      /* inputs of one kernel row, padded as the weights are */
    uint32_t k, kp;    /* inputs of one output, padded to kr */
    uint32_t ci, groups, out_group;
    uint32_t band;     /* output rows of a band; 0: no windows */
    int copied;        /* bands are padded copies */
} conv;

enum { BAND_BYTES = 65536 }; /* of input rows read again and again: twin of edgekit/ops/conv2d.py */

/* the kernel reads windows and rows at any address */
static int windows(const conv *v)
{
    const ek_kernels *k = v->c->k;
    return v->elem == 4 ? (k->windows & 2) && v->rows.fn == k->gemm_f32 : (k->windows & 1) && v->rows.fn == k->gemm_s8;
}

/* Rows are read where they lie; past their end too, which meets weights of 0, but not past the tensor's: see `tile`. */
static int direct(const conv *v)
{
    const ek_attr_conv2d *a = v->a;
    uint32_t kr = v->rows.deep;
    return a->kernel[0] == 1 && a->kernel[1] == 1 && a->stride[0] == 1 && a->stride[1] == 1 && a->groups == 1
           && !(a->pad[0] | a->pad[1] | a->pad[2] | a->pad[3]) && v->run == v->ci
           && (v->k % kr == 0 || (windows(v) && v->k >= kr));
}

static int setup(const ek_ctx *c, conv *v)
{
    const ek_attr_conv2d *a = (const ek_attr_conv2d *)c->attr;
    v->c = c;
    v->a = a;
    v->x = ek_in(c, 0);
    v->y = ek_out(c, 0);
    v->groups = a->groups;
    if (!v->x.rec || !v->y.rec || v->x.rank != 4 || v->y.rank != 4 || !a->groups || a->groups > v->x.dims[3])
        return 0;
    v->ci = v->x.dims[3] / a->groups;
    v->out_group = v->y.dims[3] / a->groups;
    uint64_t run = (uint64_t)a->kernel[1] * v->ci, k = (uint64_t)a->kernel[0] * a->run;
    v->run = a->run;
    if (k > 0xffffffu || a->run < run || a->run - run >= 16 || (a->run > run && a->groups > 1) || v->ci * a->groups != v->x.dims[3] || v->out_group * a->groups != v->y.dims[3])
        return 0;
    v->k = (uint32_t)k;
    v->elem = v->x.dtype == EK_F32 ? 4 : 1;
    if (!ek_rows_setup(c, &v->rows, 1, v->x.dtype, &v->y, v->out_group, v->k, v->groups)
        || v->rows.dynamic)
        return 0;
    v->kp = ek_up(v->k, v->rows.deep);
    v->rows.g.lo = a->lo;
    v->rows.g.hi = a->hi;
    v->rows.g.w_zero = v->elem == 1 ? a->w_zero : 0;
    return 1;
}

static int check(const ek_ctx *c)
{
    conv v;
    const ek_attr_conv2d *a = (const ek_attr_conv2d *)c->attr;
    if (!setup(c, &v) || !ek_window_ok(&v.x, &v.y, a->stride, a->dilation, a->pad, a->kernel))
        return 0;
    if (v.x.dtype != v.y.dtype || (v.x.dtype != EK_F32 && v.x.dtype != EK_I8))
        return 0;
    if (v.x.dtype == EK_I8 && (!ek_quant_ok(&v.x) || !ek_quant_ok(&v.y) || !ek_bounds_ok(a->lo, a->hi, v.y.zero)
                               || a->w_zero < -256 || a->w_zero > 256))
        return 0;
    int nothing = direct(&v) && v.k % v.rows.deep == 0;
    return c->rec->scratch >= (nothing ? 0 : (uint64_t)v.kp * v.elem) + v.rows.room;
}

/* one output pixel's inputs (kh, kw, ci) of group gi */
static void gather(const conv *v, uint8_t *row, uint32_t pixel, uint32_t gi)
{
    const ek_attr_conv2d *a = v->a;
    const uint32_t *d = v->x.dims;
    uint32_t ow = v->y.dims[2], oh = v->y.dims[1];
    uint32_t ox = pixel % ow, oy = pixel / ow % oh, b = pixel / ow / oh;
    uint32_t seg = v->ci * v->elem, pad = (v->run - a->kernel[1] * v->ci) * v->elem;
    const uint8_t *base = v->x.data + (size_t)b * d[1] * d[2] * d[3] * v->elem + (size_t)gi * seg;
    int fill = v->elem == 1 ? v->x.zero : 0;
    for (uint32_t i = 0; i < a->kernel[0]; i++, memset(row, 0, pad), row += pad) {
        int64_t iy = (int64_t)oy * a->stride[0] + (int64_t)i * a->dilation[0] - a->pad[0];
        if (iy < 0 || iy >= d[1]) {
            memset(row, fill, (size_t)seg * a->kernel[1]);
            row += (size_t)seg * a->kernel[1];
            continue;
        }
        int64_t ix = (int64_t)ox * a->stride[1] - a->pad[1];
        const uint8_t *line = base + (size_t)iy * d[2] * d[3] * v->elem;
        if (v->groups == 1 && a->dilation[1] == 1 && ix >= 0 && ix + a->kernel[1] <= d[2]) {
            memcpy(row, line + (size_t)ix * seg, (size_t)seg * a->kernel[1]);
            row += (size_t)seg * a->kernel[1];
            continue;
        }
        for (uint32_t j = 0; j < a->kernel[1]; j++, row += seg) {
            int64_t at = ix + (int64_t)j * a->dilation[1];
            if (at < 0 || at >= d[2])
                memset(row, fill, seg);
            else
                memcpy(row, line + (size_t)at * d[3] * v->elem, seg);
        }
    }
    memset(row, 0, (size_t)(v->kp - v->k) * v->elem);
}

/* m gathered rows from m0 on; g.y is set */
static void gathered(const conv *v, ek_gemm *g, uint32_t m0, uint32_t m, uint32_t gi, uint8_t *room)
{
    uint8_t *s = room + v->rows.room;
    for (uint32_t i = 0; i < m; i++)
        gather(v, s + (size_t)i * v->kp * v->elem, m0 + i, gi);
    g->a = s;
    g->lda = (ptrdiff_t)v->kp;
    g->m = m;
    ek_rows_run(&v->rows, g, room);
}

static void tile(void *arg, unsigned t, unsigned thread)
{
    const conv *v = (const conv *)arg;
    uint32_t pixels = v->y.dims[0] * v->y.dims[1] * v->y.dims[2];
    uint32_t m0 = t * v->rows.tile, m = ek_min_u32(v->rows.tile, pixels - m0);
    ek_gemm g = v->rows.g;
    uint8_t *room = ek_scratch(v->c, thread);
    g.ldy = (ptrdiff_t)v->y.dims[3];
    for (uint32_t gi = 0; gi < v->groups; gi++) {
        g.w = v->rows.g.w + gi * v->rows.group_bytes;
        g.y = v->y.data + ((size_t)m0 * v->y.dims[3] + (size_t)gi * v->out_group) * v->elem;
        if (!v->rows.in_place) {
            gathered(v, &g, m0, m, gi, room);
            continue;
        }
        uint32_t last = v->k != v->kp && m0 + m == pixels; /* nothing may be read past the tensor */
        g.a = v->x.data + (size_t)m0 * v->k * v->elem;
        g.lda = (ptrdiff_t)v->k;
        g.m = m - last;
        if (g.m)
            ek_rows_run(&v->rows, &g, room);
        g.y = (uint8_t *)g.y + (size_t)g.m * v->y.dims[3] * v->elem;
        if (last)
            gathered(v, &g, m0 + m - 1, 1, gi, room);
    }
}

#if EK_BANDS
/* input rows that `rows` output rows read, and columns, padding included */
static uint64_t band_rows(const conv *v, uint32_t rows)
{
    return (uint64_t)(rows - 1) * v->a->stride[0] + (v->a->kernel[0] - 1u) * (uint64_t)v->a->dilation[0] + 1;
}

static uint32_t band_cols(const conv *v)
{
    return v->copied ? (v->y.dims[2] - 1) * v->a->stride[1] + v->a->kernel[1] : v->x.dims[2];
}

static void band(void *arg, unsigned t, unsigned thread)
{
    const conv *v = (const conv *)arg;
    const ek_attr_conv2d *a = v->a;
    const uint32_t *d = v->x.dims;
    uint32_t oh = v->y.dims[1], ow = v->y.dims[2], bands = (oh + v->band - 1) / v->band, cols = band_cols(v);
    uint32_t oy = t % bands * v->band, rows = ek_min_u32(v->band, oh - oy);
    uint8_t *room = ek_scratch(v->c, thread), *s = room + v->rows.room;
    const uint8_t *image = v->x.data + (size_t)(t / bands) * d[1] * d[2] * d[3] * v->elem;
    ek_gemm g = v->rows.g;
    if (v->copied)
        ek_copy_band(&v->x, image, (int64_t)oy * a->stride[0] - a->pad[0], (uint32_t)band_rows(v, rows), a->pad[1], cols, s);
    g.a = v->copied ? s : image + (size_t)oy * a->stride[0] * d[2] * d[3] * v->elem;
    g.m = rows * ow;
    g.width = ow;
    g.segment = v->run;
    g.lda = (ptrdiff_t)a->stride[1] * v->ci;
    g.line = (ptrdiff_t)a->stride[0] * cols * v->ci;
    g.gap = (ptrdiff_t)a->dilation[0] * cols * v->ci;
    g.y = v->y.data + ((size_t)(t / bands) * oh + oy) * ow * v->y.dims[3] * v->elem;
    g.ldy = (ptrdiff_t)v->y.dims[3];
    ek_rows_run(&v->rows, &g, room);
}

/* output rows of a band: what scratch or the cache holds; 0 where the kernel reads no windows or not even one fits */
static uint32_t band_of(conv *v)
{
    const ek_attr_conv2d *a = v->a;
    uint32_t oh = v->y.dims[1], n = ek_min_u32(oh, 32), pad = v->run - a->kernel[1] * v->ci;
    v->copied = pad || a->pad[0] || a->pad[1] || a->pad[2] || a->pad[3];
    if (!windows(v) || v->groups != 1 || a->dilation[1] != 1 || v->run % v->rows.deep)
        return 0;
    uint64_t row = (uint64_t)band_cols(v) * v->ci * v->elem, room = v->copied ? v->c->rec->scratch - v->rows.room : BAND_BYTES;
    while (n > !v->copied && band_rows(v, n) * row + pad * v->elem > room)
        n--;
    if (n > 1 && v->c->threads > 1) /* enough tiles for every thread */
        n = ek_min_u32(n, (oh + v->c->threads - 1) / v->c->threads);
    return n;
}

/* 1: done in bands */
static int in_bands(conv *v)
{
    v->band = band_of(v);
    if (v->band)
        ek_for(v->c, band, v, v->y.dims[0] * ((v->y.dims[1] + v->band - 1) / v->band));
    return v->band != 0;
}
#else
static int in_bands(conv *v) { (void)v; return 0; }
#endif

static int run(const ek_ctx *c)
{
    conv v;
    if (!setup(c, &v))
        return 0;
    uint32_t pixels = v.y.dims[0] * v.y.dims[1] * v.y.dims[2];
    v.rows.in_place = direct(&v);
    if (!v.rows.in_place && in_bands(&v))
        return 1;
    v.rows.tile = ek_tile_rows(c, &v.rows, v.rows.in_place ? 0 : v.kp * v.elem, pixels);
    ek_for(c, tile, &v, (pixels + v.rows.tile - 1) / v.rows.tile);
    return 1;
}

static unsigned kernel(const ek_ctx *c)
{
    conv v;
    return setup(c, &v) ? ek_rows_slot(c, &v.rows) : EK_K_NONE;
}

const ek_op_def ek_op_conv2d = {
    EK_OP_CONV2D, 1, sizeof(ek_attr_conv2d), 2, 2, 1, 1, "conv2d", check, run, kernel,
};
