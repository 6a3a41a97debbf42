/* GEMM with AVX2 and FMA.  VPMADDWD on int16: VPMADDUBSW would saturate.  Weights of a step (16 outputs, 4 inputs)
 * split into even and odd inputs by shifts; activations are widened the same way once for all blocks. */
#if defined(__x86_64__)
#include "avx2.h"

enum { ROWS = 4, DEPTH = 512 }; /* of widened activations on the stack */

typedef struct wide {
    int16_t a[ROWS][DEPTH]; /* of every 4 inputs: 0, 2, 1, 3 */
} wide;

/* inputs [k0, k0 + n) of mr rows, n a multiple of 4 */
EK_INLINE EK_AVX2 void widen(wide *o, const ek_gemm *g, const int8_t *a, uint32_t k0, uint32_t n, uint32_t mr)
{
    const __m256i off = _mm256_set1_epi16((int16_t)g->xoff);
    for (uint32_t r = 0; r < mr; r++) {
        const int8_t *x = a + (ptrdiff_t)r * g->lda + (ptrdiff_t)k0;
        uint32_t i = 0;
        for (; i + 16 <= n; i += 16) {
            __m256i v = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(x + i)));
            v = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(_mm256_add_epi16(v, off), 0xd8), 0xd8);
            _mm256_storeu_si256((__m256i *)(void *)&o->a[r][i], v);
        }
        for (; i < n; i += 4) {
            __m128i v = _mm_cvtepi8_epi16(_mm_cvtsi32_si128(ek_load_s32(x + i)));
            v = _mm_shufflelo_epi16(_mm_add_epi16(v, _mm256_castsi256_si128(off)), 0xd8);
            _mm_storel_epi64((__m128i *)(void *)&o->a[r][i], v);
        }
    }
}

/* acc += n inputs of one block */
EK_INLINE EK_AVX2 void steps(const wide *x, const uint8_t *w, uint32_t n, __m256i acc[ROWS][2], const unsigned mr)
{
    for (uint32_t i = 0; i < n; i += 4, w += 64) {
        __m256i lo = _mm256_loadu_si256((const __m256i *)(const void *)w);
        __m256i hi = _mm256_loadu_si256((const __m256i *)(const void *)(w + 32));
        __m256i lo0 = _mm256_srai_epi16(_mm256_slli_epi16(lo, 8), 8), lo1 = _mm256_srai_epi16(lo, 8);
        __m256i hi0 = _mm256_srai_epi16(_mm256_slli_epi16(hi, 8), 8), hi1 = _mm256_srai_epi16(hi, 8);
        EK_UNROLL for (unsigned r = 0; r < mr; r++) {
            __m256i even = _mm256_set1_epi32(ek_load_s32(&x->a[r][i])), odd = _mm256_set1_epi32(ek_load_s32(&x->a[r][i + 2]));
            acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(even, lo0));
            acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(even, hi0));
            acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(odd, lo1));
            acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(odd, hi1));
        }
    }
}

/* sum_k (a + xoff) of one row */
EK_INLINE EK_AVX2 uint32_t row_sum(const int8_t *a, uint32_t k, int32_t xoff)
{
    const __m256i flip = _mm256_set1_epi8((char)0x80);
    __m256i s = _mm256_setzero_si256();
    uint32_t i = 0;
    for (; i + 32 <= k; i += 32) {
        __m256i v = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(const void *)(a + i)), flip);
        s = _mm256_add_epi64(s, _mm256_sad_epu8(v, _mm256_setzero_si256()));
    }
    __m128i h = _mm_add_epi64(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    uint32_t sum = (uint32_t)_mm_cvtsi128_si32(h) + (uint32_t)_mm_extract_epi32(h, 2) - 128u * i;
    for (uint32_t j = i; j < k; j++)
        sum += (uint32_t)(int32_t)a[j];
    return sum + k * (uint32_t)xoff;
}

EK_INLINE EK_AVX2 void finish_s8(const ek_gemm *g, const uint8_t *head, uint32_t adj, const __m256i acc[2], int8_t *y, uint32_t left)
{
    __m256i z = _mm256_set1_epi32((int32_t)adj);
    __m256i lo = _mm256_add_epi32(_mm256_add_epi32(acc[0], z), _mm256_loadu_si256((const __m256i *)(const void *)head));
    __m256i hi = _mm256_add_epi32(_mm256_add_epi32(acc[1], z), _mm256_loadu_si256((const __m256i *)(const void *)(head + 32)));
    const float *scale = (const float *)(const void *)(head + 64);
    ek_store16_avx2(y, ek_requant256_s8(lo, hi, scale, g->lo, g->hi, g->zero), left);
}

EK_INLINE EK_AVX2 void finish_dyn(const ek_gemm *g, const uint8_t *head, float row_scale, const __m256i acc[2], float *y, uint32_t left)
{
    const float *bias = (const float *)(const void *)head;
    EK_UNROLL for (unsigned h = 0; h < 2; h++) {
        __m256 s = _mm256_mul_ps(_mm256_set1_ps(row_scale), _mm256_loadu_ps(bias + 16 + 8 * h));
        __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(acc[h]), s);
        EK_ROUND256(v);
        v = ek_clamp256(_mm256_add_ps(v, _mm256_loadu_ps(bias + 8 * h)), g->lo, g->hi);
        ek_store8_avx2(y + 8 * h, v, left > 8 * h ? left - 8 * h : 0);
    }
}

