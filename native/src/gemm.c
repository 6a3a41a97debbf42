#include <string.h>
#include "gemm.h"
#include "portable.h"

/* int8 weights in the layout of the kernels, else in any */
static const uint8_t *dense_s8(const ek_ctx *c, uint32_t i, uint32_t xoff, const ek_variant **v)
{
    const ek_kernels *k = c->k;
    const uint8_t *w = k->s8_encoding ? ek_packed(c, i, k->s8_encoding, k->s8_nr, k->s8_kr, xoff, v) : 0;
    if (EK_UNPACK && !w)
        w = ek_packed(c, i, EK_ENC_APART, k->s8_nr, k->s8_kr, xoff, v);
    if (!w)
        w = ek_packed(c, i, EK_ENC_PLAIN, k->s8_nr, k->s8_kr, xoff, v);
    return w ? w : ek_packed(c, i, EK_ENC_ANY, k->s8_nr, k->s8_kr, xoff, v);
}

/* int8 weights, sparse ones where the CPU has a kernel for them */
static const uint8_t *packed_s8(const ek_ctx *c, uint32_t i, const ek_variant **v)
{
    const ek_kernels *k = c->k;
    if (!EK_USES(GEMM_SPARSE))
        return dense_s8(c, i, k->s8_xoff, v);
    const uint8_t *w = k->nm_nr ? ek_packed(c, i, EK_ENC_NM, k->nm_nr, k->nm_kr, k->s8_xoff, v) : 0;
    if (!w && k->blocks_nr)
        w = ek_packed(c, i, EK_ENC_BLOCKS, k->blocks_nr, k->blocks_kr, k->s8_xoff, v);
    return w ? w : dense_s8(c, i, k->s8_xoff, v);
}

/* whether the CPU's kernels read the blocks of a variant */
static int layout_fits(const ek_kernels *k, const ek_variant *v)
{
    return v->nr == k->s8_nr && (v->kr == k->s8_kr || v->kr == k->s8_kr_too);
}

