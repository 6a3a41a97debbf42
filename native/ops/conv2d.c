/* 2-D convolution as tiles of GEMM rows.  Pointwise inputs are read where they lie.  Kernels that read windows get bands of
 * output rows over the input, or over a padded copy of its rows; on microcontrollers, which have no memory for copies, those
 * windows that lie inside the image.  All other inputs are gathered (im2col) into scratch, a tile at a time, padded with the
 * zero point. */
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
    int wide;          /* rows are widened, in pairs */
    uint32_t tiles;
    uint32_t y0, y1, x0, x1; /* output pixels whose inputs are whole runs inside the image */
} conv;
EK_KEEPS(conv);

/* bytes of an element: 1 in builds without float kernels */
static inline uint32_t elem_of(const conv *v) { return EK_USES(GEMM_F32) ? v->elem : 1; }

enum { BAND_ITEMS = 65536 }; /* of input rows read again and again: twin of edgekit/ops/conv2d.py */

/* the kernel reads windows and rows at any address */
static int windows(const conv *v)
{
    const ek_kernels *k = v->c->k;
    return elem_of(v) == 4 ? (k->windows & 2) && v->rows.fn == k->gemm_f32 : (k->windows & 1) && v->rows.fn == k->gemm_s8;
}

/* Rows are read where they lie; past their end too, which meets weights of 0, but not past the tensor's: see `tile`. */
static int direct(const conv *v)
{
    const ek_attr_conv2d *a = v->a;
    uint32_t kr = v->rows.deep;
    return a->kernel[0] == 1 && a->kernel[1] == 1 && a->stride[0] == 1 && a->stride[1] == 1 && a->groups == 1
           && !(a->pad[0] | a->pad[1] | a->pad[2] | a->pad[3]) && v->run == v->ci
           && (v->k % kr == 0 || windows(v));
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
    if (c->after)
        v->y.zero = c->after->zero;
    if (!ek_rows_setup(c, &v->rows, 1, v->x.dtype, &v->y, v->out_group, v->k, v->groups)
        || v->rows.dynamic)
        return 0;
    if (c->after) {
        v->rows.after = c->after;
        v->rows.room += c->after->bytes;
    }
    v->kp = ek_up(v->k, v->rows.deep);
    v->rows.g.lo = a->lo;
    v->rows.g.hi = a->hi;
    v->rows.g.w_zero = elem_of(v) == 1 ? a->w_zero : 0;
    return 1;
}

/* n bytes, or by words of which the last may be more; no call for what is short */
static void copy(uint8_t *to, const uint8_t *from, uint32_t n, int more)
{
    uint32_t i = 0;
    if (n < 16)
        for (; i + (more ? 0 : 3) < n; i += 4)
            memcpy(to + i, from + i, 4);
    if (i < n)
        memcpy(to + i, from + i, n - i);
}

/* the inputs (kh, kw, ci) of n output pixels from (b, oy, ox) on, all inside the image */
static void gather_inside(const conv *v, uint8_t *row, uint32_t b, uint32_t oy, uint32_t ox, uint32_t n)
{
    const ek_attr_conv2d *a = v->a;
    const uint32_t *d = v->x.dims;
    uint32_t px = d[3] * elem_of(v), bytes = a->kernel[1] * px, run = v->run * elem_of(v), rest = (v->kp - v->k) * elem_of(v);
    uint32_t top = oy * a->stride[0] - a->pad[0], left = ox * a->stride[1] - a->pad[1];
    size_t line = (size_t)d[2] * px, gap = a->dilation[0] * line;
    const uint8_t *x = v->x.data + ((size_t)b * d[1] + top) * line + (size_t)left * px;
    /* what is more meets weights of 0, as all padding does */
    int more = run - bytes + rest >= 3 && top + (a->kernel[0] - 1u) * a->dilation[0] + 1 < d[1];
    for (; n; n--, x += a->stride[1] * px, row += rest) {
        const uint8_t *p = x;
        for (uint32_t i = a->kernel[0]; i; i--, p += gap, row += run)
            copy(row, p, bytes, more);
    }
}

static uint8_t *put(uint8_t *row, int value, uint32_t n)
{
    if (n)
        memset(row, value, n);
    return row + n;
}