/* rows m .. m + mr - 1 against every block */
EK_INLINE EK_AVX2 void rows(const ek_gemm *g, uint32_t m, wide *x, const int dyn, const unsigned mr)
{
    const int8_t *a = (const int8_t *)g->a + (ptrdiff_t)m * g->lda;
    const uint8_t *w = g->w;
    uint32_t kp = (g->k + 3) & ~3u;
    uint32_t adj[ROWS] = { 0 };
    if (g->w_zero && !dyn)
        for (unsigned r = 0; r < mr; r++)
            adj[r] = 0u - (uint32_t)g->w_zero * row_sum(a + (ptrdiff_t)r * g->lda, g->k, g->xoff);
    for (uint32_t n = 0; n < g->n; n += 16) {
        __m256i acc[ROWS][2];
        const uint8_t *head = w;
        w += 128;
        EK_UNROLL for (unsigned r = 0; r < mr; r++)
            acc[r][0] = acc[r][1] = _mm256_setzero_si256();
        for (uint32_t k = 0; k < kp; k += DEPTH) {
            uint32_t depth = kp - k < DEPTH ? kp - k : DEPTH;
            if (n == 0 || kp > DEPTH)
                widen(x, g, a, k, depth, mr);
            steps(x, w, depth, acc, mr);
            w += (size_t)depth * 16;
        }
        EK_UNROLL for (unsigned r = 0; r < mr; r++) {
            ptrdiff_t at = (ptrdiff_t)(m + r) * g->ldy + (ptrdiff_t)n;
            if (dyn)
                finish_dyn(g, head, g->row_scale[m + r], acc[r], (float *)g->y + at, g->n - n);
            else
                finish_s8(g, head, adj[r], acc[r], (int8_t *)g->y + at, g->n - n);
        }
    }
}

EK_INLINE EK_AVX2 void gemm(const ek_gemm *g, const int dyn)
{
    wide x;
    uint32_t m = 0;
    for (; m + 4 <= g->m; m += 4)
        rows(g, m, &x, dyn, 4);
    for (; m + 2 <= g->m; m += 2)
        rows(g, m, &x, dyn, 2);
    if (m < g->m)
        rows(g, m, &x, dyn, 1);
}

static EK_AVX2 void gemm_s8(const ek_gemm *g) { gemm(g, 0); }
static EK_AVX2 void gemm_dyn(const ek_gemm *g) { gemm(g, 1); }

EK_INLINE EK_AVX2 void tile_f32(const ek_gemm *g, const float *a, const float *w, float *y, uint32_t left, const unsigned mr)
{
    __m256 acc[6][2];
    EK_UNROLL for (unsigned r = 0; r < mr; r++) {
        acc[r][0] = _mm256_loadu_ps(w);
        acc[r][1] = _mm256_loadu_ps(w + 8);
    }
    for (uint32_t k = 0; k < g->k; k++) {
        w += 16;
        __m256 lo = _mm256_loadu_ps(w), hi = _mm256_loadu_ps(w + 8);
        EK_UNROLL for (unsigned r = 0; r < mr; r++) {
            __m256 x = _mm256_set1_ps(a[(ptrdiff_t)r * g->lda + (ptrdiff_t)k]);
            acc[r][0] = _mm256_fmadd_ps(x, lo, acc[r][0]);
            acc[r][1] = _mm256_fmadd_ps(x, hi, acc[r][1]);
        }
    }
    EK_UNROLL for (unsigned r = 0; r < mr; r++) {
        float *row = y + (ptrdiff_t)r * g->ldy;
        ek_store8_avx2(row, ek_clamp256(acc[r][0], g->lo, g->hi), left);
        if (left > 8)
            ek_store8_avx2(row + 8, ek_clamp256(acc[r][1], g->lo, g->hi), left - 8);
    }
}

static EK_AVX2 void gemm_f32(const ek_gemm *g)
{
    const float *w = (const float *)(const void *)g->w;
    for (uint32_t n = 0; n < g->n; n += 16, w += 16 * ((size_t)g->k + 1)) {
        const float *a = (const float *)g->a;
        float *y = (float *)g->y + n;
        uint32_t m = 0;
        for (; m + 6 <= g->m; m += 6, a += 6 * g->lda, y += 6 * g->ldy)
            tile_f32(g, a, w, y, g->n - n, 6);
        for (; m + 4 <= g->m; m += 4, a += 4 * g->lda, y += 4 * g->ldy)
            tile_f32(g, a, w, y, g->n - n, 4);
        for (; m < g->m; m++, a += g->lda, y += g->ldy)
            tile_f32(g, a, w, y, g->n - n, 1);
    }
}

void ek_kernels_avx2(ek_kernels *k)
{
    EK_SET(k, gemm_s8, GEMM_S8, gemm_s8, EK_ISA_AVX2);
    EK_SET(k, gemm_dyn, GEMM_DYN, gemm_dyn, EK_ISA_AVX2);
    EK_SET(k, gemm_f32, GEMM_F32, gemm_f32, EK_ISA_AVX2);
    k->s8_nr = 16;
    k->s8_kr = 4;
    k->s8_xoff = EK_XOFF_ANY;
    k->f32_nr = 16;
    k->tile_rows = 16;
    ek_dw_avx2(k);
    ek_elementwise_avx2(k);
    ek_winograd_avx2(k);
    ek_wide_avx2(k);
}
#else
typedef int ek_no_avx2; /* a translation unit must not be empty */
#endif
