/* Depthwise convolution with AVX2: 16 channels a block, int8 taps two at a time through VPMADDWD. */
#if defined(__x86_64__)
#include "avx2.h"
#include "dw.h"
#include "portable.h"

enum { MAX_TAPS = 64 };

/* One block of 16 channels: pairs of taps as int16, channels 0-7 and 8-15 */
typedef struct block {
    __m256i w[MAX_TAPS / 2][2];
    const uint8_t *head; /* bias, scale */
} block;

EK_INLINE EK_AVX2 __m128i load16(const int8_t *x, uint32_t n)
{
    if (n >= 16)
        return _mm_loadu_si128((const __m128i *)(const void *)x);
    if (n == 8)
        return _mm_loadl_epi64((const __m128i *)(const void *)x);
    int8_t part[16] = { 0 };
    memcpy(part, x, n);
    return _mm_loadu_si128((const __m128i *)(const void *)part);
}

/* (w - w_zero) reaches 383: products of two taps still fit 32 bits by far */
EK_INLINE EK_AVX2 void load_block(const ek_dw *d, const uint8_t *p, uint32_t taps, block *out)
{
    const int8_t *w = (const int8_t *)p + 128;
    out->head = p;
    for (uint32_t t = 0; t < taps; t += 2) {
        __m128i a = load16(w + t * 16u, 16), b = t + 1 < taps ? load16(w + t * 16u + 16, 16) : _mm_setzero_si128();
        __m256i za = _mm256_set1_epi32((t + 1 < taps ? d->w_zero * 65536 : 0) + (d->w_zero & 0xffff));
        out->w[t / 2][0] = _mm256_sub_epi16(_mm256_cvtepi8_epi16(_mm_unpacklo_epi8(a, b)), za);
        out->w[t / 2][1] = _mm256_sub_epi16(_mm256_cvtepi8_epi16(_mm_unpackhi_epi8(a, b)), za);
    }
}

EK_INLINE EK_AVX2 void pixels(const ek_dw *d, const block *b, const ptrdiff_t *at, uint32_t c0, const uint32_t pairs, const int full)
{
    uint32_t left = full ? 16 : d->channels - c0;
    const int8_t *x = (const int8_t *)d->x + c0;
    int8_t *y = (int8_t *)d->y + c0;
    const __m256i *bias = (const __m256i *)(const void *)b->head;
    const float *scale = (const float *)(const void *)(b->head + 64);
    ptrdiff_t jump = d->row_step - (ptrdiff_t)d->count * d->step;
    for (uint32_t n = d->count * d->rows, p = 0; n; n--, x += d->step, y += d->channels, p++) {
        if (p == d->count) {
            x += jump;
            p = 0;
        }
        __m256i lo = _mm256_loadu_si256(bias), hi = _mm256_loadu_si256(bias + 1);
        for (uint32_t t = 0; t < pairs; t++) {
            __m128i u = load16(x + at[2 * t], left), v = load16(x + at[2 * t + 1], left);
            lo = _mm256_add_epi32(lo, _mm256_madd_epi16(_mm256_cvtepi8_epi16(_mm_unpacklo_epi8(u, v)), b->w[t][0]));
            hi = _mm256_add_epi32(hi, _mm256_madd_epi16(_mm256_cvtepi8_epi16(_mm_unpackhi_epi8(u, v)), b->w[t][1]));
        }
        ek_store16_avx2(y, ek_requant256_s8(lo, hi, scale, d->lo, d->hi, d->zero), left);
    }
}

static EK_AVX2 void dw_s8(const ek_dw *d)
{
    ptrdiff_t at[MAX_TAPS];
    uint32_t taps = ek_dw_taps(d, at, MAX_TAPS);
    if (!taps) {
        ek_dw_s8_portable(d);
        return;
    }
    const uint8_t *w = d->w;
    block b;
    for (uint32_t c0 = 0; c0 < d->channels; c0 += 16, w += 16u * (8 + taps)) {
        load_block(d, w, taps, &b);
        if (d->channels - c0 < 16)
            pixels(d, &b, at, c0, (taps + 1) / 2, 0);
        else if (taps == 9)
            pixels(d, &b, at, c0, 5, 1);
        else
            pixels(d, &b, at, c0, (taps + 1) / 2, 1);
    }
}

/* np pixels of 8 channels, `mask` of them there */
EK_INLINE EK_AVX2 void pixels_f32(const ek_dw *d, const float *x, const float *w, float *y, __m256i mask, const unsigned np)
{
    __m256 acc[4];
    EK_UNROLL for (unsigned p = 0; p < np; p++)
        acc[p] = _mm256_loadu_ps(w);
    for (uint32_t i = 0; i < d->kh; i++) {
        const float *row = x + (ptrdiff_t)i * d->dy;
        for (uint32_t j = 0; j < d->kw; j++, row += d->dx) {
            w += 16;
            __m256 wv = _mm256_loadu_ps(w);
            EK_UNROLL for (unsigned p = 0; p < np; p++)
                acc[p] = _mm256_fmadd_ps(_mm256_maskload_ps(row + (ptrdiff_t)p * d->step, mask), wv, acc[p]);
        }
    }
    EK_UNROLL for (unsigned p = 0; p < np; p++)
        _mm256_maskstore_ps(y + p * (size_t)d->channels, mask, ek_clamp256(acc[p], d->lo, d->hi));
}

static EK_AVX2 void dw_f32(const ek_dw *d)
{
    const float *w = (const float *)(const void *)d->w;
    for (uint32_t c0 = 0; c0 < d->channels; c0 += 8) {
        const float *b = w + (size_t)(c0 / 16) * 16 * (1 + (size_t)d->kh * d->kw) + c0 % 16;
        __m256i mask = ek_mask256(d->channels - c0);
        float *y = (float *)d->y + c0;
        for (uint32_t r = 0; r < d->rows; r++) {
            const float *x = (const float *)d->x + (ptrdiff_t)r * d->row_step + c0;
            uint32_t p = 0;
            for (; p + 4 <= d->count; p += 4, x += 4 * d->step, y += 4 * (size_t)d->channels)
                pixels_f32(d, x, b, y, mask, 4);
            for (; p < d->count; p++, x += d->step, y += d->channels)
                pixels_f32(d, x, b, y, mask, 1);
        }
    }
}

void ek_dw_avx2(ek_kernels *k)
{
    EK_SET(k, dw_s8, DW_S8, dw_s8, EK_ISA_AVX2);
    EK_SET(k, dw_f32, DW_F32, dw_f32, EK_ISA_AVX2);
    k->dw_s8_nr = 16;
    k->dw_f32_nr = 16;
    k->dw_rows = 1;
}
#else
typedef int ek_no_dw_avx2; /* a translation unit must not be empty */
#endif
