/* Depthwise convolution with AVX-512: 16 channels a block, int8 taps four at a time through VPDPBUSD. */
#if defined(__x86_64__)
#include "avx512.h"
#include "dw.h"
#include "portable.h"

enum { MAX_TAPS = 64 };

/* One block of 16 channels: taps in groups of four, [tap group][channel][4] bytes. */
typedef struct block {
    __m512i w[MAX_TAPS / 4], one[MAX_TAPS / 4]; /* one: 1 at every tap that exists, for sum(x + 128) */
    __m512i bias; /* takes off what x + 128 in place of x adds */
    __m512 scale;
} block;

/* four rows of 16 bytes -> 16 channels of 4 bytes */
EK_INLINE EK_AVX512 __m512i interleave(__m128i a, __m128i b, __m128i c, __m128i d)
{
    const __m512i dwords = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    __m512i v = _mm512_inserti32x4(_mm512_castsi128_si512(a), b, 1);
    v = _mm512_inserti32x4(_mm512_inserti32x4(v, c, 2), d, 3);
    return _mm512_shuffle_epi8(_mm512_permutexvar_epi32(dwords, v), bytes);
}

EK_INLINE EK_AVX512 void load_block(const ek_dw *d, const uint8_t *p, uint32_t taps, block *out)
{
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i sum = _mm512_setzero_si512();
    const uint8_t *w = p + 128;
    for (uint32_t g = 0; g * 4 < taps; g++) {
        __m128i row[4];
        for (uint32_t i = 0; i < 4; i++)
            row[i] = g * 4 + i < taps ? _mm_loadu_si128((const __m128i *)(const void *)(w + (g * 4 + i) * 16u))
                                      : _mm_setzero_si128();
        uint32_t left = taps - g * 4;
        out->w[g] = interleave(row[0], row[1], row[2], row[3]);
        out->one[g] = _mm512_set1_epi32(left >= 4 ? 0x01010101 : (int32_t)(0x01010101u & ((1u << left * 8) - 1)));
        sum = _mm512_dpbusd_epi32(sum, ones, out->w[g]);
    }
    /* sum x (w - z) = sum (x + 128) w - 128 sum w - z sum (x + 128) + 128 z taps */
    __m512i bias = _mm512_sub_epi32(_mm512_loadu_si512(p), _mm512_slli_epi32(sum, 7));
    out->bias = _mm512_add_epi32(bias, _mm512_set1_epi32(128 * d->w_zero * (int32_t)taps));
    out->scale = _mm512_loadu_ps(p + 64);
}

EK_INLINE EK_AVX512 __m128i load_tap(const int8_t *x, __mmask16 mask, int full)
{
    return full ? _mm_loadu_si128((const __m128i *)(const void *)x) : _mm_maskz_loadu_epi8(mask, x);
}

/* all pixels of one block; groups, zero and full are constants where that pays */
EK_INLINE EK_AVX512 void pixels(const ek_dw *d, const block *b, const ptrdiff_t *at, uint32_t c0, const uint32_t groups,
                                const int zero, const int full)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80), wz = _mm512_set1_epi32(d->w_zero);
    const ek_requant512 q = ek_requant512_of(d->lo, d->hi, d->zero);
    uint32_t left = d->channels - c0;
    __mmask16 mask = full ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1);
    const int8_t *x = (const int8_t *)d->x + c0;
    int8_t *y = (int8_t *)d->y + c0;
    ptrdiff_t jump = d->row_step - (ptrdiff_t)d->count * d->step;
    for (uint32_t n = d->count * d->rows, p = 0; n; n--, x += d->step, y += d->channels, p++) {
        if (p == d->count) {
            x += jump;
            p = 0;
        }
        __m512i acc = b->bias, sum = _mm512_setzero_si512();
        for (uint32_t g = 0; g < groups; g++) {
            const ptrdiff_t *o = at + g * 4;
            __m512i v = interleave(load_tap(x + o[0], mask, full), load_tap(x + o[1], mask, full),
                                   load_tap(x + o[2], mask, full), load_tap(x + o[3], mask, full));
            v = _mm512_xor_si512(v, flip);
            acc = _mm512_dpbusd_epi32(acc, v, b->w[g]);
            if (zero)
                sum = _mm512_dpbusd_epi32(sum, v, b->one[g]);
        }
        if (zero)
            acc = _mm512_sub_epi32(acc, _mm512_mullo_epi32(sum, wz));
        __m128i r = ek_requant512_s8(acc, b->scale, &q);
        if (full)
            _mm_storeu_si128((__m128i *)(void *)y, r);
        else
            _mm_mask_storeu_epi8(y, mask, r);
    }
}

static EK_AVX512 void dw_s8(const ek_dw *d)
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
        int full = d->channels - c0 >= 16, zero = d->w_zero != 0;
        load_block(d, w, taps, &b);
        if (full && taps == 9 && !zero)
            pixels(d, &b, at, c0, 3, 0, 1);
        else if (full && taps == 9)
            pixels(d, &b, at, c0, 3, 1, 1);
        else if (full)
            pixels(d, &b, at, c0, (taps + 3) / 4, zero, 1);
        else
            pixels(d, &b, at, c0, (taps + 3) / 4, zero, 0);
    }
}

/* np pixels of one block of 16 channels */
EK_INLINE EK_AVX512 void pixels_f32(const ek_dw *d, const float *x, const float *w, float *y, __mmask16 mask, const unsigned np)
{
    __m512 acc[4];
    EK_UNROLL for (unsigned p = 0; p < np; p++)
        acc[p] = _mm512_loadu_ps(w);
    for (uint32_t i = 0; i < d->kh; i++) {
        const float *row = x + (ptrdiff_t)i * d->dy;
        for (uint32_t j = 0; j < d->kw; j++, row += d->dx) {
            w += 16;
            __m512 wv = _mm512_loadu_ps(w);
            EK_UNROLL for (unsigned p = 0; p < np; p++)
                acc[p] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, row + (ptrdiff_t)p * d->step), wv, acc[p]);
        }
    }
    EK_UNROLL for (unsigned p = 0; p < np; p++)
        _mm512_mask_storeu_ps(y + p * (size_t)d->channels, mask, ek_clamp512(acc[p], d->lo, d->hi));
}

static EK_AVX512 void dw_f32(const ek_dw *d)
{
    const float *w = (const float *)(const void *)d->w;
    for (uint32_t c0 = 0; c0 < d->channels; c0 += 16, w += 16 * (1 + (size_t)d->kh * d->kw)) {
        uint32_t left = d->channels - c0;
        __mmask16 mask = left >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1);
        float *y = (float *)d->y + c0;
        for (uint32_t r = 0; r < d->rows; r++) {
            const float *x = (const float *)d->x + (ptrdiff_t)r * d->row_step + c0;
            uint32_t p = 0;
            for (; p + 4 <= d->count; p += 4, x += 4 * d->step, y += 4 * (size_t)d->channels)
                pixels_f32(d, x, w, y, mask, 4);
            for (; p < d->count; p++, x += d->step, y += d->channels)
                pixels_f32(d, x, w, y, mask, 1);
        }
    }
}

void ek_dw_avx512vnni(ek_kernels *k)
{
    EK_SET(k, dw_s8, DW_S8, dw_s8, EK_ISA_AVX512VNNI);
    EK_SET(k, dw_f32, DW_F32, dw_f32, EK_ISA_AVX512VNNI);
    k->dw_s8_nr = 16;
    k->dw_f32_nr = 16;
    k->dw_rows = 1;
}
#else
typedef int ek_no_dw_avx512vnni; /* a translation unit must not be empty */
#endif
