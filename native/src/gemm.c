#include <string.h>
#include "gemm.h"
#include "portable.h"

/* int8 weights, sparse ones where the CPU has a kernel for them */
static const uint8_t *packed_s8(const ek_ctx *c, uint32_t i, const ek_variant **v)
{
    const ek_kernels *k = c->k;
    if (!EK_USES(GEMM_SPARSE))
        return ek_packed(c, i, EK_ENC_PLAIN, k->s8_nr, k->s8_kr, k->s8_xoff, v);
    const uint8_t *w = k->nm_nr ? ek_packed(c, i, EK_ENC_NM, k->nm_nr, k->nm_kr, k->s8_xoff, v) : 0;
    if (!w && k->blocks_nr)
        w = ek_packed(c, i, EK_ENC_BLOCKS, k->blocks_nr, k->blocks_kr, k->s8_xoff, v);
    if (!w)
        w = ek_packed(c, i, EK_ENC_PLAIN, k->s8_nr, k->s8_kr, k->s8_xoff, v);
    return w ? w : ek_packed(c, i, EK_ENC_ANY, k->s8_nr, k->s8_kr, k->s8_xoff, v);
}

/* ek_rows_setup of an encoding: ek_open has looked at its lists, which hold for the n and k of the tensor */
static int sparse(const ek_ctx *c, ek_rows *r, const ek_variant *v, const uint8_t *w, uint32_t i, const ek_view *y, uint32_t n,
                  uint32_t k, uint32_t groups)
{
    ek_view t = ek_in(c, i);
    uint32_t encoding = ek_encoding(c, v), kind = encoding & 0xff;
    int fits = kind == EK_ENC_NM ? v->nr == c->k->nm_nr && v->kr == c->k->nm_kr : v->nr == c->k->blocks_nr && v->kr == c->k->blocks_kr;
    if (groups != 1 || t.dims[0] != n || t.dims[1] != k)
        return 0;
    fits = fits && (c->k->s8_xoff == EK_XOFF_ANY || c->k->s8_xoff == v->xoff);
    r->bits = 8;
    r->room = 0;
    r->dynamic = 0;
    r->group_bytes = v->bytes;
    r->deep = kind == EK_ENC_NM ? EK_CHUNK : v->kr;
    r->g = (ek_gemm){ .w = w, .n = n, .k = k, .nr = v->nr, .kr = v->kr, .xoff = v->xoff, .zero = y->zero,
                      .encoding = (uint8_t)kind, .slots = (uint8_t)(encoding >> 8) };
    r->fn = fits ? c->k->gemm_sparse : ek_gemm_sparse_portable;
    return 1;
}

int ek_rows_setup(const ek_ctx *c, ek_rows *r, uint32_t i, uint32_t dtype, const ek_view *y, uint32_t n, uint32_t k,
                  uint32_t groups)
{
    const ek_variant *v = 0;
    int is_float = dtype == EK_F32;
    const uint8_t *w = is_float ? ek_packed(c, i, EK_ENC_PLAIN, c->k->f32_nr, 1, 0, &v) : packed_s8(c, i, &v);
    if (!w)
        return 0;
    if (ek_encoding(c, v))
        return EK_USES(GEMM_SPARSE) && !is_float && sparse(c, r, v, w, i, y, n, k, groups);
    int dynamic = r->dynamic = is_float && v->dtype != EK_F32;
    if (dynamic)
        w = ek_packed(c, i, EK_ENC_PLAIN, c->k->s8_nr, c->k->s8_kr, 0, &v);
    r->bits = v->dtype == EK_F32 ? 32 : v->dtype == EK_I4 ? 4 : v->dtype == EK_I2 ? 2 : 8;
    if ((v->dtype == EK_F32) != (is_float && !dynamic) || !ek_variant_ok(v, v->dtype, n, k, groups) || !n || !k)
        return 0;
    if ((is_float && v->xoff) || (r->bits < 8 && !EK_NARROW))
        return 0;
    uint64_t depth = (uint64_t)ek_up(k, v->kr) * v->nr, blocks = (n + v->nr - 1u) / v->nr;
    uint64_t room = 8u * v->nr + depth + 15u, group = blocks * (r->bits == 32 ? 4 * (v->nr + depth) : 8u * v->nr + depth * r->bits / 8);
    if (room > 0x7fffffffu || group > v->bytes)
        return 0;
    r->room = r->bits < 8 ? (uint32_t)(room / 16 * 16) : 0;
    r->group_bytes = (size_t)group;
    r->deep = v->kr;
    r->g = (ek_gemm){ .w = w, .n = n, .k = k, .nr = v->nr, .kr = v->kr, .xoff = v->xoff, .zero = y->zero };
    int fits = v->nr == c->k->s8_nr && v->kr == c->k->s8_kr;
    if (dynamic)
        r->fn = fits ? c->k->gemm_dyn : EK_USES(GEMM_DYN) ? ek_gemm_dyn_portable : 0;
    else if (is_float)
        r->fn = v->nr == c->k->f32_nr && v->kr == 1 ? c->k->gemm_f32 : EK_USES(GEMM_F32) ? ek_gemm_f32_portable : 0;
    else
        r->fn = fits && (c->k->s8_xoff == EK_XOFF_ANY || c->k->s8_xoff == v->xoff)
                    ? c->k->gemm_s8 : EK_USES(GEMM_S8) ? ek_gemm_s8_portable : 0;
    return r->fn && (!is_float || dynamic || v->kr == 1);
}

