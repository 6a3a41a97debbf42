/* 3x3 float convolution of stride 1 by Winograd's F(4x4, 3x3): 36 products of transformed tiles and weights give 16 outputs,
 * a quarter of the multiplications.  Blocks of tiles go through scratch: transformed inputs (36, tiles, ci), then for each
 * panel of outputs 36 GEMMs and the transform back. */
#include <string.h>
#include "attrs.h"
#include "gemm.h"
#include "winograd_points.h"

enum { PANEL = 64, ALIGN = 64, SKEW = 16 }; /* outputs of a panel; SKEW floats keep planes out of each other's cache sets:
                                              * twin of edgekit/ops/winograd.py */

typedef struct wino {
    const ek_ctx *c;
    const ek_attr_winograd *a;
    ek_view x, bias, y; /* (n, h, w, c) */
    ek_rows rows;
    uint32_t ci, co, panel;
    uint32_t across, down; /* tiles of an image */
    uint32_t tiles, block; /* of all images; of a block */
    void (*in)(const float *const px[36], float *v, size_t plane, uint32_t channels);
    void (*out)(const float *m, size_t plane, const float *bias, const ek_wino_out *o, float *y, uint32_t channels);
} wino;

static void in_portable(const float *const px[36], float *v, size_t plane, uint32_t channels)
{
    for (uint32_t c = 0; c < channels; c++) {
        float t[36], d[6], r[6];
        for (int j = 0; j < 6; j++) {
            for (int i = 0; i < 6; i++)
                d[i] = px[i * 6 + j][c];
            EK_WINO_IN(d, t, j, 6);
        }
        for (int i = 0; i < 6; i++) {
            EK_WINO_IN((t + i * 6), r, 0, 1);
            for (int j = 0; j < 6; j++)
                v[(size_t)(i * 6 + j) * plane + c] = r[j];
        }
    }
}

static void out_portable(const float *m, size_t plane, const float *bias, const ek_wino_out *o, float *y, uint32_t channels)
{
    for (uint32_t c = 0; c < channels; c++) {
        float t[24], d[6], r[4];
        for (int j = 0; j < 6; j++) {
            for (int i = 0; i < 6; i++)
                d[i] = m[(size_t)(i * 6 + j) * plane + c];
            EK_WINO_OUT(d, t, j, 6);
        }
        for (uint32_t i = 0; i < o->rows; i++) {
            EK_WINO_OUT((t + i * 6), r, 0, 1);
            for (uint32_t j = 0; j < o->cols; j++)
                y[(ptrdiff_t)i * o->row + (ptrdiff_t)j * o->col + c] = ek_clamp_f32(r[j] + bias[c], o->lo, o->hi);
        }
    }
}

static const uint16_t ones[2] = { 1, 1 }, three[2] = { 3, 3 };

static int setup(const ek_ctx *c, wino *v)
{
    v->c = c;
    v->a = (const ek_attr_winograd *)c->attr;
    v->x = ek_in(c, 0);
    v->bias = ek_in(c, 2);
    v->y = ek_out(c, 0);
    if (!v->x.rec || !v->y.rec || v->x.rank != 4 || v->y.rank != 4 || v->x.dtype != EK_F32 || v->y.dtype != EK_F32)
        return 0;
    v->ci = v->x.dims[3];
    v->co = v->y.dims[3];
    if (!ek_is(&v->bias, EK_F32, 1) || v->bias.count != v->co || v->ci > 0xffffu || v->co > 0xffffu
        || !ek_rows_setup(c, &v->rows, 1, EK_F32, &v->y, v->co, v->ci, 36) || v->rows.dynamic)
        return 0;
    v->panel = ek_min_u32(ek_up(v->co, v->rows.g.nr), ek_up(PANEL, v->rows.g.nr));
    v->down = (v->y.dims[1] + 3) / 4;
    v->across = (v->y.dims[2] + 3) / 4;
    uint64_t fixed = ALIGN + 8 * 36 * SKEW + 4 * (uint64_t)v->ci, each = 36 * 4 * (uint64_t)(v->ci + v->panel);
    if (c->granted < fixed + each)
        return 0;
    v->tiles = v->y.dims[0] * v->down * v->across;
    v->block = (uint32_t)ek_div_u64(c->granted - fixed, (uint32_t)each);
    uint32_t blocks = (v->tiles - 1) / v->block + 1, threads = c->threads;
    blocks = ek_min_u32((blocks + threads - 1) / threads * threads, v->tiles); /* as many for every thread */
    v->block = (v->tiles - 1) / blocks + 1;
    uint32_t lanes = c->k->wino_lanes;
    int fits = lanes && v->ci >= lanes && v->co >= lanes && (v->co % v->panel == 0 || v->co % v->panel >= lanes);
    v->in = fits ? c->k->wino_in : in_portable;
    v->out = fits ? c->k->wino_out : out_portable;
    v->rows.g.lo = -3.402823466e38f; /* sums are not clamped before the transform */
    v->rows.g.hi = 3.402823466e38f;
    return 1;
}

