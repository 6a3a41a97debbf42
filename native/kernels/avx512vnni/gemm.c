/* GEMM with AVX-512 VNNI.  Blocks of 16 outputs, 4 inputs deep: one 64-byte load is a step of a block. */
#if defined(__x86_64__)
#include "avx512.h"
#include "kernels.h"

/* Up to 2 blocks of 16 outputs of one tile. */
typedef struct tile {
    const int8_t *a;      /* rows, stride lda */
    ptrdiff_t lda;
    const uint8_t *w;     /* first block */
    size_t block;         /* bytes between blocks */
    uint32_t k, left;     /* inputs; outputs from the first block on, at least 1 */
    uint8_t *y;           /* int8 or float, row stride ldy bytes */
    ptrdiff_t ldy;
    const float *row_scale;
} tile;

/* VPDPBUSD wants unsigned activations: a + 128 is a ^ 0x80.  What that adds, 128 * sum(w), is in the bias where
 * the layout asks for xoff 128 and is taken off here (`sum`) where it does not. */
EK_INLINE EK_AVX512 void tile_acc(const tile *t, __m512i acc[8][2], int sum, const unsigned mr, const unsigned nb)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80), ones = _mm512_set1_epi8(1);
    const uint8_t *w = t->w + 128;
    __m512i ws[2] = { _mm512_setzero_si512(), _mm512_setzero_si512() };
    EK_UNROLL for (unsigned r = 0; r < mr; r++)
        EK_UNROLL for (unsigned b = 0; b < nb; b++)
            acc[r][b] = _mm512_setzero_si512();
    for (uint32_t k = 0; k < t->k; k += 4, w += 64) {
        const int8_t *a = t->a + k;
        __m512i wv[2];
        EK_UNROLL for (unsigned b = 0; b < nb; b++) {
            wv[b] = _mm512_loadu_si512(w + b * t->block);
            if (sum)
                ws[b] = _mm512_dpbusd_epi32(ws[b], ones, wv[b]);
        }
        EK_UNROLL for (unsigned r = 0; r < mr; r++) {
            __m512i x = _mm512_xor_si512(_mm512_set1_epi32(ek_load_s32(a + (ptrdiff_t)r * t->lda)), flip);
            EK_UNROLL for (unsigned b = 0; b < nb; b++)
                acc[r][b] = _mm512_dpbusd_epi32(acc[r][b], x, wv[b]);
        }
    }
    if (sum)
        EK_UNROLL for (unsigned r = 0; r < mr; r++)
            EK_UNROLL for (unsigned b = 0; b < nb; b++)
                acc[r][b] = _mm512_sub_epi32(acc[r][b], _mm512_slli_epi32(ws[b], 7));
}

/* sum_k (a + xoff) of one row */
EK_INLINE EK_AVX512 int32_t row_sum(const int8_t *a, uint32_t k, int32_t xoff)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80), ones = _mm512_set1_epi8(1);
    __m512i s = _mm512_setzero_si512();
    for (uint32_t i = 0; i < k; i += 64) {
        __mmask64 m = k - i < 64 ? ((__mmask64)1 << (k - i)) - 1 : ~(__mmask64)0;
        s = _mm512_dpbusd_epi32(s, _mm512_xor_si512(_mm512_maskz_loadu_epi8(m, a + i), flip), _mm512_maskz_mov_epi8(m, ones));
    }
    return (int32_t)((uint32_t)_mm512_reduce_add_epi32(s) + (uint32_t)k * (uint32_t)(xoff - 128));
}

EK_INLINE EK_AVX512 void tile_s8(const ek_gemm *g, const tile *t, const unsigned mr, const unsigned nb)
{
    __m512i acc[8][2];
    if (g->xoff)
        tile_acc(t, acc, 0, mr, nb);
    else
        tile_acc(t, acc, 1, mr, nb);
    const ek_requant512 q = ek_requant512_of(g->lo, g->hi, g->zero);
    EK_UNROLL for (unsigned r = 0; r < mr; r++) {
        uint32_t adj = 0;
        if (g->w_zero)
            adj = 0u - (uint32_t)g->w_zero * (uint32_t)row_sum(t->a + (ptrdiff_t)r * t->lda, t->k, g->xoff);
        EK_UNROLL for (unsigned b = 0; b < nb; b++) {
            const uint8_t *head = t->w + b * t->block;
            __m512i v = _mm512_add_epi32(acc[r][b], _mm512_loadu_si512(head));
            v = _mm512_add_epi32(v, _mm512_set1_epi32((int32_t)adj));
            __m128i y = ek_requant512_s8(v, _mm512_loadu_ps(head + 64), &q);
            ek_store16_s8((int8_t *)t->y + (ptrdiff_t)r * t->ldy + b * 16u, y, t->left - b * 16u);
        }
    }
}

EK_INLINE EK_AVX512 void tile_dyn(const ek_gemm *g, const tile *t, const unsigned mr, const unsigned nb)
{
    __m512i acc[8][2];
    tile_acc(t, acc, 1, mr, nb);
    EK_UNROLL for (unsigned r = 0; r < mr; r++) {
        EK_UNROLL for (unsigned b = 0; b < nb; b++) {
            const uint8_t *head = t->w + b * t->block;
            __m512 s = _mm512_mul_ps(_mm512_set1_ps(t->row_scale[r]), _mm512_loadu_ps(head + 64));
            __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[r][b]), s);
            EK_ROUND512(v);
            v = ek_clamp512(_mm512_add_ps(v, _mm512_loadu_ps(head)), g->lo, g->hi);
            ek_store16_f32((float *)(void *)(t->y + (ptrdiff_t)r * t->ldy) + b * 16u, v, t->left - b * 16u);
        }
    }
}

