/* int16 activations by int8 weights: convolutions, matrix products, means.  Rows of inputs are read where they lie or gathered
 * into scratch; a depthwise convolution takes a pixel at a time, by pointers to its taps, those outside of the image to zeros. */
#include <string.h>
#include "attrs.h"
#include "gemm.h"

typedef struct conv {
    const ek_ctx *c;
    const ek_attr_conv16 *a;
    ek_view x, y;
    uint32_t in[4], out[4]; /* (n, h, w, c) of x and y: a matrix product is a row of pixels */
    ek_gemm16 g;
    uint32_t kp, ci, og, taps, tile;
    uint32_t depthwise, direct;
    size_t group_bytes;
} conv;

static void shape_of(const ek_view *v, uint32_t *dims)
{
    uint32_t last = v->dims[v->rank - 1];
    if (v->rank == 4) {
        memcpy(dims, v->dims, 4 * sizeof *dims);
    } else {
        dims[0] = dims[1] = 1;
        dims[2] = v->count / last;
        dims[3] = last;
    }
}

static int setup(const ek_ctx *c, conv *v)
{
    const ek_attr_conv16 *a = (const ek_attr_conv16 *)c->attr;
    const ek_variant *w = 0;
    memset(v, 0, sizeof *v);
    v->c = c;
    v->a = a;
    v->x = ek_in(c, 0);
    v->y = ek_out(c, 0);
    if (!v->x.rec || !v->y.rec || !v->x.rank || !v->y.rank || !v->x.count || !v->y.count || !a->groups)
        return 0;
    shape_of(&v->x, v->in);
    shape_of(&v->y, v->out);
    if (v->x.rank == 4 && v->y.rank != 4) { /* a mean that drops its axes */
        v->out[0] = v->in[0];
        v->out[1] = a->kernel[0] == 1 ? v->in[1] : 1;
        v->out[2] = a->kernel[1] == 1 ? v->in[2] : 1;
        if ((uint64_t)v->out[0] * v->out[1] * v->out[2] * v->out[3] != v->y.count)
            return 0;
    }
    uint32_t n = v->out[3];
    v->ci = v->in[3] / a->groups;
    v->og = n / a->groups;
    if (v->ci * a->groups != v->in[3] || v->og * a->groups != n)
        return 0;
    v->depthwise = a->groups > 1 && v->ci == 1 && v->og == 1;
    uint32_t kr = v->depthwise ? 1 : EK_KR16;
    uint64_t k = (uint64_t)a->kernel[0] * a->kernel[1] * v->ci;
    const uint8_t *blob = ek_packed(c, 1, EK_ENC_PLAIN, EK_NR16, kr, 0, &w);
    if (!blob || !k || k > 0xffffffu || w->nr != EK_NR16 || w->kr != kr
        || !ek_variant_ok(w, EK_I8, v->depthwise ? n : v->og, k, v->depthwise ? 1 : a->groups))
        return 0;
    v->taps = (uint32_t)a->kernel[0] * a->kernel[1];
    v->kp = ek_up((uint32_t)k, EK_KR16);
    v->group_bytes = (size_t)ek_up(v->og, EK_NR16) * (8 + v->kp);
    v->direct = v->taps == 1 && a->groups == 1 && a->stride[0] == 1 && a->stride[1] == 1 && v->kp == k
                && !(a->pad[0] | a->pad[1] | a->pad[2] | a->pad[3]);
    v->g = (ek_gemm16){ .w = blob, .n = v->og, .k = (uint32_t)k, .size = v->y.dtype == EK_I8 ? 1 : 2, .lo = a->lo, .hi = a->hi,
                        .zero = v->y.zero, .ldy = (ptrdiff_t)n };
    return 1;
}

static uint64_t scratch_of(const conv *v) /* least */
{
    if (v->depthwise)
        return (uint64_t)v->taps * 8 + (uint64_t)v->in[3] * 2;
    return v->direct ? 0 : (uint64_t)v->kp * 2;
}

static int check(const ek_ctx *c)
{
    conv v;
    const ek_attr_conv16 *a = (const ek_attr_conv16 *)c->attr;
    if (!setup(c, &v) || v.x.dtype != EK_I16 || v.x.zero || (v.y.dtype != EK_I16 && v.y.dtype != EK_I8))
        return 0;
    ek_view x = v.x, y = v.y;
    x.dims = v.in;
    y.dims = v.out;
    x.rank = y.rank = 4;
    if (!ek_window_ok(&x, &y, a->stride, a->dilation, a->pad, a->kernel))
        return 0;
    int bounds = v.y.dtype == EK_I8 ? ek_bounds_ok(a->lo, a->hi, v.y.zero)
                                    : !v.y.zero && a->lo >= -32768.0f && a->hi <= 32767.0f && a->lo <= a->hi;
    return bounds && c->granted >= scratch_of(&v);
}

