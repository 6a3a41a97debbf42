/* Transposed convolution as one small convolution per phase: output pixels whose row and column have the same rest modulo
 * the stride read the same taps.  Each phase has its own weights, padded to taps[0] x taps[1] with taps that count
 * nothing; its pixels are gathered into scratch and go through the GEMM, a tile of them at a time. */
#include <string.h>
#include "attrs.h"
#include "gemm.h"

typedef struct deconv {
    const ek_ctx *c;
    const ek_attr_conv_transpose2d *a;
    ek_view x, y; /* (n, h, w, c) */
    ek_rows rows;
    uint32_t elem, k, kp, ci, co; /* bytes; inputs of one output, padded to kr; channels of a group */
} deconv;

static int setup(const ek_ctx *c, deconv *v)
{
    const ek_attr_conv_transpose2d *a = (const ek_attr_conv_transpose2d *)c->attr;
    v->c = c;
    v->a = a;
    v->x = ek_in(c, 0);
    v->y = ek_out(c, 0);
    if (!v->x.rec || !v->y.rec || v->x.rank != 4 || v->y.rank != 4 || !a->groups || a->groups > v->x.dims[3])
        return 0;
    v->ci = v->x.dims[3] / a->groups;
    v->co = v->y.dims[3] / a->groups;
    uint64_t k = (uint64_t)a->taps[0] * a->taps[1] * v->ci, blobs = (uint64_t)a->stride[0] * a->stride[1] * a->groups;
    if (!k || k > 0xffffffu || !blobs || blobs > 0xffffu || v->ci * a->groups != v->x.dims[3]
        || v->co * a->groups != v->y.dims[3])
        return 0;
    v->k = (uint32_t)k;
    v->elem = v->x.dtype == EK_F32 ? 4 : 1;
    if (!ek_rows_setup(c, &v->rows, 1, v->x.dtype, &v->y, v->co, v->k, (uint32_t)blobs) || v->rows.dynamic
        || v->rows.room)
        return 0;
    v->kp = ek_up(v->k, v->rows.deep);
    v->rows.g.lo = a->lo;
    v->rows.g.hi = a->hi;
    v->rows.g.w_zero = v->elem == 1 ? a->w_zero : 0;
    return 1;
}

/* output length: (size - 1) * stride + span + extra - pads */
static int length_ok(uint32_t size, uint32_t out, const ek_attr_conv_transpose2d *a, int i)
{
    int64_t span = (int64_t)(a->kernel[i] - 1) * a->dilation[i] + 1;
    return a->stride[i] && a->dilation[i] && a->kernel[i] && a->extra[i] < (uint32_t)a->stride[i] + a->dilation[i]
           && out == (int64_t)(size - 1) * a->stride[i] + span + a->extra[i] - a->pad[i] - a->pad[i + 2];
}

static int check(const ek_ctx *c)
{
    deconv v;
    const ek_attr_conv_transpose2d *a = (const ek_attr_conv_transpose2d *)c->attr;
    if (!setup(c, &v) || !ek_ends_ok(&v.x, &v.y, a->lo, a->hi, a->w_zero)
        || v.x.dims[0] != v.y.dims[0] || !length_ok(v.x.dims[1], v.y.dims[1], a, 0)
        || !length_ok(v.x.dims[2], v.y.dims[2], a, 1))
        return 0;
    return c->granted >= (uint64_t)v.kp * v.elem;
}

/* The next tap at or after *i of output index o (padding added) that meets an input: its input index; or -1, the tap
 * lies outside, or -2, no tap is left. */
static int64_t next_tap(uint32_t o, uint32_t *i, uint32_t kernel, uint32_t stride, uint32_t dilation, uint32_t size)
{
    for (; *i < kernel; (*i)++) {
        int64_t at = (int64_t)o - (int64_t)*i * dilation;
        if (at % stride)
            continue;
        at = at < 0 ? -1 : at / stride;
        (*i)++;
        return at < size ? at : -1;
    }
    return -2;
}