/* up to 8 rows and 2 blocks in tiles of 8, 4, 2, 1 rows; weights outermost: a pair of blocks stays in L1 for all rows */
EK_INLINE EK_AVX512 void rows(const ek_gemm *g, tile t, const int dyn, const unsigned nb)
{
    for (uint32_t m = 0; m < g->m;) {
        uint32_t left = g->m - m, done = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        if (dyn) {
            t.row_scale = g->row_scale + m;
            switch (done) {
            case 8: tile_dyn(g, &t, 8, nb); break;
            case 4: tile_dyn(g, &t, 4, nb); break;
            case 2: tile_dyn(g, &t, 2, nb); break;
            default: tile_dyn(g, &t, 1, nb); break;
            }
        } else {
            switch (done) {
            case 8: tile_s8(g, &t, 8, nb); break;
            case 4: tile_s8(g, &t, 4, nb); break;
            case 2: tile_s8(g, &t, 2, nb); break;
            default: tile_s8(g, &t, 1, nb); break;
            }
        }
        t.a += (ptrdiff_t)done * t.lda;
        t.y += (ptrdiff_t)done * t.ldy;
        m += done;
    }
}

EK_INLINE EK_AVX512 void gemm(const ek_gemm *g, const int dyn)
{
    tile t = { .a = (const int8_t *)g->a, .lda = g->lda, .w = g->w, .block = ek_block_s8(16, 4, g->k), .k = g->k,
               .y = (uint8_t *)g->y, .ldy = dyn ? g->ldy * 4 : g->ldy };
    for (uint32_t n = 0; n < g->n; n += 32, t.w += 2 * t.block, t.y += dyn ? 128 : 32) {
        t.left = g->n - n;
        if (t.left > 16)
            rows(g, t, dyn, 2);
        else
            rows(g, t, dyn, 1);
    }
}

static EK_AVX512 void gemm_s8(const ek_gemm *g) { gemm(g, 0); }
static EK_AVX512 void gemm_dyn(const ek_gemm *g) { gemm(g, 1); }

/* y = act(a w + bias), mr rows and nb blocks of 16 outputs */
EK_INLINE EK_AVX512 void tile_f32(const ek_gemm *g, const float *a, const float *w, size_t block, float *y, uint32_t left,
                                  const unsigned mr, const unsigned nb)
{
    __m512 acc[8][4];
    EK_UNROLL for (unsigned r = 0; r < mr; r++)
        EK_UNROLL for (unsigned b = 0; b < nb; b++)
            acc[r][b] = _mm512_loadu_ps(w + b * block);
    for (uint32_t k = 0; k < g->k; k++) {
        __m512 wv[4];
        EK_UNROLL for (unsigned b = 0; b < nb; b++)
            wv[b] = _mm512_loadu_ps(w + b * block + 16 + (size_t)k * 16);
        EK_UNROLL for (unsigned r = 0; r < mr; r++) {
            __m512 x = _mm512_set1_ps(a[(ptrdiff_t)r * g->lda + (ptrdiff_t)k]);
            EK_UNROLL for (unsigned b = 0; b < nb; b++)
                acc[r][b] = _mm512_fmadd_ps(x, wv[b], acc[r][b]);
        }
    }
    EK_UNROLL for (unsigned r = 0; r < mr; r++)
        EK_UNROLL for (unsigned b = 0; b < nb; b++)
            ek_store16_f32(y + (ptrdiff_t)r * g->ldy + b * 16u, ek_clamp512(acc[r][b], g->lo, g->hi), left - b * 16u);
}

EK_INLINE EK_AVX512 void rows_f32(const ek_gemm *g, const float *w, size_t block, float *y, uint32_t left, const unsigned nb)
{
    const float *a = (const float *)g->a;
    uint32_t m = 0;
    for (; m + 8 <= g->m; m += 8, a += 8 * g->lda, y += 8 * g->ldy)
        tile_f32(g, a, w, block, y, left, 8, nb);
    for (; m + 2 <= g->m; m += 2, a += 2 * g->lda, y += 2 * g->ldy)
        tile_f32(g, a, w, block, y, left, 2, nb);
    if (m < g->m)
        tile_f32(g, a, w, block, y, left, 1, nb);
}

static EK_AVX512 void gemm_f32(const ek_gemm *g)
{
    const float *w = (const float *)(const void *)g->w;
    float *y = (float *)g->y;
    size_t block = 16 * ((size_t)g->k + 1);
    uint32_t n = g->n;
    if (g->m == 1)
        for (; n > 48; n = n > 64 ? n - 64 : 0, w += 4 * block, y += 64)
            tile_f32(g, (const float *)g->a, w, block, y, n, 1, 4);
    for (; n > 16; n = n > 32 ? n - 32 : 0, w += 2 * block, y += 32)
        rows_f32(g, w, block, y, n, 2);
    if (n)
        rows_f32(g, w, block, y, n, 1);
}

void ek_kernels_avx512vnni(ek_kernels *k)
{
    EK_SET(k, gemm_s8, GEMM_S8, gemm_s8, EK_ISA_AVX512VNNI);
    EK_SET(k, gemm_dyn, GEMM_DYN, gemm_dyn, EK_ISA_AVX512VNNI);
    EK_SET(k, gemm_f32, GEMM_F32, gemm_f32, EK_ISA_AVX512VNNI);
    k->s8_nr = 16;
    k->s8_kr = 4;
    k->s8_xoff = EK_XOFF_ANY;
    k->f32_nr = 16;
    k->tile_rows = 16;
    ek_dw_avx512vnni(k);
    ek_elementwise_avx512vnni(k);
}
#else
typedef int ek_no_avx512vnni; /* a translation unit must not be empty */
#endif