/* the inputs (kh, kw, ci) of group gi of output pixel (b, oy, ox), zeros up to kp */
static void gather(const conv *v, int16_t *row, uint32_t b, uint32_t oy, uint32_t ox, uint32_t gi)
{
    const ek_attr_conv16 *a = v->a;
    const int16_t *image = (const int16_t *)(const void *)v->x.data + (size_t)b * v->in[1] * v->in[2] * v->in[3] + (size_t)gi * v->ci;
    for (uint32_t i = 0; i < a->kernel[0]; i++) {
        int64_t iy = (int64_t)oy * a->stride[0] + (int64_t)i * a->dilation[0] - a->pad[0];
        for (uint32_t j = 0; j < a->kernel[1]; j++, row += v->ci) {
            int64_t ix = (int64_t)ox * a->stride[1] + (int64_t)j * a->dilation[1] - a->pad[1];
            if (iy < 0 || iy >= v->in[1] || ix < 0 || ix >= v->in[2])
                memset(row, 0, (size_t)v->ci * 2);
            else
                memcpy(row, image + ((size_t)iy * v->in[2] + (size_t)ix) * v->in[3], (size_t)v->ci * 2);
        }
    }
    if (v->kp > v->g.k)
        *row = 0;
}

/* rows of pixels */
static void tile(void *arg, unsigned t, unsigned thread)
{
    const conv *v = (const conv *)arg;
    uint32_t pixels = v->out[0] * v->out[1] * v->out[2], m0 = t * v->tile, m = ek_min_u32(v->tile, pixels - m0);
    ek_gemm16 g = v->g;
    int16_t *rows = (int16_t *)(void *)ek_scratch(v->c, thread);
    g.m = m;
    for (uint32_t gi = 0; gi < v->a->groups; gi++, g.w += v->group_bytes) {
        g.y = v->y.data + ((size_t)m0 * v->out[3] + (size_t)gi * v->og) * g.size;
        g.a = v->direct ? (const int16_t *)(const void *)v->x.data + (size_t)m0 * v->in[3] : rows;
        g.lda = (ptrdiff_t)(v->direct ? v->in[3] : v->kp);
        for (uint32_t i = 0; i < m && !v->direct; i++) {
            uint32_t p = m0 + i, ox = p % v->out[2], oy = p / v->out[2] % v->out[1];
            gather(v, rows + (size_t)i * v->kp, p / v->out[2] / v->out[1], oy, ox, gi);
        }
        v->c->k->gemm_s16(&g);
    }
}

/* one output row, depthwise */
static void row(void *arg, unsigned t, unsigned thread)
{
    const conv *v = (const conv *)arg;
    const ek_attr_conv16 *a = v->a;
    uint32_t oy = t % v->out[1], ch = v->in[3];
    const int16_t *image = (const int16_t *)(const void *)v->x.data + (size_t)(t / v->out[1]) * v->in[1] * v->in[2] * ch;
    const int16_t **taps = (const int16_t **)(void *)ek_scratch(v->c, thread);
    int16_t *zeros = (int16_t *)(void *)(ek_scratch(v->c, thread) + (size_t)v->taps * 8);
    ek_dw16 d = { taps, v->g.w, v->y.data + (size_t)t * v->out[2] * ch * v->g.size, v->taps, ch, v->g.size, a->lo, a->hi, v->g.zero };
    memset(zeros, 0, (size_t)ch * 2);
    for (uint32_t ox = 0; ox < v->out[2]; ox++) {
        const int16_t **p = taps;
        for (uint32_t i = 0; i < a->kernel[0]; i++) {
            int64_t iy = (int64_t)oy * a->stride[0] + (int64_t)i * a->dilation[0] - a->pad[0];
            for (uint32_t j = 0; j < a->kernel[1]; j++) {
                int64_t ix = (int64_t)ox * a->stride[1] + (int64_t)j * a->dilation[1] - a->pad[1];
                int out = iy < 0 || iy >= v->in[1] || ix < 0 || ix >= v->in[2];
                *p++ = out ? zeros : image + ((size_t)iy * v->in[2] + (size_t)ix) * ch;
            }
        }
        v->c->k->dw_s16(&d);
        d.y = (uint8_t *)d.y + (size_t)ch * d.size;
    }
}

static int run(const ek_ctx *c)
{
    conv v;
    if (!setup(c, &v))
        return 0;
    if (v.depthwise) {
        ek_for(c, row, &v, v.out[0] * v.out[1]);
        return 1;
    }
    uint32_t pixels = v.out[0] * v.out[1] * v.out[2];
    v.tile = ek_min_u32(pixels, v.direct ? 64 : c->granted / (v.kp * 2));
    ek_for(c, tile, &v, (pixels - 1) / v.tile + 1);
    return 1;
}

static unsigned kernel(const ek_ctx *c)
{
    conv v;
    return !setup(c, &v) ? EK_K_NONE : v.depthwise ? EK_K_DW_S16 : EK_K_GEMM_S16;
}

const ek_op_def ek_op_conv16 = { EK_OP_CONV16, 1, sizeof(ek_attr_conv16), 2, 2, 1, 1, "conv16", check, run, kernel };
