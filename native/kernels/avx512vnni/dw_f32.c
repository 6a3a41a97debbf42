/* Float depthwise convolution with AVX-512: tiles of up to four pixels of 16 channels, images read along their memory; columns
 * outside an image are masked, rows left out. */
#if defined(__x86_64__)
#include "avx512.h"

/* Where a register tile of float pixels reads and writes: rows [i0, i1) of the window exist. */
typedef struct float_tile {
    const float *x; /* row i0 of the window, column 0 of the first pixel: may lie before the image, then masks are 0 */
    float *y;
    const __mmask16 *cols; /* of each column: 0 where it lies outside; NULL: all inside */
    uint32_t i0, i1;
} float_tile;

enum { WIDE = 4, COLUMNS = (WIDE - 1) * 2 + 5 }; /* pixels of a tile; columns of it at most */

/* np pixels of one block of 16 channels, `some` of them there.  kw and sx are constants; columns lie dx = channels apart. */
EK_INLINE EK_AVX512 void tile_f32(const ek_dw *d, const float_tile *t, uint32_t c0, const float *w, __mmask16 some, const unsigned kw,
                                  const unsigned sx, const unsigned np, const int masked)
{
    const size_t ch = d->channels;
    const unsigned cols = (np - 1) * sx + kw;
    const float *x = t->x + c0;
    __m512 acc[WIDE];
    EK_UNROLL for (unsigned p = 0; p < np; p++)
        acc[p] = _mm512_loadu_ps(w);
    w += 16 + (size_t)t->i0 * kw * 16;
    for (uint32_t i = t->i0; i < t->i1; i++, x += d->dy, w += kw * 16) {
        __m512 v[COLUMNS];
        EK_UNROLL for (unsigned q = 0; q < cols; q++)
            v[q] = masked ? _mm512_maskz_loadu_ps(t->cols ? some & t->cols[q] : some, x + q * ch) : _mm512_loadu_ps(x + q * ch);
        EK_UNROLL for (unsigned j = 0; j < kw; j++) {
            __m512 wv = _mm512_loadu_ps(w + j * 16);
            EK_UNROLL for (unsigned p = 0; p < np; p++)
                acc[p] = _mm512_fmadd_ps(v[p * sx + j], wv, acc[p]);
        }
    }
    float *y = t->y + c0;
    EK_UNROLL for (unsigned p = 0; p < np; p++) {
        __m512 r = ek_clamp512(acc[p], d->lo, d->hi);
        if (masked)
            _mm512_mask_storeu_ps(y + p * ch, some, r);
        else
            _mm512_storeu_ps(y + p * ch, r);
    }
}

/* one tile of pixels, all channels: the image is read along its memory */
EK_INLINE EK_AVX512 void channels_f32(const ek_dw *d, const float_tile *t, const unsigned kw, const unsigned sx, const unsigned np)
{
    const float *w = (const float *)(const void *)d->w;
    size_t block = 16 * (1 + (size_t)d->kh * kw);
    uint32_t c0 = 0;
    if (!t->cols)
        for (; c0 + 16 <= d->channels; c0 += 16, w += block)
            tile_f32(d, t, c0, w, 0xffff, kw, sx, np, 0);
    for (; c0 < d->channels; c0 += 16, w += block) {
        uint32_t left = d->channels - c0;
        tile_f32(d, t, c0, w, left < 16 ? (__mmask16)((1u << left) - 1) : (__mmask16)0xffff, kw, sx, np, 1);
    }
}

/* where tap (0, 0) of pixel (0, 0) lies, or would */
EK_INLINE const float *first_f32(const ek_dw *d)
{
    ptrdiff_t top = (int32_t)d->top, left = (ptrdiff_t)d->left;
    return (const float *)d->x - (d->columns ? (top * (ptrdiff_t)d->columns + left) * (ptrdiff_t)d->channels : 0);
}