/* The inputs of group gi of output pixel (b, oy, ox).  Places are counted modulo 2^32: what lies before the image is larger. */
static void gather(const conv *v, uint8_t *row, uint32_t b, uint32_t oy, uint32_t ox, uint32_t gi)
{
    const ek_attr_conv2d *a = v->a;
    const uint32_t *d = v->x.dims;
    uint32_t kw = a->kernel[1], seg = v->ci * elem_of(v), pad = (v->run - kw * v->ci) * elem_of(v), px = d[3] * elem_of(v);
    uint32_t iy = oy * a->stride[0] - a->pad[0], ix = ox * a->stride[1] - a->pad[1];
    uint32_t left = ix < d[2] ? 0 : ek_min_u32(0u - ix, kw), right = ix + kw; /* taps of a row before the image, past it */
    right = left == kw || right <= d[2] ? 0 : ek_min_u32(right - d[2], kw - left);
    const uint8_t *base = v->x.data + (size_t)b * d[1] * d[2] * px + (size_t)gi * seg;
    int fill = elem_of(v) == 1 ? v->x.zero : 0;
    for (uint32_t i = a->kernel[0]; i; i--, iy += a->dilation[0]) {
        const uint8_t *line = base + (size_t)iy * d[2] * px;
        if (iy >= d[1]) {
            row = put(row, fill, seg * kw);
        } else if (v->groups == 1 && a->dilation[1] == 1) {
            uint32_t n = (kw - left - right) * seg;
            row = put(row, fill, left * seg);
            copy(row, line + (size_t)(ix + left) * px, n, 0);
            row = put(row + n, fill, right * seg);
        } else {
            for (uint32_t j = 0, at = ix; j < kw; j++, at += a->dilation[1], row += seg) {
                if (at < d[2])
                    memcpy(row, line + (size_t)at * px, seg);
                else
                    memset(row, fill, seg);
            }
        }
        row = put(row, 0, pad);
    }
    put(row, 0, (v->kp - v->k) * elem_of(v));
}

/* m gathered rows from m0 on, two at most where they are widened; g.y is set */
static void gathered(const conv *v, ek_gemm *g, uint32_t m0, uint32_t m, uint32_t gi, uint8_t *room)
{
    uint8_t *s = room + v->rows.room;
    const int wide = EK_WIDE && v->wide;
    uint32_t ow = v->y.dims[2], oh = v->y.dims[1], ox = m0 % ow, oy = m0 / ow % oh, b = m0 / ow / oh;
    for (uint32_t i = 0, n; i < m; i += n) {
        uint8_t *row = s + (wide ? ek_wide_bytes(v->kp) : (size_t)i * v->kp * elem_of(v));
        n = !EK_WIDE && oy >= v->y0 && oy < v->y1 && ox >= v->x0 && ox < v->x1 ? ek_min_u32(m - i, v->x1 - ox) : 0;
        if (n)
            gather_inside(v, row, b, oy, ox, n);
        else
            gather(v, row, b, oy, ox, gi);
        if (wide) {
            uint32_t *sum = (uint32_t *)(void *)s + i;
            *sum = (uint32_t)v->rows.widen((const int8_t *)row, v->kp, sum + 2);
        }
        n += !n;
        ox += n;
        if (ox == ow) {
            ox = 0;
            if (++oy == oh) {
                oy = 0;
                b++;
            }
        }
    }
    g->wide = wide ? (uint32_t *)(void *)s : 0;
    g->a = wide ? 0 : s;
    g->lda = (ptrdiff_t)v->kp;
    g->m = m;
    ek_rows_run(&v->rows, g, room);
}