/* inputs (taps, taps, ci) of output pixel (oy, ox), padding added to both, of group gi */
static void gather(const deconv *v, uint8_t *row, const uint8_t *base, uint32_t oy, uint32_t ox, uint32_t gi)
{
    const ek_attr_conv_transpose2d *a = v->a;
    const uint32_t *d = v->x.dims;
    uint32_t seg = v->ci * v->elem, i = 0;
    int fill = v->elem == 1 ? v->x.zero : 0;
    for (uint32_t r = 0; r < a->taps[0]; r++) {
        int64_t iy = next_tap(oy, &i, a->kernel[0], a->stride[0], a->dilation[0], d[1]);
        uint32_t j = 0;
        for (uint32_t s = 0; s < a->taps[1]; s++, row += seg) {
            int64_t ix = next_tap(ox, &j, a->kernel[1], a->stride[1], a->dilation[1], d[2]);
            if (iy < 0 || ix < 0)
                memset(row, fill, seg);
            else
                memcpy(row, base + (((size_t)iy * d[2] + (size_t)ix) * a->groups + gi) * seg, seg);
        }
    }
    memset(row, 0, (size_t)(v->kp - v->k) * v->elem);
}

/* one output row: the phases of its columns one after the other */
static void tile(void *arg, unsigned t, unsigned thread)
{
    const deconv *v = (const deconv *)arg;
    const ek_attr_conv_transpose2d *a = v->a;
    uint32_t oh = v->y.dims[1], ow = v->y.dims[2], oc = v->y.dims[3], sw = a->stride[1], oy = t % oh + a->pad[0];
    const uint8_t *base = v->x.data + (size_t)(t / oh) * v->x.dims[1] * v->x.dims[2] * v->x.dims[3] * v->elem;
    uint8_t *y = v->y.data + (size_t)t * ow * oc * v->elem, *s = ek_scratch(v->c, thread);
    ek_gemm g = v->rows.g;
    g.a = s;
    g.lda = (ptrdiff_t)v->kp;
    g.ldy = (ptrdiff_t)sw * (ptrdiff_t)oc;
    for (uint32_t x0 = 0; x0 < sw && x0 < ow; x0++) {
        uint32_t phase = oy % a->stride[0] * sw + (x0 + a->pad[1]) % sw, n = (ow - x0 - 1) / sw + 1;
        for (uint32_t p = 0; p < n; p += v->rows.tile) {
            g.m = ek_min_u32(v->rows.tile, n - p);
            for (uint32_t gi = 0; gi < a->groups; gi++) {
                for (uint32_t i = 0; i < g.m; i++)
                    gather(v, s + (size_t)i * v->kp * v->elem, base, oy, x0 + (p + i) * sw + a->pad[1], gi);
                g.w = v->rows.g.w + ((size_t)phase * a->groups + gi) * v->rows.group_bytes;
                g.y = y + ((size_t)(x0 + p * sw) * oc + (size_t)gi * v->co) * v->elem;
                v->rows.fn(&g);
            }
        }
    }
}

static int run(const ek_ctx *c)
{
    deconv v;
    if (!setup(c, &v))
        return 0;
    v.rows.tile = ek_tile_rows(c, &v.rows, v.kp * v.elem, v.y.dims[2]);
    ek_for(c, tile, &v, v.y.dims[0] * v.y.dims[1]);
    return 1;
}

static unsigned kernel(const ek_ctx *c)
{
    deconv v;
    return setup(c, &v) ? ek_rows_slot(c, &v.rows) : EK_K_NONE;
}

const ek_op_def ek_op_conv_transpose2d = {
    EK_OP_CONV_TRANSPOSE2D, 1, sizeof(ek_attr_conv_transpose2d), 2, 2, 1, 1, "conv_transpose2d", check, run, kernel,
};