/* Row r, of two pixels or more; the last tile reaches back over pixels that are done already. */
EK_INLINE EK_AVX512 void row_f32(const ek_dw *d, uint32_t r, uint32_t i0, uint32_t i1, const unsigned kw, const unsigned sx)
{
    float_tile t = { .i0 = i0, .i1 = i1 };
    const float *row = first_f32(d) + (ptrdiff_t)r * d->row_step + (ptrdiff_t)i0 * d->dy;
    __mmask16 masks[COLUMNS];
    for (uint32_t p = 0, np; p < d->count; p += np) {
        uint32_t left = d->count - p;
        np = left >= 3 && d->count >= WIDE ? WIDE : 2;
        p = left < np ? d->count - np : p;
        int64_t first = -(int64_t)d->left + (int64_t)p * sx, past = first + (np - 1) * sx + kw;
        t.x = row + (ptrdiff_t)p * d->step;
        t.y = (float *)d->y + ((size_t)r * d->count + p) * d->channels;
        t.cols = d->columns && (first < 0 || past > d->columns) ? masks : 0;
        for (uint32_t q = 0; t.cols && q < COLUMNS; q++)
            masks[q] = first + q >= 0 && first + q < d->columns ? 0xffff : 0;
        if (np == WIDE)
            channels_f32(d, &t, kw, sx, WIDE);
        else
            channels_f32(d, &t, kw, sx, 2);
    }
}

/* any window: a pixel at a time */
static EK_AVX512 void row_any_f32(const ek_dw *d, uint32_t r, uint32_t i0, uint32_t i1)
{
    ptrdiff_t ch = (ptrdiff_t)d->channels;
    int64_t sx = d->step / ch, dx = d->dx / ch;
    const float *row = first_f32(d) + (ptrdiff_t)r * d->row_step;
    for (uint32_t p = 0; p < d->count; p++) {
        const float *w = (const float *)(const void *)d->w;
        float *y = (float *)d->y + ((size_t)r * d->count + p) * d->channels;
        for (uint32_t c0 = 0; c0 < d->channels; c0 += 16, w += 16 * (1 + (size_t)d->kh * d->kw)) {
            uint32_t left = d->channels - c0;
            __mmask16 some = left >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1);
            __m512 acc = _mm512_loadu_ps(w);
            for (uint32_t i = i0; i < i1; i++) {
                for (uint32_t j = 0; j < d->kw; j++) {
                    int64_t col = (int64_t)p * sx + (int64_t)j * dx - d->left;
                    if (d->columns && (col < 0 || col >= d->columns))
                        continue;
                    const float *x = row + (ptrdiff_t)i * d->dy + (ptrdiff_t)p * d->step + (ptrdiff_t)j * d->dx + c0;
                    acc = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(some, x), _mm512_loadu_ps(w + 16 * (1 + (size_t)i * d->kw + j)), acc);
                }
            }
            _mm512_mask_storeu_ps(y + c0, some, ek_clamp512(acc, d->lo, d->hi));
        }
    }
}

static EK_AVX512 void dw_f32(const ek_dw *d)
{
    ptrdiff_t ch = (ptrdiff_t)d->channels, sx = d->step / ch;
    int64_t lines = d->columns ? d->dy / ((ptrdiff_t)d->columns * ch) : 0;
    int known = d->count > 1 && d->dx == ch && d->step == sx * ch && (sx == 1 || sx == 2) && (d->kw == 3 || d->kw == 5);
    for (uint32_t r = 0; r < d->rows; r++) {
        int64_t top = -(int64_t)(int32_t)d->top + (int64_t)r * d->row_stride;
        uint32_t i0 = 0, i1 = d->kh;
        while (d->columns && i0 < i1 && top + (int64_t)i0 * lines < 0)
            i0++;
        while (d->columns && i1 > i0 && top + (int64_t)(i1 - 1) * lines >= d->h)
            i1--;
        if (known && d->kw == 3 && sx == 1)
            row_f32(d, r, i0, i1, 3, 1);
        else if (known && d->kw == 3)
            row_f32(d, r, i0, i1, 3, 2);
        else if (known && sx == 1)
            row_f32(d, r, i0, i1, 5, 1);
        else if (known)
            row_f32(d, r, i0, i1, 5, 2);
        else
            row_any_f32(d, r, i0, i1);
    }
}

void ek_dw_f32_avx512vnni(ek_kernels *k)
{
    EK_SET(k, dw_f32, DW_F32, dw_f32, EK_ISA_AVX512VNNI);
    k->dw_f32_nr = 16;
    k->dw_edges |= EK_EDGES_F32;
}
#else
typedef int ek_no_dw_f32_avx512vnni; /* a translation unit must not be empty */
#endif
