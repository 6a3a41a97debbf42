/* GEMM with sparse int8 weights: VPERMB picks the inputs that N:M weights meet, listed blocks of 8 x 8 fill a vector. */
#if defined(__x86_64__)
#include "avx512.h"
#include "cpu.h"
#include "format.h"
#include "kernels.h"
#include <string.h>

enum { ROWS = 8 };
#define EK_VBMI __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,fma")))

typedef struct tile {
    const int8_t *a;  /* first row */
    ptrdiff_t lda;
    int8_t *y;        /* its first output */
    ptrdiff_t ldy;
    uint32_t left;    /* outputs from there on, at least 1 */
} tile;

EK_INLINE EK_VBMI void nm_tile(const ek_gemm *g, const tile *t, const uint8_t *head, size_t block, const unsigned mr,
                               const unsigned nb)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    __m512i acc[ROWS][2], x[ROWS];
    EK_UNROLL for (unsigned r = 0; r < mr; r++)
        EK_UNROLL for (unsigned b = 0; b < nb; b++)
            acc[r][b] = _mm512_loadu_si512(head + b * block);
    const uint8_t *w = head + 128;
    for (uint32_t k = 0; k < g->k; k += EK_CHUNK) {
        EK_UNROLL for (unsigned r = 0; r < mr; r++)
            x[r] = _mm512_xor_si512(_mm512_loadu_si512(t->a + (ptrdiff_t)r * t->lda + (ptrdiff_t)k), flip);
        for (uint32_t s = 0; s < g->slots; s += 4, w += 128)
            EK_UNROLL for (unsigned b = 0; b < nb; b++) {
                __m512i place = _mm512_loadu_si512(w + b * block), v = _mm512_loadu_si512(w + b * block + 64);
                EK_UNROLL for (unsigned r = 0; r < mr; r++)
                    acc[r][b] = _mm512_dpbusd_epi32(acc[r][b], _mm512_permutexvar_epi8(place, x[r]), v);
            }
    }
    const ek_requant512 q = ek_requant512_of(g->lo, g->hi, g->zero);
    EK_UNROLL for (unsigned b = 0; b < nb; b++) {
        const __m512 scale = _mm512_loadu_ps(head + b * block + 64);
        EK_UNROLL for (unsigned r = 0; r < mr; r++)
            ek_store16_s8(t->y + (ptrdiff_t)r * t->ldy + 16 * b, ek_requant512_s8(acc[r][b], scale, &q), t->left - 16 * b);
    }
}

EK_INLINE EK_VBMI void nm_rows(const ek_gemm *g, tile t, const uint8_t *head, size_t block, const unsigned nb)
{
    uint32_t m = g->m;
    for (; m >= ROWS; m -= ROWS, t.a += ROWS * t.lda, t.y += ROWS * t.ldy)
        nm_tile(g, &t, head, block, ROWS, nb);
    for (; m >= 2; m -= 2, t.a += 2 * t.lda, t.y += 2 * t.ldy)
        nm_tile(g, &t, head, block, 2, nb);
    if (m)
        nm_tile(g, &t, head, block, 1, nb);
}

static EK_VBMI void nm(const ek_gemm *g, tile t)
{
    const uint8_t *head = g->w;
    size_t block = 128 + (size_t)((g->k + EK_CHUNK - 1) / EK_CHUNK) * g->slots * 32;
    for (; t.left > 16; t.left = t.left > 32 ? t.left - 32 : 0, t.y += 32, head += 2 * block)
        nm_rows(g, t, head, block, 2);
    if (t.left)
        nm_rows(g, t, head, block, 1);
}

/* sums of pairs: (2 i, 2 i + 1) -> i */
EK_INLINE EK_AVX512 __m256i pairs(__m512i v)
{
    return _mm512_cvtepi64_epi32(_mm512_add_epi32(v, _mm512_srli_epi64(v, 32)));
}

