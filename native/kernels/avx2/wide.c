/* int16 activations by int8 weights with AVX2: VPMADDWD adds pairs of products, exact in 32 bits up to EK_CHUNK16 of them. */
#if defined(__x86_64__)
#include "avx2.h"
#include "portable.h"

/* 8 scaled sums -> the first n outputs */
EK_INLINE EK_AVX2 void finish(__m256 sums, const float *scale, float lo, float hi, int32_t zero, void *y, uint32_t size, uint32_t n)
{
    __m256 v = ek_clamp256(_mm256_mul_ps(sums, _mm256_loadu_ps(scale)), lo, hi);
    __m256i q = _mm256_add_epi32(_mm256_cvtps_epi32(v), _mm256_set1_epi32(zero));
    __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    if (size == 1)
        w = _mm_packs_epi16(w, w);
    if (n >= EK_NR16 && size == 2) {
        _mm_storeu_si128((__m128i *)y, w);
    } else {
        int16_t part[8];
        _mm_storeu_si128((__m128i *)(void *)part, w);
        memcpy(y, part, (n < EK_NR16 ? n : EK_NR16) * size);
    }
}

/* adds the products of inputs [k0, k1) of `rows` rows to acc */
EK_INLINE EK_AVX2 void products(const ek_gemm16 *g, const int16_t *a, const int8_t *w, uint32_t k0, uint32_t k1, __m256i *acc, int rows)
{
    w += (size_t)k0 * EK_NR16;
    for (uint32_t k = k0; k < k1; k += EK_KR16, w += EK_NR16 * EK_KR16) {
        __m256i b = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)w));
        EK_UNROLL for (int r = 0; r < rows; r++) {
            int32_t two;
            memcpy(&two, a + (ptrdiff_t)r * g->lda + k, 4);
            acc[r] = _mm256_add_epi32(acc[r], _mm256_madd_epi16(b, _mm256_set1_epi32(two)));
        }
    }
}

EK_INLINE EK_AVX2 void tile(const ek_gemm16 *g, const int16_t *a, const uint8_t *blk, uint8_t *y, uint32_t n, int rows)
{
    const float *scale = (const float *)(const void *)(blk + EK_NR16 * 4);
    const int8_t *w = (const int8_t *)(blk + EK_NR16 * 8);
    uint32_t kp = (g->k + EK_KR16 - 1) / EK_KR16 * EK_KR16;
    __m256i bias = _mm256_loadu_si256((const __m256i *)(const void *)blk), acc[6];
    if (kp <= EK_CHUNK16) {
        EK_UNROLL for (int r = 0; r < rows; r++)
            acc[r] = bias;
        products(g, a, w, 0, kp, acc, rows);
        EK_UNROLL for (int r = 0; r < rows; r++, y += g->ldy * (ptrdiff_t)g->size)
            finish(_mm256_cvtepi32_ps(acc[r]), scale, g->lo, g->hi, g->zero, y, g->size, n);
        return;
    }
    int64_t sum[6][EK_NR16];
    int32_t part[EK_NR16];
    memcpy(part, blk, sizeof part);
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < EK_NR16; j++)
            sum[r][j] = part[j];
    for (uint32_t k = 0; k < kp; k += EK_CHUNK16) {
        EK_UNROLL for (int r = 0; r < rows; r++)
            acc[r] = _mm256_setzero_si256();
        products(g, a, w, k, kp - k < EK_CHUNK16 ? kp : k + EK_CHUNK16, acc, rows);
        for (int r = 0; r < rows; r++) {
            _mm256_storeu_si256((__m256i *)(void *)part, acc[r]);
            for (int j = 0; j < EK_NR16; j++)
                sum[r][j] += part[j];
        }
    }
    for (int r = 0; r < rows; r++, y += g->ldy * (ptrdiff_t)g->size) {
        float real[EK_NR16];
        for (int j = 0; j < EK_NR16; j++)
            real[j] = (float)sum[r][j];
        finish(_mm256_loadu_ps(real), scale, g->lo, g->hi, g->zero, y, g->size, n);
    }
}

static EK_AVX2 void gemm_s16(const ek_gemm16 *g)
{
    const uint8_t *blk = g->w;
    size_t bytes = EK_NR16 * (8 + (size_t)(g->k + EK_KR16 - 1) / EK_KR16 * EK_KR16);
    for (uint32_t n = 0; n < g->n; n += EK_NR16, blk += bytes) {
        const int16_t *a = g->a;
        uint8_t *y = (uint8_t *)g->y + (size_t)n * g->size;
        uint32_t m = 0;
        for (; m + 6 <= g->m; m += 6, a += 6 * g->lda, y += 6 * g->ldy * (ptrdiff_t)g->size)
            tile(g, a, blk, y, g->n - n, 6);
        for (; m < g->m; m++, a += g->lda, y += g->ldy * (ptrdiff_t)g->size)
            tile(g, a, blk, y, g->n - n, 1);
    }
}

/* an input beside a zero and its weight, sign and all: VPMADDWD multiplies faster than VPMULLD */
static EK_AVX2 void dw_s16(const ek_dw16 *d)
{
    const uint8_t *blk = d->w;
    if (d->count > EK_CHUNK16) {
        ek_dw_s16_portable(d);
        return;
    }
    for (uint32_t c = 0; c < d->channels; c += EK_NR16, blk += EK_NR16 * (8 + (size_t)d->count)) {
        const int8_t *w = (const int8_t *)(blk + EK_NR16 * 8);
        uint32_t n = d->channels - c < EK_NR16 ? d->channels - c : EK_NR16;
        __m256i acc = _mm256_loadu_si256((const __m256i *)(const void *)blk);
        for (uint32_t t = 0; t < d->count; t++, w += EK_NR16) {
            __m128i x;
            if (n == EK_NR16) {
                x = _mm_loadu_si128((const __m128i *)(const void *)(d->taps[t] + c));
            } else { /* nothing is read past a pixel */
                int16_t few[EK_NR16] = { 0 };
                memcpy(few, d->taps[t] + c, n * 2);
                x = _mm_loadu_si128((const __m128i *)(const void *)few);
            }
            __m256i b = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)w));
            acc = _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_cvtepu16_epi32(x), b));
        }
        finish(_mm256_cvtepi32_ps(acc), (const float *)(const void *)(blk + EK_NR16 * 4), d->lo, d->hi, d->zero,
               (uint8_t *)d->y + (size_t)c * d->size, d->size, n);
    }
}

void ek_wide_avx2(ek_kernels *k)
{
    EK_SET(k, gemm_s16, GEMM_S16, gemm_s16, EK_ISA_AVX2);
    EK_SET(k, dw_s16, DW_S16, dw_s16, EK_ISA_AVX2);
}
#else
typedef int ek_no_wide_avx2; /* a translation unit must not be empty */
#endif