static int check(const ek_ctx *c)
{
    wino v;
    return setup(c, &v) && ek_window_ok(&v.x, &v.y, ones, ones, v.a->pad, three);
}

/* where the 6x6 inputs of a tile lie; what is outside of the image is `zeros` */
static void inputs(const wino *v, uint32_t tile, const float *zeros, const float *px[36])
{
    uint32_t b = tile / (v->down * v->across), at = tile % (v->down * v->across), h = v->x.dims[1], w = v->x.dims[2];
    int64_t y0 = (int64_t)(at / v->across) * 4 - v->a->pad[0], x0 = (int64_t)(at % v->across) * 4 - v->a->pad[1];
    const float *image = (const float *)(const void *)v->x.data + (size_t)b * h * w * v->ci;
    for (int i = 0; i < 6; i++) {
        int64_t y = y0 + i;
        for (int j = 0; j < 6; j++) {
            int64_t x = x0 + j;
            int there = y >= 0 && y < h && x >= 0 && x < w;
            px[i * 6 + j] = there ? image + ((size_t)y * w + (size_t)x) * v->ci : zeros;
        }
    }
}

/* outputs [n0, n0 + n) of the tiles from t0 on */
static void outputs(const wino *v, const float *m, size_t plane, uint32_t t0, uint32_t tiles, uint32_t n0, uint32_t n)
{
    uint32_t oh = v->y.dims[1], ow = v->y.dims[2];
    const float *bias = (const float *)(const void *)v->bias.data + n0;
    for (uint32_t t = 0; t < tiles; t++) {
        uint32_t b = (t0 + t) / (v->down * v->across), at = (t0 + t) % (v->down * v->across);
        uint32_t oy = at / v->across * 4, ox = at % v->across * 4;
        ek_wino_out o = { (ptrdiff_t)(ow * (size_t)v->co), (ptrdiff_t)v->co, ek_min_u32(4, oh - oy), ek_min_u32(4, ow - ox),
                          v->a->lo, v->a->hi };
        float *y = (float *)(void *)v->y.data + (((size_t)b * oh + oy) * ow + ox) * v->co + n0;
        v->out(m + (size_t)t * v->panel, plane, bias, &o, y, n);
    }
}

static void block(void *arg, unsigned t, unsigned thread)
{
    const wino *v = (const wino *)arg;
    uint8_t *s = ek_scratch(v->c, thread);
    s += (0u - (uintptr_t)s) % ALIGN;
    uint32_t t0 = t * v->block, tiles = ek_min_u32(v->block, v->tiles - t0), nr = v->rows.g.nr;
    size_t plane = (size_t)v->block * v->ci + SKEW, products = (size_t)v->block * v->panel + SKEW;
    float *in = (float *)(void *)s, *out = in + 36 * plane, *zeros = out + 36 * products;
    const float *px[36];
    memset(zeros, 0, v->ci * sizeof *zeros);
    for (uint32_t i = 0; i < tiles; i++) {
        inputs(v, t0 + i, zeros, px);
        v->in(px, in + (size_t)i * v->ci, plane, v->ci);
    }
    ek_gemm g = v->rows.g;
    g.m = tiles;
    g.lda = (ptrdiff_t)v->ci;
    g.ldy = (ptrdiff_t)v->panel;
    for (uint32_t n0 = 0; n0 < v->co; n0 += v->panel) {
        g.n = ek_min_u32(v->panel, v->co - n0);
        for (uint32_t f = 0; f < 36; f++) {
            g.w = v->rows.g.w + f * v->rows.group_bytes + (size_t)(n0 / nr) * nr * 4 * (1 + (size_t)v->ci);
            g.a = in + f * plane;
            g.y = out + f * products;
            v->rows.fn(&g);
        }
        outputs(v, out, products, t0, tiles, n0, g.n);
    }
}

static int run(const ek_ctx *c)
{
    wino v;
    if (!setup(c, &v))
        return 0;
    ek_for(c, block, &v, (v.tiles - 1) / v.block + 1);
    return 1;
}

static unsigned kernel(const ek_ctx *c)
{
    wino v;
    return setup(c, &v) ? ek_rows_slot(c, &v.rows) : EK_K_NONE;
}

const ek_op_def ek_op_winograd = {
    EK_OP_WINOGRAD, 1, sizeof(ek_attr_winograd), 3, 3, 1, 1, "winograd", check, run, kernel,
};