static void tile(void *arg, unsigned t, unsigned thread)
{
    const conv *v = (const conv *)arg;
    uint32_t pixels = v->y.dims[0] * v->y.dims[1] * v->y.dims[2];
    uint32_t m0 = t / ek_rows_parts(&v->rows) * v->rows.tile, m = ek_min_u32(v->rows.tile, pixels - m0);
    ek_gemm g = v->rows.g;
    uint8_t *room = ek_scratch(v->c, thread), *y;
    g.ldy = (ptrdiff_t)v->y.dims[3];
    for (uint32_t gi = 0; gi < v->groups; gi++) {
        g.w = v->rows.g.w + gi * v->rows.group_bytes;
        g.y = v->y.data + ((size_t)m0 * v->y.dims[3] + (size_t)gi * v->out_group) * elem_of(v);
        ek_rows_part(&v->rows, &g, t % ek_rows_parts(&v->rows));
        if (!v->rows.in_place) {
            gathered(v, &g, m0, m, gi, room);
            continue;
        }
        uint32_t last = (v->kp - 1) / v->k, i = m0 + last < pixels ? ek_min_u32(m, pixels - last - m0) : 0;
        g.a = v->x.data + (size_t)m0 * v->k * elem_of(v);
        g.lda = (ptrdiff_t)v->k;
        g.m = i;
        g.wide = EK_WIDE && v->wide ? (uint32_t *)(void *)(room + v->rows.room) : 0;
        y = (uint8_t *)g.y;
        if (i)
            ek_rows_run(&v->rows, &g, room);
        for (; i < m; i++) { /* nothing may be read past the tensor */
            g.y = y + (size_t)i * v->y.dims[3] * elem_of(v);
            gathered(v, &g, m0 + i, 1, gi, room);
        }
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
    uint32_t oh = v->y.dims[1], ow = v->y.dims[2], bands = (oh + v->band - 1) / v->band, cols = band_cols(v), parts = v->rows.parts;
    uint32_t part = t % parts, oy = (t /= parts) % bands * v->band, rows = ek_min_u32(v->band, oh - oy);
    uint8_t *room = ek_scratch(v->c, thread), *s = room + v->rows.room;
    const uint8_t *image = v->x.data + (size_t)(t / bands) * d[1] * d[2] * d[3] * elem_of(v);
    ek_gemm g = v->rows.g;
    if (v->copied)
        ek_copy_band(&v->x, image, (int64_t)oy * a->stride[0] - a->pad[0], (uint32_t)band_rows(v, rows), a->pad[1], cols, s);
    g.a = v->copied ? s : image + (size_t)oy * a->stride[0] * d[2] * d[3] * elem_of(v);
    g.m = rows * ow;
    g.width = ow;
    g.segment = v->run;
    g.lda = (ptrdiff_t)a->stride[1] * v->ci;
    g.line = (ptrdiff_t)a->stride[0] * cols * v->ci;
    g.gap = (ptrdiff_t)a->dilation[0] * cols * v->ci;
    g.y = v->y.data + ((size_t)(t / bands) * oh + oy) * ow * v->y.dims[3] * elem_of(v);
    g.ldy = (ptrdiff_t)v->y.dims[3];
    ek_rows_part(&v->rows, &g, part);
    ek_rows_run(&v->rows, &g, room);
}

/* output rows of a band: what scratch or the cache holds; 0 where the kernel reads no windows or not even one fits */
static uint32_t band_of(conv *v)
{
    const ek_attr_conv2d *a = v->a;
    uint32_t oh = v->y.dims[1], n = ek_min_u32(oh, 32), pad = v->run - a->kernel[1] * v->ci;
    v->copied = pad || a->pad[0] || a->pad[1] || a->pad[2] || a->pad[3];
    if (!windows(v) || v->groups != 1 || a->dilation[1] != 1 || (v->run % v->rows.deep && v->k > v->c->k->odd_k))
        return 0;
    uint64_t row = (uint64_t)band_cols(v) * v->ci * elem_of(v), room = v->copied ? v->c->granted - v->rows.room : BAND_ITEMS * elem_of(v);
    while (n > !v->copied && band_rows(v, n) * row + pad * elem_of(v) > room)
        n--;
    return n;
}

/* 1: done in bands */
static int in_bands(conv *v)
{
    if (v->band)
        ek_for(v->c, band, v, v->tiles);
    return v->band != 0;
}
#else
static uint32_t band_of(conv *v) { (void)v; return 0; }
/* 1: done, the windows inside the image read where they lie.  Its locals are no part of what other ways need of the stack. */
static __attribute__((noinline)) int in_bands(conv *v)
{
    const ek_attr_conv2d *a = v->a;
    const uint32_t *d = v->x.dims;
    uint32_t ow = v->y.dims[2], oh = v->y.dims[1], pixels = v->y.dims[0] * oh * ow;
    uint32_t x0 = v->x0, x1 = v->x1 - (v->x1 - x0) % 2; /* kernels take rows by two */
    uint32_t last = (v->y1 - 1) * a->stride[0] - a->pad[0] + (a->kernel[0] - 1u) * a->dilation[0] + 1; /* input row, counted from 1 */
    size_t line = (size_t)d[2] * v->ci;
    if (!(EK_WIDE ? v->wide : windows(v) && v->rows.bits >= 8) || v->run % v->rows.g.kr || v->y0 == v->y1 || v->run > line)
        return 0;
    uint32_t y1 = v->y1 - (last == d[1] && v->run > a->kernel[1] * v->ci); /* nothing may be read past the tensor */
    uint32_t tile = v->wide ? 2 : ek_tile_rows(v->c, &v->rows, v->kp * elem_of(v), pixels);
    uint8_t *room = ek_scratch(v->c, 0);
    for (uint32_t m = 0, n; m < pixels; m += n) {
        uint32_t ox = m % ow, oy = m / ow % oh, b = m / ow / oh;
        ek_gemm g = v->rows.g;
        g.ldy = (ptrdiff_t)v->y.dims[3];
        g.y = v->y.data + (size_t)m * v->y.dims[3] * elem_of(v);
        if (oy < v->y0 || oy >= y1 || ox < x0 || ox >= x1) { /* up to the next inside, which may follow in the next row */
            n = x0 < x1 ? (ox < x0 ? x0 - ox : ow - ox + x0) : tile;
            n = ek_min_u32(ek_min_u32(n, tile), pixels - m);
            gathered(v, &g, m, n, 0, room);
            continue;
        }
        n = x1 - ox;
        g.a = v->x.data + (((size_t)b * d[1] + oy * a->stride[0] - a->pad[0]) * line
                           + (size_t)(ox * a->stride[1] - a->pad[1]) * v->ci) * elem_of(v);
        g.lda = (ptrdiff_t)a->stride[1] * v->ci;
        g.m = g.width = n;
        g.segment = v->run;
        g.gap = (ptrdiff_t)(a->dilation[0] * line);
        g.wide = EK_WIDE ? (uint32_t *)(void *)(room + v->rows.room) : 0;
        ek_rows_run(&v->rows, &g, room);
    }
    return 1;
}
#endif

/* finds y0, y1, x0 and x1 */
static void find_inside(conv *v)
{
    const ek_attr_conv2d *a = v->a;
    v->y0 = v->y1 = v->x0 = v->x1 = 0;
    if (v->groups != 1 || a->dilation[1] != 1)
        return;
    ek_inside(v->x.dims[1], v->y.dims[1], a->kernel[0], a->stride[0], a->dilation[0], a->pad[0], &v->y0, &v->y1);
    ek_inside(v->x.dims[2], v->y.dims[2], a->kernel[1], a->stride[1], 1, a->pad[1], &v->x0, &v->x1);
}

/* how the pixels are shared out; needs the scratch that `check` asks for */
static void plan(conv *v)
{
    const ek_ctx *c = v->c;
    uint32_t pixels = v->y.dims[0] * v->y.dims[1] * v->y.dims[2];
    v->rows.in_place = direct(v);
    v->wide = EK_WIDE && v->run % 4 == 0 && pixels > 1
              && ek_takes_pairs(c, &v->rows, ek_wide_bytes(v->kp) + (v->rows.in_place ? 0 : v->kp));
    find_inside(v);
    v->band = v->rows.in_place ? 0 : band_of(v);
    if (EK_BANDS && v->band) {
        v->tiles = v->y.dims[0] * ek_rows_share(c, &v->rows, v->y.dims[1], v->y.dims[2], v->band);
        v->band = v->rows.tile;
    } else {
        uint32_t most = ek_tile_rows(c, &v->rows, v->rows.in_place ? 0 : v->kp * elem_of(v), pixels);
        v->tiles = ek_rows_share(c, &v->rows, pixels, 1, !v->wide ? most : !v->rows.in_place ? 2 : c->threads > 1 ? 32 : pixels);
    }
}

static int check(const ek_ctx *c)
{
    conv v;
    const ek_attr_conv2d *a = (const ek_attr_conv2d *)c->attr;
    if (!setup(c, &v) || !ek_window_ok(&v.x, &v.y, a->stride, a->dilation, a->pad, a->kernel)
        || !ek_ends_ok(&v.x, &v.y, a->lo, a->hi, a->w_zero))
        return 0;
    int nothing = direct(&v) && v.k % v.rows.deep == 0;
    if (c->granted < (nothing ? 0 : (uint64_t)v.kp * elem_of(&v)) + v.rows.room)
        return 0;
    if (EK_KEEP)
        plan(&v);
    ek_keep(c, &v, sizeof v);
    return 1;
}

static int run(const ek_ctx *c)
{
    conv own, *v = (conv *)ek_kept(c);
    if (!v) {
        if (!setup(c, v = &own))
            return 0;
        plan(v);
    }
    if (v->rows.in_place || !in_bands(v))
        ek_for(c, tile, v, v->tiles);
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