/* Element i of `count` lies in byte i % bytes, its plane i / bytes tells which bits (the lowest are plane 0), and is
 * stored plus 2^(bits - 1).  Planes keep neighbours apart by a byte: four at a time without a shuffle, on any CPU. */
static void unpack(const uint8_t *p, int8_t *w, size_t count, uint32_t bits)
{
    size_t bytes = count * bits / 8;
    uint32_t low = bits == 4 ? 0x0f0f0f0fu : 0x03030303u, half = bits == 4 ? 0x08080808u : 0x02020202u;
    for (uint32_t shift = 0; shift < 8; shift += bits, w += bytes) {
        size_t i = 0;
        for (; i + 4 <= bytes; i += 4) {
            uint32_t x;
            memcpy(&x, p + i, 4);
            x = (((x >> shift & low) | 0x80808080u) - half) ^ 0x80808080u; /* no byte borrows from the next */
            memcpy(w + i, &x, 4);
        }
        for (; i < bytes; i++)
            w[i] = (int8_t)((int)(p[i] >> shift & (low & 0xff)) - (int)(half & 0xff));
    }
}

void ek_rows_run(const ek_rows *r, const ek_gemm *g, uint8_t *room)
{
    if (!EK_NARROW || !r->room) {
        r->fn(g);
        return;
    }
    size_t head = 8u * g->nr, count = (size_t)ek_up(g->k, g->kr) * g->nr, size = r->dynamic ? 4 : 1;
    const uint8_t *p = g->w;
    ek_gemm one = *g;
    one.w = room;
    for (uint32_t n0 = 0; n0 < g->n; n0 += g->nr, p += head + count * r->bits / 8) {
        memcpy(room, p, head);
        unpack(p + head, (int8_t *)(room + head), count, r->bits);
        one.n = ek_min_u32(g->nr, g->n - n0);
        one.y = (uint8_t *)g->y + n0 * size;
        r->fn(&one);
    }
}

uint32_t ek_tile_rows(const ek_ctx *c, const ek_rows *r, uint32_t row_bytes, uint32_t rows)
{
    uint32_t t = c->k->tile_rows * (r->room ? 2u : 1u); /* more rows share what was unpacked */
    if (row_bytes)
        t = ek_min_u32(t, (c->rec->scratch - r->room) / row_bytes);
    else
        t *= 4; /* nothing is copied: larger tiles cost only balance between threads */
    return t ? ek_min_u32(t, rows ? rows : 1) : 1;
}

unsigned ek_rows_slot(const ek_ctx *c, const ek_rows *r)
{
    if (r->fn == c->k->gemm_s8)
        return EK_K_GEMM_S8;
    if (r->fn == c->k->gemm_sparse)
        return EK_K_GEMM_SPARSE;
    if (r->fn == c->k->gemm_dyn)
        return EK_K_GEMM_DYN;
    return r->fn == c->k->gemm_f32 ? EK_K_GEMM_F32 : EK_K_NONE;
}

void ek_copy_band(const ek_view *x, const uint8_t *image, int64_t first, uint32_t rows, uint32_t left, uint32_t cols, uint8_t *s)
{
    const uint32_t *d = x->dims;
    size_t px = (size_t)d[3] * (x->dtype == EK_F32 ? 4 : 1);
    int fill = x->dtype == EK_F32 ? 0 : x->zero;
    size_t before = ek_min_u32(left, cols), width = ek_min_u32(cols - (uint32_t)before, d[2]), after = cols - before - width;
    for (int64_t iy = first; rows; rows--, iy++, s += cols * px) {
        if (iy < 0 || iy >= d[1]) {
            memset(s, fill, cols * px);
            continue;
        }
        memset(s, fill, before * px);
        memcpy(s + before * px, image + (size_t)iy * d[2] * px, width * px);
        memset(s + (before + width) * px, fill, after * px);
    }
}

void ek_inside(uint32_t size, uint32_t out, uint32_t kernel, uint32_t stride, uint32_t dilation, uint32_t pad,
               uint32_t *first, uint32_t *end)
{
    uint64_t span = (uint64_t)(kernel - 1) * dilation + 1;
    *first = ek_min_u32((pad + stride - 1) / stride, out);
    uint64_t room = (uint64_t)size + pad;
    uint64_t last = room < span ? 0 : ek_div_u64(room - span, stride) + 1;
    *end = last < out ? (uint32_t)last : out;
    if (*end < *first)
        *end = *first;
}