EK_INLINE EK_AVX512 void store8(int8_t *y, __m128i v, uint32_t left)
{
    if (left >= 8)
        _mm_storel_epi64((__m128i *)(void *)y, v);
    else
        _mm_mask_storeu_epi8(y, (__mmask16)((1u << left) - 1), v);
}

/* Lane 2 j + h sums inputs 4 h to 4 h + 3 of output j. */
EK_INLINE EK_AVX512 void blocks_tile(const ek_gemm *g, const tile *t, const uint8_t *head, const uint16_t *list, uint32_t count,
                                     const uint8_t *w, const unsigned mr)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    const uint32_t last = EK_LAST_PLACE(g);
    __m512i acc[ROWS];
    EK_UNROLL for (unsigned r = 0; r < mr; r++)
        acc[r] = _mm512_setzero_si512();
    for (uint32_t i = 0; i < count; i++, w += 64) {
        const int8_t *a = t->a + (ptrdiff_t)(list[i] < last ? list[i] : last) * 8;
        __m512i v = _mm512_loadu_si512(w);
        EK_UNROLL for (unsigned r = 0; r < mr; r++) {
            __m512i x = _mm512_broadcastq_epi64(_mm_loadl_epi64((const __m128i *)(const void *)(a + (ptrdiff_t)r * t->lda)));
            acc[r] = _mm512_dpbusd_epi32(acc[r], _mm512_xor_si512(x, flip), v);
        }
    }
    const ek_requant512 q = ek_requant512_of(g->lo, g->hi, g->zero);
    const __m512i bias = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)head));
    const __m512 scale = _mm512_castsi512_ps(_mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)(head + 32))));
    EK_UNROLL for (unsigned r = 0; r < mr; r += 2) {
        unsigned p = r + 1 < mr ? r + 1 : r;
        __m512i v = _mm512_inserti64x4(_mm512_castsi256_si512(pairs(acc[r])), pairs(acc[p]), 1);
        __m128i s = ek_requant512_s8(_mm512_add_epi32(v, bias), scale, &q);
        store8(t->y + (ptrdiff_t)r * t->ldy, s, t->left);
        if (p != r)
            store8(t->y + (ptrdiff_t)p * t->ldy, _mm_unpackhi_epi64(s, s), t->left);
    }
}

static EK_AVX512 void blocks(const ek_gemm *g, tile t)
{
    const uint8_t *head = g->w;
    for (uint32_t n = 0; n < g->n; n += 8, t.left -= 8, t.y += 8) {
        uint32_t count;
        memcpy(&count, head + 64, 4);
        const uint16_t *list = (const uint16_t *)(const void *)(head + 68);
        const uint8_t *w = head + 68 + (count + (count & 1)) * 2;
        tile at = t;
        uint32_t m = g->m;
        for (; m >= ROWS; m -= ROWS, at.a += ROWS * at.lda, at.y += ROWS * at.ldy)
            blocks_tile(g, &at, head, list, count, w, ROWS);
        for (; m >= 2; m -= 2, at.a += 2 * at.lda, at.y += 2 * at.ldy)
            blocks_tile(g, &at, head, list, count, w, 2);
        if (m)
            blocks_tile(g, &at, head, list, count, w, 1);
        head = w + (size_t)count * 64;
    }
}

static void gemm_sparse(const ek_gemm *g)
{
    tile t = { (const int8_t *)g->a, g->lda, (int8_t *)g->y, g->ldy, g->n };
    if (g->encoding == EK_ENC_NM)
        nm(g, t);
    else
        blocks(g, t);
}

void ek_sparse_avx512vnni(ek_kernels *k)
{
    EK_SET(k, gemm_sparse, GEMM_SPARSE, gemm_sparse, EK_ISA_AVX512VNNI);
    k->blocks_nr = k->blocks_kr = 8;
    if (ek_x86(7, EK_ECX, 1)) { /* VBMI; without it such packages run on their dense weights */
        k->nm_nr = 16;
        k->nm_kr = 4;
    }
}
#else
typedef int ek_no_avx512vnni_sparse; /* a translation unit must not be empty */
#endif