/* ek_rows_setup of an encoding: ek_open has looked at its lists, which hold for the n and k of the tensor */
static int sparse(const ek_ctx *c, ek_rows *r, const ek_variant *v, const uint8_t *w, uint32_t i, const ek_view *y, uint32_t n,
                  uint32_t k, uint32_t groups)
{
    ek_view t = ek_in(c, i);
    uint32_t encoding = ek_encoding(c, v), kind = encoding & 0xff;
    int fits = kind == EK_ENC_NM ? v->nr == c->k->nm_nr && v->kr == c->k->nm_kr : v->nr == c->k->blocks_nr && v->kr == c->k->blocks_kr;
    if (groups != 1 || t.dims[0] != n || t.dims[1] != k || kind == EK_ENC_GROUPS)
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

/* ek_rows_setup of weights with scales by group: float rows only, whose groups are quantized one by one */
static int grouped(const ek_ctx *c, ek_rows *r, uint32_t i, uint32_t n, uint32_t k, uint32_t groups)
{
    const ek_variant *v = 0;
    const uint8_t *w = ek_packed(c, i, EK_ENC_ANY, c->k->s8_nr, c->k->s8_kr, 0, &v);
    if (!w || (ek_encoding(c, v) & 0xff) != EK_ENC_GROUPS)
        return 0;
    uint32_t bits = v->dtype == EK_I4 ? 4 : v->dtype == EK_I2 ? 2 : 8, size = ek_encoding(c, v) >> 8;
    if (!n || !k || n > 0xffffffu || k > 0xffffffu || groups != 1 || v->xoff || v->nr > 64 || v->kr > 64
        || (v->nr % 4 && v->nr != 2) || v->kr % 4 || !size || size % v->kr || size > 0xffff)
        return 0;
    uint32_t rest = k % size;
    uint64_t group = v->nr * (2u + (uint64_t)size * bits / 8), last = rest ? v->nr * (2u + (uint64_t)ek_up(rest, v->kr) * bits / 8) : 0;
    if ((n + v->nr - 1u) / v->nr * (4u * v->nr + k / size * group + last) > v->bytes)
        return 0;
    r->bits = bits;
    r->group = size;
    r->dynamic = 1;
    r->room = ek_up(v->nr * (8 + ek_min_u32(size, ek_up(k, v->kr))), 16);
    r->group_bytes = v->bytes;
    r->deep = v->kr;
    r->g = (ek_gemm){ .w = w, .n = n, .k = k, .nr = v->nr, .kr = v->kr };
    r->fn = layout_fits(c->k, v) && !c->k->s8_encoding ? c->k->gemm_dyn : ek_gemm_dyn_portable;
    return r->fn != 0;
}

int ek_rows_setup(const ek_ctx *c, ek_rows *r, uint32_t i, uint32_t dtype, const ek_view *y, uint32_t n, uint32_t k,
                  uint32_t groups)
{
    const ek_variant *v = 0;
    int is_float = (EK_USES(GEMM_F32) || EK_USES(GEMM_DYN)) && dtype == EK_F32; /* what a build lacks is left out below */
    if (dtype == EK_F32 && !is_float)
        return 0;
    const uint8_t *w = is_float ? ek_packed(c, i, EK_ENC_PLAIN, c->k->f32_nr, 1, 0, &v) : packed_s8(c, i, &v);
    r->group = 0;
    r->after = 0;
    r->widen = 0;
    if (!w && is_float)
        w = dense_s8(c, i, 0, &v);
    if (!w)
        return 0;
    uint32_t encoding = ek_encoding(c, v);
    if ((encoding & 0xff) == EK_ENC_GROUPS)
        return EK_NARROW && EK_USES(GEMM_DYN) && is_float && grouped(c, r, i, n, k, groups);
    const uint8_t *heads = 0;
#if EK_UNPACK
    if ((encoding & 0xff) == EK_ENC_APART) {
        heads = ek_apart(c, v, n, k);
        if (!heads || is_float || groups != 1 || (v->dtype != EK_I8 && !EK_NARROW))
            return 0;
        encoding = EK_ENC_PLAIN;
    }
#endif
    if (encoding && encoding != EK_ENC_PAIRS)
        return EK_USES(GEMM_SPARSE) && !is_float && sparse(c, r, v, w, i, y, n, k, groups);
    int dynamic = r->dynamic = EK_USES(GEMM_DYN) && is_float && v->dtype != EK_F32;
    if (dynamic)
        w = dense_s8(c, i, 0, &v);
    if (encoding && (v->kr != 4 || v->nr % 2 || v->dtype == EK_F32))
        return 0;
    r->bits = v->dtype == EK_F32 ? 32 : v->dtype == EK_I4 ? 4 : v->dtype == EK_I2 ? 2 : 8;
    if ((v->dtype == EK_F32) != (is_float && !dynamic) || (!heads && !ek_variant_ok(v, v->dtype, n, k, groups)) || !n || !k)
        return 0;
    if ((is_float && v->xoff) || (r->bits < 8 && !EK_NARROW))
        return 0;
    /* fit 32 bits, as ek_variant_ok has seen */
    uint32_t depth = ek_up(k, v->kr) * v->nr, blocks = (n + v->nr - 1u) / v->nr, narrower = r->bits == 4 ? 1 : r->bits == 2 ? 2 : 0;
    r->room = narrower ? ek_up(8u * v->nr + depth, 16) : 0;
    r->group_bytes = (size_t)blocks * (r->bits == 32 ? 4 * (v->nr + depth) : (heads ? 0u : 8u * v->nr) + (depth >> narrower));
    r->deep = v->kr;
    r->g = (ek_gemm){ .w = w, .n = n, .k = k, .nr = v->nr, .kr = v->kr, .xoff = v->xoff, .zero = y->zero,
                     .encoding = (uint8_t)encoding };
    int own = layout_fits(c->k, v) && encoding == c->k->s8_encoding && (!heads || c->k->apart || narrower);
#if EK_UNPACK
    r->g.heads = heads;
#endif
    if (dynamic)
        r->fn = own ? c->k->gemm_dyn : EK_USES(GEMM_DYN) ? ek_gemm_dyn_portable : 0;
    else if (is_float)
        r->fn = v->nr == c->k->f32_nr && v->kr == 1 ? c->k->gemm_f32 : EK_USES(GEMM_F32) ? ek_gemm_f32_portable : 0;
    else
        r->fn = own && (c->k->s8_xoff == EK_XOFF_ANY || c->k->s8_xoff == v->xoff)
                    ? c->k->gemm_s8 : EK_USES(GEMM_S8) && EK_FOREIGN ? ek_gemm_s8_portable : 0;
    r->widen = !is_float && r->fn == c->k->gemm_s8 ? c->k->widen : 0;
    return r->fn && (!is_float || dynamic || v->kr == 1);
}

/* Element i of `count` lies in byte i % bytes, its plane i / bytes tells which bits (the lowest are plane 0), and is
 * stored plus 2^(bits - 1).  Planes keep neighbours apart by a byte: four at a time without a shuffle, on any CPU. */
static void unpack(const uint8_t *p, int8_t *w, size_t count, uint32_t bits, int pairs)
{
    size_t bytes = count * bits / 8;
    uint32_t flip = pairs ? 0x80008000u : 0x80808080u; /* see ek_pair_at */
    uint32_t low = bits == 4 ? 0x0f0f0f0fu : 0x03030303u, half = bits == 4 ? 0x08080808u : 0x02020202u;
    for (uint32_t shift = 0; shift < 8; shift += bits, w += bytes) {
        size_t i = 0;
        for (; i + 4 <= bytes; i += 4) {
            uint32_t x;
            memcpy(&x, p + i, 4);
            x = (((x >> shift & low) | 0x80808080u) - half) ^ flip; /* no byte borrows from the next */
            memcpy(w + i, &x, 4);
        }
        for (; i < bytes; i++)
            w[i] = (int8_t)((int)(p[i] >> shift & (low & 0xff)) - (int)(half & 0xff));
    }
}

/* one group of a block as the block of a GEMM of its own: bias (0 but in the first), scales, weights */
static const uint8_t *open_group(const ek_rows *r, const uint8_t *bias, int first, const uint8_t *p, uint32_t nr, size_t count,
                                 uint8_t *room)
{
    if (first)
        memcpy(room, bias, 4u * nr);
    else
        memset(room, 0, 4u * nr);
    for (uint32_t j = 0; j < nr; j++, p += 2) {
        uint32_t scale = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 24; /* bfloat16 */
        memcpy(room + 4u * (nr + j), &scale, 4);
    }
    if (r->bits == 8)
        memcpy(room + 8u * nr, p, count);
    else
        unpack(p, (int8_t *)(room + 8u * nr), count, r->bits, 0);
    return p + count * r->bits / 8;
}

void ek_rows_run_groups(const ek_rows *r, const ek_gemm *g, uint8_t *room, float *sum)
{
    const uint8_t *p = g->w;
    ek_gemm one = *g;
    one.w = room;
    one.lo = -__builtin_inff();
    one.hi = __builtin_inff();
    for (uint32_t n0 = 0; n0 < g->n; n0 += g->nr) {
        const uint8_t *bias = p;
        float *y = (float *)g->y + n0;
        one.n = ek_min_u32(g->nr, g->n - n0);
        p += 4u * g->nr;
        for (uint32_t k0 = 0, j = 0; k0 < g->k; k0 += r->group, j++) {
            one.k = ek_min_u32(r->group, g->k - k0);
            p = open_group(r, bias, !k0, p, g->nr, (size_t)ek_up(one.k, g->kr) * g->nr, room);
            one.a = (const int8_t *)g->a + k0;
            one.row_scale = g->row_scale + (size_t)j * r->tile;
            one.y = k0 ? sum : y;
            one.ldy = k0 ? g->nr : g->ldy;
            r->fn(&one);
            for (uint32_t m = 0; k0 && m < g->m; m++)
                for (uint32_t i = 0; i < one.n; i++)
                    y[(ptrdiff_t)m * g->ldy + i] += sum[m * g->nr + i];
        }
        for (uint32_t m = 0; m < g->m; m++)
            for (uint32_t i = 0; i < one.n; i++)
                y[(ptrdiff_t)m * g->ldy + i] = ek_clamp_f32(y[(ptrdiff_t)m * g->ldy + i], g->lo, g->hi);
    }
}

void ek_rows_run(const ek_rows *r, const ek_gemm *g, uint8_t *room)
{
    if (r->after) {
        r->after->fn(r->after, r, g, room);
        return;
    }
    if (!EK_NARROW || r->bits >= 8) {
        r->fn(g);
        return;
    }
    size_t head = 8u * g->nr, count = (size_t)ek_up(g->k, g->kr) * g->nr, size = r->dynamic ? 4 : 1;
    const uint8_t *p = g->w, *apart = ek_heads(g);
    ek_gemm one = *g;
    one.w = room;
#if EK_UNPACK
    one.heads = 0;
#endif
    for (uint32_t n0 = 0; n0 < g->n; n0 += g->nr, p += count * r->bits / 8) {
        memcpy(room, apart ? apart : p, head);
        if (apart)
            apart += head;
        else
            p += head;
        unpack(p, (int8_t *)(room + head), count, r->bits, g->encoding == EK_ENC_PAIRS);
        one.n = ek_min_u32(g->nr, g->n - n0);
        one.y = (uint8_t *)g->y + n0 * size;
        r->fn(&one);
    }
}

uint32_t ek_tile_rows(const ek_ctx *c, const ek_rows *r, uint32_t row_bytes, uint32_t rows)
{
    uint32_t t = c->k->tile_rows * (r->room ? 2u : 1u); /* more rows share what was unpacked */
    if (row_bytes)
        t = ek_min_u32(t, (c->granted - r->room) / row_bytes);
    else
        t *= EK_BANDS && c->threads > 1 ? 8 : 4; /* nothing is copied */
    return t ? ek_min_u32(t, rows ? rows : 1) : 1;
}

#if EK_BANDS
enum {
    WORTH = 1 << 18, /* multiply-accumulates, of bytes, that pay for sharing them: a microsecond or two */
    WEIGHTS = 2      /* reading weights takes as long as so many rows */
};

uint32_t ek_rows_share(const ek_ctx *c, ek_rows *r, uint32_t items, uint32_t rows, uint32_t most)
{
    uint32_t nr = r->g.nr, blocks = (r->g.n + nr - 1) / nr, part, unit = rows > 1 ? 1 : (c->k->tile_rows + 3u) / 4, tiles;
    uint64_t all = (uint64_t)items * rows, size = r->bits == 32 ? 4 : 1;
    int dense = r->g.encoding == EK_ENC_PLAIN || r->g.encoding == EK_ENC_PAIRS;
    r->tile = ek_min_u32(most, items);
    r->part = r->g.n;
    r->parts = 1;
    if (c->threads > 1 && (all + WEIGHTS) * r->g.n * r->g.k * size >= WORTH) {
        unit = ek_min_u32(unit, most);
        r->tile = ek_min_u32(items, unit * ek_even(c, (items - 1) / unit + 1, most / unit));
        tiles = (items - 1) / r->tile + 1;
        uint64_t by_items = (((tiles - 1) / c->threads + 1) * (uint64_t)r->tile * rows + WEIGHTS) * blocks;
        part = ek_even(c, blocks, blocks);
        uint64_t by_outputs = (all + WEIGHTS) * (((blocks - 1) / part / c->threads + 1) * (uint64_t)part);
        int once = !r->dynamic || items == 1; /* each part would quantize all rows */
        if (items <= most && dense && once && !r->group && !r->after && by_outputs + by_outputs / 16 < by_items) {
            r->tile = items;
            r->part = part * nr;
            r->parts = (blocks - 1) / part + 1;
        }
    }
    return ((items - 1) / r->tile + 1) * r->parts;
}

void ek_rows_part(const ek_rows *r, ek_gemm *g, uint32_t part)
{
    uint32_t first = part * r->part, nr = r->g.nr;
    if (r->parts == 1)
        return;
    g->w += first / nr * (r->group_bytes / ((r->g.n + nr - 1) / nr)); /* of a block */
#if EK_UNPACK
    if (g->heads)
        g->heads += (size_t)first * 8;
#endif
    g->y = (uint8_t *)g->y + (size_t)first * (r->bits == 32 || r->dynamic ? 4 : 1);
    g->n = ek_min_u32(r->part, r->g.n - first);
}
#endif

int ek_takes_pairs(const ek_ctx *c, const ek_rows *r, uint32_t bytes)
{
    return r->widen && c->granted - r->room >= bytes;
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

int ek_ends_ok(const ek_view *x, const ek_view *y, float lo, float hi, int32_t w_zero)
{
    if (x->dtype != y->dtype || x->dtype != EK_I8)
        return x->dtype == y->dtype && x->dtype == EK_F32;
    return ek_quant_ok(x) && ek_quant_ok(y) && ek_bounds_ok(lo, hi, y->zero) && (EK_W_ZERO ? w_zero >= -256 && w_zero <= 256 : !w_zero);
}

/* blocks of constant size become loads and stores of vectors */
static void copy(uint8_t *d, const uint8_t *s, size_t n)
{
    for (; n >= 64; n -= 64, s += 64, d += 64)
        memcpy(d, s, 64);
    if (n)
        memcpy(d, s, n);
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
        copy(s + before * px, image + (size_t)iy * d[2] * px, width * px);
        memset(s + (before + width) * px, fill, after * px);
    }
}

void ek_inside(uint32_t size, uint32_t out, uint32_t kernel, uint32_t stride, uint32_t dilation, uint32_t pad,
               uint32_t *first, uint32_t *end)
{
    uint32_t span = (kernel - 1) * dilation, last = size + pad <= span ? 0 : (size + pad - span - 1) / stride + 1;
    *first = ek_min_u32((pad + stride - 1) / stride, out);
    *end = ek_min_u32(last, out);
    if (*end < *first)
        *end = *first;
}
