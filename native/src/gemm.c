#include "gemm.h"
#include "portable.h"

int ek_rows_setup(const ek_ctx *c, ek_rows *r, uint32_t i, uint32_t dtype, const ek_view *y, uint32_t n, uint32_t k,
                  uint32_t groups)
{
    const ek_variant *v = 0;
    int is_float = dtype == EK_F32;
    const uint8_t *w = is_float ? ek_packed(c, i, c->k->f32_nr, 1, 0, &v)
                                : ek_packed(c, i, c->k->s8_nr, c->k->s8_kr, c->k->s8_xoff, &v);
    if (!w)
        return 0;
    int dynamic = r->dynamic = is_float && v->dtype == EK_I8;
    if (dynamic)
        w = ek_packed(c, i, c->k->s8_nr, c->k->s8_kr, 0, &v);
    if (!ek_variant_ok(v, is_float && !dynamic ? EK_F32 : EK_I8, n, k, groups) || !n || !k)
        return 0;
    if (is_float && v->xoff)
        return 0;
    r->g = (ek_gemm){ .w = w, .n = n, .k = k, .nr = v->nr, .kr = v->kr, .xoff = v->xoff, .zero = y->zero };
    if (dynamic)
        r->fn = v->nr == c->k->s8_nr && v->kr == c->k->s8_kr ? c->k->gemm_dyn : ek_gemm_dyn_portable;
    else if (is_float)
        r->fn = v->nr == c->k->f32_nr && v->kr == 1 ? c->k->gemm_f32 : ek_gemm_f32_portable;
    else
        r->fn = v->nr == c->k->s8_nr && v->kr == c->k->s8_kr && (c->k->s8_xoff == EK_XOFF_ANY || c->k->s8_xoff == v->xoff)
                    ? c->k->gemm_s8 : ek_gemm_s8_portable;
    return !is_float || dynamic || v->kr == 1;
}

size_t ek_blob_bytes(const ek_gemm *g, uint32_t elem)
{
    size_t blocks = (g->n + g->nr - 1u) / g->nr, kp = ek_up(g->k, g->kr);
    return blocks * g->nr * (elem == 4 ? 4 * (1 + kp) : 8 + kp);
}

uint32_t ek_tile_rows(const ek_ctx *c, uint32_t row_bytes, uint32_t rows)
{
    uint32_t t = c->k->tile_rows;
    if (row_bytes)
        t = ek_min_u32(t, c->rec->scratch / row_bytes);
    else
        t *= 4; /* nothing is copied: larger tiles cost only balance between threads */
    return t ? ek_min_u32(t, rows ? rows : 1) : 1;
}

unsigned ek_rows_slot(const ek_ctx *c, const ek_rows *r)
{
    if (r->fn == c->k->gemm_s8)
        return EK_K_GEMM_S8;
    if (r->fn == c->k->gemm_dyn)
        return EK_K_GEMM_DYN;
    return r->fn == c->k->gemm_f32 ? EK_K_GEMM_F32 : EK_K_NONE;
}
